"""Whether a config is compatible with its base and its data: errors, and warnings of probable mistakes; no torch."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from uniadapter.checkpoints.bases import CONFIG
from uniadapter.config import SPLITS, RunConfig
from uniadapter.errors import ConfigError
from uniadapter.files.assets import asset_path
from uniadapter.files.messages import suggestion
from uniadapter.files.schema import SchemaError, read_json
from uniadapter.model.families import Family, families, family_of

FEW_STEPS = 20  # fewer hardly change an adapter


@dataclass(frozen=True)
class BaseSizes:
    """Sizes of a base that limit a config.

    Args:
        patch: side of a patch in pixels.
        positions: most tokens of a text.
        family: of the base.
    """

    patch: int
    positions: int
    family: Family

    @classmethod
    def of_folder(cls, base: str) -> BaseSizes | None:
        """The sizes in the `config.json` of a local folder; None if there is no such file, or it lacks them."""
        folder = asset_path("backbone") if base == "embedded" else Path(base)
        try:
            described = read_json(folder / CONFIG)
            family = family_of(described.get("model_type"))
        except (OSError, SchemaError, LookupError, TypeError, AttributeError):
            return None
        patch, positions = (family.size(described, keys) for keys in (family.patch, family.positions))
        return cls(patch, positions, family) if patch and positions else None


def check_fits(config: RunConfig, sizes: BaseSizes) -> list[str]:
    """Check a config against its base.

    Args:
        config: of the run.
        sizes: of the base.

    Returns:
        Warnings, a line each.

    Raises:
        ConfigError: pictures are smaller than a patch, texts longer than the base's positions, or the base's family
            does not support a setting.
    """
    check_family(config, sizes.family)
    size, settings = config.model.image_size, config.evaluate
    if size is not None and size < sizes.patch:
        raise ConfigError(f"model.image_size is {size}: smaller than the base's patches of {sizes.patch} pixels")
    if config.model.max_tokens > sizes.positions:
        raise ConfigError(f"model.max_tokens is {config.model.max_tokens}: the base has {sizes.positions} positions")
    writes = config.task == "caption" or (config.task == "vqa" and settings.answers == "generate")
    if writes and settings.longest > sizes.positions:
        raise ConfigError(f"evaluate.longest is {settings.longest}: the base has {sizes.positions} positions")
    if size is not None and size % sizes.patch:
        cut = f"the last {size % sizes.patch} pixels of every row and column are not seen"
        near = size // sizes.patch * sizes.patch
        return [f"model.image_size is {size}, no multiple of the base's patches: {cut}; {near} would show all"]
    return []


def check_family(config: RunConfig, family: Family) -> None:
    """Raise `ConfigError`, which says what to set, for settings that a family does not support."""
    model, objective, evaluate = config.model, config.objective, config.evaluate
    if config.task not in family.classes:
        able = [one.title for one in families().values() if config.task in one.classes]
        raise ConfigError(
            f"task is {config.task}: {model.base[-60:]} is a {family.title}, which has no model for it; choose a base "
            f"of {' or '.join(able)} (see `uniadapter families`)"
        )
    if model.method == "uniadapter" and model.adapter.self_attention and "self_attention" not in family.covered:
        raise ConfigError(f"{family.title} has no adapters in self-attention: set model.adapter.self_attention to 0")
    remedies = []
    if not family.fuses:
        remedies += ["objective.matching false"] if objective.matching and model.method != "none" else []
        remedies += ["evaluate.k 0"] if evaluate.k else []
        remedies += ["model.adapter.temporal_frames 0"] if model.adapter.temporal_frames else []
    if remedies and config.task == "retrieval":
        raise ConfigError(
            f"{family.title} has no fused encoder, so nothing to match or rerank with: set {', '.join(remedies)}"
        )


def check_fits_folder(config: RunConfig) -> None:
    """As `check_fits`, before torch is imported or data are read; only for a base in a local folder."""
    sizes = BaseSizes.of_folder(config.model.base)
    if sizes is not None:
        check_fits(config, sizes)


def check_split(config: RunConfig, which: str) -> None:
    """Raise `ConfigError` for a split that does not exist or has no file in the config."""
    known = [*SPLITS, *config.data.extra_tests]
    if which not in known:
        raise ConfigError(f"there is no split {which[:60]!r}{suggestion(which, known)}")
    if which in SPLITS and getattr(config.data, which) is None:
        raise ConfigError(f"data.{which} is not set: name an annotation file in the config or with --data.{which}")


def missing_files(config: RunConfig) -> dict[str, str]:
    """Names of the settings whose file is missing, of those beside the annotations, with what is wrong."""
    data = config.data
    named = {name: getattr(data, name) for name in ("captions", "answer_list", "root")}
    named |= {f"annotations.{split}": file for split, file in data.annotations.items()}
    return {
        f"data.{name}": f"data.{name} is {file}: no such file or folder"
        for name, file in named.items()
        if file is not None and "://" not in file and not file.startswith("embedded:") and not os.path.exists(file)
    }


def check_files(config: RunConfig) -> None:
    """Raise `ConfigError` for a missing file beside the annotations, which some layouts would not notice."""
    for message in missing_files(config).values():
        raise ConfigError(message)


def training_warnings(config: RunConfig, rows: int, steps: int) -> list[str]:
    """Warnings of probable mistakes in the length of a training run, a line each.

    Args:
        config: of the run.
        rows: number of samples of the training split.
        steps: number of optimiser steps.
    """
    train, lines = config.train, []
    if rows < train.batch_size:
        lines.append(
            f"data.train has {rows} rows, fewer than train.batch_size, {train.batch_size}: each step sees them all"
        )
    if steps <= train.warmup_steps:
        lines.append(
            f"train.warmup_steps is {train.warmup_steps} and the run has {steps} steps: the rate never reaches train.lr"
        )
    if steps < FEW_STEPS:
        lines.append(f"{steps} steps hardly change an adapter: raise train.epochs (and train.max_steps)")
    return lines


def remaining_embedded_splits(config: RunConfig) -> list[str]:
    """Warnings, a line each, about splits of an embedded task that are left in a config with other training data."""
    data, lines = config.data, []
    own = not str(data.train).startswith("embedded:")
    for name in ("val", "test"):
        file = getattr(data, name)
        if own and file is not None and file.startswith("embedded:"):
            lines.append(f"data.{name} is still {file}, and data.train is your own: set data.{name}, or null for none")
    for name, file in data.extra_tests.items():
        if own and file.startswith("embedded:"):
            lines.append(f"data.extra_tests.{name} is still {file}: set --data.extra_tests {{}} for none")
    return lines
