"""Validation scores of a run, and the weights with the best score."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uniadapter.config import Keep
from uniadapter.errors import CheckpointError
from uniadapter.training.history import StepLog
from uniadapter.training.run_checkpoint import CheckpointFile, copy_weights, read_tensors

VALIDATION = "validation.jsonl"
BEST = "best.pt"


class Validations:
    """The validation score after each validated step and, with `keep_best`, the weights of the best one.

    All processes hold the same; only rank 0 writes. Of equal scores the earlier one is the best.

    Args:
        folder: of the run; None keeps everything in memory.
        writes: whether this process writes.
        keep: "last" weights, or the "best" on validation or "best_on_test".
    """

    def __init__(self, folder: Path | None, writes: bool, keep: Keep) -> None:
        self.folder, self.writes, self.keep, self.keep_best = folder, writes, keep, keep != "last"
        self.records = StepLog(folder / VALIDATION if folder is not None and writes else None)
        self._weights: dict[str, Tensor] = {}
        self._file = CheckpointFile(folder / BEST) if folder is not None else None
        self._from_previous = False

    @property
    def best(self) -> dict[str, Any] | None:
        """The record of the best validation so far."""
        return max(self.records.lines, key=lambda line: line["validation"], default=None)  # the first, if equal

    def at_step(self, step: int) -> dict[str, Any] | None:
        """The record of the validation after a step."""
        return next((line for line in self.records.lines if line["step"] == step), None)

    def add(self, step: int, epoch: int, score: float, weights: Mapping[str, Tensor]) -> None:
        """Add the score of a validation.

        Args:
            step: optimiser steps done.
            epoch: epochs done.
            score: higher is better.
            weights: the current trainable weights by name; copied if they are the best.
        """
        best = self.best
        if self.keep_best and (best is None or score > best["validation"]):
            self._weights = {name: value.detach().cpu().clone() for name, value in weights.items()}
            if self._file is not None and self.writes:  # before the record, so that its weights always exist
                self._file.write({"step": step, "trainable": self._weights})
        self.records.append({"step": step, "epoch": epoch, "validation": score})

    def resume(self, folder: Path, step: int) -> None:
        """Load the validations up to the step of a checkpoint, and the weights of the best of them.

        A checkpoint that is not the newest may be older than the best weights; then those before them are the best.

        Raises:
            CheckpointError: they cannot be read.
        """
        self.records.resume(folder / VALIDATION, step)
        best, files = self.best, CheckpointFile(folder / BEST)
        if not self.keep_best or best is None:
            return
        states = [read_tensors(file) for file in (files.path, files.previous) if file.is_file()]
        for place, state in enumerate(states):
            if state.get("step") == best["step"]:
                self._weights, self._from_previous = state["trainable"], place > 0
                break
        else:
            raise CheckpointError(f"{files.path}: does not have the weights of step {best['step']}; start a new run")

    def confirm_resumed(self) -> None:
        """All processes have read what they need: the files can go on from there."""
        if self._file is not None and self.writes:
            self._file.goes_on = True
            if self._from_previous:
                self._file.promote()

    def restore_best(self, weights: Mapping[str, Tensor], source: str = BEST) -> None:
        """Copy the best weights into the model's trainable weights."""
        copy_weights(
            weights, {name: value.to(weights[name].device) for name, value in self._weights.items()}, Path(source)
        )

    def weights_info(self, step: int) -> dict[str, Any]:
        """The entry "kept" of `metrics.json`: `train.keep`, the step of these weights, and their score.

        Of weights chosen on the test split also what that has brought: the score after the last step, and the gap.
        """
        record, last = self.best if self.keep_best else self.at_step(step), self.at_step(step)
        found = {"which": self.keep, "step": record["step"] if record else step}
        if record and self.keep == "best_on_test":
            more = (
                {} if last is None else {"last": last["validation"], "gap": record["validation"] - last["validation"]}
            )
            return {**found, "test": record["validation"], **more}
        return {**found, "validation": record["validation"]} if record else found


def trainable_weights(module: torch.nn.Module) -> dict[str, Tensor]:
    """The trainable parameters by name, detached but not copied."""
    return {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
