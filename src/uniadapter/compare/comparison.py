"""A comparison: learning rates on validation, then all seeds on test, with means and verdicts.

The arms try as many rates, and see the same samples in the same order. While the best rate of an arm stands at the
edge of its grid, all get one rate more. A finished run is never repeated: its record is named by a hash of config,
seed, base and data. Several processes may work on one comparison at once: each run is done by one of them.
"""

from __future__ import annotations

import json
import logging
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uniadapter.compare.arms import ZERO_SHOT, Arm, untrained, wider, with_training
from uniadapter.compare.curve import Varied
from uniadapter.compare.recipes import recipe
from uniadapter.compare.trials import Record, Trial, Trials, with_steps
from uniadapter.compare.verdicts import Correct, means, verdicts
from uniadapter.config import RunConfig
from uniadapter.errors import UsageError
from uniadapter.files.writing import write_text

MOST_RATES = 8  # in a grid, after which something else than the rate is wrong
logger = logging.getLogger(__name__)


@dataclass
class Comparison:
    """Methods on one task, their records, and where the results go.

    Args:
        arms: by name.
        reference: name of the arm that the others are compared with.
        seeds: how many.
        trials: the records.
        rates_file: of the learning rates.
        results_file: of the figures on test.
        facts: further values of both files, such as hashes of the data.
        again: what to run for the rates, in errors.
        varied: a setting at whose other values the arms are measured too.
    """

    arms: dict[str, Arm]
    reference: str
    seeds: int
    trials: Trials
    rates_file: Path
    results_file: Path
    facts: dict[str, Any] = field(default_factory=dict)
    again: str = "run the comparison of the rates first"
    varied: Varied | None = None

    def machine(self, records: list[Record]) -> dict[str, Any]:
        """Where the numbers of records come from."""
        where = {name: sorted({record[name] for record in records}) for name in ("device", "threads", "torch")}
        return {**{name: found[0] if len(found) == 1 else found for name, found in where.items()}, **self.facts}


def _write(path: Path, values: dict[str, Any]) -> None:
    write_text(path, json.dumps(values, indent=2) + "\n")
    logger.info("wrote %s", path)


def own_grids(task: Comparison) -> dict[str, tuple[float, ...]]:
    """The grids of the arms that have one."""
    return {name: arm.grid for name, arm in task.arms.items() if arm.grid}


def at_rate(config: RunConfig, rate: float, seed: int = 0) -> RunConfig:
    """The config with a learning rate and a seed; the rate at the schedule's end keeps below it."""
    return with_training(config, lr=rate, seed=seed, min_lr=min(config.train.min_lr, rate))


def rate_trials(task: Comparison, grids: dict[str, tuple[float, ...]]) -> dict[str, list[Trial]]:
    """For each arm its runs on validation, all of seed 0."""
    return {
        name: [
            Trial(name, task.arms[name].method, task.arms[name].setting, at_rate(task.arms[name].config, rate), "val")
            for rate in grid
        ]
        for name, grid in grids.items()
    }


def best_rate(rows: list[Record]) -> float:
    """The rate with the best main figure; of several with the same, the middle one."""
    highest = max(row["main"] for row in rows)
    equal = sorted(row["lr"] for row in rows if row["main"] == highest)
    return equal[(len(equal) - 1) // 2]


def find_rates(task: Comparison, run: bool = True) -> None:
    """Measure every arm at every rate on validation, and write the results.

    Args:
        task: of the arms.
        run: False takes the finished runs alone.

    Raises:
        UsageError: a best rate still stands at the edge of a wide grid.
    """
    grids = own_grids(task)
    widened: list[str] = []
    while True:
        trials = rate_trials(task, grids)
        every = [trial for mine in trials.values() for trial in mine]
        if run:
            task.trials.complete(every)
        rows = {name: [row for one in mine if (row := task.trials.find(one))] for name, mine in trials.items()}
        best = {name: best_rate(found) for name, found in rows.items() if found}
        edges = [name for name in best if best[name] in (grids[name][0], grids[name][-1])]
        if not edges or max(map(len, grids.values())) == MOST_RATES:
            break
        more = {name: wider(grid, best[name]) for name, grid in grids.items() if name in best}
        if not run and not all(task.trials.find(one) for mine in rate_trials(task, more).values() for one in mine):
            break
        widened.append(", ".join(edges))
        logger.info("the best rate of %s stands at the edge of the grid: one rate more for every method", widened[-1])
        grids = more
    _write_rates(task, grids, rows, best, widened)
    if run and edges:
        raise UsageError(f"{task.rates_file}: {', '.join(edges)} still at the edge of {MOST_RATES} rates")
    if run:
        task.trials.forget_weights([trial for trial in every if trial.config.train.lr != best[trial.arm]])


def _write_rates(
    task: Comparison,
    grids: dict[str, tuple[float, ...]],
    rows: dict[str, list[Record]],
    best: dict[str, float],
    widened: list[str],
) -> None:
    """Write the rows and what validation chose."""
    chosen: dict[str, dict[str, Any]] = {
        name: {"lr": rate, "edge": rate in (grids[name][0], grids[name][-1])} for name, rate in best.items()
    }
    for name, arm in task.arms.items():
        if arm.rates_of in chosen:
            chosen[name] = {**chosen[arm.rates_of], "rates_of": arm.rates_of}
        if arm.equal_time and rows.get(task.reference) and rows.get(arm.rates_of):
            chosen[name]["steps"] = equal_time_steps(rows[task.reference], rows[arm.rates_of])
    splits = task.trials.splits
    _write(task.rates_file, {
        "split": "val", "seed": 0, **task.machine([row for found in rows.values() for row in found]),
        "recipes": {name: recipe(at_rate(arm.config, 1.0), splits) for name, arm in task.arms.items()},
        "grids": {name: list(grid) for name, grid in grids.items()}, "widened_for": widened,
        "rows": [row for found in rows.values() for row in found], "chosen": chosen,
    })  # fmt: skip


def equal_time_steps(ours: list[Record], others: list[Record]) -> int:
    """The steps of another method that take as long as the reference's, in processor time."""
    mine, theirs = (
        statistics.median(row["train_cpu_seconds"] / row["steps"] for row in rows) for rows in (ours, others)
    )
    return max(1, round(ours[0]["steps"] * mine / theirs))


def chosen_configs(task: Comparison) -> dict[str, RunConfig]:
    """Each arm's config with the rate that validation chose; refuses to read the test split with any other.

    Raises:
        UsageError: the rates are not there, are those of another recipe, base or data, or stand at an edge.
    """
    if not task.rates_file.exists():
        raise UsageError(f"{task.rates_file} is not there: {task.again}")
    found = json.loads(task.rates_file.read_text())
    configs = {}
    for name, arm in task.arms.items():
        if found["recipes"].get(name) != recipe(at_rate(arm.config, 1.0), task.trials.splits):
            raise UsageError(f"{task.rates_file}: {name} was measured with another config, base or data: {task.again}")
        best = found["chosen"].get(name)
        if best is None or best["edge"]:
            raise UsageError(f"{task.rates_file}: no rate within a grid was chosen for {name}: {task.again}")
        config = at_rate(arm.config, best["lr"])
        configs[name] = with_steps(config, best["steps"], task.trials.splits) if "steps" in best else config
    return configs


def _costs(record: Record) -> dict[str, float]:
    """What training took, as far as the record tells."""
    costs = {}
    if "train_seconds" in record:
        costs["train_seconds"] = record["train_seconds"]
    if record.get("memory"):
        costs["peak_memory_bytes"] = record["memory"]["accelerator_memory_max"]
    return costs


def measure_seeds(task: Comparison, run: bool = True) -> dict[str, Any]:
    """Zero-shot once, every arm on every seed, on the test sets; then the means and verdicts, which are written.

    Args:
        task: of the arms.
        run: False takes the finished runs alone.

    Raises:
        UsageError: see `chosen_configs`.
    """
    configs = chosen_configs(task)
    bare = untrained(task.arms[task.reference].config)
    trials = [Trial(ZERO_SHOT, ZERO_SHOT, "", bare, "test")]
    trials += [
        Trial(name, task.arms[name].method, task.arms[name].setting, at_rate(config, config.train.lr, seed), "test")
        for seed in range(task.seeds)
        for name, config in configs.items()
    ]
    if run:
        task.trials.complete(trials)
    rows: list[Record] = []
    found: list[Record] = []
    correct: Correct = {}
    for trial in trials:
        record = task.trials.find(trial)
        if record is None:
            continue
        found.append(record)
        named: Record = {"arm": trial.arm, "method": trial.method} | (
            {"setting": trial.setting} if trial.setting else {}
        )
        named |= {"lr": record["lr"], "steps": record.get("steps", 0)} | _costs(record)
        # Another comparison may have made the record, and have called its arm otherwise.
        rows += [{**{key: value for key, value in row.items() if key != "setting"}, **named} for row in record["rows"]]
        for name, values in task.trials.correct(trial).items():
            correct.setdefault(name, {}).setdefault(trial.arm, []).append(values)
    results = {
        "task": bare.task, **task.machine(found), "rows": rows, "means": means(correct),
        "verdicts": verdicts(correct, task.reference),
    }  # fmt: skip
    if task.varied:
        results["vary"] = task.varied.to_dict(results["means"], correct, task.reference)
    _write(task.results_file, results)
    return results
