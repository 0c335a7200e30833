"""BLIP-2 through the command line: trained, evaluated with rerank, saved, loaded, disabled, and told what is wrong."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_blip2 import tiny_blip2

import uniadapter as ua
from squares import COLOURS, karpathy, save_pictures, save_tokenizer
from test_commands import launch
from uniadapter.app.cli import main
from uniadapter.errors import CheckpointError
from uniadapter.model.encoding import similarity


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random BLIP-2 as a folder of transformers files."""
    folder = tmp_path_factory.mktemp("base") / "tiny-blip2"
    tiny_blip2(positions=48).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def write_run(folder: Path, base: Path | str, files: dict[str, str], **more: dict[str, object]) -> Path:
    """A small run's YAML; both losses, rerank of the four best."""
    config: dict[str, dict[str, object] | str] = {
        "output": str(folder / "run"),
        "model": {"base": str(base), "adapter": {"bottleneck": 8, "key_value": 4, "scale": 1.0}},
        "data": {**files, "workers": 0, "augment": False, "scale": [1.0, 1.0], "flip": False},
        "train": {"epochs": 80, "batch_size": 8, "lr": 1e-2, "schedule": "constant", "log_every": 20, "seed": 1},
        "evaluate": {"k": 4, "batch_size": 4, "block": 16},
    }
    for key, value in more.items():
        config.setdefault(key, {}).update(value)  # type: ignore[union-attr]
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def squares(folder: Path) -> dict[str, str]:
    """Own data in a JSONL: a caption a colour."""
    save_pictures(folder)
    file = folder / "mine.jsonl"
    rows = [{"image": str(folder / f"{colour}.png"), "caption": f"a {colour} square"} for colour in COLOURS]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"train": str(file), "test": str(file)}


def test_train_evaluate_save_load_and_disable(tmp_path: Path, base: Path) -> None:
    run, out = write_run(tmp_path, base, squares(tmp_path)), tmp_path / "run"
    assert main(["train", str(run)]) == 0
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert history[-1]["contrastive"] < 0.1 * history[0]["contrastive"]
    assert history[-1]["matching"] < 0.6 * history[0]["matching"]
    before, after = json.loads((out / "metrics.json").read_text())["rows"]
    assert (before["method"], after["method"]) == ("zero_shot", "uniadapter")
    assert after["text_to_image"]["r@1"] >= before["text_to_image"]["r@1"] + 40, "reranked"
    assert after["text_to_image"]["r@1_itc"] >= before["text_to_image"]["r@1_itc"] + 40, "by the largest similarity"
    again = ["--output", str(tmp_path / "again")]
    assert main(["evaluate", str(run), "--adapter", str(out / "adapter"), *again]) == 0
    measured = json.loads((tmp_path / "again/metrics.json").read_text())["rows"][0]
    assert measured["text_to_image"] == after["text_to_image"]
    assert measured["image_to_text"] == after["image_to_text"]
    model, tokenizer = ua.load_model(base), ua.load_tokenizer(base)
    text = ua.text_features(model, tokenizer, ["a red square"]).feature
    ua.load_adapter(model, out / "adapter")
    assert not torch.equal(ua.text_features(model, tokenizer, ["a red square"]).feature, text)
    with ua.disable_adapter(model):
        assert (ua.text_features(model, tokenizer, ["a red square"]).feature - text).abs().max() < 1e-6
    ua.remove_adapter(model)
    assert type(model).__name__ == "Blip2ForImageTextRetrieval"
    assert ua.adapter_names(model) == []


def test_its_matching_scores_and_similarities_find_the_picture_of_a_text(tmp_path: Path, base: Path) -> None:
    run = write_run(tmp_path, base, squares(tmp_path))
    assert main(["train", str(run)]) == 0
    model, tokenizer = ua.load_model(base), ua.load_tokenizer(base)
    ua.load_adapter(model, tmp_path / "run" / "adapter")
    pictures = [tmp_path / f"{colour}.png" for colour in COLOURS]
    texts = [f"a {colour} square" for colour in COLOURS]
    scores = ua.pair_scores(model, tokenizer, pictures, texts)
    assert (scores.argmax(1) == torch.arange(len(texts))).float().mean() > 0.7
    visuals = ua.image_features(model, pictures).feature
    found = similarity(model, ua.text_features(model, tokenizer, texts).feature, visuals)
    assert (found.argmax(1) == torch.arange(len(texts))).float().mean() > 0.7


def test_the_embedded_scenes_from_their_annotations(tmp_path: Path) -> None:
    base = tmp_path / "base"
    tiny_blip2(vocab=3600, positions=64, image=48).save_pretrained(base)
    ua.load_tokenizer("embedded").save_pretrained(base)
    files = {"train": "embedded:scenes/train", "test": "embedded:scenes/test"}
    run = write_run(tmp_path, base, files, train={"epochs": 1, "max_steps": 24, "batch_size": 32},
                    model={"max_tokens": 48}, evaluate={"k": 2, "block": 0, "batch_size": 64})  # fmt: skip
    assert main(["train", str(run)]) == 0
    history = [json.loads(line) for line in (tmp_path / "run/history.jsonl").read_text().splitlines()]
    assert history[-1]["loss"] < history[0]["loss"]
    _, after = json.loads((tmp_path / "run/metrics.json").read_text())["rows"]
    assert after["text_to_image"]["r@1"] >= 0


def test_karpathy_files_and_full_fine_tuning(tmp_path: Path, base: Path) -> None:
    files = {**karpathy(tmp_path, "flickr30k"), "root": str(tmp_path)}
    run = write_run(tmp_path, base, files, model={"method": "full"}, train={"epochs": 1})
    assert main(["train", str(run)]) == 0
    rows = json.loads((tmp_path / "run/metrics.json").read_text())["rows"]
    assert [row["method"] for row in rows] == ["zero_shot", "full_fine_tuning"]
    assert rows[1]["trainable_percent"] == 100
    again = ["--model.base", str(tmp_path / "run/model"), "--output", str(tmp_path / "again")]
    assert main(["evaluate", str(run), *again]) == 0
    measured = json.loads((tmp_path / "again/metrics.json").read_text())["rows"][0]
    assert measured["text_to_image"] == rows[1]["text_to_image"]


def spoil(what: str, folder: Path, base: Path, run: Path) -> list[str]:
    """Make one thing wrong; the arguments of `train` that go with it."""
    config = yaml.safe_load(run.read_text())
    if what == "no such annotations":
        Path(config["data"]["train"]).unlink()
    elif what == "corrupt picture":
        (folder / "red.png").write_bytes(b"no picture")
    elif what == "no tokenizer":
        own = folder / "base"
        shutil.copytree(base, own)
        (own / "tokenizer.json").unlink()
        return ["--model.base", str(own)]
    elif what == "more tokens than positions":
        return ["--model.max_tokens", "49"]
    elif what == "another task":
        return ["--task", "vqa"]
    elif what == "another family's loss":
        return ["--objective.loss", "momentum"]
    return []


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("no such annotations", "mine.jsonl"),
        ("corrupt picture", "red.png"),
        ("no tokenizer", "has no tokenizer"),
        ("more tokens than positions", "48"),
        ("another task", "BLIP-2"),
        ("another family's loss", "objective.loss softmax"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    tmp_path: Path, base: Path, capsys: pytest.CaptureFixture[str], what: str, said: str
) -> None:
    run = write_run(tmp_path, base, squares(tmp_path))
    arguments = spoil(what, tmp_path, base, run)
    assert main(["train", str(run), *arguments]) != 0
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert said in line
    assert "Traceback" not in line


def test_an_adapter_of_another_family_is_refused(tmp_path: Path, base: Path) -> None:
    other = ua.load_model("embedded")
    ua.add_adapter(other, ua.AdapterConfig(bottleneck=4))
    ua.save_adapter(other, tmp_path / "blip")
    with pytest.raises(CheckpointError, match="BlipForImageTextRetrieval") as caught:
        ua.load_adapter(ua.load_model(base), tmp_path / "blip")
    assert "\n" not in str(caught.value)


def test_videos_with_weighed_frames_and_their_time(tmp_path: Path) -> None:
    base = tmp_path / "base"
    tiny_blip2(vocab=3600, positions=64, image=48).save_pretrained(base)
    ua.load_tokenizer("embedded").save_pretrained(base)
    files = {"train": "embedded:clips/val", "test": "embedded:clips/val"}
    run = write_run(tmp_path, base, files, data={"frames": 2}, train={"epochs": 1, "max_steps": 3, "batch_size": 16},
                    model={"adapter": {"bottleneck": 8, "key_value": 4, "frame_aware": True, "temporal_frames": 2}},
                    evaluate={"k": 2, "block": 0, "batch_size": 64})  # fmt: skip
    assert main(["train", str(run)]) == 0
    rows = json.loads((tmp_path / "run/metrics.json").read_text())["rows"]
    assert set(rows[1]["text_to_video"]) >= {"r@1", "r@1_itc", "median_rank"}


def test_two_processes_train_and_measure_what_one_does(tmp_path: Path, base: Path) -> None:
    train = {"epochs": 2, "batch_size": 6, "lr": 1e-3, "log_every": 1}
    run = write_run(tmp_path, base, squares(tmp_path), train=train)
    for processes, name in ((1, "one"), (2, "two")):
        launch(processes, "train", str(run), "--output", str(tmp_path / name))
    one, two = (load_file(tmp_path / name / "adapter/adapter_model.safetensors") for name in ("one", "two"))
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "history.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert losses[0][0] == pytest.approx(losses[1][0], abs=1e-4)
    model = ua.load_model(base)
    heads = {f"heads.{name}": head for name, head in model.state_dict().items()}
    keys = [key for key in one if key in heads]
    moved = torch.cat([(one[key] - heads[key]).flatten() for key in keys])
    apart = torch.cat([(one[key] - two[key]).flatten() for key in keys])
    assert moved.norm() > 0
    assert apart.norm() < 0.02 * moved.norm()
    rows = [json.loads((tmp_path / name / "metrics.json").read_text())["rows"] for name in ("one", "two")]
    assert rows[0][0]["text_to_image"] == rows[1][0]["text_to_image"], "zero-shot, reranked"
