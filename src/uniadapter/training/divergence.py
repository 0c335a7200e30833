"""Diverged training: the step, the reason and its samples in `diverged.json`; the steps that a run has left out."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from uniadapter.data.batches import Batch
from uniadapter.data.large_splits import LargeSplit
from uniadapter.data.splits import TrainingSet
from uniadapter.files.messages import shortened
from uniadapter.files.writing import write_text
from uniadapter.training.history import StepLog

logger = logging.getLogger(__name__)

DIVERGED = "diverged.json"
SKIPPED = "skipped_steps.jsonl"
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


class SkippedSteps:
    """The steps that were left out of a run because a loss or gradient was not finite.

    Args:
        file: `skipped_steps.jsonl`, a line for each; None keeps them in memory.
        most: how many there may be.
    """

    def __init__(self, file: Path | None, most: int) -> None:
        self.log, self.most = StepLog(file), most

    def __len__(self) -> int:
        return len(self.log.lines)

    def resume(self, folder: Path, step: int) -> None:
        """Load those up to the step of a checkpoint."""
        self.log.resume(folder / SKIPPED, step)

    def add(self, what: str, step: int, samples: Sequence[SampleInfo], ids: Sequence[str]) -> None:
        """Leave out the step after `step` others, or stop.

        Raises:
            Diverged: there have been as many as there may be.
        """
        if len(self) >= self.most:
            more = f", after {len(self)} steps that train.skip_bad_steps has left out" if self.most else ""
            raise Diverged(f"{what}{more}", step, samples)
        listed = [{**asdict(one), "id": name} for one, name in zip(samples, ids, strict=True)]
        self.log.append({"step": step + 1, "what": what, "samples": listed})
        logger.warning(
            "step %d is left out, %d of at most %d: %s; its samples are %s",
            step + 1, len(self), self.most, what, some_of(ids),
        )  # fmt: skip


def some_of(ids: Sequence[str]) -> str:
    """The first ids of a step's visuals, in a few words."""
    shown = ", ".join(shortened(one, 24) for one in ids[:3])
    return f"{shown} and {len(ids) - 3} more" if len(ids) > 3 else shown


class Diverged(FloatingPointError):
    """A loss, a gradient or a weight is NaN, infinite or too large.

    Args:
        what: the reason: "the loss is nan".
        step: optimiser steps done before.
        samples: of the step.
        listed: which samples, and in what file; "" if that is not known.
    """

    def __init__(self, what: str, step: int, samples: Sequence[SampleInfo] = (), listed: str = "") -> None:
        super().__init__(
            f"training diverged in step {step + 1}: {what}{listed}; try a lower train.lr, train.grad_clip, or "
            "train.skip_bad_steps"
        )
        self.what, self.step, self.samples = what, step, list(samples)

    def written(self, folder: Path, split: TrainingSet) -> Diverged:
        """Write the samples of the step, with the ids and records of their visuals, to `diverged.json`.

        Returns:
            The same error, whose message names the first samples and the file.
        """
        rows: list[dict[str, Any]] = [
            {**asdict(one), **dict(zip(("id", "record"), split.visual_name(one.visual), strict=True))}
            if isinstance(split, LargeSplit) or one.visual < split.visual_count
            else asdict(one)
            for one in self.samples
        ]
        content = {"step": self.step, "what": self.what, "samples": rows}
        file = folder / DIVERGED
        write_text(file, json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n")
        ids = [str(row.get("id", row["visual"])) for row in rows]
        return Diverged(self.what, self.step, self.samples, f", with {some_of(ids)} (all in {file})")


def batch_samples(batch: Batch) -> list[SampleInfo]:
    """The samples of a batch."""
    pairs = zip(batch.sample_ids.tolist(), batch.ids.tolist(), batch.captions, strict=True)
    return [SampleInfo(*one) for one in pairs]


def first_nonfinite(named: dict[str, Tensor]) -> str | None:
    """The name of the first tensor with a NaN, an infinity or a value of at least `MAX_ABS`; None if there is none."""
    return next((name for name, value in named.items() if not bool((value.abs() < MAX_ABS).all())), None)
