"""Ranges and choices of all settings are checked, from Python and from files."""

from __future__ import annotations

import math
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uniadapter.config import (
    AdapterConfig,
    ConfigError,
    DataConfig,
    EvaluateConfig,
    ModelConfig,
    ObjectiveConfig,
    RunConfig,
    TrainConfig,
)
from uniadapter.files.messages import MAX_MESSAGE

SECTIONS: dict[str, type[Any]] = {
    "adapter": AdapterConfig, "model": ModelConfig, "data": DataConfig, "objective": ObjectiveConfig,
    "train": TrainConfig, "evaluate": EvaluateConfig, "": RunConfig,
}  # fmt: skip

WRONG: list[tuple[str, Any]] = [
    *(("adapter.bottleneck", value) for value in (0, -1, 10**9, 1.5, 8.0, True, "8", None, [8], math.inf)),
    *(("adapter.scale", value) for value in (0.0, -0.1, math.nan, math.inf, 1e30, "0.1", [0.1], True)),
    *(("adapter.init", value) for value in ("idenity", "", None, 0, ["identity"])),
    ("adapter.decoder", "seperate"), ("adapter.key_value", -1), ("adapter.temporal_frames", math.inf),
    ("adapter.vision", 1), ("adapter.heads", "true"),
    *(("model.image_size", value) for value in (-1, 0, 1_000_000, 10**12, 224.0, "224")),
    *(("model.max_tokens", value) for value in (-1, 0, 10**6)),
    ("model.base", ""), ("model.base", None), ("model.base", "a\0b"),
    ("model.prompt", "\ud83d"), ("model.prompt", None),
    ("model.method", "moe"), ("model.frame_chunk", -1), ("model.adapter", None), ("model.adapter", {"bottleneck": 8}),
    *(("data.frames", value) for value in (-1, 0, 100_000)), ("data.eval_frames", -1),
    *(("data.scale", value) for value in ((1.0, 0.5), (0.0, 1.0), (0.5, 1.5), (0.5,), (math.nan, 1.0), 0.5, "0.5,1")),
    *(("data.workers", value) for value in (-1, 10_000)), ("data.max_words", 0), ("data.together", 0),
    *(("data.extra_tests", {name: "x.json"}) for name in ("train", "val", "test", "", "../up", "a\nb", "x" * 999)),
    ("data.extra_tests", None), ("data.extra_tests", ["x.json"]), ("data.extra_tests", {"a": 3}), ("data.train", 3),
    ("data.annotations", {"tset": "x.json"}), ("data.layout", "coca"), ("data.on_error", "ignore"), ("data.train", ""),
    ("data.answer_count", -1), ("data.flip", "no"),
    *(("objective.queue_size", value) for value in (-1, 10**12, None, 1.0)),
    *(("objective.momentum", value) for value in (-0.1, 1.0, 1.5, math.nan)),
    *(("objective.alpha", value) for value in (-0.1, 1.1, math.nan)),
    *(("objective.temperature", value) for value in (0.0, -1.0, 1e-30, math.inf)),
    ("objective.negatives", "none"),
    *(("train.lr", value) for value in (0, -1, 1e30, math.nan, "1e-5", None)),
    *(("train.log_every", value) for value in (0, -1)), ("train.epochs", 10**9), ("train.epochs", 0),
    *(("train.batch_size", value) for value in (0, 10**9)), ("train.seed", 2**70), ("train.seed", -1),
    ("train.grad_clip", -1.0), ("train.weight_decay", -1.0), ("train.min_lr", -1.0), ("train.min_lr", 1.0),
    ("train.micro_batch", -1), ("train.skip_bad_steps", -1), ("train.max_minutes", -0.5),
    ("train.max_minutes", math.inf), ("data.timeout", -1), ("data.timeout", 1.5),
    ("train.accumulate", 0), ("train.warmup_steps", -1), ("train.max_steps", -1), ("train.save_every", -1),
    ("train.precision", "fp8"), ("train.schedule", "cosin"), ("train.precision", False),
    ("evaluate.beta", math.nan), ("evaluate.beta", -1.0), ("evaluate.beams", 10**6), ("evaluate.beams", 0),
    ("evaluate.longest", 10**9), ("evaluate.shortest", 21), ("evaluate.k", -3), ("evaluate.block", -1),
    ("evaluate.features", "ram"), ("evaluate.answers", "list"),
    ("task", "retreival"), ("output", ""), ("output", None), ("train", None), ("data", {}),
]  # fmt: skip


@pytest.mark.parametrize("key, value", WRONG)
def test_a_wrong_value_is_one_line_that_names_the_key(key: str, value: Any) -> None:
    section, _, name = key.rpartition(".")
    with pytest.raises(ConfigError) as caught:
        SECTIONS[section](**{name: value})
    message = str(caught.value)
    assert key.split(".")[-1] in message
    assert "\n" not in message
    assert len(message) <= MAX_MESSAGE
    assert "pydantic" not in message


@pytest.mark.parametrize("section", SECTIONS)
def test_null_is_taken_only_where_a_field_says_so(section: str) -> None:
    for one in fields(SECTIONS[section]):
        if "None" not in str(one.type):
            with pytest.raises(ConfigError, match=one.name):
                SECTIONS[section](**{one.name: None})
        else:
            assert getattr(SECTIONS[section](**{one.name: None}), one.name) is None


def test_a_misspelt_choice_gets_the_right_one() -> None:
    with pytest.raises(ConfigError, match="did you mean identity"):
        AdapterConfig(init="idenity")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="did you mean bottleneck"):
        AdapterConfig.from_dict({"bottlneck": 3})


def test_values_are_kept_as_they_are_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    assert isinstance(TrainConfig(lr=1).lr, float)
    assert DataConfig(scale=[0.5, 1]).scale == (0.5, 1.0)  # type: ignore[arg-type]
    assert DataConfig(train="~/a.json", extra_tests={"novel": "~/b.json"}).train == "/home/me/a.json"
    found = DataConfig(train=Path("a.json"), extra_tests={"novel": Path("b.json")})  # type: ignore[arg-type,dict-item]
    assert (found.train, found.extra_tests) == ("a.json", {"novel": "b.json"})
    scalars = AdapterConfig(bottleneck=np.int64(8), scale=np.float64(0.5), vision=np.bool_(True))  # type: ignore[arg-type]
    assert scalars == AdapterConfig(bottleneck=8, scale=0.5, vision=True)
    with pytest.raises(ConfigError):
        AdapterConfig.from_dict([])  # type: ignore[arg-type]
    assert DataConfig(train="embedded:scenes/train").train == "embedded:scenes/train"
    monkeypatch.delenv("HOME")
    assert ModelConfig(base="x").base == "x"
