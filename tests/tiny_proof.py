"""A tiny task for the tests of the long proof, `benchmarks/prove.py`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from squares import karpathy, save_base
from uniadapter.config import RunConfig
from uniadapter.files.schema import validated

sys.path.append(str(Path(__file__).parents[1] / "benchmarks"))
prove = pytest.importorskip("prove", reason="benchmarks/ is not here")

import result_tables  # noqa: E402 - behind the skip
from proving import arms, trials, verdicts  # noqa: E402

__all__ = [
    "ARMS", "EQUAL_TIME", "EVERYTHING", "FULL", "GRIDS", "arms", "prove", "result_tables", "tiny_configs", "tiny_task",
    "trials", "verdicts",
]  # fmt: skip
EQUAL_TIME, EVERYTHING, FULL = arms.EQUAL_TIME, arms.EVERYTHING, arms.FULL

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


def tiny_task(folder: Path, only: tuple[str, ...] = (), **grids: tuple[float, ...]) -> Any:
    """A task with these arms and grids, whose records lie in `folder/cache`."""
    made = arms.make_arms(tiny_configs(folder))
    made = {name: arm for name, arm in made.items() if not only or name in only}
    made = {name: replace(arm, grid=grids.get(name, arm.grid)) for name, arm in made.items()}
    return prove.Task("scenes", made, 2, trials.Trials(folder / "cache"), folder / "results", "-tiny")
