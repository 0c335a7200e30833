"""Graceful stopping: a signal stops a run after a step and its checkpoint, on all processes alike."""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

from uniadapter.errors import QUEUE_SIGNALS, Interrupted
from uniadapter.training.run_folder import can_resume

logger = logging.getLogger(__name__)

# Ctrl-C; a closed terminal or connection; a queue, a container manager or `kill`.
SIGNALS = (*(getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)), *QUEUE_SIGNALS)

_ECHO = 1.0  # seconds in which a repeated signal counts as one: launchers forward what the terminal has already sent


class GracefulStop:
    """Context manager in which the first signal only sets `signum`; Ctrl-C after it raises `KeyboardInterrupt`.

    No other second signal does: a queue sends SIGTERM some time after its warning, and the step may still be running.
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
            with suppress(RuntimeError):  # the signal has arrived while this process writes a line
                logger.warning("stopping after this step; Ctrl-C stops at once")
        elif signum == signal.SIGINT and now - self._when > _ECHO:
            raise KeyboardInterrupt


@contextmanager
def raising_interrupted(folder: Path) -> Iterator[None]:
    """Context manager in which signals raise `Interrupted`, so that cleanup code runs; for phases but training.

    Args:
        folder: of the run; if it has a checkpoint, the error names it as resumable.
    """

    def stop(signum: int, frame: FrameType | None) -> None:
        raise Interrupted(folder if can_resume(folder) else None, None, signum)

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
