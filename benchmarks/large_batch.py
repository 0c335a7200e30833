"""Retrieval batches that do not fit: memory and time of a training step, whole and in parts, against the batch's size.

    python benchmarks/large_batch.py          writes benchmarks/results/large_batch.json, in about 4 minutes

The embedded base in float32, parts of 8 (`train.micro_batch: 8`), for how memory grows; BLIP-base's size, for the time
where a part is work enough; the contrastive loss alone on random features, where similarities are what grows. Each
point in processes of its own; memory is the peak of a step above what was resident before it.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from base_size import forget_peak, machine, our_model, peak, resident, texts
from torch import Tensor

import uniadapter as ua
from uniadapter.app.memory import keep_freed_memory
from uniadapter.compare.machine import versions
from uniadapter.config import AdapterConfig, ModelConfig, ObjectiveConfig
from uniadapter.files.writing import write_text
from uniadapter.model.sets import adapter_set
from uniadapter.model.tokens import TokenBatch, tokenize
from uniadapter.objectives.row_blocks import mean_over_rows
from uniadapter.objectives.softmax import softmax_loss
from uniadapter.tasks.retrieval import RetrievalLoss
from uniadapter.training.loss import StepInfo

RESULTS = Path(__file__).parent / "results" / "large_batch.json"
PART = 8
LOSSES = {
    "contrast (softmax)": ObjectiveConfig(loss="softmax", matching=False),
    "contrast (momentum, queue) and matching": ObjectiveConfig(queue_size=1024),
}
BATCHES = (8, 32, 128, 256)
BASE = 16  # batch at BLIP-base's size
RETURNING = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1"}
ROWS = (4096, 8192)  # of the loss alone
SIMILARITIES = "similarities alone"
logger = logging.getLogger("large_batch")


def embedded_step(loss: str, batch: int) -> tuple[RetrievalLoss, Tensor, TokenBatch]:
    """The embedded base, with weights of its adapter away from their start, and a batch."""
    model, tokenizer = ua.load_model("embedded"), ua.load_tokenizer("embedded")
    torch.manual_seed(0)
    ua.add_adapter(model, AdapterConfig(bottleneck=32, key_value=16))
    for parameter in adapter_set(model).parameters():
        parameter.data.add_(0.02 * torch.randn_like(parameter))
    tokens = tokenize(tokenizer, [f"a red box left of {number} blue stars" for number in range(batch)], 35)
    return RetrievalLoss(model, tokenizer, ModelConfig(), LOSSES[loss]), torch.randn(batch, 1, 3, 96, 96), tokens


def base_step(loss: str, batch: int) -> tuple[RetrievalLoss, Tensor, TokenBatch]:
    """The same at BLIP-base's size."""
    module = RetrievalLoss(our_model(224), None, ModelConfig(), LOSSES[loss])
    return module, torch.randn(batch, 1, 3, 224, 224), TokenBatch(*texts(batch))


def training_step(module: RetrievalLoss, frames: Tensor, tokens: TokenBatch, at_once: int) -> dict[str, Any]:
    """The second of two equal ones; the gradients' norm tells that parts have those of the whole."""
    module.training = True  # moves queue and momentum encoder; there is no dropout to turn on
    own, found = torch.arange(len(frames)), {}
    for _ in range(2):
        forget_peak()
        before, start = resident(), time.perf_counter()
        losses = module.losses(frames, tokens, own, own, StepInfo(0, 1, 0, 1, at_once=at_once))
        losses["loss"].backward()  # type: ignore[no-untyped-call]
        found = {"seconds": time.perf_counter() - start, "peak_mb": peak() - before}
        gradients = [p.grad for p in module.parameters() if p.grad is not None]
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        found |= {"loss": float(losses["loss"].detach()), "gradient": float(norm)}
        module.zero_grad()
        module.forget_step()
    return found


def similarities(rows: int, at_once: int) -> dict[str, Any]:
    """CLIP's loss of so many pairs of random features [rows, 256], forwards and backwards."""
    model = ua.load_model("embedded")
    generator = torch.Generator().manual_seed(0)
    visual, text = (
        torch.nn.functional.normalize(torch.randn(rows, 256, generator=generator), dim=-1).requires_grad_()
        for _ in range(2)
    )
    ids = torch.arange(rows)

    def loss(own: slice, feature: Tensor) -> Tensor:
        return softmax_loss(feature @ visual.T, visual[own] @ text.T, ids[own], ids, 100.0)

    forget_peak()
    before, start = resident(), time.perf_counter()
    mean = mean_over_rows(model, loss, text, rows, at_once)
    mean.backward()  # type: ignore[no-untyped-call]
    assert text.grad is not None
    return {
        "seconds": time.perf_counter() - start, "peak_mb": peak() - before, "loss": float(mean.detach()),
        "gradient": float(text.grad.norm()),
    }  # fmt: skip


def measured(loss: str, size: int, at_once: int, base: bool) -> dict[str, Any]:
    """A point, by a process for the time and, of the embedded base, one that gives freed memory back, for its peak."""
    command = [sys.executable, __file__, "--loss", loss, "--size", str(size), "--at-once", str(at_once)]
    command += ["--base"] if base else []

    def once(how: dict[str, str]) -> dict[str, Any]:
        done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **how})
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    found = {**once({}), "at_once": at_once}
    return {**found, "peak_mb": None if base else once(RETURNING)["peak_mb"]}


def compared(loss: str, size: int, base: bool = False) -> dict[str, Any]:
    """The whole, the parts, and both as ratios."""
    whole, parts = measured(loss, size, 0, base), measured(loss, size, PART, base)
    return {
        "model": "BLIP-base, 224 px" if base else "embedded, 96 px", "size": size, "whole": whole, "parts": parts,
        "memory_ratio": None if base else round(parts["peak_mb"] / whole["peak_mb"], 3),
        "time_ratio": round(parts["seconds"] / whole["seconds"], 3),
        "loss_difference": abs(parts["loss"] - whole["loss"]),
        "gradient_difference": abs(parts["gradient"] - whole["gradient"]) / whole["gradient"],
    }  # fmt: skip


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loss")
    parser.add_argument("--base", action="store_true")
    parser.add_argument("--size", type=int)
    parser.add_argument("--at-once", type=int)
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if given.loss == SIMILARITIES:
        sys.stdout.write(json.dumps(similarities(given.size, given.at_once)))
        return
    if given.loss:
        keep_freed_memory() if "MALLOC_ARENA_MAX" not in os.environ else None
        made = (base_step if given.base else embedded_step)(given.loss, given.size)
        sys.stdout.write(json.dumps(training_step(*made, given.at_once)))
        return
    found: dict[str, list[dict[str, Any]]] = {}
    points = [(loss, size, False) for loss in LOSSES for size in BATCHES]
    points += [(SIMILARITIES, rows, False) for rows in ROWS] + [(list(LOSSES)[-1], BASE, True)]
    for loss, size, base in points:
        found.setdefault(loss, []).append(compared(loss, size, base))
        logger.info("%s %s", loss, json.dumps(found[loss][-1]))
        written = {"device": machine(), "versions": versions(), "part": PART, "series": found}
        write_text(RESULTS, json.dumps(written, indent=2) + "\n")


if __name__ == "__main__":
    main()
