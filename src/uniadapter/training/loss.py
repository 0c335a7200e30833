"""The interface of training losses: a module whose forward computes the losses of a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.config import ModelConfig
from uniadapter.data.batches import Batch
from uniadapter.processes.distributed import gather_row_counts, world_size


@dataclass(frozen=True)
class StepInfo:
    """The position of a batch in training, which random draws and the weight of soft targets depend on.

    Args:
        seed: of the run.
        epoch: index of the epoch, from 0.
        batch: index of the batch in the epoch, from 0.
        batches: number of batches in an epoch.
        first: whether it is the first of the batches whose gradients are accumulated for an optimiser step.
        last: whether it is the last of these.
        terms: `TrainingLoss.terms` of the whole batch over all processes, if the loss of a part of it is wanted; the
            losses of the parts then add up to the batch's. 0 for a whole batch.
        at_once: samples that go through the model at once, for a loss that takes parts itself; 0 means all.
    """

    seed: int
    epoch: int
    batch: int
    batches: int
    first: bool = True
    last: bool = True
    terms: int = 0
    at_once: int = 0


class TrainingLoss(nn.Module, ABC):
    """A model and its training loss as one module, which DistributedDataParallel can wrap."""

    model: PreTrainedModel
    bound_to_processes = ""  # why the loss depends on the number of processes; "" if it does not
    compares = False  # whether samples of a batch are compared: it takes whole ones, and parts itself (`at_once`)

    @abstractmethod
    def forward(self, batch: Batch, step: StepInfo) -> dict[str, Tensor]:
        """Compute the losses of a batch.

        Args:
            batch: this process's part of the batch.
            step: position of the batch in training.

        Returns:
            Scalars: "loss", to be minimised, and its parts by name. They are scaled so that the mean over processes is
            the mean over all rows.
        """

    def terms(self, batch: Batch) -> int:
        """Number of terms of which the loss of a batch is the mean."""
        return len(batch)

    def begin_step(self) -> None:
        """Called before the forward passes of a step: what the one before has changed stays."""

    def forget_step(self) -> None:
        """Undo what the forward passes of a step have changed: it is left out, or done again."""

    def release(self) -> None:
        """Remove from the model what only training needs; called after training."""

    def training_state(self) -> dict[str, dict[str, Tensor]]:
        """State dicts that a checkpoint needs besides the trainable weights, by name."""
        return {}

    def load_training_state(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Restore `training_state`."""


class DecoderLoss(TrainingLoss):
    """A loss of the text decoder, which has no state of its own.

    Args:
        model: to train.
        tokenizer: the base's.
        settings: max_tokens and frame_chunk are used.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: ModelConfig) -> None:
        super().__init__()
        self.model, self.tokenizer, self.settings = model, tokenizer, settings

    def weight(self, count: int, step: StepInfo, device: torch.device) -> float:
        """Factor for a mean over `count` terms of this process.

        The mean over processes of what it gives is the mean over all terms; for a part of a batch, its share of that.
        """
        if step.terms:
            return world_size() * count / step.terms
        return gather_row_counts(count, device).weight
