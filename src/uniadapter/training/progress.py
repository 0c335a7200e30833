"""Progress of a run: mean losses since the last log line, speed and time left, reported and logged."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from uniadapter.training.history import LogRecord, StepLog

MAX_SILENT_SECONDS = 30.0  # a step is reported after this long, whatever `train.log_every` says


@dataclass(frozen=True)
class ProgressEvent:
    """State of training after a step, for progress bars and the history.

    Args:
        step: optimiser steps done.
        steps: of the whole run.
        epoch: counted from 0.
        losses: means over the steps since the last log line.
        lr: learning rate.
        samples_per_second: over all processes, since the last log line.
        seconds_left: of training, at this process's speed so far; steps before a resume are not counted.
    """

    step: int
    steps: int
    epoch: int
    losses: dict[str, float]
    lr: float
    samples_per_second: float
    seconds_left: float = 0.0

    def record(self) -> LogRecord:
        """The line of `history.jsonl`."""
        rates = {"lr": self.lr, "samples_per_second": round(self.samples_per_second, 2)}
        return {"step": self.step, "epoch": self.epoch, **self.losses, **rates}


class LossWindow:
    """Sums of the losses since the last log line."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Start a new window."""
        self.sums: dict[str, Tensor] = {}
        self.batches = self.samples = 0
        self.since = time.perf_counter()

    def add(self, losses: dict[str, Tensor], samples: int) -> None:
        """Add the losses of a batch, without a synchronisation with the device."""
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value
        self.batches, self.samples = self.batches + 1, self.samples + samples

    def means(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Means over batches and processes; `reduce` is the mean over processes."""
        return {name: float(reduce(value)) / self.batches for name, value in self.sums.items()}

    @property
    def rate(self) -> float:
        """Samples per second."""
        return self.samples / max(time.perf_counter() - self.since, 1e-9)

    def state(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """The state for a checkpoint, the same on all processes."""
        return {"batches": self.batches, "sums": {name: float(reduce(value)) for name, value in self.sums.items()}}

    def load_state(self, state: dict[str, Any], device: torch.device) -> None:
        """Restore the result of `state`."""
        self.clear()
        self.sums = {name: torch.tensor(value, device=device) for name, value in state["sums"].items()}
        self.batches = int(state["batches"])


class ProgressLog:
    """Logs every `train.log_every` steps to `history.jsonl`, and reports progress at least every half minute.

    Args:
        accelerator: of the run.
        file: `history.jsonl`; None on all ranks but 0 and where a run has no folder.
        on_progress: called on rank 0 with each event; may be None.
    """

    def __init__(
        self, accelerator: Accelerator, file: Path | None, on_progress: Callable[[ProgressEvent], None] | None
    ) -> None:
        self.accelerator, self.on_progress = accelerator, on_progress
        self.window, self.history = LossWindow(), StepLog(file)
        self.last_report = 0.0
        self.session_start = (0, 0.0)  # step and time at which this process began; a resumed run starts at a later step

    def start(self, step: int) -> None:
        """Start the clocks of this process, at a step."""
        self.window.since = self.last_report = time.perf_counter()
        self.session_start = (step, self.last_report)

    @property
    def overdue(self) -> bool:
        """Whether the last report is more than `MAX_SILENT_SECONDS` ago."""
        return time.perf_counter() - self.last_report > MAX_SILENT_SECONDS

    def event(self, step: int, steps: int, epoch: int, lr: float) -> ProgressEvent:
        """The current state; a collective operation, so all processes must call it."""
        losses, rate = self.window.means(self.mean), self.window.rate
        first, began = self.session_start
        left = (time.perf_counter() - began) / max(1, step - first) * (steps - step)
        return ProgressEvent(step, steps, epoch, losses, lr, rate, left)

    def log(self, event: ProgressEvent) -> None:
        """Write an event to the history, report it, and start a new window."""
        self.history.append(event.record())
        self.window.clear()
        self.report(event)

    def report(self, event: ProgressEvent) -> None:
        """Call `on_progress`, on rank 0."""
        self.last_report = time.perf_counter()
        if self.accelerator.is_main_process and self.on_progress is not None:
            self.on_progress(event)

    def mean(self, value: Tensor) -> Tensor:
        """Mean over processes; each has scaled its losses by its share of the rows, so it is the mean over all rows."""
        reduced: Tensor = self.accelerator.reduce(value, "mean")
        return reduced
