"""What a user can mend: each of these reaches the command line as one line and exit status 2."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Literal

from uniadapter.files.messages import MAX_MESSAGE, shortened
from uniadapter.files.schema import SchemaError

OnError = Literal["raise", "skip"]  # what becomes of data that cannot be used


class ConfigError(ValueError):
    """A setting that cannot be used: says which, why, and what to do."""


class DataError(ValueError):
    """Data that cannot be used; one line of at most 300 characters that says what is wrong, where, and what to do.

    Args:
        message: the line.
        kind: a few words that the same fault of another record shares; skipped records are counted by it.
    """

    def __init__(self, message: str, kind: str = "unusable data") -> None:
        # Half a surrogate pair, from a file or its name, could not be printed.
        line = " ".join(message.encode("utf-8", "backslashreplace").decode().split())
        # What is too long is a name or what the user wrote, in the middle; at the end stands what to do.
        super().__init__(line if len(line) <= MAX_MESSAGE else f"{line[:220]} … {line[223 - MAX_MESSAGE :]}")
        self.kind = kind


class CheckpointError(ValueError):
    """A file of weights that cannot be used: says which, why, and what to do, in one line of at most 300 characters."""

    def __init__(self, message: str) -> None:
        line = "".join(c if c.isprintable() else "?" for c in " ".join(message[:2000].split()))
        super().__init__(line if len(line) <= 300 else f"{line[:299]}…")


class UsageError(ValueError):
    """A command line that cannot be understood."""


class NotFinite(FloatingPointError, ValueError):
    """A value computed from the weights is NaN or infinite: training has diverged, or the weights are broken."""


class Interrupted(Exception):
    """The run was stopped by a signal.

    Args:
        folder: where it can be taken up; None if nothing was saved.
        step: optimiser steps done; None outside training.
        signum: the signal.
    """

    def __init__(self, folder: Path | None, step: int | None = None, signum: int = signal.SIGINT) -> None:
        where = "stopped" if step is None else f"stopped at step {step}"
        saved = "nothing was saved" if folder is None else f"everything is saved in {folder}"
        super().__init__(f"{where}; {saved}")
        self.folder, self.step, self.signum = folder, step, signum

    @property
    def exit_code(self) -> int:
        """128 and the signal's number, as shells have it."""
        return 128 + self.signum


def lost_worker(error: BaseException) -> str | None:
    """What became of a process that loads data, in one line, where that is what torch says; else None."""
    # Torch raises it wherever the main process happens to be: what was under way then may have failed for it.
    met: BaseException | None = error
    while met is not None and not (isinstance(met, RuntimeError) and str(met).startswith("DataLoader worker")):
        met = met.__cause__ or met.__context__
    if met is None:
        return None
    text = str(met)
    how = "exited unexpectedly" if "unexpectedly" in text else shortened(text.partition(") ")[2].partition(".")[0], 60)
    return lost_worker_line(how, "the shared memory, /dev/shm, is too small" if "Bus error" in text else None)


def lost_worker_line(how: str, why: str | None = None) -> str:
    """The line about a process that loads data and has ended."""
    advice = "set data.workers lower (0 loads in the main process)"
    return f"a process that loads data {how}; {why or 'most likely the memory was full'}: {advice}"


MENDABLE = (ConfigError, DataError, CheckpointError, UsageError, SchemaError, FloatingPointError, OSError, ImportError)


def mendable(error: Exception) -> str | None:
    """What a user can mend, in one line of at most 300 characters; None for a mistake of ours."""
    if (lost := lost_worker(error)) is not None:
        return lost
    if isinstance(error, OSError) and error.strerror and error.filename:
        return shortened(f"{shortened(str(error.filename), 200)}: {error.strerror}")
    if isinstance(error, MENDABLE):
        return shortened(str(error) or type(error).__name__)
    out = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if out or (isinstance(error, RuntimeError) and "can't allocate memory" in str(error)):
        advice = "smaller train.batch_size, evaluate.batch_size, model.image_size or data.frames need less"
        return shortened(f"the memory is full; {advice} ({shortened(str(error), 100)})")
    return None
