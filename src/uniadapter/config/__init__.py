"""Every setting of the project as plain dataclasses: what is saved beside the weights, and what a run is told.

A YAML file maps one to one onto `RunConfig`; a key that no field knows is an error, never ignored, and no value is
taken that is not in the range that stands with its field.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from uniadapter.config.checks import File, check, require
from uniadapter.config.data import SPLITS, DataConfig, Layout
from uniadapter.config.evaluation import EvaluateConfig
from uniadapter.config.model import AdapterConfig, Init, Method, ModelConfig
from uniadapter.config.training import ObjectiveConfig, Precision, TrainConfig
from uniadapter.errors import ConfigError, OnError

__all__ = [
    "SPLITS",
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

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as its YAML file holds them."""
        values = asdict(self)
        values["data"]["scale"] = list(self.data.scale)
        return values

    def located(self) -> RunConfig:
        """The same with every path from the root, so that it means the same in any working directory."""
        data = self.data
        names = ("train", "val", "test", "captions", "answer_list", "root")
        files: dict[str, Any] = {name: _from_root(getattr(data, name)) for name in names}
        for name in ("extra_tests", "annotations"):
            files[name] = {key: _from_root(value) for key, value in getattr(data, name).items()}
        base = os.path.abspath(self.model.base) if os.path.exists(self.model.base) else self.model.base
        base = self.model.base if self.model.base == "embedded" else base
        located = {"model": replace(self.model, base=base), "data": replace(data, **files)}
        return replace(self, output=os.path.abspath(self.output), **located)  # type: ignore[arg-type]


def _from_root(name: str | None) -> str | None:
    """A file's path from the root; what comes with the package, or from the net, stays as it is."""
    return name if name is None or name.startswith("embedded:") or "://" in name else os.path.abspath(name)
