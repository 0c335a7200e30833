"""What the trainer knows of a task: a module whose forward gives the losses of a batch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.config import ModelConfig
from uniadapter.data.batches import Batch


@dataclass(frozen=True)
class StepInfo:
    """When a batch is seen; every random draw and the ramp of alpha depend on it.

    Args:
        seed: of the run.
        epoch: counted from 0.
        batch: of this epoch, counted from 0.
        batches: in an epoch.
        first: of the batches whose gradients are added up before an optimiser step.
        last: of these; with `first` where each batch makes a step.
    """

    seed: int
    epoch: int
    batch: int
    batches: int
    first: bool = True
    last: bool = True


class TrainingLoss(nn.Module, ABC):
    """A training loss as one module, so that DistributedDataParallel can wrap it."""

    model: PreTrainedModel

    @abstractmethod
    def forward(self, batch: Batch, step: StepInfo) -> dict[str, Tensor]:
        """The loss to minimise, under "loss", and its parts; their mean over processes is the mean over all rows."""

    def release(self) -> None:
        """Take what training alone needs off the model; called once it is over."""

    def training_state(self) -> dict[str, dict[str, Tensor]]:
        """What a resumable checkpoint must keep besides the trainable weights."""
        return {}

    def load_training_state(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Take up `training_state`."""


class DecoderLoss(TrainingLoss):
    """A model and its tokenizer; nothing is kept between steps."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, settings: ModelConfig) -> None:
        super().__init__()
        self.model, self.tokenizer, self.settings = model, tokenizer, settings
