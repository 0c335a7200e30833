"""The base's linear layers on this CPU: torch's own beside oneDNN's, forward, backward, and with the activation.

    python benchmarks/linear.py

BLIP-base's layer shapes, rows of a training step's texts (84), of two pictures (1154) and of a block of reranking
(1536), in turn, medians, outputs compared. "ours" is `uniadapter.model.kernels.linear`, which for float32 takes oneDNN
where `prefers_onednn` says so; here it is made to, on any processor. Writes benchmarks/results/linear.json.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from base_size import RESULTS, machine
from rerank import DTYPES
from torch import Tensor, nn
from transformers.activations import GELUActivation

from uniadapter.app.memory import keep_freed_memory
from uniadapter.model.kernels import linear as kernels

ROWS = (84, 1154, 1536)
SHAPES = ((768, 768), (768, 2304), (768, 3072), (3072, 768))
REPEATS = 15


def in_turn(ways: dict[str, Callable[[], Tensor]]) -> dict[str, Any]:
    """Median seconds of each, the second's gain, and how far apart they are."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    outputs: dict[str, Tensor] = {}
    for turn in range(REPEATS + 2):
        for name, way in ways.items():
            start = time.perf_counter()
            outputs[name] = way()
            if turn > 1:
                seconds[name].append(time.perf_counter() - start)
    first, second = (median(spent) for spent in seconds.values())
    apart = (outputs["torch"].float() - outputs["ours"].float()).abs().max()
    return {"ratio": round(first / second, 3), "seconds": second, "peer_seconds": first, "max_difference": float(apart)}


def measured(dtype: str, rows: int, wide: int, out: int) -> list[dict[str, Any]]:
    """One shape: forward, backward, and where it widens, with the activation."""
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(rows, wide, generator=generator).to(DTYPES[dtype])
    linear = kernels.BaseLinear(wide, out).requires_grad_(False).to(DTYPES[dtype])
    gradient = torch.randn(rows, out, generator=generator).to(DTYPES[dtype])
    gelu = GELUActivation()
    ways: dict[str, dict[str, Callable[[], Tensor]]] = {}
    if dtype == "float32":  # half precision takes oneDNN by itself
        ways["forward"] = {
            "torch": lambda: nn.functional.linear(states, linear.weight, linear.bias),
            "ours": lambda: kernels.frozen_linear(states, linear.weight, linear.bias),
        }
        ways["backward"] = {
            "torch": lambda: gradient @ linear.weight,
            "ours": lambda: kernels.frozen_linear(gradient, linear.weight.t()),
        }
    if out == 4 * wide:
        ways["forward with GELU"] = {
            "torch": lambda: gelu(nn.functional.linear(states, linear.weight, linear.bias)),
            "ours": lambda: kernels.linear_then_activation(states, linear, gelu),
        }
    shape = {"dtype": dtype, "rows": rows, "in": wide, "out": out}
    return [{**shape, "what": what, **in_turn(pair)} for what, pair in ways.items()]


@torch.no_grad()
def main() -> None:
    """Measure and write."""
    keep_freed_memory()
    preferred = kernels.prefers_onednn()
    kernels.prefers_onednn = kernels.has_onednn  # type: ignore[assignment]
    rows = [row for dtype in DTYPES for count in ROWS for shape in SHAPES for row in measured(dtype, count, *shape)]
    out = {"device": machine(), "torch": torch.__version__, "preferred_here": preferred, "rows": rows}
    (RESULTS / "linear.json").write_text(json.dumps(out, indent=2) + "\n")


if __name__ == "__main__":
    main()
