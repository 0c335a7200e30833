"""Where the time goes at BLIP-base size: reranking and a training step by kind of operation, beside the CPU's limit.

    python benchmarks/where.py

The profiler's own time of each operation, grouped; the products' rate while they run is set beside that of
one large product on the same machine in the same minute, which is the limit for this work. Writes
benchmarks/results/where.json and docs/where.png.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from typing import Any

import matplotlib.pyplot as plt
import torch
from base_size import RESULTS, machine, our_model, texts
from rerank import DTYPES, WORKS, visuals_of
from scaling import DOCS, gemm

from training import Stepper
from uniadapter.app.memory import keep_freed_memory
from uniadapter.model.encoding import begin_fusion, encode_text, match
from uniadapter.model.precision import round_frozen

TEXTS = 64  # that meet each of two visuals
KINDS = {  # first match wins
    "products": ("addmm", "aten::mm", "linear", "convolution", "mkldnn"),
    "attention": ("attention", "bmm", "baddbmm", "softmax"),
    "norms and activations": ("layer_norm", "gelu", "relu"),
}
REST = "copies, sums and the rest"


def kind_of(name: str) -> str:
    """The group of an operation."""
    return next((kind for kind, parts in KINDS.items() if any(part in name for part in parts)), REST)


def onednn_flops(name: str, shapes: list[list[int]]) -> int:
    """Of a call of oneDNN's product, which the profiler does not count."""
    return 2 * math.prod(shapes[0]) * shapes[1][0] if "linear_pointwise" in name else 0


def profiled(call: Callable[[], Any]) -> dict[str, Any]:
    """Seconds by kind of one call after one to warm up, and the rate of the products alone."""
    call()
    asked = {"with_flops": True, "record_shapes": True}
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], **asked) as seen:
        call()
    seconds = dict.fromkeys((*KINDS, REST), 0.0)
    work = 0
    for event in seen.key_averages(group_by_input_shape=True):
        kind = kind_of(event.key)
        seconds[kind] += event.self_cpu_time_total / 1e6
        if kind == "products":
            work += event.flops or event.count * onednn_flops(event.key, event.input_shapes)
    return {
        "seconds": {kind: round(spent, 3) for kind, spent in seconds.items()},
        "products_gflops": round(work / 1e9 / seconds["products"], 1),
    }


def reranked(name: str, dtype: str) -> dict[str, Any]:
    """Two visuals with the same texts."""
    work = WORKS[name]
    model, visuals = our_model(work.size, work.adapters), visuals_of(work, 2)
    if dtype != "float32":
        round_frozen(model, DTYPES[dtype])
    pairs = torch.cartesian_prod(torch.arange(TEXTS), torch.arange(2))
    with torch.no_grad(), torch.autocast("cpu", DTYPES[dtype], enabled=dtype != "float32"):
        encoded = encode_text(model, *texts(TEXTS))
        cache = begin_fusion(model, encoded)
        return profiled(lambda: match(model, encoded, visuals, pairs, cache))


def plot(rows: dict[str, dict[str, Any]]) -> None:
    """Shares of the time, one bar a work."""
    figure, axes = plt.subplots(figsize=(7.2, 3.6), layout="constrained")
    left = [0.0] * len(rows)
    for kind in (*KINDS, REST):
        shares = [100 * row["seconds"][kind] / sum(row["seconds"].values()) for row in rows.values()]
        axes.barh(list(rows), shares, left=left, label=kind)
        left = [a + b for a, b in zip(left, shares, strict=True)]
    axes.set(xlabel="% of the time", title="Where the time goes, BLIP-base, CPU")
    axes.invert_yaxis()
    axes.legend(ncols=2, fontsize=8, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    figure.savefig(DOCS / "where.png", dpi=130)


def main() -> None:
    """Profile, write, draw."""
    keep_freed_memory()
    rows: dict[str, dict[str, Any]] = {}
    for name, dtype in itertools.product(WORKS, DTYPES):
        rows[f"rerank, {name}, {dtype}"] = reranked(name, dtype)
        rows[f"training step, {name}, {dtype}"] = profiled(Stepper(WORKS[name], "ours", dtype).step)
    limits = {str(d).removeprefix("torch."): round(gemm(d), 1) for d in (torch.float32, torch.bfloat16)}
    out = {"device": machine(), "torch": torch.__version__, "gemm_gflops": limits, "rows": rows}
    (RESULTS / "where.json").write_text(json.dumps(out, indent=2) + "\n")
    plot(rows)


if __name__ == "__main__":
    main()
