"""The long proof of an embedded task: learning rates on validation, then seeds on the test split.

    python benchmarks/prove.py scenes rates   results/learning-rates.json: each method at each rate, seed 0, validation
    python benchmarks/prove.py scenes seeds   results/demo.json: seeds 0-4 with the rates that stand in configs/, test
    python benchmarks/prove.py video rates    results/learning-rates-video.json
    python benchmarks/prove.py video seeds    results/demo-video.json: seeds 0-2, and UniAdapter's variants
    python benchmarks/prove.py scenes         both

Both methods get the same grid lengths, steps, order and augmentation. A rate at the edge of its grid is refused.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from uniadapter.assets import asset
from uniadapter.config import RunConfig
from uniadapter.demo import DEMOS, demo_config
from uniadapter.display import set_up_logging
from uniadapter.evaluation.compare import paired_bootstrap, verdict
from uniadapter.memory import keep_freed_memory
from uniadapter.preparing import prepare
from uniadapter.runs import evaluate_split, load_split, measure, test_splits, train_split, zero_shot

RESULTS = Path(__file__).parents[1] / "results"
GRIDS = {
    "uniadapter": (3e-4, 1e-3, 3e-3, 1e-2),
    "full_fine_tuning": (3e-5, 1e-4, 4e-4, 1.2e-3),
}
logger = logging.getLogger("uniadapter.prove")


@dataclass(frozen=True)
class Proof:
    """What is run for a task.

    Args:
        suffix: of the results' names.
        seeds: fixed beforehand, none dropped.
        variants: of UniAdapter, name to what it changes.
    """

    suffix: str
    seeds: range
    variants: dict[str, Callable[[RunConfig], RunConfig]]


def frame_aware(config: RunConfig, on: bool) -> RunConfig:
    """With or without frame-aware attention."""
    return replace(config, model=replace(config.model, adapter=replace(config.model.adapter, frame_aware=on)))


def temporal(config: RunConfig) -> RunConfig:
    """With a temporal embedding, of as many frames as there are."""
    adapter = replace(config.model.adapter, temporal_frames=config.data.frames)
    return replace(config, model=replace(config.model, adapter=adapter))


def middle_frame(config: RunConfig) -> RunConfig:
    """Trained and tested on the middle frame alone; in training it is drawn at random, as frames are."""
    return replace(config, data=replace(config.data, frames=1, eval_frames=1))


PROOFS = {
    "scenes": Proof("", range(5), {}),
    "video": Proof(
        "-video",
        range(3),
        {
            "frame_aware_off": lambda config: frame_aware(config, False),
            "temporal_on": temporal,
            "middle_frame": middle_frame,
        },
    ),
}


def machine(task: str) -> dict[str, Any]:
    """Where the numbers come from."""
    listing = (asset("clips" if task == "video" else "scenes") / "SPLIT_SHA256").read_text().splitlines()
    return {
        "device": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "split_sha256": {name: digest for digest, name in map(str.split, listing) if name.endswith(".jsonl")},
    }


def write(name: str, values: dict[str, Any]) -> None:
    """Write a result; what is there so far is kept if the rest fails."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / name).write_text(json.dumps(values, indent=2) + "\n")


def recipe(config: RunConfig) -> str:
    """Hash of all that a rate's run depends on but the rate: config, base, data."""
    plain = asdict(replace(config, output="", train=replace(config.train, lr=0.0)))
    plain["data"] = [Path(p).name for p in (config.data.train, config.data.val) if p] + [config.data.frames]
    weights = (asset("backbone") / "model.safetensors").read_bytes()
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode() + weights).hexdigest()[:16]


def rates(task: str) -> None:
    """Every method at every rate, measured on validation; goes on where it stopped, if recipe and data are the same."""
    name = f"learning-rates{PROOFS[task].suffix}.json"
    recipes = {method: recipe(demo_config(task, method, seed=0)) for method in GRIDS}
    before = json.loads((RESULTS / name).read_text()) if (RESULTS / name).exists() else {}
    kept = before.get("rows", []) if before.get("recipes") == recipes else []
    rows: list[dict[str, Any]] = []
    for method, grid in GRIDS.items():
        for rate in grid:
            done = [row for row in kept if (row["method"], row["lr"]) == (method, rate)]
            if done:
                rows += done
                continue
            config = demo_config(task, method, seed=0)
            config = replace(config, train=replace(config.train, lr=rate))
            prepared = prepare(config)
            started = time.perf_counter()
            trainer = train_split(prepared, load_split(config, "train"), config)
            seconds = time.perf_counter() - started
            found = evaluate_split(prepared, load_split(config, "val"), config)
            rows.append({
                "method": method, "lr": rate, "seconds": round(seconds, 1), "loss": trainer.history[-1]["loss"],
                "main": found.main, **found.scores,
            })  # fmt: skip
            logger.info("%s lr %g: %s", method, rate, found.headline)
            write(name, {"split": "val", "seed": 0, **machine(task), "recipes": recipes, "rows": rows,
                         "chosen": chosen(rows)})  # fmt: skip


def chosen(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Each method's best rate, and whether it stands at an edge of its grid, where no rate may be chosen."""
    found: dict[str, Any] = {}
    for method, grid in GRIDS.items():
        mine = [row for row in rows if row["method"] == method]
        if mine:
            best = max(mine, key=lambda row: row["main"])["lr"]
            found[method] = {"lr": best, "edge": best in (grid[0], grid[-1])}
    return found


def seeds(task: str) -> None:
    """Zero-shot once, every method and variant on every seed, and the verdicts on UniAdapter against each."""
    proof, demo = PROOFS[task], DEMOS[task]
    rows: list[dict[str, Any]] = []
    right: dict[str, dict[str, list[torch.Tensor]]] = {}
    config = demo_config(task, "uniadapter", 0)
    tests = test_splits(config)
    bare = replace(config, model=replace(config.model, method="none"))
    rows += [{"seed": 0, **row} for row in zero_shot(prepare(bare), bare, tests).rows]
    for seed in proof.seeds:
        configs = {method: demo_config(task, method, seed) for method in demo.configs}
        configs |= {f"uniadapter_{name}": change(configs["uniadapter"]) for name, change in proof.variants.items()}
        for method, config in configs.items():
            started = time.perf_counter()
            prepared = prepare(config)
            trainer = train_split(prepared, load_split(config, "train"), config)
            found = measure(prepared, config, tests, method, started, history=trainer.history)
            rows += [{"seed": seed, **row} for row in found.rows]
            results = {"test": found.result, **{name: result for name, (_, result) in found.extra.items()}}
            for name, result in results.items():
                right.setdefault(name, {}).setdefault(method, []).append(result.right)
            logger.info("seed %d %s: %s", seed, method, found.result.headline)
            write(f"demo{proof.suffix}.json",
                  {"task": "retrieval", **machine(task), "rows": rows, "verdicts": verdicts(right)})  # fmt: skip


def verdicts(right: dict[str, dict[str, list[torch.Tensor]]]) -> dict[str, Any]:
    """UniAdapter against every other method on each test set, by text-to-visual R@1, over the seeds both have."""
    out: dict[str, Any] = {}
    for name, methods in right.items():
        for other in [method for method in methods if method != "uniadapter"]:
            count = min(len(methods["uniadapter"]), len(methods[other]))
            ours, theirs = (torch.stack(methods[m][:count]) for m in ("uniadapter", other))
            interval = paired_bootstrap(ours, theirs)
            found = verdict(interval)
            out.setdefault(name, {})[other] = {
                "seeds": count, "verdict": found.text, "not_below": found.not_below,
                "difference": interval.mean, "interval_95": [interval.low, interval.high],
                "uniadapter": 100 * float(ours.mean()), other: 100 * float(theirs.mean()),
            }  # fmt: skip
    return out


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=tuple(PROOFS))
    parser.add_argument("what", nargs="?", choices=("rates", "seeds", "both"), default="both")
    asked = parser.parse_args()
    set_up_logging()
    keep_freed_memory()
    if asked.what in ("rates", "both"):
        rates(asked.task)
    if asked.what in ("seeds", "both"):
        seeds(asked.task)


if __name__ == "__main__":
    main()
