"""`checkpoint.pt`, the state from which a run resumes exactly: written atomically, verified when read.

The last two are kept. It is a zip archive as `torch.save` writes it, with a CRC-32 of each record; all of them are
compared when it is read.
"""

from __future__ import annotations

import logging
import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uniadapter.errors import CheckpointError, worker_failure
from uniadapter.files.messages import first_line
from uniadapter.files.writing import atomic_file
from uniadapter.training.divergence import first_nonfinite
from uniadapter.training.loss import TrainingLoss
from uniadapter.training.run_folder import CHECKPOINTS

logger = logging.getLogger(__name__)

CHECKPOINT = CHECKPOINTS[0]
FORMAT = 2  # version of the file; others are not read

_PARTS: dict[str, type] = {
    "run": dict,  # fingerprint (`resume.run_fingerprint`)
    "place": dict,  # position: step, epoch, batch, batches; in newer files also the number of processes
    "trainable": dict,  # weights by parameter name
    "task": dict,  # momentum weights and queue
    "optimizer": dict,
    "scheduler": dict,
    "window": dict,  # sums of the losses since the last log line
    "seconds": float,  # taken by the run so far
}


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint atomically; it is synced to disk before it replaces the last one.

    Raises:
        CheckpointError: it cannot be written (a full disk, for example); the last one is unchanged.
    """
    try:
        with atomic_file(path) as temporary, temporary.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
    except (OSError, RuntimeError) as error:  # torch may report a full disk as a RuntimeError
        if worker_failure(error):  # raised by a signal handler, unrelated to the file
            raise
        raise CheckpointError(f"{path}: could not be written ({_reason(error)}); the last one is unchanged") from error


def _reason(error: BaseException) -> str:
    """Why a file could not be written: the system's message, which torch may have wrapped."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return first_line(error)


class CheckpointFile:
    """A file of a run's state, and the version before it.

    Finite weights may still make the next step diverge. Until a step from the newest version has succeeded, `roll_back`
    puts the one before, from which training did go on, in its place.

    Args:
        path: the file; the version before is beside it, as `NAME.previous.pt`.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.previous = path, path.with_name(f"{path.stem}.previous{path.suffix}")
        self.goes_on = False  # whether the files there are this run's
        self._tried = False  # whether a step from the newest has succeeded

    def write(self, state: dict[str, Any]) -> None:
        """Write a new version; see `write_checkpoint`."""
        if self.goes_on:
            self._keep_previous()
        write_checkpoint(self.path, state)
        if not self.goes_on:  # another run's, which this one replaces
            self.previous.unlink(missing_ok=True)
        self.goes_on, self._tried = True, False

    def _keep_previous(self) -> None:
        temporary = self.previous.with_name(f".{self.previous.name}.{os.getpid()}.tmp")
        try:
            os.link(self.path, temporary)
            os.replace(temporary, self.previous)
        except FileNotFoundError:  # there is none yet
            return
        except OSError:  # no hard links here: for a moment there is only the version before
            os.replace(self.path, self.previous)
        finally:
            temporary.unlink(missing_ok=True)  # it stays if both were links to one file

    def confirm(self) -> None:
        """A step from the newest version has succeeded."""
        self._tried = True

    def roll_back(self) -> None:
        """Training diverged: if that was the first step from the newest version, restore the one before, if any."""
        if self.goes_on and not self._tried:
            self.promote()

    def promote(self) -> None:
        """Put the version before in the place of the newest, if there is one."""
        with suppress(FileNotFoundError):
            os.replace(self.previous, self.path)


def read_newest(folder: Path) -> tuple[dict[str, Any], Path]:
    """Read the newest good one of the last two checkpoints; the log says if it is the older.

    Returns:
        The state, and the file that it was read from.

    Raises:
        CheckpointError: there is none, or none is good; one line, about the newest.
    """
    newest, previous = (folder / name for name in CHECKPOINTS)
    try:
        return read_checkpoint(newest), newest
    except CheckpointError as error:
        try:
            state = read_checkpoint(previous)
        except CheckpointError:
            raise error from None
        reason = str(error).partition("; start a new run")[0]
        logger.warning("%s: going on from %s instead, at step %d", reason, previous.name, state["place"]["step"])
        return state, previous


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint and verify its checksums and that all of its parts are present.

    Raises:
        CheckpointError: it is missing or corrupt; one line.
    """
    if not path.is_file():
        raise CheckpointError(f"{path.parent}: nothing to resume, there is no {path.name}")
    state = read_tensors(path)
    if state.get("format") != FORMAT:
        raise CheckpointError(f"{path}: made by another version of this package; start a new run with --overwrite")
    for name, kind in _PARTS.items():
        if not isinstance(state.get(name), kind):
            raise CheckpointError(f"{path}: incomplete checkpoint, its {name!r} is missing or of the wrong type")
    window = state["window"]
    if not isinstance(window.get("sums"), dict) or not isinstance(window.get("batches"), int):
        raise CheckpointError(f"{path}: incomplete checkpoint, its 'window' is of the wrong type")
    for name in ("step", "epoch", "batch", "batches"):
        if not isinstance(state["place"].get(name), int) or state["place"][name] < 0:
            raise CheckpointError(f"{path}: incomplete checkpoint, its {name} is {state['place'].get(name)!r}")
    tensors = {name: value for name, value in state["trainable"].items() if isinstance(value, Tensor)}
    broken = first_nonfinite(tensors)
    if broken is not None or len(tensors) < len(state["trainable"]):
        raise CheckpointError(f"{path}: its weights are not all finite ({broken}); start a new run with --overwrite")
    return state


def read_tensors(path: Path) -> dict[str, Any]:
    """Load a file of `torch.save` with `weights_only`, after verifying its checksums.

    Raises:
        CheckpointError: it cannot be read or is corrupt; one line.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch itself does not verify the checksums
            for record in archive.infolist():  # `testzip` looks them up by name, which a flipped bit may have changed
                if record.external_attr:  # torch writes none; what is marked as a folder it reads as if it were empty
                    raise ValueError(f"{record.filename} is damaged")
                with archive.open(record) as content:
                    while content.read(1 << 20):
                        pass
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError(f"it holds a {type(state).__name__}")
    except Exception as error:  # a corrupt file may raise anything
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({first_line(error)}); start a new run with --overwrite"
        ) from error
    return state


def restore_state(state: dict[str, Any], loss: TrainingLoss, stateful: Mapping[str, Any], path: Path) -> None:
    """Load a checkpoint into the loss, the optimiser and the scheduler.

    Args:
        state: from `read_checkpoint`.
        loss: receives trainable weights, momentum weights and queue.
        stateful: objects with a `load_state_dict`, by their names in the checkpoint; those that it lacks are unchanged.
        path: for errors.

    Raises:
        CheckpointError: it does not fit this run.
    """
    copy_weights({name: p for name, p in loss.named_parameters() if p.requires_grad}, state["trainable"], path)
    try:
        loss.load_training_state(state["task"])
        for name, one in stateful.items():
            if name in state:
                one.load_state_dict(state[name])
    except Exception as error:  # a state of another structure may raise anything
        raise CheckpointError(f"{path}: does not fit this run ({first_line(error)}); start a new run") from error


def copy_weights(own: Mapping[str, Tensor], saved: Mapping[str, Tensor], path: Path) -> None:
    """Copy saved weights into a model's; names and shapes must match.

    Args:
        own: the model's weights by name.
        saved: the weights to copy, by name.
        path: of their file, for errors.

    Raises:
        CheckpointError: they do not match; nothing was copied.
    """
    names = sorted(set(own) ^ set(saved))
    if names:
        where = "in the model" if names[0] in saved else "in the file"
        raise CheckpointError(f"{path}: does not fit this run, {names[0]} is not {where} (and {len(names) - 1} more)")
    for name, value in saved.items():
        if own[name].shape != value.shape:
            raise CheckpointError(
                f"{path}: does not fit this run, {name} is {list(value.shape)}, not {list(own[name].shape)}"
            )
    with torch.no_grad():
        for name, value in saved.items():
            own[name].copy_(value)
