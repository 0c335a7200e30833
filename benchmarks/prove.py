"""The long proof of the embedded task: learning rates on validation, then five seeds on the test split.

    python benchmarks/prove.py rates     results/learning-rates.json: each method at each rate, seed 0, validation only
    python benchmarks/prove.py seeds     results/demo.json: seeds 0-4 with the rates that stand in configs/, test split
    python benchmarks/prove.py           both

Both methods get the same grid lengths, steps, order and augmentation. A rate at the edge of its grid is refused.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from uniadapter.assets import asset
from uniadapter.demo import METHODS, demo_config
from uniadapter.display import set_up_logging
from uniadapter.evaluation.compare import paired_bootstrap, verdict
from uniadapter.memory import keep_freed_memory
from uniadapter.runs import evaluate_split, load_split, measure, outcome, prepare, test_splits, train_split, zero_shot

RESULTS = Path(__file__).parents[1] / "results"
GRIDS = {
    "uniadapter": (3e-4, 1e-3, 3e-3, 1e-2),
    "full_fine_tuning": (1e-4, 4e-4, 1.2e-3, 4e-3),
}
BETAS = (0.0, 14.0)  # of the reranked score: as released, and about 1 / temperature, so that log-odds are added up
SEEDS = range(5)  # fixed beforehand, none dropped
logger = logging.getLogger("uniadapter.prove")


def machine() -> dict[str, Any]:
    """Where the numbers come from."""
    split = (asset("scenes") / "SPLIT_SHA256").read_text().split()
    return {
        "device": platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "split_sha256": split,
    }


def write(name: str, values: dict[str, Any]) -> None:
    """Write a result; what is there so far is kept if the rest fails."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / name).write_text(json.dumps(values, indent=2) + "\n")


def rates() -> None:
    """Every method at every rate, measured on validation by contrastive similarity and by the reranked score."""
    rows: list[dict[str, Any]] = []
    for method, grid in GRIDS.items():
        for rate in grid:
            config = demo_config(method, seed=0)
            config = replace(config, train=replace(config.train, lr=rate))
            prepared = prepare(config)
            started = time.perf_counter()
            trainer = train_split(prepared, load_split(config.data, "train"), config)
            seconds = time.perf_counter() - started
            for beta in BETAS:
                protocol = replace(config, evaluate=replace(config.evaluate, beta=beta))
                found = evaluate_split(prepared, load_split(config.data, "val"), protocol)
                rows.append({
                    "method": method, "lr": rate, "beta": beta, "seconds": round(seconds, 1),
                    "loss": trainer.history[-1]["loss"],
                    "text_to_image": found.text_to_visual, "image_to_text": found.visual_to_text,
                })  # fmt: skip
                logger.info("%s lr %g beta %g: R@1 %.2f, ITC alone %.2f", method, rate, beta,
                            found.text_to_visual["r@1"], found.text_to_visual["r@1_itc"])  # fmt: skip
            write("learning-rates.json", {"split": "val", "seed": 0, **machine(), "rows": rows, "chosen": chosen(rows)})


def chosen(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The beta that serves both methods' best runs best on validation, then each method's rate.

    Also whether a rate stands at an edge of its grid, where no rate may be chosen.
    """

    def best(method: str, beta: float) -> dict[str, Any]:
        mine = [row for row in rows if row["method"] == method and row["beta"] == beta]
        return max(mine, key=lambda row: row["text_to_image"]["r@1"])

    methods = [method for method in GRIDS if any(row["method"] == method for row in rows)]
    beta = max(BETAS, key=lambda b: sum(best(method, b)["text_to_image"]["r@1"] for method in methods))
    rates = {method: best(method, beta)["lr"] for method in methods}
    found = {method: {"lr": lr, "edge": lr in (GRIDS[method][0], GRIDS[method][-1])} for method, lr in rates.items()}
    return {"beta": beta, **found}


def seeds() -> None:
    """Zero-shot once, both methods on every seed, and the verdict between them."""
    rows: list[dict[str, Any]] = []
    right: dict[str, dict[str, list[torch.Tensor]]] = {}
    config = demo_config("uniadapter", 0)
    tests = test_splits(config.data)
    bare = replace(config, model=replace(config.model, method="none"))
    rows += [{"seed": 0, **row} for row in zero_shot(prepare(bare), bare, tests).rows]
    for seed in SEEDS:
        for method in METHODS:
            config = demo_config(method, seed)
            started = time.perf_counter()
            prepared = prepare(config)
            trainer = train_split(prepared, load_split(config.data, "train"), config)
            found = measure(prepared, config, tests, method, started, history=trainer.history)
            rows += [{"seed": seed, **row} for row in found.rows]
            results = {"test": found.result, **{name: result for name, (_, result) in found.extra.items()}}
            for name, result in results.items():
                right.setdefault(name, {}).setdefault(method, []).append(outcome(result.text_ranks))
            logger.info("seed %d %s: R@1 %.2f", seed, method, found.row["text_to_image"]["r@1"])
            write("demo.json", {"task": "retrieval", **machine(), "rows": rows, "verdicts": verdicts(right)})


def verdicts(right: dict[str, dict[str, list[torch.Tensor]]]) -> dict[str, Any]:
    """UniAdapter against full fine-tuning in text-to-image R@1, on each test set, over the seeds both have."""
    out: dict[str, Any] = {}
    for name, methods in right.items():
        count = min(len(methods.get(method, [])) for method in METHODS)
        if count < 2:
            continue
        ours, theirs = (torch.stack(methods[m][:count]) for m in ("uniadapter", "full_fine_tuning"))
        interval = paired_bootstrap(ours, theirs)
        found = verdict(interval)
        out[name] = {
            "metric": "text_to_image r@1", "seeds": count, "verdict": found.text, "not_below": found.not_below,
            "difference": interval.mean, "interval_95": [interval.low, interval.high],
            "uniadapter": 100 * float(ours.mean()), "full_fine_tuning": 100 * float(theirs.mean()),
        }  # fmt: skip
    return out


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=("rates", "seeds", "both"), default="both")
    what = parser.parse_args().what
    set_up_logging()
    keep_freed_memory()
    if what in ("rates", "both"):
        rates()
    if what in ("seeds", "both"):
        seeds()


if __name__ == "__main__":
    main()
