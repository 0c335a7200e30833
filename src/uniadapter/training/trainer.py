"""The training loop, on Accelerate: precision, accumulation, processes, saving, exact resuming, stopping."""

from __future__ import annotations

import logging
import math
import signal
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from uniadapter.config import TrainConfig
from uniadapter.data.batches import Batch
from uniadapter.data.loaders import TrainLoader
from uniadapter.errors import CheckpointError, Interrupted
from uniadapter.processes.distributed import gather_list, greatest, losing_peers
from uniadapter.processes.random_draws import DROPOUT, draw_seed
from uniadapter.tasks.loss import StepInfo, TrainingLoss
from uniadapter.training.divergence import Diverged, Seen, first_unusable, gradient_norm, samples_of
from uniadapter.training.history import HISTORY, ProgressEvent, Record, Records, Window
from uniadapter.training.optimisation import make_accelerator, parameter_groups, schedule
from uniadapter.training.resuming import check_same
from uniadapter.training.run_checkpoint import CHECKPOINT, CheckpointFile, read_checkpoint, restore
from uniadapter.training.stopping import Stopping
from uniadapter.training.validations import Validations, snapshot

__all__ = ["CHECKPOINT", "HISTORY", "Interrupted", "ProgressEvent", "Trainer", "make_accelerator", "schedule"]

logger = logging.getLogger(__name__)

SILENCE = 30.0  # seconds after which a step is told of whatever `log_every` says; the history keeps to its steps


@dataclass
class Trainer:
    """Trains by a loss over a loader.

    After every step comes, as far as it is due, a tick, a checkpoint and a validation, in that order; after the last
    step all three are due. Processes agree after every step on whether to stop, so that none is left waiting.

    Args:
        loss: its forward gives the losses of a batch.
        loader: training batches, already dealt out to the processes.
        config: the optimisation.
        folder: where history and checkpoints go; None keeps neither.
        accelerator: from `make_accelerator`; one for this process if None.
        on_tick: told every `log_every` steps, and after `SILENCE`, on the first process.
        on_epoch: called after each epoch and after the last step, with the number of epochs done or begun.
        validate: measures the validation split on all processes and gives its main figure, higher is better; called
            every `evaluate_every` epochs and after the last step. None validates nothing.
        made_with: what the run is made with (`resuming.made_with`), kept in the checkpoint and compared when resuming.
        started: when the run began, by `time.perf_counter`; now if None.
        on_first_write: called on the first process before anything is written into the folder.
    """

    loss: TrainingLoss
    loader: TrainLoader
    config: TrainConfig
    folder: Path | None = None
    accelerator: Accelerator = None  # type: ignore[assignment]  # made below where none is given
    on_tick: Callable[[ProgressEvent], None] | None = None
    on_epoch: Callable[[int], None] | None = None
    validate: Callable[[int], float] | None = None
    made_with: dict[str, Any] = field(default_factory=dict)
    started: float | None = None
    on_first_write: Callable[[], None] | None = None

    def __post_init__(self) -> None:
        accelerator = self.accelerator = self.accelerator or make_accelerator(self.config)
        self.loss.to(accelerator.device)
        groups = parameter_groups(self.loss, self.config.weight_decay)
        if not any(group["params"] for group in groups):
            raise ValueError("nothing to train: add an adapter, or make the model's weights trainable")
        self.optimizer = torch.optim.AdamW(groups, lr=self.config.lr)
        self.batches = len(self.loader)
        self.steps_per_epoch = max(1, math.ceil(self.batches / self.config.accumulate))
        self.steps = self.config.epochs * self.steps_per_epoch
        if self.config.max_steps:
            self.steps = min(self.steps, self.config.max_steps)
        factor = schedule(self.config, self.steps, self.steps_per_epoch)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)
        with warnings.catch_warnings():  # torch's, of a new name for an option that accelerate still calls by the old
            warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)
            self.module, self.optimizer = accelerator.prepare(self.loss, self.optimizer)
        self.step = self.epoch = self.batch = 0
        self.shown, self.taken_up = 0.0, (0, 0.0)
        self.seconds_before = 0.0  # that earlier parts of a resumed run took
        self.started = time.perf_counter() if self.started is None else self.started
        self.stopping, self.window = Stopping(), Window()
        own = self.folder if accelerator.is_main_process else None  # where this process writes
        self.records = Records(own / HISTORY if own is not None else None)
        self.checkpoint = CheckpointFile(own / CHECKPOINT) if own is not None else None
        self.validations = Validations(self.folder, accelerator.is_main_process, self.config.keep == "best")
        self._stop = False  # set by who wants the run to stop after the step, as Ctrl-C does

    @property
    def history(self) -> list[Record]:
        """The ticks of the whole run."""
        return self.records.lines

    def train(self, resume: bool = False) -> None:
        """Train to the end, or take up a checkpoint first; the weights are then those that `config.keep` names.

        Raises:
            Interrupted: a signal came; the state is saved.
            CheckpointError: there is nothing to resume, or it cannot be read or written, or was made otherwise.
            Diverged: a loss, gradient or weight is no longer a number; the last checkpoint stays.
            PeerLost: another process of the run has ended.
        """
        device = self.accelerator.device
        with torch.random.fork_rng([device] if device.type == "cuda" else []), losing_peers(), self.stopping:
            if resume:
                self.load()
                self._validate()  # if the run did not come to it
            self.loss.train()
            self.window.since = self.shown = time.perf_counter()
            self.taken_up = (self.step, self.shown)  # where this process began
            try:
                while self.step < self.steps:
                    self._one_epoch()
            except Diverged:
                if self.checkpoint is not None:
                    self.checkpoint.unproven()
                raise
        if self.checkpoint is not None:
            self.checkpoint.proven()
        self.loss.eval()
        if self.validations.keep_best and self.validations.best is not None:
            self.validations.restore_best(snapshot(self.loss))

    @property
    def kept(self) -> dict[str, Any]:
        """Which weights the trained model has, for `metrics.json`: "last" or "best", their step and validation."""
        return self.validations.kept(self.step)

    def _one_epoch(self) -> None:
        self.loader.set_epoch(self.epoch, self.batch)
        batches = iter(self.loader)
        epoch = self.epoch
        while self.epoch == epoch and self.step < self.steps:
            # The last, perhaps incomplete group of accumulated batches of an epoch still makes a step.
            size = min(self.config.accumulate, self.batches - self.batch)
            self._step(islice(batches, size), size)
            if self.batch >= self.batches:
                self.epoch, self.batch = self.epoch + 1, 0
                next(batches, None)  # there is none, but loading processes are told so
            self._after_step()

    def _step(self, batches: Iterator[Batch], size: int) -> None:
        """One optimiser step over `size` batches."""
        finite = torch.ones((), dtype=torch.bool, device=self.accelerator.device)
        seen: list[Seen] = []
        for place, batch in enumerate(batches):
            last = place == size - 1
            step = StepInfo(self.config.seed, self.epoch, self.batch, self.batches, place == 0, last)
            seen += samples_of(batch)
            losses = self._accumulate(batch.to(self.accelerator.device), step, size, seen)
            finite &= torch.isfinite(losses["loss"])
            self.window.add(losses, len(batch) * self.accelerator.num_processes)
            self.batch += 1
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        if self.config.grad_clip:
            norm = self.accelerator.clip_grad_norm_(parameters, self.config.grad_clip)
        else:
            norm = gradient_norm(parameters)
        if self.accelerator.scaler is None:  # which meets infinite gradients as a matter of course, and skips the step
            finite &= torch.isfinite(torch.as_tensor(norm, device=finite.device))
        self._agree_on_finite(bool(finite), "the loss or its gradient is not a finite number", seen)
        if self.checkpoint is not None:
            self.checkpoint.proven()
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.step += 1

    def _accumulate(self, batch: Batch, step: StepInfo, size: int, seen: list[Seen]) -> dict[str, Tensor]:
        """The losses of one batch, their gradients added up."""
        accelerator = self.accelerator
        # Dropout, the one draw that is not a function of the sample.
        own = draw_seed(step.seed, DROPOUT, step.epoch, step.batch, accelerator.process_index)
        torch.manual_seed(own >> 1)
        accelerator.gradient_state._set_sync_gradients(step.last)
        with nullcontext() if step.last else accelerator.no_sync(self.module):
            try:
                with accelerator.autocast():
                    losses = self.module(batch, step)
            except FloatingPointError as error:
                raise Diverged(str(error), self.step, seen) from error
            # Accelerate divides by `accumulate`; an incomplete group is the mean over its batches all the same.
            accelerator.backward(losses["loss"] * (self.config.accumulate / size))
        return {name: loss.detach() for name, loss in losses.items()}

    def _agree_on_finite(self, finite: bool, what: str, seen: list[Seen]) -> None:
        """Raise on all processes where one met a value that is not finite."""
        if greatest([float(not finite)], self.accelerator.device)[0]:
            raise Diverged(what, self.step, gather_list(seen))

    def _after_step(self) -> None:
        """What is due after a step: tick, checkpoint, validation, and the end if a signal asks for it."""
        config, ended = self.config, self.step >= self.steps
        closed = self.batch == 0  # an epoch
        if ended or self.step % config.log_every == 0:
            self._tick()
        asked = self.stopping.wanted or (signal.SIGINT if self._stop else 0)
        late = time.perf_counter() - self.shown > SILENCE
        wanted, silent = map(int, greatest([asked, late], self.accelerator.device))
        if silent:
            self._show(self._now())
        due = self.step % config.save_every == 0 if config.save_every else closed
        if ended or wanted or due or (closed and self._validation_due()):
            self.save()
        if wanted:
            raise Interrupted(self.folder, self.step, wanted)
        if ended or closed:
            self._validate()
            if self.on_epoch is not None:
                self.on_epoch(self._epochs)

    @property
    def _epochs(self) -> int:
        """Epochs done or begun."""
        return self.epoch + (self.batch > 0)

    def _validation_due(self) -> bool:
        every, ended = self.config.evaluate_every, self.step >= self.steps
        due = ended or bool(every and self.batch == 0 and self.epoch % every == 0)
        return self.validate is not None and due and self.validations.of_step(self.step) is None

    def _validate(self) -> None:
        """Validate, if that is due and was not done; all is saved by now."""
        if self.validate is None or not self._validation_due():
            return
        # One process may therefore stop at once; several have to stop together.
        with self.stopping.at_once() if self.accelerator.num_processes == 1 else nullcontext():
            figure = gather_list([self.validate(self._epochs)])[0]
        self.loss.train()
        self.validations.add(self.step, self._epochs, figure, snapshot(self.loss))
        self.window.since = time.perf_counter()

    def _tick(self) -> None:
        tick = self._now()
        self._before_writing()
        self.records.append(tick.record())
        self.window.clear()
        self._show(tick)

    def _now(self) -> ProgressEvent:
        """How training stands."""
        losses, rate = self.window.means(self._mean), self.window.rate
        step, begun = self.taken_up
        left = (time.perf_counter() - begun) / max(1, self.step - step) * (self.steps - self.step)
        return ProgressEvent(
            self.step, self.steps, self.epoch, losses, float(self.scheduler.get_last_lr()[0]), rate, left
        )

    def _show(self, tick: ProgressEvent) -> None:
        self.shown = time.perf_counter()
        if self.accelerator.is_main_process and self.on_tick is not None:
            self.on_tick(tick)

    def _mean(self, value: Tensor) -> Tensor:
        # Weighed by their shares, so that the mean over processes is the mean over all rows.
        reduced: Tensor = self.accelerator.reduce(value, "mean")
        return reduced

    def _before_writing(self) -> None:
        if self.on_first_write is not None and self.accelerator.is_main_process:
            self.on_first_write()
        self.on_first_write = None

    def save(self) -> None:
        """Write the checkpoint: trainable weights, momentum, queue, optimiser and place.

        Raises:
            Diverged: the weights are no numbers of use; the last checkpoint stays.
            CheckpointError: it cannot be written.
        """
        if self.folder is None:
            return
        wrong = first_unusable(snapshot(self.loss))
        self._agree_on_finite(wrong is None, f"{wrong} is no longer a number of use", [])
        state = {
            "run": self.made_with,
            "trainable": snapshot(self.loss),
            "task": self.loss.training_state(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "place": {"step": self.step, "epoch": self.epoch, "batch": self.batch, "batches": self.batches},
            "window": self.window.state(self._mean),
            "seconds": self.seconds,
        }
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        if self.checkpoint is not None:
            self._before_writing()
            self.checkpoint.write(state)

    @property
    def seconds(self) -> float:
        """That the run took so far, in all its parts."""
        assert self.started is not None
        return self.seconds_before + time.perf_counter() - self.started

    def load(self) -> None:
        """Take up the checkpoint of the run folder.

        Raises:
            CheckpointError: there is none, it is broken, or it was made with other settings or data; one line.
        """
        if self.folder is None:
            raise CheckpointError("nothing to resume: the run has no folder")
        path = self.folder / CHECKPOINT
        state = read_checkpoint(path)
        place = state["place"]
        check_same(state["run"], self.made_with, path)
        if place["batches"] != self.batches:
            raise CheckpointError(
                f"{path}: made with {place['batches']} batches an epoch, not {self.batches}; "
                "resume with the same data, batch size and number of processes"
            )
        stateful = {"optimizer": self.optimizer, "scheduler": self.scheduler, "scaler": self.accelerator.scaler}
        restore(state, self.loss, {name: one for name, one in stateful.items() if one is not None}, path)
        self.window.load_state(state["window"], self.accelerator.device)
        self.step, self.epoch, self.batch = place["step"], place["epoch"], place["batch"]
        self.seconds_before = state["seconds"]
        self.records.take_up(self.folder / HISTORY, self.step)
        self.validations.take_up(self.folder, self.step)
        logger.info("resuming at step %d of %d", self.step, self.steps)
