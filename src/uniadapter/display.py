"""What a person sees while something runs: bars on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from uniadapter.evaluation.rerank import Progress as PairProgress
    from uniadapter.trainer import Tick

LOG = "train.log"
console = Console(width=None if sys.stdout.isatty() else 110)  # logs and pipes get the whole table
logger = logging.getLogger(__name__)


def say(line: str) -> None:
    """A line for people, unwrapped and uncoloured, so that paths in it can be copied."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def set_up_logging(verbose: bool = False) -> None:
    """Send the package's log to the terminal; other libraries speak up only to warn."""
    logging.basicConfig(
        level=logging.WARNING, format="%(message)s", handlers=[RichHandler(console=console, show_path=False)]
    )
    logging.getLogger("uniadapter").setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("httpx").setLevel(logging.ERROR)


@contextmanager
def logged_to(folder: Path, name: str = LOG) -> Iterator[None]:
    """Keep a copy of the log in the run's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(folder / name, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    root = logging.getLogger("uniadapter")
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
        handler.close()


def _bars() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        transient=True,
        disable=not sys.stdout.isatty(),
    )


class TrainingBar:
    """A bar with loss, samples a second and time left; without a terminal, a log line a tick."""

    def __init__(self, what: str) -> None:
        self.what, self.bars = what, _bars()
        self.task = self.bars.add_task(what, total=1, note="")

    def __enter__(self) -> TrainingBar:
        self.bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.bars.stop()

    def __call__(self, tick: Tick) -> None:
        """Show a tick."""
        parts = " ".join(f"{name} {value:.3f}" for name, value in tick.losses.items())
        note = f"{parts} lr {tick.lr:.1e} {tick.samples_per_second:.0f} samples/s"
        self.bars.update(self.task, total=tick.steps, completed=tick.step, note=note)
        left = (tick.steps - tick.step) / max(1, tick.step)
        elapsed = self.bars.tasks[0].elapsed or 0.0
        log = logger.debug if console.is_terminal else logger.info
        log("%s step %d/%d %s, %.0f s left", self.what, tick.step, tick.steps, note, elapsed * left)


@contextmanager
def pair_bar(what: str) -> Iterator[PairProgress]:
    """A bar over fused pairs, with pairs a second and time left."""
    with _bars() as bars:
        task = bars.add_task(what, total=1, note="")

        def show(done: int, total: int) -> None:
            speed = bars.tasks[0].speed or 0.0
            bars.update(task, total=total, completed=done, note=f"{speed:.0f} pairs/s")

        yield show
