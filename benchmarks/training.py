"""A training step at BLIP-base size: ours beside the usual way, a strong one, and PEFT's LoRA.

    python benchmarks/training.py [--works image video] [--dtypes float32 bfloat16]

Batch of two, so that hard negatives are each other and no draw differs. All peers step in turn in one process, the same
random base and adapters in each; losses and gradients of the first step are compared (LoRA's differ by design: its time
and memory alone are). Peaks of memory are read in processes of their own. Writes benchmarks/results/training.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from base_size import (
    RESULTS,
    adapters_of,
    add_peaks,
    forget_peak,
    load,
    our_model,
    peak,
    replace_rows,
    resident,
    strong_model,
    texts,
    usual_model,
)
from lora import LoraPeer
from rerank import DTYPES, WORKS, Work
from torch import Tensor, nn
from usual import training_loss

from uniadapter.app.memory import keep_freed_memory
from uniadapter.config import ModelConfig, ObjectiveConfig
from uniadapter.model.precision import round_frozen
from uniadapter.model.sets import adapter_set
from uniadapter.model.tokens import TokenBatch
from uniadapter.objectives.contrastive import FeatureQueue
from uniadapter.tasks.retrieval import RetrievalLoss
from uniadapter.training.loss import StepInfo

BATCH = 2
QUEUE = 1024
PEERS = ("ours", "usual", "strong", "peft_lora")
Losses = tuple[Tensor, Tensor]
logger = logging.getLogger("training")


class Stepper:
    """One way to make a step.

    Args:
        work: what is trained on.
        who: one of `PEERS`.
        dtype: of autocast; the usual peer stays in float32.
    """

    def __init__(self, work: Work, who: str, dtype: str) -> None:
        self.who, self.dtype = who, DTYPES["float32" if who == "usual" else dtype]
        self.pixels = torch.randn(BATCH, work.frames, 3, work.size, work.size,
                                  generator=torch.Generator().manual_seed(3))  # fmt: skip
        self.ids, self.mask = texts(BATCH)
        build = {"ours": self._ours, "peft_lora": self._lora}.get(who, self._peer)
        self.losses, self.trained, self.copies = build(work)
        self.optimizer = torch.optim.AdamW(self.trained.parameters(), lr=0.0)
        self.seconds: list[float] = []

    def _ours(self, work: Work) -> tuple[Callable[[], Losses], nn.Module, int]:
        model = our_model(work.size, work.adapters)
        if self.dtype != torch.float32:
            round_frozen(model, self.dtype)
        task = RetrievalLoss(model, None, ModelConfig(), ObjectiveConfig(queue_size=QUEUE))
        task.training = True  # moves queue and momentum; there is no dropout to turn on
        own = torch.arange(BATCH)

        def losses() -> Losses:
            found = task.losses(self.pixels, TokenBatch(self.ids, self.mask), own, own, StepInfo(0, 1, 0, 1))
            return found["contrastive"], found["matching"]

        return losses, adapter_set(model), 0

    def _peer(self, work: Work) -> tuple[Callable[[], Losses], nn.Module, int]:
        build = strong_model if self.who == "strong" else usual_model
        online, momentum = (build(None, work.size, work.adapters) for _ in range(2))
        momentum.model.requires_grad_(False)
        queue = FeatureQueue(QUEUE, momentum.model.config.image_text_hidden_size)
        copy = sum(p.numel() for p in momentum.model.parameters()) * 4
        return (
            lambda: training_loss(online, momentum, queue, self.pixels, self.ids, self.mask, 0.4),
            adapters_of(online),
            copy,
        )

    def _lora(self, work: Work) -> tuple[Callable[[], Losses], nn.Module, int]:
        peer = LoraPeer(load(work.size), QUEUE)
        return lambda: peer.losses(self.pixels, self.ids, self.mask), peer, 0

    def step(self) -> tuple[list[float], list[Tensor]]:
        """One step: losses and gradients."""
        start = time.perf_counter()
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
            itc, itm = self.losses()
        (itc + itm).backward()
        self.optimizer.step()
        spent = time.perf_counter() - start
        named = dict(self.trained.named_parameters())
        grads = [named[name].grad.clone() for name in sorted(named) if named[name].grad is not None]
        start = time.perf_counter()
        self.optimizer.zero_grad()
        self.seconds.append(spent + time.perf_counter() - start)
        return [float(itc.detach()), float(itm.detach())], grads


def compare(work: Work, dtype: str, repeats: int) -> list[dict[str, Any]]:
    """All peers in turn; the first round is compared and, as a warm-up, not timed."""
    keep_freed_memory()
    steppers = {who: Stepper(work, who, dtype) for who in PEERS}
    first = {who: stepper.step() for who, stepper in steppers.items()}
    for stepper in steppers.values():
        stepper.seconds.clear()
    for _ in range(repeats):
        for stepper in steppers.values():
            stepper.step()
    spent = {who: median(stepper.seconds) for who, stepper in steppers.items()}
    rows = []
    for who in PEERS[1:]:
        row = {
            "work": work.name.replace("rerank", "training step"), "candidates": None, "peer": who, "dtype": dtype,
            "peer_dtype": "float32" if who == "usual" else dtype, "ratio": round(spent[who] / spent["ours"], 2),
            "seconds": spent["ours"], "peer_seconds": spent[who], "max_difference": None, "gradient_difference": None,
            "trainable": sum(p.numel() for p in steppers["ours"].trained.parameters()),
            "peer_trainable": sum(p.numel() for p in steppers[who].trained.parameters() if p.requires_grad),
            "batch": BATCH, "torch": torch.__version__,
        }  # fmt: skip
        if who != "peft_lora":
            (losses, grads), (their_losses, their_grads) = first["ours"], first[who]
            row["max_difference"] = max(abs(a - b) for a, b in zip(losses, their_losses, strict=True))
            ours, theirs = (torch.cat([g.flatten() for g in one]) for one in (grads, their_grads))
            row["gradient_difference"] = float((ours - theirs).norm() / theirs.norm())  # relative
        rows.append(row)
    return rows


def peak_of(work: Work, dtype: str, who: str) -> float:
    """Peak above the loaded model in MB; a second copy of the backbone is memory that a peer needs."""
    stepper = Stepper(work, who, dtype)
    keep_freed_memory()  # only now, or what rounding freed would count as room
    forget_peak()
    loaded = resident() - stepper.copies / 2**20
    for _ in range(2):
        stepper.step()
    return peak() - loaded


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--works", nargs="+", choices=tuple(WORKS), default=list(WORKS))
    parser.add_argument("--dtypes", nargs="+", choices=tuple(DTYPES), default=list(DTYPES))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS / "training.json")
    parser.add_argument("--peak", nargs=3, help="work, dtype and who: one peak, by this script itself")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if asked.peak:
        work, dtype, who = asked.peak
        sys.stdout.write(str(peak_of(WORKS[work], dtype, who)))
        return
    for name in asked.works:
        for dtype in asked.dtypes:
            found = compare(WORKS[name], dtype, asked.repeats)
            add_peaks(found, __file__, PEERS, ["--peak", name, dtype])
            for row in found:
                logger.info("%s", json.dumps(row))
            replace_rows(asked.out, found)


if __name__ == "__main__":
    main()
