"""Adapter folders that are not what they should be: one line that names the folder, and nothing is made of them."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import PreTrainedModel

from tiny import randomise, tiny_model
from uniadapter.checkpoints.adapter_folder import read_adapter_file, save_adapter
from uniadapter.checkpoints.adapters import add_adapter, load_adapter
from uniadapter.config import AdapterConfig
from uniadapter.errors import CheckpointError
from uniadapter.model.sets import adapter_names, remove_adapter
from uniadapter.model.settings import InferenceSettings

KEYS = [
    ("adapter",), ("adapter", "bottleneck"), ("adapter", "temporal_frames"), ("adapter", "scale"), ("adapter", "init"),
    ("base_model_name_or_path",), ("base_model_sha256",), ("extra",), ("inference",), ("inference", "image_size"),
    ("inference", "std", 1), ("inference", "answers", 1), ("base_model_identity", "tensors"), ("write_id",),
]  # fmt: skip
VALUES = [-1, 1.5, 10**9, 10**30, float("inf"), float("nan"), "\ud83d", [], [[]], {"a": 1}, True]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    model = tiny_model()
    randomise(add_adapter(model, AdapterConfig(bottleneck=4, key_value=4, temporal_frames=2)))
    settings = InferenceSettings(prompt="this is", frames=2, answers=("red", "blue"), k=3)
    return save_adapter(model, tmp_path / "broken", extra={"note": "mine"}, settings=settings)


def put(values: dict[str, Any], keys: tuple[str | int, ...], value: object) -> dict[str, Any]:
    values = copy.deepcopy(values)
    inner: Any = values
    for key in keys[:-1]:
        inner = inner[key]
    inner[keys[-1]] = value
    return values


def refused(folder: Path) -> str:
    """The one line by which a folder is refused; the model is left as it was."""
    model = tiny_model()
    with pytest.raises(CheckpointError) as error:
        load_adapter(model, folder)
    line = str(error.value)
    assert str(folder) in line
    assert "\n" not in line
    assert len(line) <= 300
    assert adapter_names(model) == []
    return line


@pytest.mark.parametrize("keys", KEYS, ids=lambda keys: ".".join(map(str, keys)))
def test_values_of_any_shape_are_taken_or_refused_in_one_line(folder: Path, keys: tuple[str | int, ...]) -> None:
    file = folder / "uniadapter_config.json"
    values = json.loads(file.read_text())
    inner: Any = values
    for key in keys:
        inner = inner[key]
    taken, model = 0, tiny_model()
    for value in (*VALUES, None, [inner], {"of": inner}):
        file.write_text(json.dumps(put(values, keys, value)))
        line = outcome(model, folder)
        assert line is None or (str(folder) in line and len(line) <= 300 and "\n" not in line)
        taken += line is None
    if keys != ("write_id",):  # of any other write: then the weights' own copy counts
        assert taken <= 5


def outcome(model: PreTrainedModel, folder: Path) -> str | None:
    """The line by which a folder is refused; None where it loads."""
    try:
        load_adapter(model, folder)
    except CheckpointError as error:
        return str(error)
    remove_adapter(model)
    return None


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("uniadapter_config.json", "[" * 10_000 + "]" * 10_000),
        ("uniadapter_config.json", "[1, 2]"),
        ("uniadapter_config.json", "\x00\x01"),
        ("uniadapter_config.json", '{"peft_type": "LORA", "r": 8}'),
        ("uniadapter_config.json", "{}"),
        ("adapter_model.safetensors", ""),
        ("adapter_model.safetensors", "hello, this is no safetensors file"),
    ],
    ids=["deep", "list", "binary", "peft", "empty", "no-weights", "text"],
)
def test_files_that_are_something_else_are_refused(folder: Path, name: str, content: str) -> None:
    (folder / name).write_text(content)
    if content == "{}":  # of another write than the weights, which say what they are
        load_adapter(tiny_model(), folder)
    else:
        assert ("PEFT" in refused(folder)) == ("peft" in content)


def rewrite(folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    """Change the weights of a folder, as by hand: their metadata is lost."""
    file = folder / "adapter_model.safetensors"
    save_file(change(load_file(file)), file)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("everywhere", [False, True])
def test_weights_that_are_no_numbers_are_refused(folder: Path, value: float, everywhere: bool) -> None:
    def spoil(state: dict[str, Tensor]) -> dict[str, Tensor]:
        for name, tensor in state.items():
            if everywhere:
                tensor.fill_(value)
            elif name == "layers.1.down.weight":
                tensor[1, 2] = value
        return state

    rewrite(folder, spoil)
    assert "NaN or infinite" in refused(folder)
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        read_adapter_file(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda state: {**state, "stray": torch.zeros(2)}, "stray has no place"),
        (lambda state: {k: v for k, v in state.items() if k != "key.scale"}, "key.scale is missing"),
        (lambda state: {**state, "time": torch.zeros(1, 3, 32)}, "time is"),
        (lambda state: {**state, "key.scale": torch.ones(1, dtype=torch.int32)}, "no floating-point"),
        (lambda state: {f"module.{k}": v for k, v in state.items()}, "missing"),
        (lambda state: {}, "missing"),
    ],
    ids=["stray", "missing", "shape", "integers", "wrapped", "none"],
)
def test_weights_of_other_names_or_sizes_are_refused(
    folder: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]], told: str
) -> None:
    rewrite(folder, change)
    assert told in refused(folder)


def test_sizes_are_compared_before_anything_is_made(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = folder / "uniadapter_config.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps(put(values, ("adapter", "bottleneck"), 16384)))  # the largest that a config may ask for
    monkeypatch.setattr("uniadapter.checkpoints.adapters.add_adapter", lambda *arguments: pytest.fail("a set was made"))
    monkeypatch.setattr("uniadapter.checkpoints.adapters.read_weights", lambda file: pytest.fail("weights were read"))
    assert "do not fit" in refused(folder)


def test_settings_that_the_base_cannot_take_are_refused(folder: Path) -> None:
    file = folder / "uniadapter_config.json"
    values = json.loads(file.read_text())
    for key, value in (("image_size", 8), ("max_tokens", 41), ("longest", 100)):
        file.write_text(json.dumps(put(values, ("inference", key), value)))
        assert f"inference.{key} is {value}" in refused(folder)
