"""Every setting of the project as plain dataclasses: what is saved beside the weights, and what a run is told.

A YAML file maps one to one onto `RunConfig`; a key that no field knows is an error, never ignored, and no value is
taken that is not in the range that stands with its field.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from uniadapter.config.checks import File, check, require
from uniadapter.config.data import DataConfig, Layout, OnError
from uniadapter.config.evaluation import EvaluateConfig
from uniadapter.config.model import AdapterConfig, Init, Method, ModelConfig
from uniadapter.config.training import ObjectiveConfig, Precision, TrainConfig
from uniadapter.errors import ConfigError

__all__ = [
    "AdapterConfig",
    "ConfigError",
    "DataConfig",
    "EvaluateConfig",
    "Init",
    "Layout",
    "Method",
    "ModelConfig",
    "ObjectiveConfig",
    "OnError",
    "Precision",
    "RunConfig",
    "TrainConfig",
]


@dataclass
class RunConfig:
    """One run: `uniadapter train CONFIG` reads exactly these keys from its YAML file.

    Args:
        task: what is trained and measured: "retrieval", "vqa" (questions about pictures or videos) or "caption".
        output: folder of the run.
        model: what is adapted, and how.
        data: the pictures and captions.
        objective: the training loss.
        train: the optimisation.
        evaluate: the evaluation protocol.
    """

    task: Literal["retrieval", "vqa", "caption"] = "retrieval"
    output: File = "runs/retrieval"
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    def __post_init__(self) -> None:
        check(self, "")
        apart = self.task != "retrieval" or self.data.together == 1
        together = self.data.together
        require(apart, f"data.together is {together}: retrieval's batches want different visuals; leave it at 1")
