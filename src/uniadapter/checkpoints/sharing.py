"""Copy an adapter folder to and from the Hugging Face hub, an object store, or another folder.

Addresses: `hf://USER/NAME` is the hub; `s3://…`, `gs://…` and whatever else fsspec knows are object stores; all else is
a folder. The config goes last and comes first, so that a copy that broke off is no adapter.
"""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path
from typing import Any

from uniadapter.checkpoints.adapter_files import read_adapter_file, refuse_peft_adapter
from uniadapter.checkpoints.bases import hub_in_reach
from uniadapter.checkpoints.embedded_adapters import local_adapter
from uniadapter.checkpoints.folder_names import CARD_NAME, CONFIG_NAME, WEIGHTS_NAME
from uniadapter.errors import CheckpointError
from uniadapter.files.messages import shortened
from uniadapter.files.writing import atomic_folder

HUB = "hf://"
FILES = (WEIGHTS_NAME, CARD_NAME, CONFIG_NAME)  # in the order in which they are written


def is_address(source: object) -> bool:
    """Whether a source is an address elsewhere, rather than a path."""
    return isinstance(source, str) and "://" in source


def push_folder(folder: Path | str, target: str, card: str | None = None, private: bool = False) -> str:
    """Copy an adapter folder.

    Args:
        folder: of the adapter.
        target: address or folder; what is there of these files is replaced.
        card: text of the model card instead of the folder's own.
        private: whether a repository that is created on the hub is private.

    Returns:
        The address to pull from.

    Raises:
        CheckpointError: it is no adapter, or cannot be written there.
    """
    folder = local_adapter(folder)
    read_adapter_file(folder)  # what is broken here is not worth sending
    with tempfile.TemporaryDirectory(prefix="uniadapter-") as name:
        place = Path(name)
        for file in FILES:
            if (folder / file).is_file():
                (place / file).write_bytes((folder / file).read_bytes())
        if card is not None:
            (place / CARD_NAME).write_text(card, encoding="utf-8")
        if target.startswith(HUB):
            _to_hub(place, target.removeprefix(HUB).strip("/"), private)
        elif is_address(target):
            _to_store(place, target)
        else:
            target = str(_to_folder(place, Path(target).expanduser()))
    return target


def _to_folder(place: Path, target: Path) -> Path:
    refuse_peft_adapter(target)
    with atomic_folder(target) as temporary:
        for file in place.iterdir():
            (temporary / file.name).write_bytes(file.read_bytes())
    return target


def _to_hub(place: Path, repository: str, private: bool) -> None:
    from huggingface_hub import HfApi

    if not hub_in_reach():
        raise CheckpointError(f"{HUB}{repository}: the hub cannot be reached (HF_HUB_OFFLINE may be set)")
    try:
        api = HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=place, commit_message="UniAdapter adapter")
    except Exception as error:  # of the network, the hub, or the token
        why = shortened(str(error), 160)
        raise CheckpointError(f"{HUB}{repository}: not uploaded ({why}); log in with `hf auth login`") from error


def _store(address: str) -> tuple[Any, str]:
    """The file system of an address, and the path in it."""
    import fsspec  # type: ignore[import-untyped]

    try:
        return fsspec.core.url_to_fs(address)  # type: ignore[no-any-return]
    except (ImportError, ValueError) as error:
        raise CheckpointError(f"{address[:200]}: {shortened(str(error), 160)}") from None


def _to_store(place: Path, target: str) -> None:
    store, path = _store(target)
    try:
        store.makedirs(path, exist_ok=True)
        for name in FILES:
            if (place / name).is_file():
                store.pipe_file(f"{path.rstrip('/')}/{name}", (place / name).read_bytes())
    except Exception as error:  # stores have exceptions of their own
        raise CheckpointError(f"{target[:200]}: cannot be written ({shortened(str(error), 160)})") from error


def pull_folder(source: str, folder: Path | str) -> Path:
    """Copy an adapter from elsewhere into a folder, whole or not at all.

    Args:
        source: address or folder.
        folder: to write into.

    Returns:
        The folder.

    Raises:
        CheckpointError: there is no adapter, it is broken, or the folder cannot be written.
    """
    target = Path(folder).expanduser()
    with tempfile.TemporaryDirectory(prefix="uniadapter-") as name:
        place = Path(name)
        for file in reversed(FILES):
            content = _fetch(source, file)
            if content is not None:
                (place / file).write_bytes(content)
            elif file != CARD_NAME:
                raise CheckpointError(f"{source[:200]}: no adapter there, it has no {file}")
        read_adapter_file(place)
        return _to_folder(place, target)


def _fetch(source: str, name: str) -> bytes | None:
    """The content of a file; None if there is none of that name."""
    if source.startswith(HUB):
        return _from_hub(source.removeprefix(HUB).strip("/"), name)
    if not is_address(source):
        file = local_adapter(source) / name
        return file.read_bytes() if file.is_file() else None
    store, path = _store(source)
    try:
        return store.cat_file(f"{path.rstrip('/')}/{name}")  # type: ignore[no-any-return]
    except FileNotFoundError:
        return None
    except Exception as error:
        raise CheckpointError(f"{source[:200]}: cannot be read ({shortened(str(error), 160)})") from error


def _from_hub(repository: str, name: str) -> bytes | None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    reachable = hub_in_reach()
    try:
        return Path(hf_hub_download(repository, name, local_files_only=not reachable)).read_bytes()
    except EntryNotFoundError as error:
        if reachable:
            return None
        raise CheckpointError(
            f"{HUB}{repository}: the hub cannot be reached, and its cache has no such adapter"
        ) from error
    except Exception as error:
        raise CheckpointError(f"{HUB}{repository}: not downloaded ({shortened(str(error), 160)})") from error


def pulled(source: str) -> Path:
    """The folder of an adapter from elsewhere, in the user's cache; pulled anew each time, since it may have changed.

    Raises:
        CheckpointError: see `pull_folder`.
    """
    from uniadapter.embedded.cached_folders import cache_folder

    name = hashlib.sha256(source.encode()).hexdigest()[:16]
    return pull_folder(source, cache_folder() / "pulled" / name)
