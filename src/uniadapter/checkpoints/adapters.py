"""Add new or saved adapters to a model, and have `save_pretrained` save them too."""

from __future__ import annotations

import logging
import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from uniadapter.checkpoints.adapter_files import (
    TASK_OF_CLASS,
    AdapterFile,
    WeightsHeader,
    read_header,
    read_weights,
    resolve_config,
)
from uniadapter.checkpoints.adapter_folder import save_adapter
from uniadapter.checkpoints.folder_names import CONFIG_NAME
from uniadapter.checkpoints.locating import locate_adapter
from uniadapter.config import AdapterConfig
from uniadapter.errors import CheckpointError, ConfigError
from uniadapter.files.messages import shortened
from uniadapter.model.adapter_set import AdapterSet, file_name
from uniadapter.model.dispatch import backbone
from uniadapter.model.families import families
from uniadapter.model.identity import matches_hash, same_base
from uniadapter.model.sets import adapter_names, adapter_set, add_set, restore_if_unused, select_adapter
from uniadapter.model.settings import InferenceSettings
from uniadapter.model.store import OWNER, unwrapped
from uniadapter.model.temporal import first_values

logger = logging.getLogger(__name__)

_FLOATS = ("F64", "F32", "F16", "BF16")


def add_adapter(model: PreTrainedModel, config: AdapterConfig | None = None, name: str = "default") -> AdapterSet:
    """Add a new adapter set to a model of transformers, freeze the base, and select the set.

    Args:
        model: a task model of any family and size, such as `BlipForImageTextRetrieval`; see `uniadapter families`.
        config: which adapters, and their sizes; None takes the paper's, with r = 128.
        name: of the set.

    Returns:
        The set, which the model owns. With `init="identity"` and `temporal_init="zeros"` the outputs are exactly
        the base's.

    Raises:
        TypeError: the model is of no family that can be adapted.
        ValueError: the name is taken, empty, has a dot, or is one that torch's modules use themselves.

    Example:
        >>> adapters = ua.add_adapter(model, ua.AdapterConfig(bottleneck=19, key_value=8), "boxes")
        >>> ua.adapter_names(model)
        ['boxes']
        >>> all(parameter.requires_grad for parameter in adapters.parameters())
        True
    """
    config = config or AdapterConfig()
    built = add_set(model, config, name)
    if config.temporal_frames and config.temporal_init != "zeros":
        with torch.no_grad():
            built.time.copy_(first_values(model, config.temporal_frames, config.temporal_init))
    _save_beside_base(model)
    return built


def _save_beside_base(model: PreTrainedModel) -> None:
    """Have the model's `save_pretrained`, which transformers' `Trainer` calls too, save its adapters as well."""
    inner = unwrapped(model)
    inner.save_pretrained = partial(_save_pretrained, inner)  # type: ignore[method-assign]


def _save_pretrained(model: PreTrainedModel, save_directory: str | os.PathLike[str], *args: Any, **kwargs: Any) -> Any:
    """The model's own `save_pretrained`, and then the adapters, in a folder beside the base."""
    result = type(model).save_pretrained(model, save_directory, *args, **kwargs)
    if kwargs.get("is_main_process", True):
        names = [name for name in adapter_names(model) if adapter_set(model, name).momentum_of is None]
        folders = [save_adapter(model, Path(save_directory) / OWNER / name, name) for name in names]
        logger.warning(
            "%s holds the base alone; to go on with its adapters, load_adapter from %s",
            save_directory, ", ".join(map(str, folders)),
        )  # fmt: skip
    return result


def load_adapter(
    model: PreTrainedModel, folder: Path | str, name: str = "default", trainable: bool = False, check_base: bool = True
) -> AdapterSet:
    """Load an adapter folder into a model, and select the set.

    Args:
        model: the base that it was trained on, in any dtype.
        folder: written by `save_adapter`, or `embedded:NAME` for one of this package.
        name: of the set in this model.
        trainable: whether its parameters get gradients, to train it further.
        check_base: refuse a base with other weights than the one it was trained on.

    Returns:
        The set, which the model owns.

    Raises:
        CheckpointError: the folder is broken, was made for another base, or does not fit the model.
        ValueError: the name is taken.

    Example:
        >>> _ = ua.add_adapter(model, ua.AdapterConfig(bottleneck=4), "boxes")
        >>> saved = ua.save_adapter(model, folder / "boxes", "boxes")
        >>> loaded = ua.load_adapter(model, saved, "again")
        >>> ua.adapter_names(model)
        ['boxes', 'again']
    """
    model, folder = unwrapped(model), locate_adapter(folder)
    header = read_header(folder)
    described = resolve_config(folder, header.config)
    try:
        if check_base:
            _check_base(model, described, folder)
        _check_fit(model, described, header, folder)
        state = read_weights(folder)
    except CheckpointError:
        restore_if_unused(model)
        raise
    built = add_set(model, described.adapter, name)
    _save_beside_base(model)
    built.load_state_dict(state)
    built.settings = described.settings
    select_adapter(model, name, trainable)
    return built


def _check_base(model: PreTrainedModel, described: AdapterFile, folder: Path) -> None:
    """Raise `CheckpointError` for another base; warn if their dtypes do not allow to tell."""
    if described.model_class != type(model).__name__:
        own_task = TASK_OF_CLASS.get(type(model).__name__, "another task")
        remedy = f"load the base with task={described.task!r}, or an adapter for {own_task}"
        if own_task == described.task:  # of another family
            remedy = f"load the base that it was made for, {described.base}"
        raise CheckpointError(
            shortened(
                f"{folder}: made for {described.task} ({described.model_class}), not for {own_task} "
                f"({type(model).__name__}); {remedy}"
            )
        )
    own = model.config.name_or_path or "unnamed"
    if described.identity is not None:
        same = same_base(described.identity, model)
    else:
        same = None if described.base_sha256 is None else matches_hash(model, described.base_sha256)
    if same is None:
        logger.warning(
            "%s: whether %s is the base that it was made for, %s, cannot be told in this dtype, only that it has the "
            "right sizes; load the base in float32 to be sure",
            folder, own, described.base,
        )  # fmt: skip
    elif not same:
        told = (described.base_sha256 or "quantised")[:12]
        raise CheckpointError(
            shortened(
                f"{folder}: made for another base, {described.base} ({told}), not this one ({own}); load that base"
            )
        )


def _check_fit(model: PreTrainedModel, described: AdapterFile, header: WeightsHeader, folder: Path) -> None:
    """Compare the tensors' names and shapes with what the config requires, before anything is allocated."""
    try:
        with torch.device("meta"):
            seen = backbone(model)
            built = AdapterSet(described.adapter, seen.shape, seen.base_heads(), seen.base_scalars())
            expected = {file_name(key): tensor for key, tensor in built.state_dict().items()}
    except (RuntimeError, OverflowError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(shortened(f"{folder / CONFIG_NAME}: sizes that no adapter has ({reason})")) from error
    except ConfigError as error:
        raise CheckpointError(shortened(f"{folder / CONFIG_NAME}: {error}")) from error
    found = header.shapes
    if "temperature" in found:  # only in sets that have learned one
        expected["temperature"] = torch.empty(())
    fault = None
    for key in sorted({*expected, *found}):
        if key not in found:
            fault = f"{key} is missing"
        elif key not in expected:
            fault = f"{key} has no place"
        elif found[key][0] != list(expected[key].shape):
            fault = f"{key} is {found[key][0]} instead of {list(expected[key].shape)}"
        elif found[key][1] not in _FLOATS:
            fault = f"{key} holds {found[key][1]}, no floating-point numbers"
        if fault:
            raise CheckpointError(shortened(f"{folder}: its weights do not fit this model ({fault})"))
    _check_settings(model, described.settings, folder)


def _check_settings(model: PreTrainedModel, settings: InferenceSettings, folder: Path) -> None:
    layout = backbone(model).layout
    patch, positions = layout.patch_size, layout.positions
    writes = "caption" in families()[layout.family].classes  # else nobody asks how long its texts become
    for name, value, low, high in (
        ("image_size", settings.image_size, patch, 4096),
        ("max_tokens", settings.max_tokens, 2, positions),
        ("longest", settings.longest if writes else None, 1, positions),
    ):
        if value is not None and not low <= value <= high:
            raise CheckpointError(
                f"{folder / CONFIG_NAME}: inference.{name} is {value}; this base takes {low} to {high}"
            )
