"""Read an adapter's folder: its config, validated, and its weights.

The config is stored twice: in `uniadapter_config.json`, and in the metadata of the weights. If the file is missing or
was not written together with the weights, the copy in the weights is used.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, cast

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from uniadapter.checkpoints.card import MARK
from uniadapter.checkpoints.embedded_adapters import local_adapter
from uniadapter.checkpoints.folder_names import CONFIG_NAME, WEIGHTS_NAME, config_file, is_adapter_of_peft
from uniadapter.config import AdapterConfig
from uniadapter.errors import CheckpointError
from uniadapter.files.messages import shortened
from uniadapter.files.schema import SchemaError, read_json, validated
from uniadapter.model.families import families
from uniadapter.model.settings import NO_SETTINGS, InferenceSettings
from uniadapter.model.store import BaseIdentity
from uniadapter.version import __version__

logger = logging.getLogger(__name__)

TaskName = Literal["retrieval", "vqa", "caption"]
TASK_OF_CLASS: dict[str, TaskName] = {
    name: cast(TaskName, task) for family in families().values() for task, name in family.classes.items()
}
METADATA = "uniadapter"  # key of the config in the weights' metadata


@dataclass
class AdapterFile:
    """The content of an adapter's `uniadapter_config.json`.

    Args:
        adapter: which adapters there are, and their sizes.
        base: name of the base model: hub id, folder or file.
        base_sha256: hash of the base's tensors (`base_hash`); None for a quantised base.
        model_class: name of the class in transformers that it was trained in.
        task: that it was trained for.
        extra: further JSON values, such as scores.
        version: of this package when the folder was written.
        settings: inference settings.
        identity: hashes of the base in several dtypes; None in folders of version 0.1.0.
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
class StoredConfig:
    """The keys of `uniadapter_config.json`, for validation."""

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


def read_adapter_config(folder: Path | str) -> AdapterFile:
    """The config of an adapter folder; of the weights, only the header is read.

    Raises:
        CheckpointError: something is missing, broken, or of a newer format.
    """
    folder = local_adapter(folder)
    return resolve_config(folder, read_header(folder).config)


def read_adapter_file(folder: Path | str) -> tuple[AdapterFile, dict[str, Tensor]]:
    """Config and weights of an adapter folder.

    Raises:
        CheckpointError: something is missing, broken, or of a newer format, or a weight is NaN or infinite.
    """
    folder = local_adapter(folder)
    return read_adapter_config(folder), read_weights(folder)


@dataclass(frozen=True)
class WeightsHeader:
    """The header of a safetensors file.

    Args:
        shapes: shape and dtype of each tensor by name; the dtype as safetensors names it, "F32" say.
        config: the adapter's config in the metadata; None if there is none.
    """

    shapes: dict[str, tuple[list[int], str]]
    config: dict[str, Any] | None


def read_header(folder: Path) -> WeightsHeader:
    """The header of a folder's weights.

    Raises:
        CheckpointError: there are no weights, or they are broken.
    """
    file = folder / WEIGHTS_NAME
    if not file.is_file():
        lacking = WEIGHTS_NAME if config_file(folder) else CONFIG_NAME
        raise CheckpointError(f"{folder}: not an adapter folder, it has no {lacking}")
    try:
        with safe_open(file, framework="pt") as opened:
            parts = {key: opened.get_slice(key) for key in opened.keys()}  # noqa: SIM118 - no mapping
            shapes = {key: (list(part.get_shape()), str(part.get_dtype())) for key, part in parts.items()}
            written = (opened.metadata() or {}).get(METADATA)
        config = None if written is None else json.loads(written)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise CheckpointError(shortened(f"{file}: not a readable safetensors file ({error})")) from error
    return WeightsHeader(shapes, config if isinstance(config, dict) else None)


def resolve_config(folder: Path, in_weights: dict[str, Any] | None) -> AdapterFile:
    """The config of an adapter folder: the file's, or the copy in the weights if the file belongs to other weights.

    Args:
        folder: of the adapter.
        in_weights: the copy, see `WeightsHeader`; None in folders of version 0.1.0.

    Raises:
        CheckpointError: the config is missing, broken, or PEFT's.
    """
    file = config_file(folder) or folder / CONFIG_NAME
    if file.is_file() or in_weights is None:
        values = _config_values(file, folder)
        if in_weights is None and "write_id" in values and is_adapter_of_peft(folder):
            raise CheckpointError(
                f"{folder}: {WEIGHTS_NAME} is not the adapter of {file.name}: PEFT has saved one of its own over it"
            )
        if in_weights is not None and values.get("write_id") != in_weights.get("write_id"):
            logger.warning("%s does not belong to the weights beside it, whose own copy is used instead", file)
            values = in_weights
    else:
        logger.warning("%s is missing: the copy in the weights is used", file)
        values = in_weights
    known = {one.name for one in fields(StoredConfig)}
    unknown = sorted(set(values) - known)
    if unknown and "adapter" in values:
        logger.warning("%s: %s: not known to this version, and not used", file, shortened(", ".join(unknown), 100))
    return _from_stored(_checked_config({key: values[key] for key in values if key in known}, file), file)


def _checked_config(values: dict[str, Any], file: Path) -> StoredConfig:
    """The config, validated; raises `CheckpointError`."""
    try:
        return validated(values, StoredConfig, str(file))
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


def _from_stored(stored: StoredConfig, file: Path) -> AdapterFile:
    settings = stored.inference
    if settings is None:  # version 0.1.0 kept two of them in `extra`
        try:
            found = {key: stored.extra[key] for key in ("frames", "answers") if key in stored.extra}
            settings = validated(found, InferenceSettings, f"{file}: extra")
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


def read_weights(folder: Path) -> dict[str, Tensor]:
    """A folder's weights by name.

    Raises:
        CheckpointError: the file is broken, or a weight is NaN or infinite.
    """
    file = folder / WEIGHTS_NAME
    try:
        state = load_file(file)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(shortened(f"{file}: not a readable safetensors file ({error})")) from error
    for name, tensor in state.items():
        if not tensor.isfinite().all():
            raise CheckpointError(
                shortened(
                    f"{file}: {name} holds a number that is NaN or infinite; save the adapter again, or train it again"
                )
            )
    return state


def refuse_peft_adapter(folder: Path) -> None:
    """Raise `CheckpointError` for a folder with an adapter of PEFT, whose weights would be overwritten."""
    if is_adapter_of_peft(folder):
        raise CheckpointError(
            f"{folder}: holds an adapter of PEFT, whose weights have the same name: name another folder"
        )


def is_foreign_card(card: Path) -> bool:
    """Whether a README exists that is not a model card written by this package."""
    try:
        with card.open(encoding="utf-8", errors="replace") as file:
            return MARK not in file.read(10_000)
    except OSError:  # none, most often
        return False
