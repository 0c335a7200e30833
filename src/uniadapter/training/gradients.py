"""The gradients of an optimiser step: its batches, forward and backward, whole or, where memory is short, in parts."""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field, replace

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from uniadapter.config import ConfigError
from uniadapter.data.batches import Batch
from uniadapter.errors import is_out_of_memory
from uniadapter.processes.distributed import gather_row_counts
from uniadapter.processes.seeds import DROPOUT, derive_seed
from uniadapter.training.divergence import Diverged, SampleInfo, batch_samples
from uniadapter.training.loss import StepInfo, TrainingLoss

logger = logging.getLogger(__name__)


@dataclass
class StepLosses:
    """What the batches of a step gave.

    Args:
        finite: whether all losses are finite, a boolean scalar on the device.
        samples: of this process.
        batches: for each batch its losses by name, and its samples.
    """

    finite: Tensor
    samples: list[SampleInfo] = field(default_factory=list)
    batches: list[tuple[dict[str, Tensor], int]] = field(default_factory=list)


class Gradients:
    """Accumulates the gradients of a step's batches.

    If memory runs out, a step is done again in parts of half as many samples, and so are all later ones; that gives the
    same gradients up to rounding. On several processes the run stops with one line.

    Args:
        loss: the loss.
        module: the same, perhaps wrapped for several processes.
        accelerator: of the run.
        accumulate: batches of a step, `train.accumulate`.
        most: samples that this process takes at once, `train.micro_batch`; 0 means a whole batch.
    """

    def __init__(
        self, loss: TrainingLoss, module: nn.Module, accelerator: Accelerator, accumulate: int, most: int
    ) -> None:
        self.loss, self.module, self.accelerator = loss, module, accelerator
        self.accumulate, self.most = accumulate, most

    def of_step(self, batches: Iterator[Batch], size: int, first: StepInfo, step: int) -> StepLosses:
        """Forward and backward passes of a step; the gradients are zero before.

        Args:
            batches: yields at least `size`.
            size: batches of this step.
            first: position of the first one.
            step: optimiser steps done, for messages.

        Raises:
            Diverged: the forward pass found a value that is not finite.
            ConfigError: memory ran out on one of several processes; one line that says what helps.
        """
        again = self.accelerator.num_processes == 1
        kept: list[Batch] = []
        self.loss.begin_step()
        while True:
            found = StepLosses(torch.ones((), dtype=torch.bool, device=self.accelerator.device))
            for place in range(size):
                batch = kept[place] if place < len(kept) else next(batches)
                if again and place == len(kept):
                    kept.append(batch)
                moment = replace(first, batch=first.batch + place, first=place == 0, last=place == size - 1)
                found.samples += batch_samples(batch)
                try:
                    losses = self.of_batch(batch, moment, size, step, found.samples)
                except Exception as error:
                    if not is_out_of_memory(error):
                        raise
                    self._take_fewer(error, step, len(batch))
                    break
                found.finite &= torch.isfinite(losses["loss"])
                found.batches.append((losses, len(batch)))
            else:
                return found
            # Outside of the block, since the error holds the tensors of the pass that failed.
            self.module.zero_grad(set_to_none=True)
            self.loss.forget_step()
            gc.collect()
            if self.accelerator.device.type == "cuda":
                torch.cuda.empty_cache()

    def of_batch(
        self, batch: Batch, moment: StepInfo, size: int, step: int, samples: list[SampleInfo]
    ) -> dict[str, Tensor]:
        """Forward and backward pass of one batch; returns its losses."""
        accelerator, device = self.accelerator, self.accelerator.device
        # Dropout is the only randomness that is not a function of the sample.
        own = derive_seed(moment.seed, DROPOUT, moment.epoch, moment.batch, accelerator.process_index)
        torch.manual_seed(own >> 1)
        parts = [batch]
        if self.loss.compares:
            moment = replace(moment, at_once=self.most)
        elif self.most:  # all processes, however many parts each has
            parts = batch.parts(self.most)
            moment = replace(moment, terms=gather_row_counts(self.loss.terms(batch), device).total)
        total: dict[str, Tensor] = {}
        for place, part in enumerate(parts):
            synchronised = moment.last and place == len(parts) - 1
            accelerator.gradient_state._set_sync_gradients(synchronised)
            with nullcontext() if synchronised else accelerator.no_sync(self.module):
                try:
                    with accelerator.autocast():
                        losses = self.module(part.to(device), moment)
                except FloatingPointError as error:
                    raise Diverged(str(error), step, samples) from error
                # Accelerate divides by `accumulate`; this makes it the mean over an incomplete group's batches too.
                accelerator.backward(losses["loss"] * (self.accumulate / size))
            for name, loss in losses.items():
                total[name] = total[name] + loss.detach() if name in total else loss.detach()
        return total

    def _take_fewer(self, error: Exception, step: int, count: int) -> None:
        """After a batch of `count` samples: take half as many at once, or stop with one line."""
        taken = min(self.most or count, count)
        where = f"the memory is full in step {step + 1} with {taken} samples at once on a process"
        if taken == 1:
            raise error
        fewer = (taken + 1) // 2
        if self.accelerator.num_processes > 1:
            raise ConfigError(
                f"{where}: go on with --train.micro_batch {fewer} --resume, which gives the same batches and losses"
            ) from error
        self.most = fewer
        logger.warning("%s: %d at once from here on, the same batches and losses up to rounding", where, fewer)
