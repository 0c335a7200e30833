"""Whether a config fits its base and its data: errors for what cannot be, warnings for what is hardly meant."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from uniadapter.checkpoints.bases import CONFIG
from uniadapter.config import SPLITS, RunConfig
from uniadapter.errors import ConfigError
from uniadapter.files.assets import asset
from uniadapter.files.messages import names_like
from uniadapter.files.schema import SchemaError, read_json
from uniadapter.model.families import Family, families, family_of

FEW_STEPS = 20  # fewer hardly move an adapter away from its start


@dataclass(frozen=True)
class BaseSizes:
    """What of a base limits a config.

    Args:
        patch: side of a patch in pixels.
        positions: of the text encoder and decoder, in tokens.
        family: of the base.
    """

    patch: int
    positions: int
    family: Family

    @classmethod
    def of_folder(cls, base: str) -> BaseSizes | None:
        """From the `config.json` of a folder on this machine, without torch; None where there is none such."""
        folder = asset("backbone") if base == "embedded" else Path(base)
        try:
            described = read_json(folder / CONFIG)
            family = family_of(described.get("model_type"))
        except (OSError, SchemaError, LookupError, TypeError, AttributeError):
            return None
        patch, positions = (family.size(described, keys) for keys in (family.patch, family.positions))
        return cls(patch, positions, family) if patch and positions else None


def check_fits(config: RunConfig, sizes: BaseSizes) -> list[str]:
    """Check what depends on the base.

    Returns:
        Warnings, a line each.

    Raises:
        ConfigError: pictures smaller than a patch, texts longer than the base's positions, or what the base's family
            cannot do.
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
    """Raise `ConfigError`, in one line with what to set, for what a family of models cannot do."""
    model, objective, evaluate = config.model, config.objective, config.evaluate
    if config.task not in family.classes:
        able = [one.title for one in families().values() if config.task in one.classes]
        raise ConfigError(
            f"task is {config.task}: {model.base[-60:]} is a {family.title}, which has no model for it; choose a base "
            f"of {' or '.join(able)} (see `uniadapter families`)"
        )
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
    """The same before torch is imported or data are read, where the base's description is on this machine."""
    sizes = BaseSizes.of_folder(config.model.base)
    if sizes is not None:
        check_fits(config, sizes)


def check_split(config: RunConfig, which: str) -> None:
    """Raise `ConfigError` for a split that the config does not know, or has no file of."""
    known = [*SPLITS, *config.data.extra_tests]
    if which not in known:
        raise ConfigError(f"there is no split {which[:60]!r}{names_like(which, known)}")
    if which in SPLITS and getattr(config.data, which) is None:
        raise ConfigError(f"data.{which} is not set: name an annotation file in the config or with --data.{which}")


def check_files(config: RunConfig) -> None:
    """Raise `ConfigError` for a file beside the annotations that is not there; a layout may never ask for it."""
    data = config.data
    named = {name: getattr(data, name) for name in ("captions", "answer_list", "root")}
    named |= {f"annotations.{split}": file for split, file in data.annotations.items()}
    for name, file in named.items():
        if file is not None and "://" not in file and not file.startswith("embedded:") and not os.path.exists(file):
            raise ConfigError(f"data.{name} is {file}: there is nothing of that name")


def training_warnings(config: RunConfig, rows: int, steps: int) -> list[str]:
    """What is hardly meant about a training run, a line each.

    Args:
        config: the run's.
        rows: of the training split.
        steps: of the run.
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
    """Which splits are still those of an embedded task, where the training data are one's own; a line each."""
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
