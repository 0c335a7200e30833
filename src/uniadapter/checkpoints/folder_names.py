"""File names in an adapter folder, and whether it is this package's or PEFT's; needs no torch.

The config is called `uniadapter_config.json` because transformers and PEFT take a folder with `adapter_config.json` for
an adapter of PEFT. Versions before 0.2 used that name: it is read if there is no newer file, and removed when the
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
    """The config in a folder: `uniadapter_config.json`, else `adapter_config.json`, else None."""
    return next((file for file in (folder / CONFIG_NAME, folder / LEGACY_CONFIG_NAME) if file.is_file()), None)


def is_adapter_of_peft(folder: Path) -> bool:
    """Whether a folder has PEFT's config, so that its weights may be PEFT's."""
    return "peft_type" in _legacy_config(folder)


def has_legacy_config(folder: Path) -> bool:
    """Whether a folder has a config of this package under the name of versions before 0.2."""
    values = _legacy_config(folder)
    return "peft_type" not in values and "base_model_class" in values


def _legacy_config(folder: Path) -> dict[str, Any]:
    file = folder / LEGACY_CONFIG_NAME
    with suppress(SchemaError, OSError):
        values = read_json(file) if file.is_file() else None  # not a pipe, which would block
        if isinstance(values, dict):
            return values
    return {}
