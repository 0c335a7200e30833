"""Validations of a run, and the weights that were best in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uniadapter.training.history import Records
from uniadapter.training.run_checkpoint import read_tensors, take_up, write_checkpoint

VALIDATION = "validation.jsonl"
BEST = "best.pt"


class Validations:
    """What the validation split said after which step; where asked for, also the weights that were best.

    Every process holds the same; the first alone writes. Of equal figures the earlier one is the best.

    Args:
        folder: of the run; None keeps everything in memory.
        writes: whether this process writes.
        keep_best: whether the best weights are kept.
    """

    def __init__(self, folder: Path | None, writes: bool, keep_best: bool) -> None:
        self.folder, self.writes, self.keep_best = folder, writes, keep_best
        self.records = Records(folder / VALIDATION if folder is not None and writes else None)
        self._weights: dict[str, Tensor] = {}

    @property
    def best(self) -> dict[str, Any] | None:
        """The record of the best validation so far."""
        return max(self.records.lines, key=lambda line: line["validation"], default=None)  # the first of equals

    def of_step(self, step: int) -> dict[str, Any] | None:
        """The record of the validation after a step."""
        return next((line for line in self.records.lines if line["step"] == step), None)

    def add(self, step: int, epoch: int, figure: float, weights: Mapping[str, Tensor]) -> None:
        """Note a validation.

        Args:
            step: optimiser steps done.
            epoch: epochs done.
            figure: what is compared, higher is better.
            weights: those that are trained, as they are now.
        """
        best = self.best
        if self.keep_best and (best is None or figure > best["validation"]):
            self._weights = {name: value.detach().cpu().clone() for name, value in weights.items()}
            if self.folder is not None and self.writes:  # before its record: a record's weights are always there
                write_checkpoint(self.folder / BEST, {"step": step, "trainable": self._weights})
        self.records.append({"step": step, "epoch": epoch, "validation": figure})

    def take_up(self, folder: Path, step: int) -> None:
        """Go on from a checkpoint of this step."""
        self.records.take_up(folder / VALIDATION, step)
        if self.keep_best and self.best is not None:
            self._weights = read_tensors(folder / BEST)["trainable"]

    def restore_best(self, weights: Mapping[str, Tensor], source: str = BEST) -> None:
        """Copy the best weights into those that were trained."""
        take_up(weights, {name: value.to(weights[name].device) for name, value in self._weights.items()}, Path(source))

    def kept(self, step: int) -> dict[str, Any]:
        """For `metrics.json`: which weights were kept, after which step, with their validation's figure."""
        record = self.best if self.keep_best else self.of_step(step)
        which = "best" if self.keep_best else "last"
        found = {"which": which, "step": record["step"] if record else step}
        return {**found, "validation": record["validation"]} if record else found


def snapshot(module: torch.nn.Module) -> dict[str, Tensor]:
    """The weights that are trained, by name; not copied."""
    return {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
