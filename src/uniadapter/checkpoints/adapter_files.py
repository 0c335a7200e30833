"""What stands in an adapter's folder: its config, checked, and its weights.

The config stands twice: in `uniadapter_config.json`, and in the metadata of the weights. Where the file is missing or
of another write than the weights, theirs counts.
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
from uniadapter.checkpoints.folder_names import CONFIG_NAME, WEIGHTS_NAME, config_file, is_adapter_of_peft
from uniadapter.config import AdapterConfig
from uniadapter.errors import CheckpointError
from uniadapter.files.messages import shortened
from uniadapter.files.schema import SchemaError, checked, read_json
from uniadapter.model.families import families
from uniadapter.model.identity import BaseIdentity
from uniadapter.model.settings import NO_SETTINGS, InferenceSettings
from uniadapter.version import __version__

logger = logging.getLogger(__name__)

TaskName = Literal["retrieval", "vqa", "caption"]
TASK_OF_CLASS: dict[str, TaskName] = {
    name: cast(TaskName, task) for family in families().values() for task, name in family.classes.items()
}
METADATA = "uniadapter"  # key of the config in the weights' metadata


@dataclass
class AdapterFile:
    """What stands in an adapter's `uniadapter_config.json`.

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
class StoredConfig:
    """The keys of `uniadapter_config.json`."""

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
    """What an adapter folder says of itself; its weights are not read.

    Raises:
        CheckpointError: something is missing, broken, or of a newer form.
    """
    return resolve_config(Path(folder).expanduser(), read_header(Path(folder).expanduser()).config)


def read_adapter_file(folder: Path | str) -> tuple[AdapterFile, dict[str, Tensor]]:
    """Config and weights of an adapter folder.

    Raises:
        CheckpointError: something is missing, broken, or of a newer form; or a weight is no finite number.
    """
    return read_adapter_config(folder), read_weights(Path(folder).expanduser())


@dataclass(frozen=True)
class WeightsHeader:
    """What a weights' file says before its tensors: their shapes and kinds by name, and the config in its metadata."""

    shapes: dict[str, tuple[list[int], str]]
    config: dict[str, Any] | None


def read_header(folder: Path) -> WeightsHeader:
    """The header of a folder's weights; no tensor is read. Raises `CheckpointError`."""
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
    """From a folder's config, or from the weights' own copy of it where the file belongs to other weights."""
    file = config_file(folder) or folder / CONFIG_NAME
    if file.is_file() or in_weights is None:
        values = _config_values(file, folder)
        if in_weights is None and "write_id" in values and is_adapter_of_peft(folder):
            raise CheckpointError(
                f"{folder}: {WEIGHTS_NAME} is not the adapter of {file.name}: PEFT has saved one of its own over it"
            )
        if in_weights is not None and values.get("write_id") != in_weights.get("write_id"):
            logger.warning("%s is of another write than the weights beside it, which carry their own: used that", file)
            values = in_weights
    else:
        logger.warning("%s is missing: used what the weights say", file)
        values = in_weights
    known = {one.name for one in fields(StoredConfig)}
    unknown = sorted(set(values) - known)
    if unknown and "adapter" in values:
        logger.warning("%s: %s: not known to this version, and not used", file, shortened(", ".join(unknown), 100))
    return _from_stored(_checked_config({key: values[key] for key in values if key in known}, file), file)


def _checked_config(values: dict[str, Any], file: Path) -> StoredConfig:
    """The config's values as what they should be, or a `CheckpointError`."""
    try:
        return checked(values, StoredConfig, str(file))
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


def read_weights(folder: Path) -> dict[str, Tensor]:
    """A folder's weights, all of them finite. Raises `CheckpointError`."""
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


def refuse_peft_adapter(folder: Path) -> None:
    """Raise where an adapter of PEFT stands, whose weights ours would replace."""
    if is_adapter_of_peft(folder):
        raise CheckpointError(
            f"{folder}: holds an adapter of PEFT, whose weights have the same name: name another folder"
        )


def is_foreign_card(card: Path) -> bool:
    """Whether a README stands there that no adapter's writing made: a project's own, say."""
    try:
        with card.open(encoding="utf-8", errors="replace") as file:
            return MARK not in file.read(10_000)
    except OSError:  # none, most often
        return False
