"""Adapter files: a PEFT-like folder of config, safetensors and model card, which names its base and refuses another."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from uniadapter.adapter import AdapterSet
from uniadapter.adapters import adapter_set, add_adapter, remove_adapter, select_adapter
from uniadapter.config import AdapterConfig, ConfigError
from uniadapter.inject import HEADS, OWNER, adopt
from uniadapter.original import CheckpointError
from uniadapter.version import __version__

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
CARD_NAME = "README.md"


@dataclass
class AdapterFile:
    """What stands in an adapter's `adapter_config.json`.

    Args:
        adapter: the set's shape.
        base: name of the base model: hub id, folder or file.
        base_sha256: hash of the base's tensors (`base_hash`).
        model_class: transformers' class it was trained in.
        task: what it was trained for.
        extra: further plain values, such as the temperature and the scores reached.
        version: of this package, when it was written.
    """

    adapter: AdapterConfig
    base: str
    base_sha256: str
    model_class: str
    task: str = "retrieval"
    extra: dict[str, Any] = field(default_factory=dict)
    version: str = __version__


def base_hash(model: PreTrainedModel) -> str:
    """A hash of the base's tensors that is the same from hub, folder and `.pth`.

    Over names, shapes and float32 values of everything but heads (an adapter file carries its own) and tied copies.
    Of a base that was rounded (`precision.round_frozen`) it is the hash before.
    """
    if OWNER in model._modules and adopt(model).base_sha256:
        return str(adopt(model).base_sha256)
    digest = hashlib.sha256()
    seen: set[int] = set()
    for name, tensor in sorted(model.named_parameters(), key=lambda item: item[0]):
        if name.split(".")[0] in (*HEADS, OWNER) or id(tensor) in seen:
            continue
        seen.add(id(tensor))
        digest.update(f"{name}{list(tensor.shape)}".encode())
        digest.update(tensor.detach().to("cpu", torch.float32).contiguous().numpy().data)
    return digest.hexdigest()


@contextmanager
def written_atomically(folder: Path) -> Iterator[Path]:
    """A temporary sibling of `folder` that takes its place when the block ends well, and vanishes otherwise.

    Raises:
        CheckpointError: the folder cannot be written (a full disk, say); what stood there before still does.
    """
    temporary: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        yield temporary
        old = None
        if folder.exists():
            old = Path(tempfile.mkdtemp(prefix=f".{folder.name}.old.", dir=folder.parent)) / folder.name
            os.replace(folder, old)
        temporary.chmod(0o755)  # mkdtemp made it private
        os.replace(temporary, folder)
        if old is not None:
            shutil.rmtree(old.parent, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        reason = error.strerror or str(error) if isinstance(error, OSError) else str(error)
        raise CheckpointError(f"{folder}: could not be written ({reason}); nothing there was changed") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def save_adapter(
    model: PreTrainedModel,
    folder: Path | str,
    name: str = "default",
    base: str | None = None,
    task: str = "retrieval",
    extra: dict[str, Any] | None = None,
) -> Path:
    """Write one set as an adapter folder.

    Args:
        model: the model that holds it.
        folder: what to write; an adapter that stands there is replaced only once the new one is complete.
        name: the set.
        base: how the base is called; the model's own `name_or_path` if None.
        task: what it was trained for.
        extra: further plain values to keep with it.

    Returns:
        The folder.

    Raises:
        CheckpointError: it cannot be written.
    """
    built = adapter_set(model, name)
    described = AdapterFile(
        adapter=built.config,
        base=base or model.config.name_or_path or "unknown",
        base_sha256=base_hash(model),
        model_class=type(model).__name__,
        task=task,
        extra=extra or {},
    )
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in built.state_dict().items()}
    write_adapter(Path(folder), described, state)
    return Path(folder)


def write_adapter(folder: Path, described: AdapterFile, state: dict[str, Tensor]) -> None:
    """Write config, weights and card; see `save_adapter`."""
    values = {
        "method": "UniAdapter",
        "version": described.version,
        "task": described.task,
        "base_model_name_or_path": described.base,
        "base_model_sha256": described.base_sha256,
        "base_model_class": described.model_class,
        "adapter": described.adapter.to_dict(),
        **({"extra": described.extra} if described.extra else {}),
    }
    with written_atomically(folder) as temporary:
        (temporary / CONFIG_NAME).write_text(json.dumps(values, indent=2) + "\n")
        save_file(state, temporary / WEIGHTS_NAME, metadata={"format": "pt"})
        size = (temporary / WEIGHTS_NAME).stat().st_size
        (temporary / CARD_NAME).write_text(_card(described, state, size))


def _card(described: AdapterFile, state: dict[str, Tensor], size: int) -> str:
    parameters = sum(t.numel() for t in state.values())
    a = described.adapter
    tags = {"retrieval": "zero-shot-image-classification", "vqa": "visual-question-answering"}
    told = {key: len(value) if isinstance(value, list) else value for key, value in described.extra.items()}
    scores = "".join(f"- {key}: {value}\n" for key, value in told.items())
    return f"""---
library_name: uniadapter
base_model: {described.base}
pipeline_tag: {tags.get(described.task, "image-to-text")}
tags: [uniadapter, blip, adapter]
---

# UniAdapter for {described.task}

{parameters:,} parameters ({size / 1e6:.2f} MB) on the frozen base `{described.base}` (`{described.model_class}`),
whose tensors must hash to `{described.base_sha256[:16]}…`.

Bottleneck r = {a.bottleneck}, key/value adapters of width {a.key_value}, frame-aware attention
{"on" if a.frame_aware else "off"}. The method: [UniAdapter](https://arxiv.org/abs/2302.06605), ICLR 2024.

{scores}
```python
import uniadapter

model, tokenizer = uniadapter.load_model("{described.base}"), uniadapter.load_tokenizer("{described.base}")
uniadapter.load_adapter(model, "path/to/this/folder")
```
"""


def read_adapter_file(folder: Path | str) -> tuple[AdapterFile, dict[str, Tensor]]:
    """Config and weights of an adapter folder.

    Raises:
        CheckpointError: something is missing, broken, or of a newer form.
    """
    folder = Path(folder)
    for name in (CONFIG_NAME, WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise CheckpointError(f"{folder}: not an adapter folder, it has no {name}")
    try:
        values = json.loads((folder / CONFIG_NAME).read_text())
        described = AdapterFile(
            adapter=AdapterConfig.from_dict(values["adapter"]),
            base=values["base_model_name_or_path"],
            base_sha256=values["base_model_sha256"],
            model_class=values["base_model_class"],
            task=values.get("task", "retrieval"),
            extra=values.get("extra", {}),
            version=values.get("version", "unknown"),
        )
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{folder / CONFIG_NAME}: not JSON ({error})") from error
    except (KeyError, TypeError, ConfigError) as error:
        raise CheckpointError(f"{folder / CONFIG_NAME}: not a config of this package ({error})") from error
    try:
        return described, load_file(folder / WEIGHTS_NAME)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{folder / WEIGHTS_NAME}: not a readable safetensors file ({error})") from error


def load_adapter(
    model: PreTrainedModel, folder: Path | str, name: str = "default", trainable: bool = False, check_base: bool = True
) -> AdapterSet:
    """Put the adapter of a folder into a model, under a name, and select it.

    Args:
        model: the same base that it was trained on, in the same or another of transformers' BLIP classes.
        folder: as `save_adapter` wrote it.
        name: what the set is called here.
        trainable: leave gradients on, to train on.
        check_base: refuse a base with other tensors.

    Raises:
        CheckpointError: the folder is broken, was made for another base, or does not fit the model.
        ValueError: the name is taken.
    """
    described, state = read_adapter_file(folder)
    if check_base and described.model_class == type(model).__name__:
        found = base_hash(model)
        if found != described.base_sha256:
            raise CheckpointError(
                f"{folder}: made for another base, {described.base} ({described.base_sha256[:12]}), not this one "
                f"({model.config.name_or_path or 'unnamed'}, {found[:12]}); load that base"
            )
    elif check_base:
        raise CheckpointError(
            f"{folder}: made for {described.model_class}, not {type(model).__name__}; load the base as that class"
        )
    built = add_adapter(model, described.adapter, name)
    try:
        built.load_state_dict(state)
    except RuntimeError as error:
        remove_adapter(model, name)
        reason = " ".join(str(error).split())
        raise CheckpointError(f"{folder}: its weights do not fit this model ({reason[:300]})") from error
    select_adapter(model, name, trainable)
    return built
