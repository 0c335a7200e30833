"""The losses of a run over its steps, in memory and as `history.jsonl`: each step once, however often resumed."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uniadapter.files.writing import write_text

HISTORY = "history.jsonl"
Record = dict[str, Any]


@dataclass(frozen=True)
class ProgressEvent:
    """What is known after a step, for progress displays and the history.

    Args:
        step: optimiser steps done.
        steps: of the run.
        epoch: counted from 0.
        losses: mean over the steps since the last tick.
        lr: learning rate.
        samples_per_second: over all processes, since the last tick.
        seconds_left: of training, at the speed of this process so far; what a resumed run did before does not count.
    """

    step: int
    steps: int
    epoch: int
    losses: dict[str, float]
    lr: float
    samples_per_second: float
    seconds_left: float = 0.0

    def record(self) -> Record:
        """The line of the history."""
        rates = {"lr": self.lr, "samples_per_second": round(self.samples_per_second, 2)}
        return {"step": self.step, "epoch": self.epoch, **self.losses, **rates}


class Records:
    """Lines of JSON with a `step` each, kept in memory and, where there is a file, in it.

    A run that starts leaves a file that an earlier one left alone until it has a line of its own. One that is resumed
    takes up the lines up to its checkpoint; what was written behind it will be written again.

    Args:
        file: None keeps the lines in memory alone, as do all processes but the first.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.lines: list[Record] = []
        self._appending = False

    def append(self, record: Record) -> None:
        """Add a line."""
        self.lines.append(record)
        if self.file is None:
            return
        if self._appending:
            with self.file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
        else:
            self._rewrite()

    def take_up(self, folder_file: Path, step: int) -> None:
        """Take up the lines of a file up to a step, the last one of each step.

        Args:
            folder_file: to read; every process reads it, only the first one writes.
            step: of the checkpoint.
        """
        by_step: dict[int, Record] = {}
        for line in folder_file.read_text(encoding="utf-8").splitlines() if folder_file.is_file() else ():
            try:
                record = json.loads(line)
            except ValueError:  # cut short by a crash
                continue
            if isinstance(record, dict) and isinstance(record.get("step"), int) and record["step"] <= step:
                by_step[record["step"]] = record
        self.lines = [by_step[one] for one in sorted(by_step)]
        self._appending = False

    def _rewrite(self) -> None:
        assert self.file is not None
        write_text(self.file, "".join(json.dumps(line) + "\n" for line in self.lines))
        self._appending = True


class Window:
    """Losses, summed since the last tick."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Start anew."""
        self.sums: dict[str, Tensor] = {}
        self.batches = self.samples = 0
        self.since = time.perf_counter()

    def add(self, losses: dict[str, Tensor], samples: int) -> None:
        """Count a batch; nothing is read back from the device."""
        for name, value in losses.items():
            self.sums[name] = self.sums.get(name, torch.zeros_like(value)) + value
        self.batches, self.samples = self.batches + 1, self.samples + samples

    def means(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Mean over batches and processes; each process's losses are weighed by its share."""
        return {name: float(reduce(value)) / self.batches for name, value in self.sums.items()}

    @property
    def rate(self) -> float:
        """Samples a second."""
        return self.samples / max(time.perf_counter() - self.since, 1e-9)

    def state(self, reduce: Callable[[Tensor], Tensor]) -> dict[str, Any]:
        """What a checkpoint keeps, alike on all processes."""
        return {"batches": self.batches, "sums": {name: float(reduce(value)) for name, value in self.sums.items()}}

    def load_state(self, state: dict[str, Any], device: torch.device) -> None:
        """Take up `state`."""
        self.clear()
        self.sums = {name: torch.tensor(value, device=device) for name, value in state["sums"].items()}
        self.batches = int(state["batches"])
