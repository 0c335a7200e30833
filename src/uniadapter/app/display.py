"""What a person sees while something runs: bars on a terminal, plain whole lines elsewhere, and all of it in a file."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.highlighter import NullHighlighter
from rich.logging import RichHandler
from rich.progress import BarColumn, Progress, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from uniadapter.errors import mendable

if TYPE_CHECKING:
    from uniadapter.evaluation.rerank import Progress as PairProgress
    from uniadapter.training.trainer import ProgressEvent

LOG = "train.log"
console = Console(width=None if sys.stdout.isatty() else 1000)  # logs and pipes get every line whole
logger = logging.getLogger(__name__)


def say(line: str) -> None:
    """A line for people, unwrapped and uncoloured, so that paths in it can be copied."""
    console.print(_printable(line), highlight=False, markup=False, soft_wrap=True)


def set_up_logging(verbose: bool = False) -> None:
    """Send the package's log to the terminal; other libraries speak up only to warn."""
    if not logging.getLogger().handlers:
        logging.getLogger().addHandler(_terminal_handler() if console.is_terminal else _LineHandler())
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("uniadapter").setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("httpx").setLevel(logging.ERROR)


class _LineHandler(logging.Handler):
    """Plain lines on standard output, whatever it is at the time."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        sys.stdout.write(_printable(self.format(record)) + "\n")
        sys.stdout.flush()


def _terminal_handler() -> logging.Handler:
    # No highlighter: its patterns take minutes over a name of 100,000 characters.
    handler = RichHandler(console=console, show_path=False, highlighter=NullHighlighter())
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.addFilter(lambda record: not getattr(record, "on_bar", False))
    return handler


class _LogFile(logging.FileHandler):
    """The log of a run. A disk that fills up meanwhile costs lines of it, said once, and never the run."""

    def __init__(self, file: Path) -> None:
        super().__init__(file, encoding="utf-8", errors="backslashreplace")
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self.failed = False

    def handleError(self, record: logging.LogRecord) -> None:
        if not self.failed:
            sys.stderr.write(f"{self.baseFilename}: the log cannot be written ({sys.exc_info()[1]})\n")
        self.failed = True


@contextmanager
def logged_to(folder: Path, name: str = LOG) -> Iterator[None]:
    """Keep a copy of the log in the run's folder, and of the error that ends it: with its places where it is a bug."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = _LogFile(folder / name)
    root = logging.getLogger("uniadapter")
    root.addHandler(handler)
    try:
        yield
    except Exception as error:
        line = mendable(error)
        raised = None if line else (type(error), error, error.__traceback__)
        handler.handle(logging.LogRecord(__name__, logging.ERROR, "", 0, line or str(error), None, raised))
        raise
    finally:
        root.removeHandler(handler)
        with suppress(OSError):  # the disk is full, which was said
            handler.close()


def _bars(shown_on: Console | None = None) -> Progress:
    """A row that fits a terminal of 80 columns: what does not fit is cut from the notes at its end."""

    def column(ratio: int | None = None, most: int | None = None) -> Column:
        return Column(no_wrap=True, overflow="ellipsis", ratio=ratio, max_width=most)

    shown_on = shown_on or console
    return Progress(
        TextColumn("{task.description}", table_column=column(most=22)),
        BarColumn(bar_width=12),
        TextColumn("{task.completed:.0f}/{task.total:.0f}", table_column=column()),
        TimeElapsedColumn(table_column=column()),
        _Left(table_column=column()),
        TextColumn("{task.fields[note]}", table_column=column(ratio=1)),
        console=shown_on,
        transient=True,
        expand=True,
        disable=not shown_on.is_terminal,
    )


class _Left(TimeRemainingColumn):
    """Time left: what the task itself says, or what rich makes of its speed."""

    def render(self, task: Task) -> Text:
        left = task.fields.get("left")
        return Text(f"left {super().render(task) if left is None else clock(left)}")


def clock(seconds: float) -> str:
    """Seconds as hours, minutes and seconds: 1:02:03."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


class TrainingBar:
    """A bar with loss, samples a second and time left; every tick is a line of the log, shown where there is no bar."""

    def __init__(self, what: str) -> None:
        self.what, self.bars = what, _bars()
        self.task = self.bars.add_task(what, total=1, note="", left=0.0)

    def __enter__(self) -> TrainingBar:
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, place: TracebackType | None
    ) -> None:
        self.bars.stop()

    def __call__(self, tick: ProgressEvent) -> None:
        """Show a tick."""
        parts = " ".join(f"{name} {value:.3f}" for name, value in tick.losses.items())
        note = f"{parts} lr {tick.lr:.1e} {tick.samples_per_second:.3g} samples/s"
        self.bars.update(self.task, total=tick.steps, completed=tick.step, note=note, left=tick.seconds_left)
        line = "%s step %d/%d %s, %s left"
        logger.info(line, self.what, tick.step, tick.steps, note, clock(tick.seconds_left), extra={"on_bar": True})


@contextmanager
def pair_bar(what: str) -> Iterator[PairProgress]:
    """A bar over fused pairs, with pairs a second and time left."""
    with _bars() as bars:
        task = bars.add_task(what, total=1, note="")

        def show(done: int, total: int) -> None:
            speed = bars.tasks[0].speed or 0.0
            bars.update(task, total=total, completed=done, note=f"{speed:.0f} pairs/s")

        yield show


def _printable(line: str) -> str:
    """The line as standard output can show it: half an emoji, or a letter that its encoding lacks, as an escape."""
    encoding = sys.stdout.encoding or "utf-8"
    return line.encode(encoding, "backslashreplace").decode(encoding)
