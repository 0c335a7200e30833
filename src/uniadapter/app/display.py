"""Output of a running command: progress bars on a terminal, plain lines elsewhere, and a log file."""

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

from uniadapter.errors import user_message

if TYPE_CHECKING:
    from uniadapter.evaluation.rerank import Progress as PairProgress
    from uniadapter.training.trainer import ProgressEvent

LOG = "train.log"
console = Console(width=None if sys.stdout.isatty() else 1000)  # lines are not wrapped in logs and pipes
logger = logging.getLogger(__name__)


def say(line: str) -> None:
    """Print a line without wrapping and colours, so that paths in it can be copied."""
    console.print(_printable(line), highlight=False, markup=False, soft_wrap=True)


def set_up_logging(verbose: bool = False) -> None:
    """Send the package's log to the terminal, and only warnings of other libraries."""
    if not logging.getLogger().handlers:
        logging.getLogger().addHandler(_terminal_handler() if console.is_terminal else _LineHandler())
    logging.getLogger().setLevel(logging.WARNING)
    logging.getLogger("uniadapter").setLevel(logging.DEBUG if verbose else logging.INFO)
    logging.getLogger("httpx").setLevel(logging.ERROR)


class _LineHandler(logging.Handler):
    """Plain lines on `sys.stdout`, looked up at every line, since it may be replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))

    def emit(self, record: logging.LogRecord) -> None:
        sys.stdout.write(_printable(self.format(record)) + "\n")
        sys.stdout.flush()


def _terminal_handler() -> logging.Handler:
    # No highlighter: its patterns take minutes on a name of 100,000 characters.
    handler = RichHandler(console=console, show_path=False, highlighter=NullHighlighter())
    handler.setFormatter(logging.Formatter("%(message)s"))
    handler.addFilter(lambda record: not getattr(record, "on_bar", False))
    return handler


class _LogFile(logging.FileHandler):
    """The log file of a run. If the disk is full, lines are lost, with one message; the run continues."""

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
    """Within the block, write the log to a file too, and the error that ends it; with its traceback if it is a bug."""
    folder.mkdir(parents=True, exist_ok=True)
    handler = _LogFile(folder / name)
    root = logging.getLogger("uniadapter")
    root.addHandler(handler)
    try:
        yield
    except Exception as error:
        line = user_message(error)
        raised = None if line else (type(error), error, error.__traceback__)
        handler.handle(logging.LogRecord(__name__, logging.ERROR, "", 0, line or str(error), None, raised))
        raise
    finally:
        root.removeHandler(handler)
        with suppress(OSError):  # the disk is full, which was reported
            handler.close()


def _bars(shown_on: Console | None = None) -> Progress:
    """Progress bars that fit a terminal of 80 columns; the notes at their end are cut."""

    def column(ratio: int | None = None, most: int | None = None) -> Column:
        return Column(no_wrap=True, overflow="ellipsis", ratio=ratio, max_width=most)

    shown_on = shown_on or console
    return Progress(
        TextColumn("{task.description}", table_column=column(most=22)),
        BarColumn(bar_width=12),
        TextColumn("{task.completed:.0f}/{task.total:.0f}", table_column=column()),
        TimeElapsedColumn(table_column=column()),
        _TimeLeft(table_column=column()),
        TextColumn("{task.fields[note]}", table_column=column(ratio=1)),
        console=shown_on,
        transient=True,
        expand=True,
        disable=not shown_on.is_terminal,
    )


class _TimeLeft(TimeRemainingColumn):
    """Time left: from the task's field `left`, or estimated by rich."""

    def render(self, task: Task) -> Text:
        left = task.fields.get("left")
        return Text(f"left {super().render(task) if left is None else clock(left)}")


def clock(seconds: float) -> str:
    """Seconds as hours, minutes and seconds: 1:02:03."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02}:{whole % 60:02}"


class TrainingBar:
    """A bar with loss, speed and time left; every event is a line of the log too, shown if there is no bar.

    Args:
        what: name of the method, at the start of the bar.
    """

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

    def __call__(self, event: ProgressEvent) -> None:
        """Show an event."""
        parts = " ".join(f"{name} {value:.3f}" for name, value in event.losses.items())
        note = f"{parts} lr {event.lr:.1e} {event.samples_per_second:.3g} samples/s"
        self.bars.update(self.task, total=event.steps, completed=event.step, note=note, left=event.seconds_left)
        line = "%s step %d/%d %s, %s left"
        logger.info(line, self.what, event.step, event.steps, note, clock(event.seconds_left), extra={"on_bar": True})


@contextmanager
def pair_bar(what: str) -> Iterator[PairProgress]:
    """A bar of fused pairs, with speed and time left; yields the function to call with pairs done and of all."""
    with _bars() as bars:
        task = bars.add_task(what, total=1, note="")

        def show(done: int, total: int) -> None:
            speed = bars.tasks[0].speed or 0.0
            bars.update(task, total=total, completed=done, note=f"{speed:.0f} pairs/s")

        yield show


def _printable(line: str) -> str:
    """The line with escapes for characters that the encoding of standard output lacks."""
    encoding = sys.stdout.encoding or "utf-8"
    return line.encode(encoding, "backslashreplace").decode(encoding)
