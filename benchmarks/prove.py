"""The long proof of an embedded task: `uniadapter compare` with its results under the names that the tables read.

    python benchmarks/prove.py scenes rates   results/rates/scenes.json: each method at each rate, seed 0, validation
    python benchmarks/prove.py scenes seeds   results/compare/scenes.json: all seeds with the chosen rates, test
    python benchmarks/prove.py scenes         both; also of video, vqa and all others in configs/compare
    python benchmarks/prove.py all            all of them
    python benchmarks/prove.py all results    writes what is finished, and runs nothing

What is compared stands in configs/compare/TASK.yaml. Records lie in `results/records`, weights and locks in the cache.
"""

from __future__ import annotations

import argparse
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from uniadapter.app.comparing import run_of, varied_of, with_methods
from uniadapter.app.display import set_up_logging
from uniadapter.app.memory import keep_freed_memory
from uniadapter.app.parsing import read_comparison
from uniadapter.compare.arms import make_arms
from uniadapter.compare.comparison import Comparison, find_rates, measure_seeds
from uniadapter.compare.recipes import Splits
from uniadapter.compare.trials import Trials
from uniadapter.errors import UsageError
from uniadapter.files.assets import asset_path

ROOT = Path(__file__).parents[1]
RESULTS, RECORDS, CACHE = ROOT / "results", ROOT / "results" / "records", ROOT / ".cache" / "prove"
TASKS = sorted(path.stem for path in (ROOT / "configs" / "compare").glob("*.yaml"))
# The folder of assets that a run's data are made from; "" for what comes from elsewhere.
ASSETS = {"scenes": "scenes", "vqa": "scenes", "caption": "scenes", "clips": "clips", "videoqa": "clips",
          "easy_vqa": ""}  # fmt: skip
logger = logging.getLogger("uniadapter.prove")


def split_hashes(run: str) -> dict[str, Any]:
    """Of the annotation files that a run's data are made from."""
    assets = ASSETS[run]
    listing = (asset_path(assets) / "SPLIT_SHA256").read_text().splitlines() if assets else []
    return {"split_sha256": {name: digest for digest, name in map(str.split, listing) if name.endswith(".jsonl")}}


def comparison_of(
    task: str, trials: Trials, out: Path, steps: int = 0, seeds: int = 0, only: tuple[str, ...] = ()
) -> Comparison:
    """A task's comparison, its results under the names that the tables read."""
    config = read_comparison(task)
    config = with_methods(replace(config, steps=steps, seeds=seeds or config.seeds), only)
    arms = make_arms(config, run_of)
    return Comparison(
        arms, config.reference, config.seeds, trials, out / "rates" / f"{task}.json",
        out / "compare" / f"{task}.json", split_hashes(config.run), f"run `prove.py {task} rates` first",
        varied_of(config, arms, trials.splits),
    )  # fmt: skip


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=(*TASKS, "all"))
    parser.add_argument("what", nargs="?", choices=("rates", "seeds", "both", "results"), default="both")
    parser.add_argument("--steps", type=int, default=0, help="of every run instead of the configs'")
    parser.add_argument("--seeds", type=int, default=0, help="fewer seeds")
    parser.add_argument("--only", nargs="+", default=[], help="names of methods, beside the reference")
    parser.add_argument("--out", type=Path, help="of the results; results/, with --steps a folder in the cache")
    parser.add_argument("--cache", type=Path, default=CACHE, help="of weights and locks")
    parser.add_argument("--records", type=Path, default=RECORDS, help="of the records")
    asked = parser.parse_args()
    set_up_logging()
    keep_freed_memory()
    part = "-".join([*([f"{asked.steps}-steps"] if asked.steps else []), *asked.only])
    out = asked.out or (asked.cache / f"results-{part}" if part else RESULTS)
    splits = Splits()
    for name in TASKS if asked.task == "all" else (asked.task,):
        trials = Trials(asked.records, splits, asked.cache)
        task = comparison_of(name, trials, out, asked.steps, asked.seeds, tuple(asked.only))
        try:
            if asked.what in ("rates", "both", "results"):
                find_rates(task, run=asked.what != "results")
            if asked.what in ("seeds", "both", "results"):
                measure_seeds(task, run=asked.what != "results")
        except UsageError as error:
            if asked.what != "results":
                raise SystemExit(str(error)) from None
            logger.warning("%s", error)


if __name__ == "__main__":
    main()
