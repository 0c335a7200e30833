"""Find a base: a folder, a `.pth` file, the one in this package, or a model on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from uniadapter.checkpoints.folder_names import config_file
from uniadapter.errors import CheckpointError
from uniadapter.files.assets import asset_path

CONFIG = "config.json"
EMBEDDED = "embedded"
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?$")


def locate_base(base: str) -> Path:
    """The folder of transformers files, or the `.pth` file, of a base.

    Args:
        base: a folder, a file, "embedded", or a hub id, whose files are downloaded to the hub's cache.

    Raises:
        CheckpointError: there is no such base; says where it was looked for.
    """
    if base == EMBEDDED:
        return asset_path("backbone")
    if not base.strip():
        raise CheckpointError("the base has no name: give a folder, a .pth file, a hub id or 'embedded'")
    if "://" in base:
        name = base.split("huggingface.co/")[-1].strip("/") if "huggingface.co/" in base else ""
        advice = f"give the hub id {name}" if _HUB_ID.match(name) else "download it and give the file or folder"
        raise CheckpointError(f"{base[:200]}: a base is not a URL: {advice}")
    try:
        path = Path(base).expanduser()
        if path.exists():
            return _folder(path) if path.is_dir() else _file(path)
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"{base[:200]}: not a path that can be read ({error})") from error
    if path.suffix in (".pth", ".pt", ".bin"):
        raise CheckpointError(f"{base}: no such file")
    if not _HUB_ID.match(base):
        raise CheckpointError(f"{base}: no such folder or file")
    return _fetched(base)


def _file(path: Path) -> Path:
    if not path.is_file():
        raise CheckpointError(f"{path}: neither a file nor a folder")
    if path.suffix in (".safetensors", ".json", ".txt"):
        raise CheckpointError(f"{path}: a base is the whole folder: give {path.parent}")
    return path


def _folder(path: Path) -> Path:
    if (path / CONFIG).is_file():
        return path
    if config_file(path):
        raise CheckpointError(f"{path}: an adapter, not a base: give it as the adapter and its base as the base")
    if (path / "model" / CONFIG).is_file():
        raise CheckpointError(f"{path}: a run's folder; its trained model is {path / 'model'}")
    raise CheckpointError(f"{path}: no folder of transformers files, it has no {CONFIG}")


def _fetched(base: str) -> Path:
    """The folder of a hub model in the cache, downloaded if the hub can be reached."""
    from huggingface_hub import snapshot_download

    small = ["*.json", "*.txt", "spiece.model", "tokenizer.model"]
    reachable = hub_in_reach()
    try:
        for weights in ("model*.safetensors", "pytorch_model*.bin"):
            folder = Path(snapshot_download(base, allow_patterns=[*small, weights], local_files_only=not reachable))
            if any(folder.glob(weights)):
                break
    except Exception as error:  # of the network, the hub or its cache
        reason = "the hub cannot be reached, and its cache has no such model" if not reachable else str(error)
        raise CheckpointError(f"{base}: no such folder, and not downloaded from the hub ({reason})") from error
    return _folder(folder)


def hub_in_reach() -> bool:
    """Whether the hub answers within 5 seconds; transformers would retry for minutes."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        get_session().head(constants.ENDPOINT, timeout=5)
    except Exception:  # whatever the network says
        return False
    return True
