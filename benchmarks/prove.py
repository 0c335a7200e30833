"""The long proof of an embedded task: learning rates on validation, then seeds on the test split.

    python benchmarks/prove.py scenes rates   results/learning-rates.json: each arm at each rate, seed 0, validation
    python benchmarks/prove.py scenes seeds   results/demo.json: all seeds with the chosen rates, test
    python benchmarks/prove.py scenes         both; also of video, vqa, videoqa, caption and easy_vqa
    python benchmarks/prove.py all            all six
    python benchmarks/prove.py all results    writes what is finished, and runs nothing

The arms: UniAdapter; UniAdapter without the fused part, and the fused part alone, at equal trainable parameters; full
fine-tuning, at equal samples and at equal time; for questions the question alone. All try as many rates, and see the
same samples in the same order. While the best rate of an arm stands at the edge of its grid, all get one rate more.

A finished run is never repeated: its record lies in `results/records`, named by a hash of config, seed, base and data.
Several processes may prove the same task, or different ones, at once: each run is done by one of them.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from proving.arms import EQUAL_TIME, EVERYTHING, FULL, PROOFS, Arm, task_arms, untrained, wider, with_training
from proving.trials import Record, Splits, Trial, Trials, recipe, with_steps
from proving.verdicts import Correct, means, verdicts

from uniadapter.app.demo import DEMOS
from uniadapter.app.display import set_up_logging
from uniadapter.app.memory import keep_freed_memory
from uniadapter.config import RunConfig
from uniadapter.files.assets import asset_path
from uniadapter.files.writing import write_text

ROOT = Path(__file__).parents[1]
RESULTS, RECORDS, CACHE = ROOT / "results", ROOT / "results" / "records", ROOT / ".cache" / "prove"
MOST_RATES = 8  # in a grid, after which something else than the rate is wrong
logger = logging.getLogger("uniadapter.prove")


@dataclass
class Task:
    """A task with its arms, its records, and where its results go.

    Args:
        name: one of `PROOFS`.
        arms: by name.
        seeds: how many.
        trials: the records.
        out: folder of the results.
        suffix: of their names.
        assets: folder of the assets that the data are made from; "" for none.
    """

    name: str
    arms: dict[str, Arm]
    seeds: int
    trials: Trials
    out: Path
    suffix: str
    assets: str = ""

    @property
    def rates_file(self) -> Path:
        """Of the learning rates."""
        return self.out / f"learning-rates{self.suffix}.json"

    def machine(self, records: list[Record]) -> dict[str, Any]:
        """Where the numbers of records come from."""
        where = {name: sorted({record[name] for record in records}) for name in ("device", "threads", "torch")}
        listing = (asset_path(self.assets) / "SPLIT_SHA256").read_text().splitlines() if self.assets else []
        return {
            **{name: found[0] if len(found) == 1 else found for name, found in where.items()},
            "split_sha256": {name: digest for digest, name in map(str.split, listing) if name.endswith(".jsonl")},
        }


def write(path: Path, values: dict[str, Any]) -> None:
    """Write a result."""
    write_text(path, json.dumps(values, indent=2) + "\n")
    logger.info("wrote %s", path)


def own_grids(task: Task) -> dict[str, tuple[float, ...]]:
    """The grids of the arms that have one."""
    return {name: arm.grid for name, arm in task.arms.items() if arm.grid}


def at_rate(config: RunConfig, rate: float, seed: int = 0) -> RunConfig:
    """The config with a learning rate and a seed; the rate at the schedule's end keeps below it."""
    return with_training(config, lr=rate, seed=seed, min_lr=min(config.train.min_lr, rate))


def rate_trials(task: Task, grids: dict[str, tuple[float, ...]]) -> dict[str, list[Trial]]:
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


def find_rates(task: Task, run: bool = True) -> None:
    """Measure every arm at every rate on validation, and write the results.

    Args:
        task: of the arms.
        run: False takes the finished runs alone.

    Raises:
        SystemExit: a best rate still stands at the edge of a wide grid.
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
        logger.info("the best rate of %s stands at the edge of the grid: one rate more for every arm", widened[-1])
        grids = more
    write_rates(task, grids, rows, best, widened)
    if run and edges:
        raise SystemExit(f"{task.rates_file}: {', '.join(edges)} still at the edge of {MOST_RATES} rates")
    if run:
        task.trials.forget_weights([trial for trial in every if trial.config.train.lr != best[trial.arm]])


def write_rates(
    task: Task,
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
    if EQUAL_TIME in chosen and EVERYTHING in rows and rows[EVERYTHING]:
        chosen[EQUAL_TIME]["steps"] = equal_time_steps(rows[EVERYTHING], rows[FULL])
    splits = task.trials.splits
    write(task.rates_file, {
        "split": "val", "seed": 0, **task.machine([row for found in rows.values() for row in found]),
        "recipes": {name: recipe(at_rate(arm.config, 1.0), splits) for name, arm in task.arms.items()},
        "grids": {name: list(grid) for name, grid in grids.items()}, "widened_for": widened,
        "rows": [row for found in rows.values() for row in found], "chosen": chosen,
    })  # fmt: skip


def equal_time_steps(ours: list[Record], full: list[Record]) -> int:
    """The steps of full fine-tuning that take as long as UniAdapter's, in processor time."""
    mine, theirs = (statistics.median(row["train_cpu_seconds"] / row["steps"] for row in rows) for rows in (ours, full))
    return max(1, round(ours[0]["steps"] * mine / theirs))


def chosen_configs(task: Task) -> dict[str, RunConfig]:
    """Each arm's config with the rate that validation chose; refuses to read the test split with any other.

    Raises:
        SystemExit: the rates are not there, are those of another recipe, base or data, or stand at an edge.
    """
    again = f"run `prove.py {task.name} rates` first"
    if not task.rates_file.exists():
        raise SystemExit(f"{task.rates_file} is not there: {again}")
    found = json.loads(task.rates_file.read_text())
    configs = {}
    for name, arm in task.arms.items():
        if found["recipes"].get(name) != recipe(at_rate(arm.config, 1.0), task.trials.splits):
            raise SystemExit(f"{task.rates_file}: {name} was measured with another config, base or data: {again}")
        best = found["chosen"].get(name)
        if best is None or best["edge"]:
            raise SystemExit(f"{task.rates_file}: no rate within a grid was chosen for {name}: {again}")
        config = at_rate(arm.config, best["lr"])
        configs[name] = with_steps(config, best["steps"], task.trials.splits) if "steps" in best else config
    for method in (EVERYTHING, FULL):
        if task.arms[method].config.train.lr != configs[method].train.lr:
            logger.warning("%s: the config of %s has another rate than the chosen %g", task.name, method,
                           configs[method].train.lr)  # fmt: skip
    return configs


def prove_seeds(task: Task, run: bool = True) -> None:
    """Zero-shot once, every arm on every seed, on the test sets; then the means and verdicts.

    Args:
        task: of the arms.
        run: False takes the finished runs alone.
    """
    configs = chosen_configs(task)
    bare = untrained(task.arms[EVERYTHING].config)
    trials = [Trial("zero_shot", "zero_shot", "", bare, "test")]
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
        named = {"method": trial.method} | ({"setting": trial.setting} if trial.setting else {})
        rows += [{**row, **named, "lr": record["lr"], "steps": record.get("steps", 0)} for row in record["rows"]]
        for name, values in task.trials.correct(trial).items():
            correct.setdefault(name, {}).setdefault(trial.arm, []).append(values)
    write(task.out / f"demo{task.suffix}.json", {
        "task": bare.task, **task.machine(found), "rows": rows, "means": means(correct), "verdicts": verdicts(correct),
    })  # fmt: skip


def write_finished(task: Task) -> None:
    """Write the results of the finished runs."""
    find_rates(task, run=False)
    try:
        prove_seeds(task, run=False)
    except SystemExit as error:
        logger.warning("%s", error)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=(*PROOFS, "all"))
    parser.add_argument("what", nargs="?", choices=("rates", "seeds", "both", "results"), default="both")
    parser.add_argument("--steps", type=int, default=0, help="of every run instead of the configs'")
    parser.add_argument("--seeds", type=int, default=0, help="fewer seeds")
    parser.add_argument("--out", type=Path, help="of the results; results/, with --steps a folder in the cache")
    parser.add_argument("--cache", type=Path, default=CACHE, help="of weights and locks")
    parser.add_argument("--records", type=Path, default=RECORDS, help="of the records")
    asked = parser.parse_args()
    set_up_logging()
    keep_freed_memory()
    out = asked.out or (asked.cache / f"results-{asked.steps}-steps" if asked.steps else RESULTS)
    splits = Splits()
    for name in PROOFS if asked.task == "all" else (asked.task,):
        proof = PROOFS[name]
        arms = task_arms(name, asked.steps)
        trials = Trials(asked.records, splits, asked.cache)
        task = Task(name, arms, asked.seeds or proof.seeds, trials, out, proof.suffix, DEMOS[name].assets)
        if asked.what == "results":
            write_finished(task)
        if asked.what in ("rates", "both"):
            find_rates(task)
        if asked.what in ("seeds", "both"):
            prove_seeds(task)


if __name__ == "__main__":
    main()
