"""`checkpoint.pt`: what a run needs to go on as if it had not stopped; written all or nothing, checked when read."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uniadapter.errors import CheckpointError, lost_worker
from uniadapter.files.messages import first_line
from uniadapter.files.writing import written_atomically
from uniadapter.tasks.loss import TrainingLoss
from uniadapter.training.divergence import first_unusable

CHECKPOINT = "checkpoint.pt"
FORMAT = 2  # of the file; one of another form is not read

_PARTS: dict[str, type] = {
    "run": dict,  # what the run was made with (`resuming.made_with`)
    "place": dict,  # step, epoch, batch, batches
    "trainable": dict,
    "task": dict,  # momentum and queue
    "optimizer": dict,
    "scheduler": dict,
    "window": dict,  # losses since the last tick
    "seconds": float,  # that the run has taken so far
}


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write a state, all or nothing; it reaches the disk before it takes the place of the last one.

    Raises:
        CheckpointError: it cannot be written (a full disk, say); the last one is untouched.
    """
    try:
        with written_atomically(path) as temporary, temporary.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)
    except (OSError, RuntimeError) as error:  # torch may report a full disk as a RuntimeError
        if lost_worker(error):  # which torch raises wherever the main process is
            raise
        raise CheckpointError(f"{path}: could not be written ({_reason(error)}); the last one is untouched") from error


def _reason(error: BaseException) -> str:
    """Why a file could not be written: the system's own word for it, behind whatever torch made of it."""
    met: BaseException | None = error
    while met is not None:
        if isinstance(met, OSError) and met.strerror:
            return met.strerror
        met = met.__cause__ or met.__context__
    return first_line(error)


class CheckpointFile:
    """A run's checkpoint, of which the one before is kept until a step was made from the new one.

    Weights that are numbers may still be good for nothing; that shows in the next step, and then the one before, from
    which training went on well, is put back.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.before = path, path.with_name(f".{path.name}.before")

    def write(self, state: dict[str, Any]) -> None:
        """Write a state; see `write_checkpoint`."""
        self.proven()
        with suppress(OSError):  # none yet, or a file system without links
            os.link(self.path, self.before)
        write_checkpoint(self.path, state)

    def proven(self) -> None:
        """A step was made from what was written last."""
        self.before.unlink(missing_ok=True)

    def unproven(self) -> None:
        """No step could be made from what was written last: put back the one before, if there is one."""
        with suppress(FileNotFoundError):
            os.replace(self.before, self.path)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read a state, checked for being whole: every byte against its checksum, every part for being there.

    Raises:
        CheckpointError: there is none, or it is broken; one line.
    """
    if not path.is_file():
        raise CheckpointError(f"{path.parent}: nothing to resume, there is no {path.name}")
    state = read_tensors(path)
    if state.get("format") != FORMAT:
        raise CheckpointError(f"{path}: made by another version of this package; start anew with --overwrite")
    for name, kind in _PARTS.items():
        if not isinstance(state.get(name), kind):
            raise CheckpointError(f"{path}: not a whole checkpoint, its {name!r} is missing or of the wrong kind")
    window = state["window"]
    if not isinstance(window.get("sums"), dict) or not isinstance(window.get("batches"), int):
        raise CheckpointError(f"{path}: not a whole checkpoint, its 'window' is of the wrong kind")
    for name in ("step", "epoch", "batch", "batches"):
        if not isinstance(state["place"].get(name), int) or state["place"][name] < 0:
            raise CheckpointError(f"{path}: not a whole checkpoint, its {name} is {state['place'].get(name)!r}")
    tensors = {name: value for name, value in state["trainable"].items() if isinstance(value, Tensor)}
    broken = first_unusable(tensors)
    if broken is not None or len(tensors) < len(state["trainable"]):
        raise CheckpointError(f"{path}: its weights are not all numbers ({broken}); start anew with --overwrite")
    return state


def read_tensors(path: Path) -> dict[str, Any]:
    """What `torch.save` wrote, without running any code of it, its bytes checked against their checksums.

    Raises:
        CheckpointError: it cannot be read or is damaged; one line.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch itself leaves the checksums alone
            damaged = archive.testzip()
        if damaged is not None:
            raise ValueError(f"{damaged} is damaged")
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError(f"it holds a {type(state).__name__}")
    except Exception as error:  # whatever a broken file brings about
        raise CheckpointError(
            f"{path}: not a readable checkpoint ({first_line(error)}); start anew with --overwrite"
        ) from error
    return state


def restore(state: dict[str, Any], loss: TrainingLoss, stateful: Mapping[str, Any], path: Path) -> None:
    """Put a checkpoint into what it came from.

    Args:
        state: as read.
        loss: gets its weights, momentum and queue.
        stateful: by the names in the checkpoint, what has a `load_state_dict`; what the checkpoint lacks is left.
        path: for errors.

    Raises:
        CheckpointError: it does not fit.
    """
    take_up({name: p for name, p in loss.named_parameters() if p.requires_grad}, state["trainable"], path)
    try:
        loss.load_training_state(state["task"])
        for name, one in stateful.items():
            if name in state:
                one.load_state_dict(state[name])
    except Exception as error:  # whatever a state of another form brings about
        raise CheckpointError(f"{path}: does not fit this run ({first_line(error)}); start anew") from error


def take_up(own: Mapping[str, Tensor], saved: Mapping[str, Tensor], path: Path) -> None:
    """Copy saved weights into a model's own; the names and shapes must be the same.

    Raises:
        CheckpointError: they are not; nothing was copied.
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
