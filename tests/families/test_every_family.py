"""Each family by the commands: trained on the embedded scenes from their JSONL, measured, saved, loaded, disabled; and
the same bad inputs for each."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from scene_bases import BUILDERS, save_scene_base

import uniadapter as ua
from uniadapter.app.cli import main
from uniadapter.embedded import resolve_embedded
from uniadapter.model.families import families

FAMILIES = [name for name in families() if name in BUILDERS]
SCENES = 48


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Some of the embedded scenes as JSONL files of `image` and `caption`."""
    folder = tmp_path_factory.mktemp("scenes")
    files = {}
    for split in ("train", "test"):
        source = Path(resolve_embedded(f"embedded:scenes/{split}"))
        rows = json.loads(source.read_text())[: 4 * SCENES]
        lines, seen = [], set()
        for row in rows:
            texts = row["caption"] if isinstance(row["caption"], list) else [row["caption"]]
            if row["image"] not in seen and len(seen) < SCENES:
                seen.add(row["image"])
                lines.append(json.dumps({"image": str(source.parent / row["image"]), "caption": texts[0]}))
        files[split] = str(folder / f"{split}.jsonl")
        Path(files[split]).write_text("\n".join(lines) + "\n")
    return files


@pytest.fixture(scope="module", params=FAMILIES)
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_scene_base(tmp_path_factory.mktemp("base") / request.param, request.param)


def run_file(folder: Path, base: Path, scenes: dict[str, str], **more: dict[str, Any]) -> Path:
    """A short run's YAML; a family that fuses has both losses and rerank."""
    fuses = families()[base.name].fuses
    config: dict[str, Any] = {
        "output": str(folder / "run"),
        "model": {"base": str(base), "max_tokens": 48, "adapter": {"bottleneck": 8, "key_value": 4, "scale": 1.0}},
        "data": {**scenes, "workers": 0, "augment": False, "scale": [1.0, 1.0], "flip": False},
        "objective": {"matching": fuses},
        "train": {"epochs": 20, "batch_size": 16, "lr": 5e-3, "schedule": "constant", "log_every": 3, "seed": 1},
        "evaluate": {"k": 4 if fuses else 0, "batch_size": 16, "block": 64},
    }
    for section, values in more.items():
        config[section] = {**config.get(section, {}), **values} if isinstance(values, dict) else values
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def test_trained_on_scenes_measured_saved_loaded_and_disabled(
    tmp_path: Path, base: Path, scenes: dict[str, str]
) -> None:
    run, out = run_file(tmp_path, base, scenes), tmp_path / "run"
    assert main(["train", str(run)]) == 0
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    first, last = (sum(row["contrastive"] for row in part) for part in (history[:3], history[-3:]))
    assert last < 0.9 * first, "the loss falls"
    before, after = json.loads((out / "metrics.json").read_text())["rows"]
    assert (before["method"], after["method"]) == ("zero_shot", "uniadapter")
    assert main(["evaluate", str(run), "--adapter", str(out / "adapter"), "--output", str(tmp_path / "again")]) == 0
    measured = json.loads((tmp_path / "again/metrics.json").read_text())["rows"][0]
    assert measured["text_to_image"] == after["text_to_image"]
    loaded = ua.from_pretrained(out / "adapter")
    bare = ua.load_model(base)
    texts = ["a red apple above a dog", "two cats"]
    adapted = ua.text_features(loaded.model, loaded.tokenizer, texts).feature
    plain = ua.text_features(bare, loaded.tokenizer, texts).feature
    assert (adapted - plain).abs().max() > 1e-3
    with ua.disable_adapter(loaded.model):
        again = ua.text_features(loaded.model, loaded.tokenizer, texts).feature
    assert torch.allclose(again, plain, atol=1e-6)


def one_line(capsys: pytest.CaptureFixture[str], arguments: list[str]) -> str:
    """What a refused command says, which is one line on standard error and exit status 2."""
    capsys.readouterr()
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert said.count("\n") == 1
    assert len(said) < 400
    return said


def test_a_base_without_its_tokenizer(
    tmp_path: Path, base: Path, scenes: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    bald = Path(shutil.copytree(base, tmp_path / base.name))
    for file in bald.glob("tokenizer*"):
        file.unlink()
    assert "tokenizer" in one_line(capsys, ["train", str(run_file(tmp_path, bald, scenes))])


def test_a_base_whose_weights_are_cut_short(
    tmp_path: Path, base: Path, scenes: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    short = Path(shutil.copytree(base, tmp_path / base.name))
    weights = short / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    assert "model.safetensors" in one_line(capsys, ["train", str(run_file(tmp_path, short, scenes))])


def test_a_base_whose_config_and_weights_differ(
    tmp_path: Path, base: Path, scenes: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    other = Path(shutil.copytree(base, tmp_path / base.name))
    described = json.loads((other / "config.json").read_text())
    described["vision_config"]["num_hidden_layers"] = 5
    (other / "config.json").write_text(json.dumps(described))
    assert "lacks" in one_line(capsys, ["train", str(run_file(tmp_path, other, scenes))])


def test_texts_longer_than_its_positions(
    tmp_path: Path, base: Path, scenes: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_file(tmp_path, base, scenes)
    said = one_line(capsys, ["train", str(run), "--model.max_tokens", "400"])
    assert "model.max_tokens is 400" in said
    assert "64 positions" in said


def test_what_the_family_cannot_do(
    tmp_path: Path, base: Path, scenes: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    run, family = run_file(tmp_path, base, scenes), families()[base.name]
    said = one_line(capsys, ["train", str(run), "--task", "caption"])
    assert family.title in said
    assert "uniadapter families" in said
    if not family.fuses:
        said = one_line(capsys, ["train", str(run), "--objective.matching", "true", "--evaluate.k", "8"])
        assert "objective.matching false" in said
        assert "evaluate.k 0" in said


def test_an_adapter_of_another_family(
    tmp_path: Path, base: Path, scenes: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    model = ua.load_model("embedded")
    ua.add_adapter(model, ua.AdapterConfig(bottleneck=4, key_value=0))
    ua.save_adapter(model, tmp_path / "theirs")
    run = run_file(tmp_path, base, scenes)
    said = one_line(capsys, ["evaluate", str(run), "--adapter", str(tmp_path / "theirs")])
    assert "made for retrieval (BlipForImageTextRetrieval)" in said
    assert "load the base that it was made for" in said
