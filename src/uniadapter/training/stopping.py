"""Signals that end a run: the first asks it to stop once all is saved, and every process stops at the same step."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from uniadapter.errors import Interrupted

logger = logging.getLogger(__name__)

# Those that ask for an end: Ctrl-C, a scheduler or `kill`, a terminal or connection that was closed.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

_ECHO = 1.0  # seconds in which a signal that comes again is the same wish: a launcher passes on what a terminal sent


class Stopping:
    """Within the block a signal is only noted, in `wanted`; a second one stops at once.

    A signal that the process was started to ignore (`nohup`) stays ignored. Outside the main thread, where signals
    cannot be caught, nothing is.

    Attributes:
        wanted: number of the signal that came; 0 while none has.
    """

    def __init__(self) -> None:
        self.wanted = 0
        self._when = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        self._before = _catch(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        _restore(self._before)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """For the time of the block, in which all is saved, signals do what they did before."""
        _restore(self._before)
        try:
            yield
        finally:
            _catch(self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.wanted:
            self.wanted, self._when = signum, now
            logger.warning("stopping after this step; press Ctrl-C again to stop at once")
        elif now - self._when > _ECHO:
            raise KeyboardInterrupt


@contextmanager
def interruptible(folder: Path, checkpoint: Path) -> Iterator[None]:
    """Within the block, where no trainer takes them, signals raise `Interrupted`, so that everything is tidied up.

    Args:
        folder: of the run.
        checkpoint: whether anything is saved shows in whether this file is there.
    """

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Interrupted(folder if checkpoint.exists() else None, None, signum)

    before = _catch(stop)
    try:
        yield
    finally:
        _restore(before)


def _catch(handler: Any) -> dict[int, Any]:
    """Set a handler for every signal that is not ignored; returns what was there."""
    before: dict[int, Any] = {}
    for one in SIGNALS:
        if signal.getsignal(one) is signal.SIG_IGN:
            continue
        try:
            before[one] = signal.signal(one, handler)
        except ValueError:  # not in the main thread
            break
    return before


def _restore(before: dict[int, Any]) -> None:
    for one, handler in before.items():
        signal.signal(one, handler)
