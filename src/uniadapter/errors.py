"""What a user can mend: each of these reaches the command line as one line and exit status 2."""

from __future__ import annotations

from pathlib import Path


class ConfigError(ValueError):
    """A setting that cannot be used: says which, why, and what to do."""


class DataError(ValueError):
    """Data that cannot be used; one line that says what is wrong, where, and what to do.

    Args:
        message: the line.
        kind: a few words that the same fault of another record shares; skipped records are counted by it.
    """

    def __init__(self, message: str, kind: str = "unusable data") -> None:
        super().__init__(" ".join(message.split()))
        self.kind = kind


class CheckpointError(ValueError):
    """A file of weights that cannot be used: says which, why, and what to do."""


class UsageError(ValueError):
    """A command line that cannot be understood."""


class Interrupted(Exception):
    """The run was stopped by Ctrl-C after saving; `folder` is where it can be taken up."""

    def __init__(self, folder: Path, step: int) -> None:
        super().__init__(f"stopped at step {step}; everything is saved in {folder}")
        self.folder, self.step = folder, step
