"""Errors that a user can fix; the command line prints each as one line and exits with status 2."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Literal

from uniadapter.files.messages import MAX_MESSAGE, shortened
from uniadapter.files.schema import SchemaError

OnError = Literal["raise", "skip"]  # what to do with data that cannot be used


class ConfigError(ValueError):
    """An invalid setting; the message says which one, why, and what to do."""


class DataError(ValueError):
    """Data that cannot be used; the message is one line of at most 300 characters: what is wrong, where, what to do.

    Args:
        message: the line.
        kind: category of the error in a few words; skipped records are counted by it.
    """

    def __init__(self, message: str, kind: str = "unusable data") -> None:
        # A lone surrogate, from a file or its name, could not be printed.
        line = " ".join(message.encode("utf-8", "backslashreplace").decode().split())
        # Long names and quoted values are in the middle of a message; its end says what to do and must be kept.
        super().__init__(line if len(line) <= MAX_MESSAGE else f"{line[:220]} … {line[223 - MAX_MESSAGE :]}")
        self.kind = kind


class CheckpointError(ValueError):
    """A weights file that cannot be used; the message is one line of at most 300 characters: which, why, what to do."""

    def __init__(self, message: str) -> None:
        line = "".join(c if c.isprintable() else "?" for c in " ".join(message[:2000].split()))
        super().__init__(line if len(line) <= 300 else f"{line[:299]}…")


class UsageError(ValueError):
    """An invalid command line."""


class NonFiniteError(FloatingPointError, ValueError):
    """A value computed from the weights is NaN or infinite: training diverged, or the weights are corrupt."""


# What a queue or a container manager sends before it ends a process: SIGTERM, or a warning that the user chose
# (SLURM's --signal=USR1@120; Grid Engine's -notify sends both).
QUEUE_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGUSR2") if hasattr(signal, name))
# Exit status of a run that such a signal or `train.max_minutes` has stopped: the same command again goes on. HTCondor's
# examples use 85 for this too (`checkpoint_exit_code`); neither Python nor a shell nor sysexits.h (64 to 78) uses it.
RUN_AGAIN = 85


class Interrupted(Exception):
    """The run was stopped by a signal, or because its time is up.

    Args:
        folder: the run folder to resume from; None if nothing was saved.
        step: optimiser steps done; None outside training.
        signum: number of the signal; 0 if `train.max_minutes` are over.
        saved: what is kept, in words; made from the folder if "".
    """

    def __init__(
        self, folder: Path | None, step: int | None = None, signum: int = signal.SIGINT, saved: str = ""
    ) -> None:
        where = "stopped" if step is None else f"stopped at step {step}"
        where += "" if signum else " (train.max_minutes)"
        saved = saved or ("nothing was saved" if folder is None else f"everything is saved in {folder}")
        super().__init__(f"{where}; {saved}")
        self.folder, self.step, self.signum = folder, step, signum

    @property
    def exit_code(self) -> int:
        """`RUN_AGAIN` for a queue; after Ctrl-C or a closed terminal 128 plus the signal's number, as in shells."""
        return RUN_AGAIN if not self.signum or self.signum in QUEUE_SIGNALS else 128 + self.signum


def worker_failure(error: BaseException) -> str | None:
    """The message for a DataLoader worker that died, if `error` or one of its causes reports one; else None."""
    # Torch raises it from a signal handler, at any point of the main process, so another error may wrap it.
    cause: BaseException | None = error
    while cause is not None and not (isinstance(cause, RuntimeError) and str(cause).startswith("DataLoader worker")):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    text = str(cause)
    how = "exited unexpectedly" if "unexpectedly" in text else shortened(text.partition(") ")[2].partition(".")[0], 60)
    return worker_failure_message(how, "the shared memory, /dev/shm, is too small" if "Bus error" in text else None)


def worker_failure_message(how: str, why: str | None = None) -> str:
    """The message for a DataLoader worker that died: how it ended, and why if that is known."""
    advice = "set data.workers lower (0 loads in the main process)"
    return f"a process that loads data {how}; {why or 'most likely the memory was full'}: {advice}"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of a GPU or of the machine is full."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


USER_ERRORS = (
    ConfigError,
    DataError,
    CheckpointError,
    UsageError,
    SchemaError,
    FloatingPointError,
    OSError,
    ImportError,
)


def user_message(error: Exception) -> str | None:
    """The line to show for an error that a user can fix, at most 300 characters; None for a bug of this package."""
    if (lost := worker_failure(error)) is not None:
        return lost
    if isinstance(error, OSError) and error.strerror and error.filename:
        return shortened(f"{shortened(str(error.filename), 200)}: {error.strerror}")
    if isinstance(error, USER_ERRORS):
        return shortened(str(error) or type(error).__name__)
    if is_out_of_memory(error):
        advice = "smaller train.batch_size, evaluate.batch_size, model.image_size or data.frames need less"
        return shortened(f"the memory is full; {advice} ({shortened(str(error), 100)})")
    return None
