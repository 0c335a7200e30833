"""The training loop, on Accelerate: mixed precision, gradient accumulation, checkpoints, exact resuming, stopping."""

from __future__ import annotations

import logging
import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from uniadapter.config import TrainConfig
from uniadapter.data.batches import Batch
from uniadapter.data.loaders import TrainLoader
from uniadapter.errors import CheckpointError, Interrupted
from uniadapter.processes.distributed import gather_list, max_over_processes, reporting_lost_peers
from uniadapter.training.divergence import SKIPPED, Diverged, SampleInfo, SkippedSteps, first_nonfinite
from uniadapter.training.gradients import Gradients
from uniadapter.training.history import HISTORY, LogRecord
from uniadapter.training.loss import StepInfo, TrainingLoss
from uniadapter.training.optimizer import clip_gradients, lr_schedule, make_accelerator, prepare_optimizer
from uniadapter.training.progress import ProgressEvent, ProgressLog
from uniadapter.training.run_checkpoint import CHECKPOINT, CheckpointFile
from uniadapter.training.run_state import go_on, state_of
from uniadapter.training.stopping import GracefulStop
from uniadapter.training.validations import Validations, trainable_weights

__all__ = ["CHECKPOINT", "HISTORY", "Interrupted", "ProgressEvent", "Trainer", "lr_schedule", "make_accelerator"]

logger = logging.getLogger(__name__)


@dataclass
class Trainer:
    """Minimises a loss over the batches of a loader.

    After each optimiser step come, if due, a log line, a checkpoint and a validation, in this order; all three follow
    the last step. The processes agree after every step on whether to stop, so that none waits for another forever.

    Args:
        loss: its forward returns the losses of a batch.
        loader: training batches, already sharded over the processes.
        config: the `train` section of the run's config.
        folder: of history and checkpoints; None writes neither.
        accelerator: from `make_accelerator`; created if None.
        on_progress: called on rank 0 every `log_every` steps and at least every `progress.MAX_SILENT_SECONDS`.
        on_epoch: called after each epoch and after the last step, with the number of epochs done or begun.
        validate: evaluates the validation split on all processes and returns its main score, higher is better; called
            every `evaluate_every` epochs and after the last step. None turns validation off.
        fingerprint: from `resume.run_fingerprint`; saved in the checkpoint and compared when the run is resumed.
        started: start of the run by `time.perf_counter`; now if None.
        on_first_write: called on rank 0 before anything is written to the folder.
    """

    loss: TrainingLoss
    loader: TrainLoader
    config: TrainConfig
    folder: Path | None = None
    accelerator: Accelerator = None  # type: ignore[assignment]  # created below if None
    on_progress: Callable[[ProgressEvent], None] | None = None
    on_epoch: Callable[[int], None] | None = None
    validate: Callable[[int], float] | None = None
    fingerprint: dict[str, Any] = field(default_factory=dict)
    started: float | None = None
    on_first_write: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        accelerator = self.accelerator = self.accelerator or make_accelerator(self.config)
        self.loss.to(accelerator.device)
        self.plan()
        self.module, self.optimizer, self.scheduler = prepare_optimizer(
            accelerator, self.loss, self.config, lambda step: self._factor(step)
        )
        self.gradients = Gradients(
            self.loss, self.module, accelerator, self.config.accumulate, self.config.micro_batch
        )  # fmt: skip
        self.step = self.epoch = self.batch = 0
        self.seconds_before = 0.0  # taken by the run before it was resumed
        self.started = time.perf_counter() if self.started is None else self.started
        minutes = self.config.max_minutes
        self.deadline = self.started + 60 * minutes if minutes else math.inf
        self.stopping = GracefulStop()
        own = self.folder if accelerator.is_main_process else None  # only rank 0 writes
        self.progress = ProgressLog(accelerator, own and own / HISTORY, self.on_progress)
        self.checkpoint = None if own is None else CheckpointFile(own / CHECKPOINT)
        self.validations = Validations(self.folder, accelerator.is_main_process, self.config.keep)
        self.skipped = SkippedSteps(own and own / SKIPPED, self.config.skip_bad_steps)
        self._stop = False  # set to stop the run after the current step, as Ctrl-C does

    def plan(self) -> None:
        """Count the steps of the run, and place its learning rates on them."""
        self.batches = len(self.loader)
        self.steps_per_epoch = max(1, math.ceil(self.batches / self.config.accumulate))
        self.steps = self.config.epochs * self.steps_per_epoch
        if self.config.max_steps:
            self.steps = min(self.steps, self.config.max_steps)
        self._factor = lr_schedule(self.config, self.steps, self.steps_per_epoch)

    @property
    def history(self) -> list[LogRecord]:
        """The log lines of the whole run."""
        return self.progress.history.lines

    def train(self, resume: bool = False) -> None:
        """Train to the end; the model then has the weights that `config.keep` asks for.

        Args:
            resume: start from the checkpoint in the folder.

        Raises:
            Interrupted: a signal arrived, or the time is up; the state is saved.
            CheckpointError: the checkpoint is missing, unreadable, unwritable, or of another run.
            Diverged: a loss, gradient or weight is not finite; the last checkpoint is kept.
            PeerLost: another process of the run has ended.
        """
        gpus = [self.accelerator.device] if self.accelerator.device.type == "cuda" else []
        with torch.random.fork_rng(gpus), reporting_lost_peers(), self.stopping:
            if resume:
                self.load()
                self._validate()  # if the run was stopped before it
            self.loss.train()
            self.progress.start(self.step)
            try:
                while self.step < self.steps:
                    self._one_epoch()
                self._stop_if_asked()  # while the last validation ran on several processes
            except Diverged:
                if self.checkpoint is not None:
                    self.checkpoint.roll_back()
                raise
        self.loss.eval()
        if self.validations.keep_best and self.validations.best is not None:
            self.validations.restore_best(trainable_weights(self.loss))

    @property
    def weights_info(self) -> dict[str, Any]:
        """The entry "kept" of `metrics.json`, see `Validations`."""
        return self.validations.weights_info(self.step)

    def _one_epoch(self) -> None:
        self.loader.set_epoch(self.epoch, self.batch)
        epoch, batches = self.epoch, iter(self.loader)
        while self.epoch == epoch and self.step < self.steps:
            # The last, possibly incomplete group of accumulated batches of an epoch is a step too.
            size = min(self.config.accumulate, self.batches - self.batch)
            self._step(islice(batches, size), size)
            if self.batch >= self.batches:
                self.epoch, self.batch = self.epoch + 1, 0
                next(batches, None)  # exhausts the iterator, so that the workers see the end of the epoch
            self._after_step()

    def _step(self, batches: Iterator[Batch], size: int) -> None:
        """One optimiser step over `size` batches; one whose loss or gradient is not finite is left out, or the end."""
        first = StepInfo(self.config.seed, self.epoch, self.batch, self.batches)
        found = self.gradients.of_step(batches, size, first, self.step)
        self.batch += size
        norm = clip_gradients(self.accelerator, self.optimizer, self.config.grad_clip)
        finite = found.finite
        if self.accelerator.scaler is None:  # a GradScaler expects infinite gradients, and skips such steps
            finite &= torch.isfinite(torch.as_tensor(norm, device=finite.device))
        if self._on_any_process(not bool(finite)):
            self._leave_out(gather_list(found.samples))
        else:
            for losses, samples in found.batches:
                self.progress.window.add(losses, samples * self.accelerator.num_processes)
            if self.checkpoint is not None:
                self.checkpoint.confirm()
            self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def _leave_out(self, samples: list[SampleInfo]) -> None:
        ids = [self.loader.visual_id(one.visual) for one in samples]
        self._before_writing()
        self.skipped.add("the loss or its gradient is not a finite number", self.step, samples, ids)
        self.loss.forget_step()

    def _on_any_process(self, bad: bool) -> bool:
        return max_over_processes([float(bad)], self.accelerator.device)[0] > 0

    def _after_step(self) -> None:
        """Log, save and validate as far as each is due, and stop if a signal has arrived."""
        config, ended = self.config, self.step >= self.steps
        epoch_ended = self.batch == 0
        if ended or self.step % config.log_every == 0:
            event = self._event()
            self._before_writing()
            self.progress.log(event)
        signum, late, overdue = self._agreed()
        if overdue:
            self.progress.report(self._event())
        due = self.step % config.save_every == 0 if config.save_every else epoch_ended
        if ended or signum or late or due or (epoch_ended and self._validation_due()):
            self.save()
        if signum or late:
            raise Interrupted(self.folder, self.step, signum)
        if ended or epoch_ended:
            self._validate()
            if self.on_epoch is not None:
                self.on_epoch(self._epochs)

    def _agreed(self) -> tuple[int, bool, bool]:
        """The number of a signal that a process has got, whether the time is up, and whether a report is overdue."""
        own = self.stopping.signum or (signal.SIGINT if self._stop else 0)
        state = [own, time.perf_counter() > self.deadline, self.progress.overdue]
        signum, late, overdue = max_over_processes(state, self.accelerator.device)
        return int(signum), bool(late), bool(overdue)

    def _stop_if_asked(self) -> None:
        """Stop if a signal has arrived since the last step, whose checkpoint is written."""
        signum = self._agreed()[0]
        if signum:
            raise Interrupted(self.folder, self.step, signum)

    @property
    def _epochs(self) -> int:
        """Epochs done or begun."""
        return self.epoch + (self.batch > 0)

    def _validation_due(self) -> bool:
        every, ended = self.config.evaluate_every, self.step >= self.steps
        due = ended or bool(every and self.batch == 0 and self.epoch % every == 0)
        return self.validate is not None and due and self.validations.at_step(self.step) is None

    def _validate(self) -> None:
        """Validate if it is due and not yet done; the checkpoint of this step is already written."""
        if self.validate is None or not self._validation_due():
            return
        # Nothing is lost if one process stops immediately; several must stop at the same step.
        with self.stopping.default_handlers() if self.accelerator.num_processes == 1 else nullcontext():
            score = gather_list([self.validate(self._epochs)])[0]
        self.loss.train()
        self.validations.add(self.step, self._epochs, score, trainable_weights(self.loss))
        self.progress.window.since = time.perf_counter()

    def _event(self) -> ProgressEvent:
        return self.progress.event(self.step, self.steps, self.epoch, float(self.scheduler.get_last_lr()[0]))

    def _before_writing(self) -> None:
        if self.on_first_write is not None and self.accelerator.is_main_process:
            self.on_first_write()
        self.on_first_write = None

    def save(self) -> None:
        """Write the checkpoint: trainable weights, momentum weights, queue, optimiser, scheduler and position.

        Raises:
            Diverged: a weight is not finite or too large; the last checkpoint is kept.
            CheckpointError: it cannot be written.
        """
        if self.folder is None:
            return
        broken = first_nonfinite(trainable_weights(self.loss))
        if self._on_any_process(broken is not None):
            raise Diverged(f"{broken} has a value that is not finite or too large", self.step)
        state = state_of(self)
        if self.checkpoint is not None:
            self._before_writing()
            self.checkpoint.write(state)

    @property
    def seconds(self) -> float:
        """Seconds that the run has taken, including the time before it was resumed."""
        assert self.started is not None
        return self.seconds_before + time.perf_counter() - self.started

    def load(self) -> None:
        """Load the newest good checkpoint of the run folder.

        Raises:
            CheckpointError: it is missing, corrupt, or of a run with other settings or data; one line.
            ConfigError: its batches cannot be divided among these processes.
        """
        if self.folder is None:
            raise CheckpointError("nothing to resume: the run has no folder")
        go_on(self, self.folder)
