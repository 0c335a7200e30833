"""The long proof of an embedded task: learning rates on validation, then seeds on the test split.

    python benchmarks/prove.py scenes rates   results/learning-rates.json: each method at each rate, seed 0, validation
    python benchmarks/prove.py scenes seeds   results/demo.json: seeds 0-4 with the rates that stand in configs/, test
    python benchmarks/prove.py video rates    results/learning-rates-video.json
    python benchmarks/prove.py video seeds    results/demo-video.json: seeds 0-2, and UniAdapter's variants
    python benchmarks/prove.py TASK           both; also of vqa, videoqa and caption, with seeds 0-2

Both methods get the same grid lengths, steps, order and augmentation. A rate at the edge of its grid is refused.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from device import processor

from uniadapter.app.demo import DEMOS, demo_config
from uniadapter.app.display import set_up_logging
from uniadapter.app.memory import keep_freed_memory
from uniadapter.app.method_results import measure, zero_shot
from uniadapter.app.runs import evaluate_split, load_split, test_splits, train_split
from uniadapter.config import RunConfig
from uniadapter.evaluation.compare import paired_bootstrap, verdict
from uniadapter.files.assets import asset_path
from uniadapter.tasks.preparing import prepare

RESULTS = Path(__file__).parents[1] / "results"
GRIDS = {
    "uniadapter": (3e-4, 1e-3, 3e-3, 1e-2),
    "full_fine_tuning": (3e-5, 1e-4, 4e-4, 1.2e-3),
}
# For tasks whose best rate stood at an edge of the first grid: one rate more above for either method.
WIDER = {"uniadapter": (*GRIDS["uniadapter"], 3e-2), "full_fine_tuning": (*GRIDS["full_fine_tuning"], 4e-3)}
logger = logging.getLogger("uniadapter.prove")


@dataclass(frozen=True)
class Proof:
    """What is run for a task.

    Args:
        suffix: of the results' names.
        seeds: fixed beforehand, none dropped.
        variants: of UniAdapter, name to what it changes.
        grids: learning rates that are tried, as many for either method.
    """

    suffix: str
    seeds: range
    variants: dict[str, Callable[[RunConfig], RunConfig]]
    grids: dict[str, tuple[float, ...]] = field(default_factory=lambda: GRIDS)


def adapted(config: RunConfig, **changes: Any) -> RunConfig:
    """With other adapters."""
    return replace(config, model=replace(config.model, adapter=replace(config.model.adapter, **changes)))


def fused(config: RunConfig, **changes: Any) -> RunConfig:
    """Trained on matching too and reranked by it, where frame-aware attention and temporal embedding have their place.

    As many parameters as without; the matching logits are added to similarities in units of the training temperature.
    """
    config = adapted(config, bottleneck=22, cross=True, key_value=8, **changes)
    return replace(
        config,
        objective=replace(config.objective, matching=True),
        evaluate=replace(config.evaluate, k=16, beta=1 / config.objective.temperature),
    )


def middle_frame(config: RunConfig) -> RunConfig:
    """Trained and tested on the middle frame alone; in training it is drawn at random, as frames are."""
    return replace(config, data=replace(config.data, frames=1, eval_frames=1))


PROOFS = {
    "scenes": Proof("", range(5), {}),
    "video": Proof(
        "-video",
        range(3),
        {
            "fused": fused,
            "fused_frame_aware": lambda config: fused(config, frame_aware=True),
            "fused_temporal": lambda config: fused(config, temporal_frames=config.data.frames),
            "middle_frame": middle_frame,
        },
    ),
    "vqa": Proof("-vqa", range(3), {}),
    "videoqa": Proof("-videoqa", range(3), {}, WIDER),
    "easy_vqa": Proof("-easy-vqa", range(3), {}, WIDER),
    "caption": Proof("-caption", range(3), {}, WIDER),
}


def machine(task: str) -> dict[str, Any]:
    """Where the numbers come from."""
    made_from = DEMOS[task].assets
    listing = (asset_path(made_from) / "SPLIT_SHA256").read_text().splitlines() if made_from else []
    return {
        "device": processor(),
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
    plain["data"] = [Path(p).name for p in (config.data.train, config.data.val) if p]
    plain["data"] += [config.data.frames, *([config.data.together] if config.data.together > 1 else [])]
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True).encode())
    for file in sorted(asset_path("backbone").glob("*.safetensors")):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def rates(task: str) -> None:
    """Every method at every rate, measured on validation; goes on where it stopped, if recipe and data are the same."""
    name = f"learning-rates{PROOFS[task].suffix}.json"
    recipes = {method: recipe(demo_config(task, method, seed=0)) for method in PROOFS[task].grids}
    before = json.loads((RESULTS / name).read_text()) if (RESULTS / name).exists() else {}
    rows: list[dict[str, Any]] = before.get("rows", []) if before.get("recipes") == recipes else []
    for method, grid in PROOFS[task].grids.items():
        for rate in grid:
            if any((row["method"], row["lr"]) == (method, rate) for row in rows):
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
                         "chosen": chosen(rows, PROOFS[task].grids)})  # fmt: skip


def chosen(rows: list[dict[str, Any]], grids: dict[str, tuple[float, ...]]) -> dict[str, Any]:
    """Each method's best rate, and whether it stands at an edge of its grid, where no rate may be chosen."""
    found: dict[str, Any] = {}
    for method, grid in grids.items():
        mine = [row for row in rows if row["method"] == method]
        if mine:
            best = max(mine, key=lambda row: row["main"])["lr"]
            found[method] = {"lr": best, "edge": best in (grid[0], grid[-1])}
    return found


def check_rates(task: str) -> None:
    """Refuse to read the test split with rates that validation did not choose, or that stand at an edge."""
    name = f"learning-rates{PROOFS[task].suffix}.json"
    if not (RESULTS / name).exists():
        raise SystemExit(f"{name} is not there: run `prove.py {task} rates` first")
    for method, best in json.loads((RESULTS / name).read_text())["chosen"].items():
        config = f"configs/{DEMOS[task].configs[method]}.yaml"
        if best["edge"]:
            raise SystemExit(f"{name}: {method}'s best rate {best['lr']:g} is at the edge of its grid: widen it")
        if demo_config(task, method, 0).train.lr != best["lr"]:
            raise SystemExit(f"{name}: validation chose {best['lr']:g} for {method}: write it into {config}")


def seeds(task: str) -> None:
    """Zero-shot once, every method and variant on every seed, and the verdicts on UniAdapter against each."""
    check_rates(task)
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
                  {"task": config.task, **machine(task), "rows": rows, "verdicts": verdicts(right)})  # fmt: skip


def verdicts(right: dict[str, dict[str, list[torch.Tensor]]]) -> dict[str, Any]:
    """UniAdapter against every other method on each test set, query by query, over the seeds both have.

    Variants of the fused encoder are compared with the plain fused one too.
    """
    out: dict[str, Any] = {}
    for name, methods in right.items():
        pairs = [("uniadapter", other) for other in methods if other != "uniadapter"]
        pairs += [(other, "uniadapter_fused") for other in methods if other.startswith("uniadapter_fused_")]
        for one, other in pairs:
            count = min(len(methods[one]), len(methods[other]))
            ours, theirs = (torch.stack(methods[m][:count]) for m in (one, other))
            interval = paired_bootstrap(ours, theirs)
            found = verdict(interval)
            label = other if one == "uniadapter" else f"{one} against {other}"
            out.setdefault(name, {})[label] = {
                "seeds": count, "verdict": found.text, "not_below": found.not_below,
                "difference": interval.mean, "interval_95": [interval.low, interval.high],
                one: 100 * float(ours.mean()), other: 100 * float(theirs.mean()),
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
