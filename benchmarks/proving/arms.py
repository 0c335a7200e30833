"""What is compared on an embedded task: arms, the learning rates that each tries, and seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from uniadapter.app.ablation import (
    FUSED_PART_ALONE,
    WITHOUT_FUSED_PART,
    fused_part_alone,
    has_fused_part,
    without_fused_part,
)
from uniadapter.app.demo import DEMOS, demo_config
from uniadapter.config import AdapterConfig, RunConfig, TrainConfig

Change = Callable[[RunConfig], RunConfig]

ADAPTER_RATES = (1e-3, 3e-3, 1e-2, 3e-2)
FULL_RATES = (1e-4, 3e-4, 1e-3, 3e-3)
EVERYTHING, FULL, EQUAL_TIME = "uniadapter", "full_fine_tuning", "equal_time"


@dataclass(frozen=True)
class Arm:
    """A method, or a variant of one, in a comparison.

    Args:
        method: in the results' rows.
        setting: of the rows; "" for the method itself.
        config: of its runs; rate, seed and number of steps are set for each run.
        grid: the learning rates that it tries; empty if it takes another arm's.
        rates_of: the arm whose chosen rate it takes.
    """

    method: str
    setting: str
    config: RunConfig
    grid: tuple[float, ...] = ()
    rates_of: str = ""


@dataclass(frozen=True)
class Proof:
    """How a task is proven.

    Args:
        suffix: of the results' names.
        seeds: how many, 0 to n - 1, fixed beforehand.
        parts: parts of UniAdapter beside the fused one that are left out, one at a time.
    """

    suffix: str
    seeds: int
    parts: tuple[str, ...] = ()


PROOFS = {
    "scenes": Proof("", 5),
    "video": Proof("-video", 3, ("frame-aware attention", "temporal embedding")),
    "vqa": Proof("-vqa", 5),
    "videoqa": Proof("-videoqa", 3),
    "caption": Proof("-caption", 3),
    "easy_vqa": Proof("-easy-vqa", 3),
}


def with_adapter(config: RunConfig, **changes: Any) -> RunConfig:
    """The config with changed adapter settings."""
    return replace(config, model=replace(config.model, adapter=replace(config.model.adapter, **changes)))


def with_training(config: RunConfig, **changes: Any) -> RunConfig:
    """The config with changed `train` settings."""
    return replace(config, train=replace(config.train, **changes))


def untrained(config: RunConfig) -> RunConfig:
    """The config that evaluates the base as it is; the same whatever is trained beside it."""
    bare = config.untrained()
    return replace(bare, model=replace(bare.model, adapter=AdapterConfig()), train=TrainConfig())


def task_arms(task: str, steps: int = 0) -> dict[str, Arm]:
    """The arms of an embedded task by name.

    Args:
        task: one of `PROOFS`.
        steps: of every run; 0 takes those of the configs.
    """
    configs = {method: demo_config(task, method, 0) for method in DEMOS[task].configs}
    if steps:
        configs = {method: with_training(config, max_steps=steps) for method, config in configs.items()}
    return make_arms(configs, PROOFS[task].parts)


def make_arms(configs: dict[str, RunConfig], parts: tuple[str, ...] = ()) -> dict[str, Arm]:
    """The arms of a task by name: everything, with and without its parts, full fine-tuning, and the question alone.

    Args:
        configs: of "uniadapter", "full_fine_tuning" and perhaps "question_only".
        parts: see `Proof`; what the config does not switch on cannot be left out, and is no arm.
    """
    config, full = configs[EVERYTHING], configs[FULL]
    adapter = config.model.adapter
    arms = {EVERYTHING: Arm(EVERYTHING, "", config, ADAPTER_RATES)}
    if has_fused_part(config):
        arms["without_fused"] = Arm(EVERYTHING, WITHOUT_FUSED_PART, without_fused_part(config), ADAPTER_RATES)
    if adapter.cross:
        arms["fused_alone"] = Arm(EVERYTHING, FUSED_PART_ALONE, fused_part_alone(config), ADAPTER_RATES)
    # What has no parameters, or five vectors, leaves the best rate where it is.
    if "frame-aware attention" in parts and adapter.frame_aware:
        less = with_adapter(config, frame_aware=False)
        arms["without_frame_aware"] = Arm(EVERYTHING, "without frame-aware attention", less, rates_of=EVERYTHING)
    if "temporal embedding" in parts and adapter.temporal_frames:
        less = with_adapter(config, temporal_frames=0)
        arms["without_temporal"] = Arm(EVERYTHING, "without temporal embedding", less, rates_of=EVERYTHING)
    arms[FULL] = Arm(FULL, "", full, FULL_RATES)
    arms[EQUAL_TIME] = Arm(FULL, "equal time", full, rates_of=FULL)
    if "question_only" in configs:
        arms["question_only"] = Arm("question_only", "", configs["question_only"], rates_of=EVERYTHING)
    return arms


def next_rate(rate: float, up: bool) -> float:
    """The next learning rate in 1, 3, 10, 30, …; a factor of about 3 away."""
    digit, exponent = f"{rate:.0e}".split("e")
    if digit not in ("1", "3"):
        raise ValueError(f"a learning rate of {rate:g} is not 1 or 3 times a power of ten")
    if up:
        return float(f"3e{exponent}") if digit == "1" else float(f"1e{int(exponent) + 1}")
    return float(f"1e{exponent}") if digit == "3" else float(f"3e{int(exponent) - 1}")


def wider(grid: tuple[float, ...], best: float) -> tuple[float, ...]:
    """The grid with one rate more, on the side on which its best rate stands."""
    up = 2 * grid.index(best) >= len(grid)
    return (*grid, next_rate(grid[-1], True)) if up else (next_rate(grid[0], False), *grid)
