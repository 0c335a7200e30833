"""How the cost of fused pairs grows, at BLIP-base size: with pairs, frames and text length, over a factor of 16.

    python benchmarks/scaling.py

Seconds of one `fuse` for the token that is read, medians. A straight line through them says what one more costs and
what there is beside it (more frames do not make the texts longer); a line through the logarithms gives the exponent, at
most 1 where cost is linear. Also what a single query costs, whose visuals no other text shares, and the rate of a large
product, which is what the machine could do. Writes benchmarks/results/scaling.json and docs/scaling.png.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from base_size import ADAPTERS, RESULTS, load, machine
from transformers import PreTrainedModel

from uniadapter.app.memory import keep_freed_memory
from uniadapter.checkpoints.adapters import add_adapter
from uniadapter.model.encoding import fuse
from uniadapter.model.features import Texts, Visuals

DOCS = Path(__file__).parents[1] / "docs"
FACTORS = (1, 2, 4, 8, 16)
# What is fused at factor 1: pairs of one visual, frames of 197 tokens, tokens of a text.
START = {"pairs": 16, "frames": 1, "tokens": 4}
ALONE = 8  # visuals that one text meets
FIXED = {"pairs": 32, "frames": 1, "tokens": 13}


def seconds(call: Callable[[], Any], repeats: int) -> float:
    """Median time of a call after one to warm up."""
    call()
    spent = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        spent.append(time.perf_counter() - start)
    return statistics.median(spent)


@torch.no_grad()
def fused(model: PreTrainedModel, pairs: int, frames: int, tokens: int, repeats: int) -> float:
    """Seconds of a fuse of so many texts with one visual."""
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(1000, 30000, (pairs, tokens), generator=generator)
    texts = Texts(ids, torch.ones_like(ids), torch.empty(pairs, 0), torch.zeros(pairs, 256))
    visual = Visuals(
        torch.randn(1, frames, 197, 768, generator=generator), torch.zeros(1, 256), torch.zeros(1, frames, 256)
    )
    wanted = torch.stack([torch.arange(pairs), torch.zeros(pairs, dtype=torch.long)], dim=1)
    return seconds(lambda: fuse(model, texts, visual, wanted, read="first"), repeats)


def searched(model: PreTrainedModel) -> dict[str, Any]:
    """One query: similarities to a million features, and pairs whose visuals no other text shares."""
    features = torch.nn.functional.normalize(torch.randn(1_000_000, 256), dim=-1)
    query, pairs = features[:1], torch.stack([torch.zeros(ALONE, dtype=torch.long), torch.arange(ALONE)], dim=1)
    ids = torch.randint(1000, 30000, (1, FIXED["tokens"]))
    texts = Texts(ids, torch.ones_like(ids), torch.empty(1, 0), query)
    alone = {}
    for name, shape in {"image 384 px": (1, 577), "video 8 x 224 px": (8, 197)}.items():
        visuals = Visuals(
            torch.randn(ALONE, *shape, 768), features[:ALONE], features[: ALONE * shape[0]].view(ALONE, -1, 256)
        )
        with torch.no_grad():
            alone[name] = seconds(lambda v=visuals: fuse(model, texts, v, pairs, read="first"), 3) / ALONE
    return {
        "similarities_to_a_million_seconds": seconds(lambda: (features @ query.T).topk(128, dim=0), 5),
        "seconds_a_pair_alone": alone,
    }


def gemm(dtype: torch.dtype) -> float:
    """GFLOP/s of a large product."""
    side = 3072
    a, b = torch.randn(side, side).to(dtype), torch.randn(side, side).to(dtype)
    return 2 * side**3 / seconds(lambda: a @ b, 5) / 1e9


def exponent(points: list[dict[str, float]], name: str) -> float:
    """Slope of log seconds over log size, by least squares."""
    x = [math.log(point[name]) for point in points]
    y = [math.log(point["seconds"]) for point in points]
    mx, my = sum(x) / len(x), sum(y) / len(y)
    return sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / sum((a - mx) ** 2 for a in x)


def straight(points: list[dict[str, float]], name: str) -> dict[str, float]:
    """A straight line through seconds over size: what one more costs, what there is beside it, and how well it fits."""
    x, y = [point[name] for point in points], [point["seconds"] for point in points]
    slope, start = statistics.linear_regression(x, y)
    return {"seconds_each": slope, "seconds_beside": start, "r2": round(statistics.correlation(x, y) ** 2, 4)}


def plot(series: dict[str, Any], file: Path) -> None:
    """Cost over factor, both logarithmic, beside a line of slope 1."""
    figure, axes = plt.subplots(figsize=(6.4, 4.2), layout="constrained")
    for name, found in series.items():
        points = found["points"]
        first = points[0]["seconds"]
        axes.loglog(
            FACTORS,
            [p["seconds"] / first for p in points],
            marker="o",
            label=f"{name} (exponent {found['exponent']:.2f})",
        )
    axes.loglog(FACTORS, FACTORS, color="grey", linestyle=":", label="linear")
    axes.set(xlabel="times as many", ylabel="times as long", title="Cost of fused pairs, BLIP-base, float32, CPU")
    axes.set_xticks(FACTORS, [str(f) for f in FACTORS])
    axes.minorticks_off()
    axes.legend()
    figure.savefig(file, dpi=130)


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "scaling.json")
    parser.add_argument("--plot", type=Path, default=DOCS / "scaling.png")
    asked = parser.parse_args()
    keep_freed_memory()
    model = load(224)
    add_adapter(model, ADAPTERS)
    series: dict[str, Any] = {}
    for name, start in START.items():
        points = []
        for factor in FACTORS:
            size = {**FIXED, name: start * factor}
            points.append({**size, "seconds": fused(model, **size, repeats=asked.repeats)})
        series[name] = {"points": points, "exponent": round(exponent(points, name), 3), "line": straight(points, name)}
    rates = {str(dtype).removeprefix("torch."): round(gemm(dtype), 1) for dtype in (torch.float32, torch.bfloat16)}
    ran = {"device": machine(), "torch": torch.__version__}
    asked.out.write_text(
        json.dumps({**ran, "gemm_gflops": rates, "series": series, "search": searched(model)}, indent=2) + "\n"
    )
    plot(series, asked.plot)


if __name__ == "__main__":
    main()
