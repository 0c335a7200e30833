"""`checkpoint.pt`, the state from which a run resumes exactly; written atomically, verified when read."""

from __future__ import annotations

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

CHECKPOINT = "checkpoint.pt"
FORMAT = 2  # version of the file; others are not read

_PARTS: dict[str, type] = {
    "run": dict,  # fingerprint (`resume.run_fingerprint`)
    "place": dict,  # position: step, epoch, batch, batches
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
    """A run's checkpoint, whose previous version is kept until a step from the new one has succeeded.

    Finite weights may still make the next step diverge. Then the previous checkpoint, from which training did continue,
    is restored.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.previous = path, path.with_name(f".{path.name}.before")

    def write(self, state: dict[str, Any]) -> None:
        """Write a checkpoint; see `write_checkpoint`."""
        self.confirm()
        with suppress(OSError):  # there is none yet, or the file system has no hard links
            os.link(self.path, self.previous)
        write_checkpoint(self.path, state)

    def confirm(self) -> None:
        """A step from the last checkpoint has succeeded: delete the previous one."""
        self.previous.unlink(missing_ok=True)

    def roll_back(self) -> None:
        """The first step from the last checkpoint diverged: restore the previous one, if there is one."""
        with suppress(FileNotFoundError):
            os.replace(self.previous, self.path)


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
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged} is damaged")
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
