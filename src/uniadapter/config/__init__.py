"""All settings as dataclasses: those of a run, and those saved beside an adapter's weights.

A YAML file maps one to one onto `RunConfig`. Unknown keys and values outside a field's range are errors.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from uniadapter.config.checks import File, require, validate_fields
from uniadapter.config.comparison import CompareConfig, MethodSettings, usual_rates
from uniadapter.config.data import SPLITS, DataConfig, LayoutName
from uniadapter.config.evaluation import EvaluateConfig
from uniadapter.config.model import (
    Activation,
    AdapterConfig,
    Init,
    LoraSettings,
    Method,
    ModelConfig,
    Share,
    TemporalInit,
)
from uniadapter.config.training import Keep, ObjectiveConfig, Precision, TrainConfig
from uniadapter.errors import ConfigError, OnError

__all__ = [
    "SPLITS",
    "Activation",
    "AdapterConfig",
    "CompareConfig",
    "ConfigError",
    "DataConfig",
    "EvaluateConfig",
    "Init",
    "Keep",
    "LayoutName",
    "LoraSettings",
    "Method",
    "MethodSettings",
    "ModelConfig",
    "ObjectiveConfig",
    "OnError",
    "Precision",
    "RunConfig",
    "Share",
    "TemporalInit",
    "TrainConfig",
    "usual_rates",
]


@dataclass
class RunConfig:
    """One run: `uniadapter train CONFIG` reads exactly these keys from its YAML file.

    Args:
        task: "retrieval", "vqa" (questions about pictures or videos) or "caption".
        output: the run folder.
        model: the base model and its adapters.
        data: the annotation files, and how pictures and videos are loaded.
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
        validate_fields(self, "")
        together = self.data.together
        distinct = self.task != "retrieval" or together == 1
        require(distinct, f"data.together is {together}: a retrieval batch needs distinct visuals; leave it at 1")

        if self.train.fsdp:
            _check_sharded(self.model, self.objective)

    def untrained(self) -> RunConfig:
        """A copy that evaluates the base, or an adapter given beside it, and trains nothing."""
        return replace(self, model=replace(self.model, method="none"))

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as in its YAML file."""
        values = asdict(self)
        values["data"]["scale"] = list(self.data.scale)
        return values

    def with_absolute_paths(self) -> RunConfig:
        """A copy with absolute paths, which is valid in any working directory."""
        data = self.data
        names = ("train", "val", "test", "captions", "answer_list", "root", "cache")
        files: dict[str, Any] = {name: _absolute(getattr(data, name)) for name in names}
        for name in ("extra_tests", "annotations"):
            files[name] = {key: _absolute(value) for key, value in getattr(data, name).items()}
        base = os.path.abspath(self.model.base) if os.path.exists(self.model.base) else self.model.base
        base = self.model.base if self.model.base == "embedded" else base
        changed = {"model": replace(self.model, base=base), "data": replace(data, **files)}
        return replace(self, output=os.path.abspath(self.output), **changed)  # type: ignore[arg-type]


def _check_sharded(model: ModelConfig, objective: ObjectiveConfig) -> None:
    """Refuse what `train.fsdp` cannot do: all processes must call each layer equally often."""
    frozen, chunks = model.method == "uniadapter", model.frame_chunk == 0
    require(frozen, f"train.fsdp shares a frozen base, and model.method {model.method} trains it: leave train.fsdp off")
    require(chunks, "train.fsdp and model.frame_chunk do not go together: leave it at 0; checkpoint_vision takes less")
    batch = objective.matching and objective.negatives == "batch"
    require(not batch, "train.fsdp is for objective.negatives all")


def _absolute(name: str | None) -> str | None:
    """An absolute path; names of embedded data and URLs are returned unchanged."""
    return name if name is None or name.startswith("embedded:") or "://" in name else os.path.abspath(name)
