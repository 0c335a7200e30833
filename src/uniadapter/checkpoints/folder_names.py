"""The names of the files in an adapter's folder, and whose a folder's files are; reads no weights, needs no torch.

The config has a name of its own because transformers and PEFT take any folder with an `adapter_config.json` for one of
PEFT's adapters. Versions before 0.2 wrote ours under that name: it is read where no newer one stands, and goes when the
folder is saved again.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from uniadapter.files.schema import SchemaError, read_json

CONFIG_NAME = "uniadapter_config.json"
LEGACY_CONFIG_NAME = "adapter_config.json"
WEIGHTS_NAME = "adapter_model.safetensors"
CARD_NAME = "README.md"


def config_file(folder: Path) -> Path | None:
    """The config that counts in a folder: ours, else one of the former name, whoever wrote it; None without either."""
    return next((file for file in (folder / CONFIG_NAME, folder / LEGACY_CONFIG_NAME) if file.is_file()), None)


def is_adapter_of_peft(folder: Path) -> bool:
    """Whether PEFT's config stands in a folder, so that the weights there are, or may be, PEFT's."""
    return "peft_type" in _legacy_config(folder)


def has_legacy_config(folder: Path) -> bool:
    """Whether a config of ours stands in a folder under the former name."""
    values = _legacy_config(folder)
    return "peft_type" not in values and "base_model_class" in values


def _legacy_config(folder: Path) -> dict[str, Any]:
    file = folder / LEGACY_CONFIG_NAME
    with suppress(SchemaError, OSError):
        values = read_json(file) if file.is_file() else None  # not of a pipe, which would wait
        if isinstance(values, dict):
            return values
    return {}
