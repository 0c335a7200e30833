"""What a demo has found so far, as files that are complete after each method, and where its time went."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from uniadapter import report
from uniadapter.app.commands import finish_report, skipped, summaries
from uniadapter.app.display import say
from uniadapter.config import RunConfig
from uniadapter.data.splits import RetrievalSplit
from uniadapter.report.page import PAGE
from uniadapter.report.tables import method_label
from uniadapter.runs.results import MethodResult


class PhaseClock:
    """Seconds that each phase took.

    Attributes:
        started: `time.perf_counter()` at its creation.
        seconds: of each phase, in order.
    """

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time of the block to a phase."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - begun

    @property
    def total(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.started

    def __str__(self) -> str:
        rest = self.total - sum(self.seconds.values())
        return ", ".join(f"{name} {seconds:.0f}" for name, seconds in {**self.seconds, "other": rest}.items())


class DemoResults:
    """The results of a demo and their files.

    Args:
        name: of the data in `metrics.json`.
        summary: first paragraph of the page.
        folder: of the run.
        seed: of all random draws.

    Attributes:
        clock: of the demo.
        metrics: the content of `metrics.json`, as written last.
        rows: of `metrics.json` so far.
        examples: of the page.
        looks_note: how the examples' pictures of attention were made.
    """

    def __init__(self, name: str, summary: str, folder: Path, seed: int) -> None:
        self.name, self.summary, self.folder, self.seed = name, summary, folder, seed
        self.clock = PhaseClock()
        self.metrics: dict[str, Any] = {}
        self.rows: list[dict[str, Any]] = []
        self.examples: list[report.QueryExample | report.TextExample] = []
        self.looks_note = ""
        self._history: dict[str, list[dict[str, float | int]]] = {}
        self._thumbnails = report.Thumbnails()
        self._finished: list[str] = []

    def begin(
        self, config: RunConfig, splits: Sequence[RetrievalSplit], before: MethodResult, ahead: Sequence[str]
    ) -> None:
        """Write what is known before anything is trained.

        Args:
            config: of the first method.
            splits: training and test sets.
            before: zero-shot.
            ahead: labels of what will be trained.
        """
        self.metrics = {
            "task": config.task,
            "seed": self.seed,
            "base": config.model.base,
            "data": self.name,
            "splits": summaries(*splits),
            **skipped(*splits[1:]),
        }
        self.rows += before.rows
        self._finished.append("zero-shot")
        self._update(ahead)
        report.write_metrics(self.folder / "metrics.json", self.metrics)
        report.write_report(self.folder, self.metrics, history={}, summary=self.summary)

    def add(self, series: str, found: MethodResult, ahead: Sequence[str]) -> None:
        """Write and show the results with those of one more method.

        Args:
            series: name of its curves.
            found: its results.
            ahead: labels of what is still to be trained.
        """
        self.rows += found.rows
        self._history[series] = found.history
        self._finished.append(method_label(series))
        self._update(ahead)
        with self.clock.phase("report"):
            finish_report(
                self.folder, self.metrics, self._history, self.examples, self.summary, self.looks_note, self._thumbnails
            )
        if ahead:
            say(f"{self.clock.total:.0f} s so far; still to come: {', then '.join(ahead)} (Ctrl-C keeps what is there)")

    def kept(self) -> str:
        """What a demo that is stopped leaves, in words; "" if nothing was finished."""
        if not self.rows:
            return ""
        return f"what was finished ({', '.join(self._finished)}) is in {self.folder / PAGE}"

    def _update(self, ahead: Sequence[str]) -> None:
        self.metrics = {key: value for key, value in self.metrics.items() if key not in ("unfinished", "rows")}
        if ahead:
            self.metrics["unfinished"] = list(ahead)
        self.metrics["total_seconds"] = round(self.clock.total, 1)
        self.metrics["rows"] = self.rows
