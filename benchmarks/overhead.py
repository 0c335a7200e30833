"""What adapters cost at inference, at BLIP-base size: r = 128 with key/value adapters beside the bare backbone.

    python benchmarks/overhead.py [--repeats 9]

The same code runs both, with the set selected and with it disabled, in turn. The set is fresh, so it is the identity
and outputs can be compared. Writes benchmarks/results/overhead.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import torch
from base_size import ADAPTERS, RESULTS, load, machine, texts
from rerank import DTYPES, WORKS, visuals_of
from torch import Tensor
from transformers import PreTrainedModel

from uniadapter.app.memory import keep_freed_memory
from uniadapter.checkpoints.adapters import add_adapter
from uniadapter.model.encoding import encode_text, encode_visual, fuse
from uniadapter.model.sets import disable_adapter

VISUALS, TEXTS = 4, 64
logger = logging.getLogger("overhead")


def works(model: PreTrainedModel, name: str) -> dict[str, Callable[[], Tensor]]:
    """What is timed, by name."""
    work = WORKS[name]
    generator = torch.Generator().manual_seed(3)
    count = 1 if work.frames > 1 else VISUALS
    pixels = torch.randn(count, work.frames, 3, work.size, work.size, generator=generator)
    encoded, visuals = encode_text(model, *texts(TEXTS)), visuals_of(work, VISUALS)
    pairs = torch.stack([torch.arange(TEXTS), torch.arange(TEXTS) % VISUALS], dim=1)
    return {
        f"{name} {work.size} px, encode_visual": lambda: encode_visual(model, pixels).tokens,
        f"{name} {work.size} px, fuse": lambda: fuse(model, encoded, visuals, pairs, read="first"),
    }


@torch.no_grad()
def compare(name: str, dtype: str, repeats: int) -> list[dict[str, Any]]:
    """Adapted and bare in turn."""
    model = load(WORKS[name].size)
    add_adapter(model, ADAPTERS)
    rows = []
    contexts: dict[str, Callable[[], AbstractContextManager[Any]]] = {
        "ours": nullcontext, "bare": lambda: disable_adapter(model),
    }  # fmt: skip
    for what, call in works(model, name).items():
        seconds: dict[str, list[float]] = {who: [] for who in contexts}
        outputs: dict[str, Tensor] = {}
        for turn in range(repeats + 1):
            for who, context in contexts.items():
                with context(), torch.autocast("cpu", DTYPES[dtype], enabled=dtype != "float32"):
                    start = time.perf_counter()
                    outputs[who] = call()
                    if turn:  # the first is a warm-up
                        seconds[who].append(time.perf_counter() - start)
        ours, bare = median(seconds["ours"]), median(seconds["bare"])
        rows.append({
            "work": what, "candidates": None, "peer": "bare", "ratio": round(bare / ours, 3),
            "slower_percent": round(100 * (ours / bare - 1), 1), "memory_ratio": None,
            "max_difference": float((outputs["ours"] - outputs["bare"]).abs().max()), "dtype": dtype,
            "seconds": ours, "peer_seconds": bare, "repeats": repeats, "torch": torch.__version__,
            "device": machine(),
        })  # fmt: skip
        logger.info("%s", json.dumps(rows[-1]))
    return rows


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, default=RESULTS / "overhead.json")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    keep_freed_memory()
    rows = [row for name in WORKS for dtype in DTYPES for row in compare(name, dtype, asked.repeats)]
    asked.out.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
