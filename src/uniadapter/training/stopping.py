"""Graceful stopping: the first signal stops a run after a step and its checkpoint, on all processes alike."""

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

# Ctrl-C; a scheduler or `kill`; a closed terminal or connection.
SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))

_ECHO = 1.0  # seconds in which a repeated signal counts as one: launchers forward what the terminal has already sent


class GracefulStop:
    """Context manager in which the first signal only sets `signum`; a second one raises `KeyboardInterrupt`.

    Signals that the process was started to ignore (`nohup`) stay ignored. Outside the main thread, where Python cannot
    catch signals, it does nothing.

    Attributes:
        signum: number of the signal that arrived; 0 before.
    """

    def __init__(self) -> None:
        self.signum = 0
        self._when = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> GracefulStop:
        self._before = _catch(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        _restore(self._before)

    @contextmanager
    def default_handlers(self) -> Iterator[None]:
        """Restore the previous signal handlers for the block, for phases in which nothing can be lost."""
        _restore(self._before)
        try:
            yield
        finally:
            _catch(self._note)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.signum:
            self.signum, self._when = signum, now
            logger.warning("stopping after this step; press Ctrl-C again to stop at once")
        elif now - self._when > _ECHO:
            raise KeyboardInterrupt


@contextmanager
def raising_interrupted(folder: Path, checkpoint: Path) -> Iterator[None]:
    """Context manager in which signals raise `Interrupted`, so that cleanup code runs; for phases before training.

    Args:
        folder: of the run.
        checkpoint: its checkpoint; if it exists, the error names the folder as resumable.
    """

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Interrupted(folder if checkpoint.exists() else None, None, signum)

    before = _catch(stop)
    try:
        yield
    finally:
        _restore(before)


def _catch(handler: Any) -> dict[int, Any]:
    """Set a handler for every signal that is not ignored; returns the previous handlers."""
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
