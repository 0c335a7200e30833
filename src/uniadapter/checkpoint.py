"""Adapter files: a PEFT-like folder of config, safetensors and model card, which names its base and refuses another.

The three files are written into the folder, whatever else it holds. The weights carry the config too, in their
metadata: a write that is interrupted between the files leaves a folder that loads as the adapter of its weights.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from uniadapter.adapter import AdapterSet, file_name
from uniadapter.adapters import adapter_set, add_adapter, forget, select_adapter
from uniadapter.card import model_card
from uniadapter.config import AdapterConfig
from uniadapter.data.images import MEAN, STD
from uniadapter.errors import CheckpointError, ConfigError
from uniadapter.files import clear_leftovers, written_atomically
from uniadapter.identity import BaseIdentity, foreign_parameter, identity_of, matches_hash, same_base
from uniadapter.inject import backbone_shape, bare, base_heads
from uniadapter.schema import SchemaError, checked, read_json, shortened
from uniadapter.settings import NO_SETTINGS, InferenceSettings
from uniadapter.version import __version__

logger = logging.getLogger(__name__)

CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
CARD_NAME = "README.md"

TaskName = Literal["retrieval", "vqa", "caption"]
TASK_OF_CLASS: dict[str, TaskName] = {
    "BlipForImageTextRetrieval": "retrieval",
    "BlipForQuestionAnswering": "vqa",
    "BlipForConditionalGeneration": "caption",
}
_METADATA = "uniadapter"  # key of the config in the weights' metadata
_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass
class AdapterFile:
    """What stands in an adapter's `adapter_config.json`.

    Args:
        adapter: the set's shape.
        base: name of the base model: hub id, folder or file.
        base_sha256: hash of the base's tensors (`base_hash`); None of a quantised one.
        model_class: transformers' class it was trained in.
        task: what it was trained for.
        extra: further plain values, such as the scores reached.
        version: of this package, when it was written.
        settings: what it must be asked with.
        identity: what tells the base in other dtypes; None in folders of version 0.1.0.
    """

    adapter: AdapterConfig
    base: str
    base_sha256: str | None
    model_class: str
    task: TaskName = "retrieval"
    extra: dict[str, Any] = field(default_factory=dict)
    version: str = __version__
    settings: InferenceSettings = NO_SETTINGS
    identity: BaseIdentity | None = None


@dataclass
class _Stored:
    """The keys of `adapter_config.json`."""

    adapter: AdapterConfig
    base_model_name_or_path: str
    base_model_class: str
    base_model_sha256: str | None
    task: TaskName = "retrieval"
    method: str = "UniAdapter"
    version: str = "unknown"
    extra: dict[str, Any] = field(default_factory=dict)
    inference: InferenceSettings | None = None
    base_model_identity: BaseIdentity | None = None
    write_id: str | None = None


def save_adapter(
    model: PreTrainedModel,
    folder: Path | str,
    name: str | None = None,
    base: str | None = None,
    task: TaskName | None = None,
    extra: dict[str, Any] | None = None,
    settings: InferenceSettings | None = None,
) -> Path:
    """Write one set as an adapter folder.

    Args:
        model: the model that holds it.
        folder: where to; an adapter that stands there is replaced, other files are left alone.
        name: the set; the active one if None.
        base: how the base is called; the model's own `name_or_path` if None.
        task: what it was trained for; what the model's class is for if None.
        extra: further plain values to keep with it.
        settings: what it must be asked with; the set's own if None. `frames` and `answers` may also stand in `extra`.

    Returns:
        The folder.

    Raises:
        CheckpointError: it cannot be written.
        ValueError: a value cannot be kept: of the settings one is out of range, or `extra` is no JSON.

    Example:
        >>> _ = ua.add_adapter(model, ua.AdapterConfig(bottleneck=4), "boxes")
        >>> sorted(file.name for file in ua.save_adapter(model, folder / "boxes", "boxes").iterdir())
        ['README.md', 'adapter_config.json', 'adapter_model.safetensors']
    """
    model = bare(model)
    built = adapter_set(model, name)
    foreign = foreign_parameter(model)
    if foreign is not None:
        logger.warning(
            "%s is not in %s: it is of PEFT's, which saves its own by its `save_pretrained`, and what was trained "
            "beside it needs it too", foreign, folder,
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
    """With what the base itself states, so that the folder does not depend on defaults."""
    stated: dict[str, Any] = {
        "image_size": int(model.config.vision_config.image_size),
        "mean": MEAN,
        "std": STD,
        "resampling": "bicubic",
        **{key: extra[key] for key in ("frames", "answers") if key in extra},
        **settings.to_dict(),
    }
    return checked(stated, InferenceSettings, "settings")


def write_adapter(folder: Path, described: AdapterFile, state: dict[str, Tensor]) -> None:
    """Write config, weights and card; `state` is a set's state dict. See `save_adapter`."""
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
    checked(values, _Stored, f"{folder / CONFIG_NAME}")  # what could not be read back is not written
    values["write_id"] = _write_id(values, state)
    if folder.exists() and not folder.is_dir():
        raise CheckpointError(f"{folder}: is a file; an adapter is written into a folder, so name another path")
    clear_leftovers(folder)
    try:
        # All three are complete before the first takes its place, and the weights are the first to: blocks end from the
        # innermost outwards.
        with (
            written_atomically(folder / CARD_NAME) as card,
            written_atomically(folder / CONFIG_NAME) as config,
            written_atomically(folder / WEIGHTS_NAME) as weights,
        ):
            save_file(state, weights, metadata={"format": "pt", _METADATA: json.dumps(values)})
            config.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
            card.write_text(_card(described, state, weights.stat().st_size), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise CheckpointError(shortened(f"{folder}: {error}")) from error


def _write_id(values: dict[str, Any], state: dict[str, Tensor]) -> str:
    """A hash of all that is written: equal in config and weights where the two belong together."""
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


def read_adapter_config(folder: Path | str) -> AdapterFile:
    """What an adapter folder says of itself; its weights are not read.

    Raises:
        CheckpointError: something is missing, broken, or of a newer form.
    """
    return _described(Path(folder).expanduser(), _header(Path(folder).expanduser()).config)


def read_adapter_file(folder: Path | str) -> tuple[AdapterFile, dict[str, Tensor]]:
    """Config and weights of an adapter folder.

    Raises:
        CheckpointError: something is missing, broken, or of a newer form; or a weight is no finite number.
    """
    return read_adapter_config(folder), _weights(Path(folder).expanduser())


@dataclass(frozen=True)
class _Header:
    """What a weights' file says before its tensors: their shapes and kinds by name, and the config in its metadata."""

    shapes: dict[str, tuple[list[int], str]]
    config: dict[str, Any] | None


def _header(folder: Path) -> _Header:
    file = folder / WEIGHTS_NAME
    if not file.is_file():
        lacking = WEIGHTS_NAME if (folder / CONFIG_NAME).is_file() else CONFIG_NAME
        raise CheckpointError(f"{folder}: not an adapter folder, it has no {lacking}")
    try:
        with safe_open(file, framework="pt") as opened:
            parts = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118 - no mapping
            shapes = {key: (list(part.get_shape()), str(part.get_dtype())) for key, part in parts.items()}
            written = (opened.metadata() or {}).get(_METADATA)
        config = None if written is None else json.loads(written)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(shortened(f"{file}: not a readable safetensors file ({error})")) from error
    return _Header(shapes, config if isinstance(config, dict) else None)


def _described(folder: Path, in_weights: dict[str, Any] | None) -> AdapterFile:
    """From `adapter_config.json`, or from the weights' own copy of it where the file belongs to other weights."""
    file = folder / CONFIG_NAME
    if file.is_file() or in_weights is None:
        values = _config_values(file, folder)
        if in_weights is not None and values.get("write_id") != in_weights.get("write_id"):
            logger.warning("%s is of another write than the weights beside it, which carry their own: used that", file)
            values = in_weights
    else:
        logger.warning("%s is missing: used what the weights say", file)
        values = in_weights
    known = {one.name for one in fields(_Stored)}
    unknown = sorted(set(values) - known)
    if unknown and "adapter" in values:
        logger.warning("%s: %s: not known to this version, and not used", file, shortened(", ".join(unknown), 100))
    return _from_stored(checked_config({key: values[key] for key in values if key in known}, file), file)


def checked_config(values: dict[str, Any], file: Path) -> _Stored:
    """The config's values as what they should be, or a `CheckpointError`."""
    try:
        return checked(values, _Stored, str(file))
    except SchemaError as error:
        raise CheckpointError(shortened(f"{error}; not a config of this package")) from error


def _config_values(file: Path, folder: Path) -> dict[str, Any]:
    if not file.is_file():
        raise CheckpointError(f"{folder}: not an adapter folder, it has no {CONFIG_NAME}")
    try:
        values = read_json(file)
    except SchemaError as error:
        raise CheckpointError(str(error)) from error
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror or error})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{file}: a {type(values).__name__}, not the object of keys that an adapter's config is")
    if "peft_type" in values:
        raise CheckpointError(f"{file}: an adapter of PEFT, not of UniAdapter: load it with peft.PeftModel")
    return values


def _from_stored(stored: _Stored, file: Path) -> AdapterFile:
    settings = stored.inference
    if settings is None:  # a folder of version 0.1.0 has two of them, elsewhere
        try:
            found = {key: stored.extra[key] for key in ("frames", "answers") if key in stored.extra}
            settings = checked(found, InferenceSettings, f"{file}: extra")
        except SchemaError as error:
            raise CheckpointError(str(error)) from error
    return AdapterFile(
        adapter=stored.adapter,
        base=stored.base_model_name_or_path,
        base_sha256=stored.base_model_sha256,
        model_class=stored.base_model_class,
        task=TASK_OF_CLASS.get(stored.base_model_class, stored.task),
        extra=stored.extra,
        version=stored.version,
        settings=settings,
        identity=stored.base_model_identity,
    )


def _weights(folder: Path) -> dict[str, Tensor]:
    file = folder / WEIGHTS_NAME
    try:
        state = load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(shortened(f"{file}: not a readable safetensors file ({error})")) from error
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise CheckpointError(
                shortened(
                    f"{file}: {name} holds a number that is NaN or infinite; save the adapter again, or train it anew"
                )
            )
    return state


def load_adapter(
    model: PreTrainedModel, folder: Path | str, name: str = "default", trainable: bool = False, check_base: bool = True
) -> AdapterSet:
    """Put the adapter of a folder into a model, under a name, and select it.

    Args:
        model: the base that it was trained on, in any dtype.
        folder: as `save_adapter` wrote it.
        name: what the set is called here.
        trainable: leave gradients on, to train on.
        check_base: refuse a base with other tensors.

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
    model, folder = bare(model), Path(folder).expanduser()
    header = _header(folder)
    described = _described(folder, header.config)
    try:
        if check_base:
            _check_base(model, described, folder)
        _check_fit(model, described, header, folder)
        state = _weights(folder)
    except CheckpointError:
        forget(model)
        raise
    built = add_adapter(model, described.adapter, name)
    built.load_state_dict(state)
    built.settings = described.settings
    select_adapter(model, name, trainable)
    return built


def _check_base(model: PreTrainedModel, described: AdapterFile, folder: Path) -> None:
    """Raise for another base; a log line where their dtypes leave open whether it is."""
    if described.model_class != type(model).__name__:
        raise CheckpointError(
            f"{folder}: made for {described.model_class}, not {type(model).__name__}; load the base as that class"
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


def _check_fit(model: PreTrainedModel, described: AdapterFile, header: _Header, folder: Path) -> None:
    """Compare the names and sizes that the config asks for with those in the file, before anything is allocated."""
    try:
        with torch.device("meta"):
            built = AdapterSet(described.adapter, backbone_shape(model), base_heads(model))
            expected = {file_name(key): tensor for key, tensor in built.state_dict().items()}
    except (RuntimeError, OverflowError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(shortened(f"{folder / CONFIG_NAME}: sizes that no adapter has ({reason})")) from error
    except ConfigError as error:
        raise CheckpointError(shortened(f"{folder / CONFIG_NAME}: {error}")) from error
    found = header.shapes
    if "temperature" in found:  # only sets that learnt one have it
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
    patch, positions = model.config.vision_config.patch_size, model.config.text_config.max_position_embeddings
    for name, value, low, high in (
        ("image_size", settings.image_size, patch, 4096),
        ("max_tokens", settings.max_tokens, 2, positions),
        ("longest", settings.longest, 1, positions),
    ):
        if value is not None and not low <= value <= high:
            raise CheckpointError(
                f"{folder / CONFIG_NAME}: inference.{name} is {value}; this base takes {low} to {high}"
            )
