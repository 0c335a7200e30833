"""An adapter folder is not taken for one of PEFT's, and folders under the former name of the config go on loading."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

import uniadapter as ua
from tiny import randomise, tiny_model, tiny_texts
from uniadapter.checkpoints.adapter_folder import read_adapter_config
from uniadapter.checkpoints.bases import locate_base
from uniadapter.checkpoints.folder_names import CONFIG_NAME, LEGACY_CONFIG_NAME
from uniadapter.config import AdapterConfig, RunConfig
from uniadapter.errors import CheckpointError
from uniadapter.model.settings import InferenceSettings
from uniadapter.runs.folders import evaluation_identity, resolve_source
from uniadapter.training.run_folder import existing_results, remove_replaced_weights

PEFT = '{"peft_type": "LORA", "base_model_name_or_path": "nobody/nothing"}'


def saved(folder: Path, former: bool = False, prompt: str = "") -> Path:
    """An adapter folder; `former` as version 0.1.0 and the first ones of 0.2.0 named its config."""
    model = tiny_model()
    randomise(ua.add_adapter(model, AdapterConfig(bottleneck=4, key_value=2)))
    ua.save_adapter(model, folder, base="nobody/nothing", settings=InferenceSettings(prompt=prompt))
    if former:
        (folder / CONFIG_NAME).rename(folder / LEGACY_CONFIG_NAME)
    return folder


def features(folder: Path) -> torch.Tensor:
    model = tiny_model()
    ua.load_adapter(model, folder)
    with torch.no_grad():
        return ua.encode_text(model, *tiny_texts(3)).feature


def test_transformers_and_peft_refuse_our_folder(tmp_path: Path) -> None:
    """Neither goes on to the base that it names, which would load without the adapter."""
    folder = saved(tmp_path / "a")
    with pytest.raises((OSError, ValueError), match=r"config\.json|model_type") as refused:
        AutoModel.from_pretrained(folder)
    assert str(folder) in str(refused.value)
    assert "nobody/nothing" not in str(refused.value)
    peft = pytest.importorskip("peft")
    model = tiny_model()
    with pytest.raises(ValueError, match=r"Can't find 'adapter_config\.json'") as refused:
        peft.PeftModel.from_pretrained(model, str(folder))
    assert str(folder) in str(refused.value)
    assert not hasattr(model, "peft_config")


def test_a_folder_under_the_former_name_is_found_and_loads_everywhere(tmp_path: Path) -> None:
    new, old = saved(tmp_path / "new"), saved(tmp_path / "run/adapter", former=True)
    assert torch.equal(features(new), features(old))
    assert read_adapter_config(old).base == "nobody/nothing"
    for source in (old, old.parent):
        assert resolve_source(RunConfig(), source) == (RunConfig(), old)
        with pytest.raises(CheckpointError, match="nobody/nothing"):  # it got as far as the base
            ua.from_pretrained(source)
    with pytest.raises(CheckpointError, match="an adapter, not a base"):
        locate_base(str(old))
    assert existing_results(old.parent) == [f"adapter/{LEGACY_CONFIG_NAME}"]
    # An evaluation's figures follow from what the files hold, not from a name.
    assert (
        evaluation_identity(RunConfig(), new, "test")["adapter"]
        == evaluation_identity(RunConfig(), old, "test")["adapter"]
    )
    (old / LEGACY_CONFIG_NAME).write_text("{")
    with pytest.raises(CheckpointError, match=f"{LEGACY_CONFIG_NAME}: not JSON"):
        read_adapter_config(old)
    remove_replaced_weights(old.parent, "model")
    assert not old.exists()


@pytest.mark.parametrize("renamed", range(4))
def test_saving_again_replaces_the_former_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, renamed: int) -> None:
    """Interrupted after each of its files, the folder is the old adapter or the new one; whole, it has one config."""
    folder = saved(tmp_path / "a", former=True, prompt="old")
    replace, done = os.replace, []

    def interrupted(source: str, target: str) -> None:
        if len(done) == renamed:
            raise OSError(5, "Input/output error")
        done.append(target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    if renamed < 3:
        with pytest.raises(CheckpointError, match="Input/output error"):
            saved(folder, prompt="new")
    else:
        saved(folder, prompt="new")
        assert sorted(os.listdir(folder)) == ["README.md", "adapter_model.safetensors", CONFIG_NAME]
    monkeypatch.undo()
    assert ua.load_adapter(tiny_model(), folder).settings.prompt == ("new" if renamed else "old")


@pytest.mark.parametrize("content", [PEFT, '{"config": {"non_linearity": "relu"}}', "not JSON"])
def test_a_config_of_others_beside_ours_is_not_read_and_not_touched(tmp_path: Path, content: str) -> None:
    folder = saved(tmp_path / "run/adapter")
    expected = features(folder)
    other = folder / LEGACY_CONFIG_NAME
    other.write_text(content)
    assert torch.equal(features(folder), expected)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    if content == PEFT:
        with pytest.raises(CheckpointError, match="adapter of PEFT, whose weights have the same name"):
            saved(folder)
        assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
        remove_replaced_weights(folder.parent, "model")  # a run that trains the whole model now
        assert sorted(os.listdir(folder)) == ["README.md", LEGACY_CONFIG_NAME, "adapter_model.safetensors"]
    else:
        saved(folder)
    assert other.read_text() == content


def test_an_adapter_that_peft_saved_over_ours_is_told_from_ours(tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    folder = saved(tmp_path / "a")
    lora = peft.get_peft_model(tiny_model(), peft.LoraConfig(r=2, target_modules=["query"]))
    lora.save_pretrained(folder)
    described = json.loads((folder / LEGACY_CONFIG_NAME).read_text())
    with pytest.raises(CheckpointError, match="PEFT has saved one of its own over it"):
        ua.load_adapter(tiny_model(), folder)
    with pytest.raises(CheckpointError, match="adapter of PEFT"):
        saved(folder)
    assert json.loads((folder / LEGACY_CONFIG_NAME).read_text()) == described
    peft.PeftModel.from_pretrained(tiny_model(), str(folder))  # whose adapter it is now


@pytest.mark.parametrize("name", [CONFIG_NAME, LEGACY_CONFIG_NAME])
def test_an_adapter_on_the_hub_is_not_a_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Its id given as a base: the line says what was found, under either name."""
    store = tmp_path / "models--someone--adapter"
    folder = store / "snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    (store / "refs").mkdir()
    (store / "refs/main").write_text("0" * 40)
    (folder / name).write_bytes((saved(tmp_path / "a") / CONFIG_NAME).read_bytes())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("uniadapter.checkpoints.bases.hub_in_reach", lambda: False)
    with pytest.raises(CheckpointError, match="an adapter, not a base"):
        locate_base("someone/adapter")
