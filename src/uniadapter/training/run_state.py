"""What a checkpoint holds of a trainer, and a trainer that goes on from one."""

from __future__ import annotations

import logging
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from accelerate import Accelerator

from uniadapter.data.loaders import TrainLoader
from uniadapter.errors import CheckpointError
from uniadapter.processes.distributed import gather_list
from uniadapter.training.divergence import SkippedSteps
from uniadapter.training.history import HISTORY
from uniadapter.training.loss import TrainingLoss
from uniadapter.training.progress import ProgressLog
from uniadapter.training.resume import check_processes, check_resumable
from uniadapter.training.run_checkpoint import CheckpointFile, read_newest, restore_state
from uniadapter.training.validations import Validations, trainable_weights

_LEFT_OUT = 10_000  # errors in a checkpoint
logger = logging.getLogger(__name__)


class Resumable(Protocol):
    """What is saved of a `Trainer`, and what takes it up again; see there."""

    loss: TrainingLoss
    loader: TrainLoader
    accelerator: Accelerator
    fingerprint: dict[str, Any]
    optimizer: Any
    scheduler: Any
    progress: ProgressLog
    validations: Validations
    skipped: SkippedSteps
    checkpoint: CheckpointFile | None
    step: int
    epoch: int
    batch: int
    batches: int
    steps: int
    seconds_before: float

    @property
    def seconds(self) -> float:
        """Seconds that the run has taken."""

    def plan(self) -> None:
        """Count the steps of the run, from the batches of its loader."""


def state_of(trainer: Resumable) -> dict[str, Any]:
    """Trainable weights, momentum weights, queue, optimiser, scheduler and position; all processes must call it."""
    return {
        "run": trainer.fingerprint,
        "trainable": trainable_weights(trainer.loss),
        "task": trainer.loss.training_state(),
        **{name: one.state_dict() for name, one in _stateful(trainer).items()},
        "place": {
            "step": trainer.step, "epoch": trainer.epoch, "batch": trainer.batch, "batches": trainer.batches,
            "processes": trainer.accelerator.num_processes,
        },
        "left_out": dict(islice(left_out_by_all(trainer.loader).items(), _LEFT_OUT)),
        "window": trainer.progress.window.state(trainer.progress.mean),
        "seconds": trainer.seconds,
    }  # fmt: skip


def left_out_by_all(loader: TrainLoader) -> dict[str, str]:
    """What the processes left out so far, as errors say, with their kinds; all must call it."""
    return dict(sorted({item for mine in gather_list([loader.left_out]) for item in mine.items()}))


def go_on(trainer: Resumable, folder: Path) -> None:
    """Load the newest good checkpoint of a run folder into a trainer.

    Raises:
        CheckpointError: it is missing, corrupt, or of a run with other settings or data; one line.
        ConfigError: its batches cannot be divided among these processes.
    """
    state, path = read_newest(folder)
    place, processes = state["place"], trainer.accelerator.num_processes
    check_resumable(state["run"], trainer.fingerprint, path)
    check_processes(place.get("processes", processes), processes, trainer.loss.bound_to_processes, path)
    if place["batches"] != trainer.batches:
        trainer.loader.keep_batches(place["batches"])
        trainer.plan()
    restore_state(state, trainer.loss, _stateful(trainer), path)
    trainer.progress.window.load_state(state["window"], trainer.accelerator.device)
    trainer.step, trainer.epoch, trainer.batch = place["step"], place["epoch"], place["batch"]
    trainer.seconds_before = state["seconds"]
    trainer.loader.remember(state.get("left_out", {}))  # which earlier versions did not save
    for file in (trainer.validations, trainer.skipped):
        file.resume(folder, trainer.step)
    trainer.progress.history.resume(folder / HISTORY, trainer.step)
    if len(set(gather_list([trainer.step]))) > 1:
        raise CheckpointError(f"{path}: not all processes can read the newest checkpoint; look at their disks")
    # All have read the same: what is later than it can go.
    trainer.validations.confirm_resumed()
    if trainer.checkpoint is not None:
        trainer.checkpoint.goes_on = True
        if path == trainer.checkpoint.previous:
            trainer.checkpoint.promote()
    logger.info("resuming at step %d of %d", trainer.step, trainer.steps)


def _stateful(trainer: Resumable) -> dict[str, Any]:
    """Objects with a state, by their names in the checkpoint."""
    every = {"optimizer": trainer.optimizer, "scheduler": trainer.scheduler, "scaler": trainer.accelerator.scaler}
    return {name: one for name, one in every.items() if one is not None}
