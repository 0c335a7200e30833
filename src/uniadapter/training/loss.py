"""The interface of training losses: a module whose forward computes the losses of a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.config import ModelConfig
from uniadapter.data.batches import Batch


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
    """

    seed: int
    epoch: int
    batch: int
    batches: int
    first: bool = True
    last: bool = True


class TrainingLoss(nn.Module, ABC):
    """A model and its training loss as one module, which DistributedDataParallel can wrap."""

    model: PreTrainedModel

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
