"""Save an adapter as a folder of config, weights (safetensors) and model card.

The three files are written beside whatever else the folder holds. The weights contain the config too, in their
metadata, so that a folder still loads if saving was interrupted between two files.
"""

from __future__ import annotations

import hashlib
import json
import logging
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from transformers import PreTrainedModel

from uniadapter.checkpoints.adapter_files import (
    METADATA,
    TASK_OF_CLASS,
    AdapterFile,
    StoredConfig,
    TaskName,
    is_foreign_card,
    read_adapter_config,
    read_adapter_file,
    refuse_peft_adapter,
)
from uniadapter.checkpoints.card import model_card
from uniadapter.checkpoints.folder_names import (
    CARD_NAME,
    CONFIG_NAME,
    LEGACY_CONFIG_NAME,
    WEIGHTS_NAME,
    has_legacy_config,
)
from uniadapter.errors import CheckpointError
from uniadapter.files.messages import shortened
from uniadapter.files.schema import validated
from uniadapter.files.writing import atomic_file, remove_temporary_files
from uniadapter.model.adapter_set import file_name
from uniadapter.model.dispatch import backbone
from uniadapter.model.identity import base_hash, foreign_parameter, identity_of
from uniadapter.model.sets import adapter_set
from uniadapter.model.settings import InferenceSettings
from uniadapter.model.store import unwrapped

__all__ = [
    "CONFIG_NAME",
    "AdapterFile",
    "TaskName",
    "base_hash",
    "read_adapter_config",
    "read_adapter_file",
    "save_adapter",
    "write_adapter",
]

logger = logging.getLogger(__name__)

_FLOATS = ("F64", "F32", "F16", "BF16")


def save_adapter(
    model: PreTrainedModel,
    folder: Path | str,
    name: str | None = None,
    base: str | None = None,
    task: TaskName | None = None,
    extra: dict[str, Any] | None = None,
    settings: InferenceSettings | None = None,
) -> Path:
    """Save an adapter set as a folder.

    Args:
        model: the model that holds it.
        folder: to write into; an adapter in it is replaced, other files stay.
        name: of the set; None takes the active one.
        base: name of the base; None takes the model's `name_or_path`.
        task: that it was trained for; None takes that of the model's class.
        extra: further JSON values to keep.
        settings: inference settings; None takes the set's own. `frames` and `answers` may be given in `extra` instead.

    Returns:
        The folder.

    Raises:
        CheckpointError: it cannot be written.
        ValueError: one of the settings is out of range, or `extra` is not JSON.

    Example:
        >>> _ = ua.add_adapter(model, ua.AdapterConfig(bottleneck=4), "boxes")
        >>> sorted(file.name for file in ua.save_adapter(model, folder / "boxes", "boxes").iterdir())
        ['README.md', 'adapter_model.safetensors', 'uniadapter_config.json']
    """
    model = unwrapped(model)
    built = adapter_set(model, name)
    foreign = foreign_parameter(model)
    if foreign is not None:
        logger.warning(
            "%s is not in %s: it is PEFT's, whose `save_pretrained` saves it; what was trained beside it needs it too",
            foreign, folder,
        )  # fmt: skip
    identity = identity_of(model)
    described = AdapterFile(
        adapter=built.config,
        base=base or model.config.name_or_path or "unknown",
        base_sha256=identity.tensors.get(identity.dtype),
        model_class=type(model).__name__,
        task=task or TASK_OF_CLASS.get(type(model).__name__, "retrieval"),
        extra=extra or {},
        settings=_complete(settings or built.settings, model, extra or {}),
        identity=identity,
    )
    state = {key: tensor.detach().cpu().contiguous() for key, tensor in built.state_dict().items()}
    foreign = next((key for key in state if ".base_layer." in key or ".lora_" in key), None)
    if foreign is not None:
        raise CheckpointError(
            f"{folder}: PEFT has put layers of its own into this adapter ({foreign}), which its file cannot hold: keep "
            "them out with LoraConfig(exclude_modules=r'uniadapters\\..*')"
        )
    write_adapter(Path(folder).expanduser(), described, state)
    return Path(folder).expanduser()


def _complete(settings: InferenceSettings, model: PreTrainedModel, extra: dict[str, Any]) -> InferenceSettings:
    """The settings, filled up from the base's config, so that the folder does not depend on defaults."""
    layout = backbone(model).layout
    stated: dict[str, Any] = {
        "image_size": layout.image_size,
        "mean": layout.mean,
        "std": layout.std,
        "resampling": layout.resampling,
        "crop": layout.crop,
        **{key: extra[key] for key in ("frames", "answers") if key in extra},
        **settings.to_dict(),
    }
    return validated(stated, InferenceSettings, "settings")


def write_adapter(folder: Path, described: AdapterFile, state: dict[str, Tensor]) -> None:
    """Write config, weights and model card, see `save_adapter`.

    Args:
        folder: to write into.
        described: the config.
        state: state dict of the set.

    Raises:
        CheckpointError: the folder cannot be written, is a file, or holds an adapter of PEFT.
    """
    state = {file_name(key): tensor for key, tensor in state.items()}
    values = {
        "method": "UniAdapter",
        "version": described.version,
        "task": described.task,
        "base_model_name_or_path": described.base,
        "base_model_sha256": described.base_sha256,
        "base_model_class": described.model_class,
        "adapter": described.adapter.to_dict(),
        "inference": described.settings.to_dict(),
        **({"base_model_identity": vars(described.identity)} if described.identity else {}),
        **({"extra": described.extra} if described.extra else {}),
    }
    validated(values, StoredConfig, f"{folder / CONFIG_NAME}")  # an invalid config fails now, not when it is read
    values["write_id"] = _write_id(values, state)
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder}: is a file; an adapter is written into a folder, so name another path")
    refuse_peft_adapter(folder)
    remove_temporary_files(folder)
    keep_card = is_foreign_card(folder / CARD_NAME)
    if keep_card:
        logger.info("%s is not a model card of this package and is kept", folder / CARD_NAME)
    try:
        # All three are written before the first is moved into place, and the weights are moved first: the innermost
        # block ends first.
        with (
            nullcontext() if keep_card else atomic_file(folder / CARD_NAME) as card,
            atomic_file(folder / CONFIG_NAME) as config,
            atomic_file(folder / WEIGHTS_NAME) as weights,
        ):
            save_file(state, weights, metadata={METADATA: json.dumps(values)})  # one key: the order of several varies
            config.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
            if card is not None:
                card.write_text(_card(described, state, weights.stat().st_size), encoding="utf-8")
        if has_legacy_config(folder):
            (folder / LEGACY_CONFIG_NAME).unlink()  # replaced by the new one: two might disagree
    except (OSError, SafetensorError) as error:
        raise CheckpointError(shortened(f"{folder}: {error}")) from error


def _write_id(values: dict[str, Any], state: dict[str, Tensor]) -> str:
    """A hash of config and weights, stored in both files, to tell whether they belong together."""
    digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
    for name in sorted(state):
        digest.update(f"{name}{list(state[name].shape)}{state[name].dtype}".encode())
        digest.update(state[name].flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _card(described: AdapterFile, state: dict[str, Tensor], size: int) -> str:
    return model_card(
        described.task,
        described.base,
        described.model_class,
        described.base_sha256,
        described.adapter,
        described.settings,
        sum(tensor.numel() for tensor in state.values()),
        size,
        described.extra,
    )
