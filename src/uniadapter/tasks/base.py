"""What every kind of run does in its own way: read a split, give a training loss, measure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from uniadapter.config import DataConfig, RunConfig
from uniadapter.data.loaders import VisualLoader, visual_loader
from uniadapter.data.splits import RetrievalSplit
from uniadapter.evaluation.rerank import Progress
from uniadapter.processes import distributed
from uniadapter.tasks.loss import TrainingLoss
from uniadapter.tasks.preparing import Prepared, image_size, normalisation


@dataclass(frozen=True)
class Result:
    """What an evaluation found, whatever was measured.

    Args:
        scores: fields of the row in `metrics.json`.
        right: for each query how right it was, 0 to 1, [queries]: what paired comparisons compare.
        headline: the main figures in words, for the log.
        main: the figure that methods are compared by, 0 to 100.
        detail: what the kind of run itself knows, for its page and files.
    """

    scores: dict[str, Any]
    right: Tensor
    headline: str
    main: float
    detail: Any = None


class Task(Protocol):
    """One kind of run."""

    def load(self, path: str, config: DataConfig, which: str) -> RetrievalSplit:
        """Read a split from its file."""

    def training_loss(self, prepared: Prepared, split: RetrievalSplit, config: RunConfig) -> TrainingLoss:
        """The training loss on a split."""

    def evaluate(
        self, prepared: Prepared, split: RetrievalSplit, config: RunConfig, progress: Progress | None
    ) -> Result:
        """Measure the model as it stands."""


def is_distributed(prepared: Prepared, split: RetrievalSplit) -> bool:
    """Whether each process measures a share of the visuals; where there are too few to share, each measures all."""
    return prepared.distributed and len(split.visuals) >= distributed.world_size()


def visuals_loader(prepared: Prepared, split: RetrievalSplit, config: RunConfig) -> VisualLoader:
    """The visuals of a split, in order, at the base's size; where processes measure together, this one's share."""
    rank, world = (distributed.rank(), distributed.world_size()) if is_distributed(prepared, split) else (0, 1)
    size = image_size(prepared, config)
    batch_size = config.evaluate.batch_size
    return visual_loader(
        split, config.data, size=size, batch_size=batch_size, rank=rank, world=world,
        normalisation=normalisation(prepared),
    )  # fmt: skip
