"""A tiny task for the tests of `uniadapter compare` and of the long proof, `benchmarks/prove.py`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from squares import karpathy, save_base
from uniadapter.app.parsing import read_comparison
from uniadapter.compare.arms import Arm, make_arms
from uniadapter.compare.comparison import Comparison
from uniadapter.compare.trials import Trials
from uniadapter.config import CompareConfig, RunConfig
from uniadapter.files.schema import validated

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
result_tables = pytest.importorskip("result_tables", reason="benchmarks/ is not here")

EQUAL_TIME, EVERYTHING, FULL = "equal_time", "uniadapter", "full_fine_tuning"
ARMS = (EVERYTHING, "without_fused", FULL, EQUAL_TIME)
GRIDS = {name: (1e-4, 3e-4, 1e-3) for name in (EVERYTHING, "without_fused", FULL)}


def tiny_configs(folder: Path) -> dict[str, RunConfig]:
    """UniAdapter and full fine-tuning on eight squares, two epochs of four steps."""
    base = folder / "base"
    if not base.exists():
        save_base(base)
    files = karpathy(folder, "tiny")
    shared: dict[str, Any] = {
        "data": {**files, "extra_tests": {"novel": files["test"]}, "root": str(folder), "workers": 0},
        "objective": {"queue_size": 0, "momentum": 0, "alpha": 0},
        "train": {"epochs": 2, "batch_size": 4, "schedule": "cosine", "log_every": 1},
        "evaluate": {"k": 4},
    }
    adapter = {"bottleneck": 8, "key_value": 4, "frame_aware": True, "temporal_frames": 2}
    models: dict[str, Any] = {EVERYTHING: {"adapter": adapter}, FULL: {"method": "full"}}
    return {
        name: validated({**shared, "model": {"base": str(base), **model}}, RunConfig, "a test's config")
        for name, model in models.items()
    }


def tiny_arms(configs: Mapping[str, RunConfig], name: str = "scenes") -> dict[str, Arm]:
    """The arms of a comparison that comes with the package, of tiny configs."""
    config: CompareConfig = read_comparison(name)
    return make_arms(config, lambda run: configs[FULL if run.endswith("_full") else EVERYTHING])


def tiny_task(folder: Path, only: tuple[str, ...] = (), **grids: tuple[float, ...]) -> Comparison:
    """A task with these arms and grids, whose records lie in `folder/cache`."""
    made = {name: arm for name, arm in tiny_arms(tiny_configs(folder)).items() if not only or name in only}
    made = {name: replace(arm, grid=grids.get(name, arm.grid)) for name, arm in made.items()}
    out = folder / "results"
    files = out / "rates" / "tiny.json", out / "compare" / "tiny.json"
    return Comparison(made, EVERYTHING, 2, Trials(folder / "cache"), *files)
