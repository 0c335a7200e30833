"""The interface of a task: read a split, make the training loss, evaluate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from uniadapter.config import DataConfig, RunConfig
from uniadapter.data.loaders import VisualLoader, visual_loader
from uniadapter.data.splits import RetrievalSplit, TrainingSet
from uniadapter.evaluation.rerank import Progress
from uniadapter.processes import distributed
from uniadapter.tasks.preparing import Prepared, image_size, normalisation
from uniadapter.training.loss import TrainingLoss


@dataclass(frozen=True)
class Result:
    """The result of an evaluation.

    Args:
        scores: fields of the row in `metrics.json`.
        right: the accuracy of each query, 0 to 1, [queries], for paired comparisons.
        headline: the main figures in words, for the log.
        main: the figure that methods are compared by, 0 to 100.
        detail: further results of the task, for its report and files.
    """

    scores: dict[str, Any]
    right: Tensor
    headline: str
    main: float
    detail: Any = None


class Task(Protocol):
    """Retrieval, question answering or captioning."""

    def load(self, path: str, config: DataConfig, which: str) -> RetrievalSplit:
        """Read a split from its file."""

    def training_loss(self, prepared: Prepared, split: TrainingSet, config: RunConfig) -> TrainingLoss:
        """The training loss on a split."""

    def evaluate(
        self, prepared: Prepared, split: RetrievalSplit, config: RunConfig, progress: Progress | None
    ) -> Result:
        """Evaluate the model on a split; `progress` is called with the number of items done and of all."""


def is_distributed(prepared: Prepared, split: RetrievalSplit) -> bool:
    """Whether each process evaluates a share of the visuals; of fewer visuals than processes, each takes all."""
    return prepared.distributed and len(split.visuals) >= distributed.world_size()


def visuals_loader(prepared: Prepared, split: RetrievalSplit, config: RunConfig) -> VisualLoader:
    """A loader of the visuals of a split, in order; in distributed evaluation, of this process's share."""
    rank, world = (distributed.rank(), distributed.world_size()) if is_distributed(prepared, split) else (0, 1)
    size = image_size(prepared, config)
    batch_size = config.evaluate.batch_size
    return visual_loader(
        split, config.data, size=size, batch_size=batch_size, rank=rank, world=world,
        normalisation=normalisation(prepared),
    )  # fmt: skip
