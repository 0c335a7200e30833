"""The base that an adapter was made for is known in every dtype, and another one is not."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from transformers import BlipForImageTextRetrieval, PreTrainedModel

from tiny import randomise, tiny_model
from uniadapter.checkpoints.adapter_folder import read_adapter_config, save_adapter
from uniadapter.checkpoints.adapters import add_adapter, load_adapter
from uniadapter.config import AdapterConfig
from uniadapter.errors import CheckpointError
from uniadapter.model.identity import base_hash, identity_of
from uniadapter.model.precision import round_frozen
from uniadapter.model.sets import remove_adapter

CONFIG = AdapterConfig(bottleneck=4, key_value=2)
WHOLE, HALF, OTHER_HALF = torch.float32, torch.bfloat16, torch.float16


def base(dtype: torch.dtype = WHOLE, changed: bool = False) -> PreTrainedModel:
    """Always the same base, loaded in a dtype; or one of whose weights one is another."""
    model = tiny_model()
    if changed:
        with torch.no_grad():
            model.text_encoder.encoder.layer[1].attention.self.key.weight[3, 5] += 0.05
    return model.to(dtype)


def made_on(dtype: torch.dtype, folder: Path) -> Path:
    model = base(dtype)
    randomise(add_adapter(model, CONFIG))
    return save_adapter(model, folder)


@pytest.mark.parametrize(
    ("made", "loaded"),
    [(WHOLE, WHOLE), (WHOLE, HALF), (WHOLE, OTHER_HALF), (HALF, WHOLE), (HALF, HALF), (OTHER_HALF, WHOLE)],
)
def test_the_same_base_in_another_dtype_is_taken_and_another_refused(
    tmp_path: Path, made: torch.dtype, loaded: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    folder = made_on(made, tmp_path / "a")
    model = base(loaded)
    with caplog.at_level(logging.WARNING):
        load_adapter(model, folder)
    assert not caplog.records
    with pytest.raises(CheckpointError, match="another base"):
        load_adapter(base(loaded, changed=True), folder)


def test_a_base_of_which_a_part_is_in_half_precision_is_known(tmp_path: Path) -> None:
    folder = made_on(WHOLE, tmp_path / "a")
    for changed in (False, True):
        model = base(changed=changed)
        model.vision_model.to(HALF)
        if changed:
            with pytest.raises(CheckpointError, match="another base"):
                load_adapter(model, folder)
        else:
            load_adapter(model, folder)


def test_two_roundings_cannot_be_compared_and_that_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    load_adapter(base(OTHER_HALF), made_on(HALF, tmp_path / "a"))
    assert "cannot be told in this dtype" in caplog.text


@pytest.mark.parametrize(("made", "loaded", "told"), [(WHOLE, WHOLE, True), (HALF, WHOLE, True), (WHOLE, HALF, False)])
def test_folders_of_the_first_version_go_on_loading(
    tmp_path: Path, made: torch.dtype, loaded: torch.dtype, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """They have one hash, frames and answers in `extra`, and nothing in the weights' metadata."""
    from safetensors.torch import load_file, save_file

    folder = made_on(made, tmp_path / "a")
    file = folder / "adapter_config.json"
    values = json.loads((folder / "uniadapter_config.json").rename(file).read_text())
    for key in ("inference", "base_model_identity", "write_id"):
        del values[key]
    values["extra"] = {"frames": 4, "answers": ["yes", "no"]}
    file.write_text(json.dumps(values))
    weights = folder / "adapter_model.safetensors"
    save_file(load_file(weights), weights, metadata={"format": "pt"})
    settings = load_adapter(base(loaded), folder).settings
    assert (settings.frames, settings.answers, settings.image_size) == (4, ("yes", "no"), None)
    assert ("cannot be told" in caplog.text) != told
    if told:
        with pytest.raises(CheckpointError, match="another base"):
            load_adapter(base(loaded, changed=True), folder)


def test_the_hash_of_half_a_base_is_that_of_the_whole_one_rounded() -> None:
    whole = identity_of(base())
    assert whole.tensors["float32"] == base_hash(base())
    assert whole.tensors["bfloat16"] == base_hash(base(HALF))
    assert whole.tensors["float16"] == base_hash(base(OTHER_HALF))
    assert len(set(whole.tensors.values())) == 3


def test_frozen_matrices_rounded_in_place_are_not_another_base(tmp_path: Path) -> None:
    model = base()
    add_adapter(model, CONFIG)
    round_frozen(model, HALF)
    folder = save_adapter(model, tmp_path / "a")
    load_adapter(base(), folder)
    load_adapter(base(HALF), folder)
    remove_adapter(model)
    load_adapter(model, folder)


def test_the_folder_says_the_task_of_the_models_class(tmp_path: Path) -> None:
    from tiny import TASK_MODELS

    for cls, task in zip(TASK_MODELS, ("retrieval", "vqa", "caption"), strict=True):
        model = tiny_model(cls)
        add_adapter(model, CONFIG)
        assert read_adapter_config(save_adapter(model, tmp_path / task)).task == task
    assert BlipForImageTextRetrieval is TASK_MODELS[0]
