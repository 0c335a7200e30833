"""Which model an evaluation is about, and which folder its results are written to."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from uniadapter.checkpoints.folder_names import CONFIG_NAME, WEIGHTS_NAME, config_file
from uniadapter.checkpoints.locating import locate_adapter
from uniadapter.config import RunConfig
from uniadapter.embedded import resolve_embedded
from uniadapter.files.schema import SchemaError, read_json
from uniadapter.files.writing import file_hash
from uniadapter.training.run_folder import LOCK, RESULTS

logger = logging.getLogger(__name__)

EVALUATIONS = "evaluations"  # subfolder for results, if the output folder contains others
OWN = ("metrics.json", "predictions.jsonl", "vqa_results.json")  # files that an evaluation writes
METHOD_KEY = "uniadapter_method"  # key in the config.json of a model that was trained itself, without adapters
# Beside that model: what was trained of it, by the names that it has while it is trained.
TRAINED = "trained.safetensors"
# Fields of the config that do not change the results, only their place or the speed; () means the whole section.
_WITHOUT_EFFECT = {"output": (), "train": (), "model": ("method", "adapter", "checkpoint_vision", "frame_chunk"),
          "data": ("workers", "timeout"), "evaluate": ("batch_size", "block", "features")}  # fmt: skip


def resolve_source(config: RunConfig, source: Path | str | None) -> tuple[RunConfig, Path | None]:
    """The base and the adapter of a folder: an adapter folder, a fully fine-tuned model's, or a run's.

    Args:
        config: names the base, unless the folder is a fully fine-tuned model.
        source: the folder, `embedded:NAME`, or an address elsewhere; None means the base
            alone.

    Returns:
        The config with the base to load, and the adapter folder, or None.
    """
    place = locate_adapter(source) if source else None
    if place is not None and not config_file(place):
        for folder in (place / "adapter", place / "model", place):
            if config_file(folder):
                return config, folder
            if (folder / "config.json").is_file():
                return replace(config, model=replace(config.model, base=str(folder))), None
    return config, place


def method_of(config: RunConfig, adapter: Path | None) -> str:
    """The method's name in `metrics.json`, as far as it can be told before the model is loaded."""
    if adapter is not None:
        return "uniadapter"
    try:
        described = read_json(Path(config.model.base) / "config.json")
    except (OSError, SchemaError):
        return "zero_shot"
    return str(described.get(METHOD_KEY, "zero_shot")) if isinstance(described, dict) else "zero_shot"


def evaluation_identity(
    config: RunConfig, adapter: Path | None, which: str, stated: Collection[str] | None = None
) -> dict[str, Any]:
    """All that the results of an evaluation depend on; equal values mean equal results.

    Args:
        config: as the user gave it.
        adapter: the adapter folder.
        which: name of the split.
        stated: keys of the config that the user wrote, which take precedence over the adapter's settings.

    Returns:
        JSON values.
    """
    values = config.to_dict()
    for section, names in _WITHOUT_EFFECT.items():
        if names:
            values[section] = {name: value for name, value in values[section].items() if name not in names}
        else:
            values.pop(section)
    named = config.data.extra_tests.get(which) or getattr(config.data, which, None)
    values |= {"split": which, "annotations": _content(resolve_embedded(named)) if named else None}
    if adapter is not None:
        files = [_content(file) for file in (adapter / WEIGHTS_NAME, config_file(adapter) or adapter / CONFIG_NAME)]
        relevant = [key for key in stated or () if _affects_figures(*key.split(".", 1))]
        values |= {"adapter": files, "stated": None if stated is None else sorted(relevant)}
    weights = sorted(Path(config.model.base).glob("*.safetensors")) if Path(config.model.base).is_dir() else []
    values |= {"base": [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in weights]}
    return values


def results_folder(
    config: RunConfig, adapter: Path | None, which: str, stated: Collection[str] | None = None
) -> tuple[Path, str]:
    """The folder for the results of an evaluation, which contains no others.

    It is `config.output` if that has no results, or those of the same evaluation; else a subfolder.

    Returns:
        The folder, and a short hash of the evaluation, which is written to its `metrics.json`.
    """
    content = json.dumps(evaluation_identity(config, adapter, which, stated), sort_keys=True)
    digest = hashlib.sha256(content.encode()).hexdigest()[:8]
    output = Path(config.output)
    held = [name for name in {*OWN, *RESULTS, LOCK, "report.html"} if (output / name).exists()]
    if not held or _evaluation_in(output, held) == digest:
        return output, digest
    folder = output / EVALUATIONS / f"{which}-{method_of(config, adapter)}-{digest}"
    what = "another evaluation" if _evaluation_in(output, held) else "a run"
    logger.info("%s holds %s: the results of this evaluation go to %s", output, what, folder)
    return folder, digest


def _affects_figures(section: str, name: str = "") -> bool:
    """Whether a field of the config may change the results."""
    return section in ("model", "data", "evaluate") and name.split(".")[0] not in ("", *_WITHOUT_EFFECT[section])


def _evaluation_in(output: Path, held: list[str]) -> str | None:
    """The hash of the evaluation whose results a folder contains; None if it contains others."""
    if set(held) - set(OWN):
        return None
    try:
        found = read_json(output / "metrics.json")
    except (OSError, SchemaError):
        return None
    return found.get("evaluation") if isinstance(found, dict) else None


def _content(file: Path | str) -> str:
    """A file's hash, or its name if it is not a file; reading it later raises the error."""
    return file_hash(file) if os.path.isfile(file) else str(file)
