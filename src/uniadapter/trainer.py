"""The training loop, on Accelerate: precision, accumulation, processes, saving, exact resuming, stopping by Ctrl-C."""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn

from uniadapter.config import TrainConfig
from uniadapter.data.loaders import TrainLoader
from uniadapter.errors import Interrupted
from uniadapter.original import CheckpointError, first_line
from uniadapter.tasks.base import Moment, Task

logger = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
HISTORY = "history.jsonl"


@dataclass(frozen=True)
class Tick:
    """What is known after a step, for progress displays and the history.

    Args:
        step: optimiser steps done.
        steps: of the run.
        epoch: counted from 0.
        losses: mean over the steps since the last tick.
        lr: learning rate.
        samples_per_second: over all processes, since the last tick.
    """

    step: int
    steps: int
    epoch: int
    losses: dict[str, float]
    lr: float
    samples_per_second: float

    def record(self) -> dict[str, float | int]:
        """The line of the history."""
        rates = {"lr": self.lr, "samples_per_second": round(self.samples_per_second, 2)}
        return {"step": self.step, "epoch": self.epoch, **self.losses, **rates}


def schedule(config: TrainConfig, steps: int, steps_per_epoch: int) -> Callable[[int], float]:
    """The learning rate of a step as a factor on the peak.

    Args:
        config: schedule, warmup_steps, epochs, lr and min_lr are used.
        steps: of the run.
        steps_per_epoch: optimiser steps in an epoch.
    """
    floor = config.min_lr / config.lr

    def factor(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        if config.schedule == "constant":
            return 1.0
        if config.schedule == "epoch_cosine":  # BLIP's: constant within an epoch, warm-up steps not subtracted
            done = (step // steps_per_epoch) / config.epochs
        else:
            done = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
        left = 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return floor + (1 - floor) * left

    return factor


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters, with weight decay on matrices alone: not on biases, norms and scales."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]


def make_accelerator(config: TrainConfig, cpu: bool = False) -> Accelerator:
    """Processes and precision as the run asks; unused parameters are allowed, since a loss may leave some out."""
    unused = DistributedDataParallelKwargs(find_unused_parameters=True)
    return Accelerator(
        mixed_precision=config.precision,
        gradient_accumulation_steps=config.accumulate,
        kwargs_handlers=[unused],
        cpu=cpu,
    )


@dataclass
class Trainer:
    """Runs a task over a loader.

    Args:
        task: its forward gives the losses of a batch.
        loader: training batches, already dealt out to the processes.
        config: the optimisation.
        folder: where history and checkpoints go; None keeps neither.
        accelerator: from `make_accelerator`; one for this process if None.
        on_tick: told every `log_every` steps.
        on_epoch: called after each epoch, with its number.
    """

    task: Task
    loader: TrainLoader
    config: TrainConfig
    folder: Path | None = None
    accelerator: Accelerator | None = None
    on_tick: Callable[[Tick], None] | None = None
    on_epoch: Callable[[int], None] | None = None
    history: list[dict[str, float | int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        accelerator = self.accelerator = self.accelerator or make_accelerator(self.config)
        self.task.to(accelerator.device)
        groups = parameter_groups(self.task, self.config.weight_decay)
        if not any(group["params"] for group in groups):
            raise ValueError("nothing to train: add an adapter, or make the model's weights trainable")
        self.optimizer = torch.optim.AdamW(groups, lr=self.config.lr)
        batches = len(self.loader)
        self.steps_per_epoch = max(1, math.ceil(batches / self.config.accumulate))
        self.batches = batches
        self.steps = self.config.epochs * self.steps_per_epoch
        if self.config.max_steps:
            self.steps = min(self.steps, self.config.max_steps)
        factor = schedule(self.config, self.steps, self.steps_per_epoch)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(self.optimizer, factor)
        self.module, self.optimizer = accelerator.prepare(self.task, self.optimizer)
        self.step = self.epoch = self.batch = 0
        self._stop = False

    def train(self, resume: bool = False) -> None:
        """Train to the end, or take up a checkpoint first.

        Raises:
            Interrupted: Ctrl-C came; the state is saved.
            CheckpointError: there is nothing to resume, or it cannot be read or written.
            FloatingPointError: the loss is no longer a number; the last checkpoint stays.
        """
        if resume:
            self.load()
        self.task.train()
        with self._stopping_politely():
            while self.step < self.steps:
                self._one_epoch()
                if self.step >= self.steps:
                    break
        self.task.eval()

    def _one_epoch(self) -> None:
        assert self.accelerator is not None
        self.loader.set_epoch(self.epoch, self.batch)
        sums: dict[str, Tensor] = {}
        samples, since, started = 0, 0, time.perf_counter()
        for batch in self.loader:
            moment = Moment(self.config.seed, self.epoch, self.batch, self.batches)
            last = self.batch + 1 == self.batches
            losses = self._step(batch.to(self.accelerator.device), moment, last)
            for name, value in losses.items():
                sums[name] = sums.get(name, torch.zeros_like(value)) + value
            samples, since = samples + len(batch) * self.accelerator.num_processes, since + 1
            self.batch += 1
            stepped = self.accelerator.sync_gradients
            if stepped and (self.step % self.config.log_every == 0 or self.step == self.steps):
                self._tick(sums, since, samples / (time.perf_counter() - started))
                sums, samples, since, started = {}, 0, 0, time.perf_counter()
            if stepped and self.config.save_every and self.step % self.config.save_every == 0:
                self.save()
            if self._stop:
                self.save()
                raise Interrupted(self.folder or Path(), self.step)
            if self.step >= self.steps:
                return
        self.epoch, self.batch = self.epoch + 1, 0
        if not self.config.save_every and self.folder is not None:
            self.save()
        if self.on_epoch is not None:
            self.on_epoch(self.epoch)

    def _step(self, batch: Any, moment: Moment, last: bool) -> dict[str, Tensor]:
        accelerator = self.accelerator
        assert accelerator is not None
        # The last, perhaps incomplete group of accumulated batches of an epoch still makes a step.
        sync = (self.batch + 1) % self.config.accumulate == 0 or last
        accelerator.gradient_state._set_sync_gradients(sync)
        with accelerator.autocast():
            losses = self.module(batch, moment)
        value = losses["loss"].detach()
        if not torch.isfinite(value):
            raise FloatingPointError(f"the loss is {float(value)} at step {self.step}: try a lower train.lr")
        accelerator.backward(losses["loss"])
        if sync:
            if self.config.grad_clip:
                accelerator.clip_grad_norm_(self.task.parameters(), self.config.grad_clip)
            self.optimizer.step()
            self.scheduler.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.step += 1
        return {name: loss.detach() for name, loss in losses.items()}

    def _tick(self, sums: dict[str, Tensor], count: int, rate: float) -> None:
        assert self.accelerator is not None
        # Weighed by their shares, so that the mean over processes is the mean over all rows.
        losses = {name: float(self.accelerator.reduce(value, "mean")) / count for name, value in sums.items()}
        tick = Tick(self.step, self.steps, self.epoch, losses, float(self.scheduler.get_last_lr()[0]), rate)
        self.history.append(tick.record())
        if self.accelerator.is_main_process:
            if self.folder is not None:
                self.folder.mkdir(parents=True, exist_ok=True)
                with (self.folder / HISTORY).open("a") as file:
                    file.write(json.dumps(tick.record()) + "\n")
            if self.on_tick is not None:
                self.on_tick(tick)

    def save(self) -> None:
        """Write the checkpoint: trainable weights, momentum, queue, optimiser, place and random state."""
        assert self.accelerator is not None
        if self.folder is None or not self.accelerator.is_main_process:
            return
        state = {
            "trainable": {n: p.detach() for n, p in self.task.named_parameters() if p.requires_grad},
            "task": self.task.training_state(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "place": {"step": self.step, "epoch": self.epoch, "batch": self.batch, "batches": self.batches},
            "random": {"torch": torch.get_rng_state()},
        }
        if self.accelerator.scaler is not None:
            state["scaler"] = self.accelerator.scaler.state_dict()
        target = self.folder / CHECKPOINT
        temporary = target.with_suffix(".tmp")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            torch.save(state, temporary)
            os.replace(temporary, target)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            temporary.unlink(missing_ok=True)
            raise CheckpointError(f"{target}: could not be written ({error}); the last one is untouched") from error

    def load(self) -> None:
        """Take up the checkpoint of the run folder."""
        if self.folder is None or not (self.folder / CHECKPOINT).is_file():
            raise CheckpointError(f"{self.folder}: nothing to resume, there is no {CHECKPOINT}")
        path = self.folder / CHECKPOINT
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:
            raise CheckpointError(f"{path}: not a readable checkpoint ({first_line(error)})") from error
        if state["place"]["batches"] != self.batches:
            raise CheckpointError(
                f"{path}: made with {state['place']['batches']} batches an epoch, not {self.batches}; "
                "resume with the same data and batch size"
            )
        own = dict(self.task.named_parameters())
        with torch.no_grad():
            for name, value in state["trainable"].items():
                own[name].copy_(value)
        self.task.load_training_state(state["task"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        if self.accelerator is not None and self.accelerator.scaler is not None and "scaler" in state:
            self.accelerator.scaler.load_state_dict(state["scaler"])
        torch.set_rng_state(state["random"]["torch"])
        place = state["place"]
        self.step, self.epoch, self.batch = place["step"], place["epoch"], place["batch"]
        if self.batch >= self.batches:
            self.epoch, self.batch = self.epoch + 1, 0
        logger.info("resuming at step %d of %d", self.step, self.steps)

    @contextmanager
    def _stopping_politely(self) -> Iterator[None]:
        """The first Ctrl-C finishes the step and saves; a second one stops at once."""

        def stop(signum: int, frame: object) -> None:
            if self._stop:
                raise KeyboardInterrupt
            self._stop = True
            logger.warning("stopping after this step; press Ctrl-C again to stop at once")

        try:
            before = signal.signal(signal.SIGINT, stop)
        except ValueError:  # not in the main thread: there is nothing to catch
            yield
            return
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)
