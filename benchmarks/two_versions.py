"""Is this checkout as fast as another? A training step, a rerank and the features of both, through the public names.

    python benchmarks/two_versions.py ../other-checkout [--turns 7]

Each turn starts one process a checkout, in turn, with the same seed and one warm-up; the medians over all turns are
compared, and so are the outputs, which must be equal. Writes benchmarks/results/two_versions.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

from uniadapter.compare.machine import processor

HERE = Path(__file__).resolve().parents[1]
RESULTS = HERE / "benchmarks" / "results"
logger = logging.getLogger("two_versions")

# What the child runs: names that both checkouts have, since they are the package's public ones.
WORK = """
import json, sys, time
import torch
import uniadapter as ua

torch.manual_seed(0)
torch.set_num_threads(int(sys.argv[1]))
model = ua.load_model("embedded")
ua.add_adapter(model, ua.AdapterConfig(bottleneck=30, key_value=8, scale=1.0, init="released"))
generator = torch.Generator().manual_seed(1)
frames = torch.randn(64, 1, 3, 96, 96, generator=generator)
ids = torch.randint(5, 2000, (64, 14), generator=generator)
mask = torch.ones_like(ids)
mask[::2, 9:] = 0
trained = [p for p in model.parameters() if p.requires_grad]


def step():
    visuals, texts = ua.encode_visual(model, frames), ua.encode_text(model, ids, mask)
    loss = ua.contrastive_loss(visuals.feature, texts.feature)
    chosen = ua.hard_negative_pairs(visuals.feature, texts.feature, generator=torch.Generator().manual_seed(2))
    loss = loss + ua.matching_loss(ua.match(model, texts, visuals, chosen.pairs), chosen.labels)
    grads = torch.autograd.grad(loss, trained, allow_unused=True)
    return float(loss.detach()) + sum(float(g.double().abs().sum()) for g in grads if g is not None)


@torch.no_grad()
def rerank():
    visuals, texts = ua.encode_visual(model, frames), ua.encode_text(model, ids, mask)
    pairs = torch.cartesian_prod(torch.arange(64), torch.arange(64))
    return float(ua.match(model, texts, visuals, pairs).double().sum())


@torch.no_grad()
def features():
    return float((ua.encode_visual(model, frames).feature @ ua.encode_text(model, ids, mask).feature.T).double().sum())


found = {}
for name, work, repeats in (("training step", step, 5), ("rerank", rerank, 3), ("features", features, 12)):
    out, seconds = work(), []
    for _ in range(repeats):
        start = time.perf_counter()
        out = work()
        seconds.append(time.perf_counter() - start)
    found[name] = {"seconds": seconds, "output": out}
print(json.dumps(found))
"""


def measured(checkout: Path, threads: int) -> dict[str, dict[str, Any]]:
    """Run the work on a checkout's own source, in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": str(threads)}
    command = [sys.executable, "-c", WORK, str(threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=checkout)
    found: dict[str, dict[str, Any]] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def revision(checkout: Path) -> str:
    """The commit that a checkout stands at."""
    command = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=checkout).stdout.strip()


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("other", type=Path)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS / "two_versions.json")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    checkouts = {"this": HERE, "other": asked.other.resolve()}
    turns: dict[str, list[dict[str, dict[str, Any]]]] = {"this": [], "other": []}
    for turn in range(asked.turns):
        for who in ("this", "other") if turn % 2 else ("other", "this"):
            turns[who].append(measured(checkouts[who], asked.threads))
    rows = []
    for work in turns["this"][0]:
        seconds = {who: median(s for turn in turns[who] for s in turn[work]["seconds"]) for who in turns}
        outputs = {turn[work]["output"] for who in turns for turn in turns[who]}
        rows.append({
            "work": work, "seconds": seconds["this"], "other_seconds": seconds["other"],
            "slower_percent": round(100 * (seconds["this"] / seconds["other"] - 1), 1),
            "outputs_equal": len(outputs) == 1, "turns": asked.turns, "threads": asked.threads,
            "this": revision(HERE), "other": revision(checkouts["other"]), "device": processor(),
        })  # fmt: skip
        logger.info("%s", json.dumps(rows[-1]))
    asked.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
