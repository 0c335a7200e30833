"""A setting of a method on validation: each value at each rate with several seeds; the test splits are not read.

    python benchmarks/choose.py scenes model.adapter.activation relu gelu none --rates 3e-3 1e-2 --seeds 3

Writes results/choices/TASK-SETTING[-METHOD].json. Records and weights lie where those of `prove.py` do.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import yaml
from prove import CACHE, RECORDS, RESULTS, TASKS

from uniadapter.app.comparing import run_of, with_methods
from uniadapter.app.display import set_up_logging
from uniadapter.app.memory import keep_freed_memory
from uniadapter.app.parsing import read_comparison
from uniadapter.compare.arms import Arm, make_arms, with_enough_epochs, with_settings
from uniadapter.compare.comparison import at_rate
from uniadapter.compare.recipes import Splits
from uniadapter.compare.trials import Trial, Trials
from uniadapter.files.writing import write_text


def trials_of(arm: Arm, setting: str, value: str, rates: list[float], seeds: int) -> list[Trial]:
    """The runs on validation of one value."""
    config = with_settings(arm.config, {setting: yaml.safe_load(value)})
    if setting == "data.max_train_visuals":  # other settings leave the config, and so the records, as in `prove.py`
        config = with_enough_epochs(config)
    return [
        Trial(f"{setting.rpartition('.')[2]} {value}", arm.method, "", at_rate(config, rate, seed), "val")
        for seed in range(seeds)
        for rate in rates
    ]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=TASKS)
    parser.add_argument("setting", help="its dotted name")
    parser.add_argument("values", nargs="+", help="as in YAML")
    parser.add_argument("--rates", type=float, nargs="+", required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--method", default="uniadapter", help="its name in configs/compare/TASK.yaml")
    parser.add_argument("--out", type=Path, default=RESULTS / "choices")
    parser.add_argument("--cache", type=Path, default=CACHE, help="of weights and locks")
    asked = parser.parse_args()
    set_up_logging()
    keep_freed_memory()
    comparison = with_methods(read_comparison(asked.task), (asked.method,))
    arm = make_arms(comparison, run_of)[asked.method]
    trials = Trials(RECORDS, Splits(), asked.cache)
    runs = [(value, one) for value in asked.values
            for one in trials_of(arm, asked.setting, value, asked.rates, asked.seeds)]  # fmt: skip
    every = [one for _, one in runs]
    rows = [{"value": value, **row} for (value, _), row in zip(runs, trials.complete(every), strict=True)]
    trials.forget_weights(every)
    scores: dict[tuple[str, float], list[float]] = {}
    for row in rows:
        scores.setdefault((row["value"], row["lr"]), []).append(row["main"])
    means = [
        {"value": value, "lr": rate, "main": round(statistics.mean(found), 2), "seeds": len(found)}
        for (value, rate), found in scores.items()
    ]
    parts = [asked.task, asked.setting.rpartition(".")[2], *([] if asked.method == "uniadapter" else [asked.method])]
    content = {"split": "val", "setting": asked.setting, "means": means, "rows": rows}
    write_text(asked.out / f"{'-'.join(parts)}.json", json.dumps(content, indent=2) + "\n")
    for mean in means:
        print(mean)  # noqa: T201


if __name__ == "__main__":
    main()
