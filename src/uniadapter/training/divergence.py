"""Training that has diverged: found at the step, whichever part of the loss sees it first, with its batch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uniadapter.data.batches import Batch
from uniadapter.data.splits import RetrievalSplit
from uniadapter.files.writing import write_text

DIVERGED = "diverged.json"
LARGEST = 1e18  # of a weight: beyond, products of two overflow float32


@dataclass(frozen=True)
class Seen:
    """A sample of the step that diverged.

    Args:
        sample: its index in the training set.
        visual: index of its visual.
        text: what was said of it.
    """

    sample: int
    visual: int
    text: str


class Diverged(FloatingPointError):
    """A loss, a gradient or a weight is no longer a number.

    Args:
        what: in words: "the loss is nan".
        step: optimiser steps done before.
        seen: samples of the step.
        file: where those are written down.
    """

    def __init__(self, what: str, step: int, seen: Sequence[Seen] = (), file: Path | None = None) -> None:
        told = f"; its samples are in {file}" if file else ""
        super().__init__(
            f"training diverged in step {step + 1}: {what}; try a lower train.lr, or train.grad_clip{told}"
        )
        self.what, self.step, self.seen = what, step, list(seen)

    def with_file(self, file: Path) -> Diverged:
        """The same, saying where the samples are."""
        return Diverged(self.what, self.step, self.seen, file)

    def write(self, folder: Path, split: RetrievalSplit) -> Path:
        """Write the samples of the step, with the file's ids of their visuals, to `diverged.json`."""
        rows: list[dict[str, Any]] = [
            {**asdict(one), "id": split.visual_ids[one.visual], "record": split.origins[one.visual]}
            if one.visual < len(split.visual_ids)
            else asdict(one)
            for one in self.seen
        ]
        content = {"step": self.step, "what": self.what, "samples": rows}
        return write_text(folder / DIVERGED, json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")


def samples_of(batch: Batch) -> list[Seen]:
    """The samples of a batch."""
    pairs = zip(batch.sample_ids.tolist(), batch.ids.tolist(), batch.captions, strict=True)
    return [Seen(*one) for one in pairs]


def gradient_norm(parameters: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of all gradients together; 0 where there are none."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


def first_unusable(named: dict[str, Tensor]) -> str | None:
    """The name of the first tensor that holds a NaN, an infinity, or a number whose square would be one."""
    return next((name for name, value in named.items() if not bool((value.abs() < LARGEST).all())), None)
