"""Detection of diverged training: the step, the reason, and the samples of its batch in `diverged.json`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from uniadapter.data.batches import Batch
from uniadapter.data.splits import RetrievalSplit
from uniadapter.files.writing import write_text

DIVERGED = "diverged.json"
MAX_ABS = 1e18  # of a weight; the product of two larger ones overflows float32


@dataclass(frozen=True)
class SampleInfo:
    """A sample of the step that diverged.

    Args:
        sample: index in the training set.
        visual: index of its picture or video.
        text: its caption or question.
    """

    sample: int
    visual: int
    text: str


class Diverged(FloatingPointError):
    """A loss, a gradient or a weight is NaN, infinite or too large.

    Args:
        what: the reason: "the loss is nan".
        step: optimiser steps done before.
        samples: of the step.
        file: that lists these samples.
    """

    def __init__(self, what: str, step: int, samples: Sequence[SampleInfo] = (), file: Path | None = None) -> None:
        listed = f"; its samples are in {file}" if file else ""
        super().__init__(
            f"training diverged in step {step + 1}: {what}; try a lower train.lr, or train.grad_clip{listed}"
        )
        self.what, self.step, self.samples = what, step, list(samples)

    def with_file(self, file: Path) -> Diverged:
        """A copy whose message names the file with the samples."""
        return Diverged(self.what, self.step, self.samples, file)

    def write(self, folder: Path, split: RetrievalSplit) -> Path:
        """Write the samples of the step, with the ids and records of their visuals, to `diverged.json`."""
        rows: list[dict[str, Any]] = [
            {**asdict(one), "id": split.visual_ids[one.visual], "record": split.origins[one.visual]}
            if one.visual < len(split.visual_ids)
            else asdict(one)
            for one in self.samples
        ]
        content = {"step": self.step, "what": self.what, "samples": rows}
        return write_text(folder / DIVERGED, json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")


def batch_samples(batch: Batch) -> list[SampleInfo]:
    """The samples of a batch."""
    pairs = zip(batch.sample_ids.tolist(), batch.ids.tolist(), batch.captions, strict=True)
    return [SampleInfo(*one) for one in pairs]


def first_nonfinite(named: dict[str, Tensor]) -> str | None:
    """The name of the first tensor with a NaN, an infinity or a value of at least `MAX_ABS`; None if there is none."""
    return next((name for name, value in named.items() if not bool((value.abs() < MAX_ABS).all())), None)
