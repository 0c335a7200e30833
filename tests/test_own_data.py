"""One's own data: the configs that ship for them train for real, and what is hardly meant is said."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from squares import COLOURS, save_pictures
from uniadapter.app.cli import main
from uniadapter.app.parsing import read_config
from uniadapter.checkpoints.compatibility import BaseSizes, check_fits, remaining_embedded_splits, training_warnings
from uniadapter.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from uniadapter.files.assets import package_path
from uniadapter.model.families import families

OWN = {"pictures": "retrieval", "videos": "retrieval", "questions": "vqa", "captions": "caption"}


def write_rows(folder: Path, task: str) -> Path:
    """Eight pictures, and what each is called."""
    names = save_pictures(folder / "images")
    said = [
        {"question": "what is it?", "answer": c} if task == "vqa" else {"caption": f"a {c} square"} for c in COLOURS
    ]
    rows = [{"image": f"images/{name}", **one} for name, one in zip(names, said, strict=True)]
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize("name", OWN)
def test_eight_pictures_train_for_many_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """README's command, on the base that needs no download; fewer steps than the config's, to be quick."""
    for scorer in {"pycocoevalcap", *(one for one in sys.modules if one.startswith("pycocoevalcap."))}:
        monkeypatch.setitem(sys.modules, scorer, None)  # type: ignore[arg-type]  # captions do without
    planned = read_config(package_path("configs") / f"{name}.yaml")
    assert planned.task == OWN[name]
    assert min(planned.train.epochs, planned.train.max_steps) >= 300  # with eight rows an epoch is a step
    assert planned.data.val is None
    file = write_rows(tmp_path, planned.task)
    quick = ["--train.max_steps", "6", "--train.warmup_steps", "2", "--train.lr", "3e-3", "--train.log_every", "1",
             "--data.workers", "0",
             "--data.augment", "false", "--data.scale", "[1, 1]", "--model.adapter.scale", "1",
             "--model.image_size", "64", "--data.frames", "2"]  # fmt: skip
    out = tmp_path / "run"
    test = ["--data.test", str(file)] if name in ("pictures", "captions") else []
    command = ["train", name, "--data.train", str(file), *test, "--output", str(out)]
    assert main([*command, "--model.base", "embedded", *quick]) == 0
    log = (out / "train.log").read_text()
    assert "still embedded" not in log
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert history[-1]["step"] == 6
    assert history[-1]["loss"] < history[0]["loss"]
    assert (out / "adapter/adapter_model.safetensors").stat().st_size > 0
    if name == "captions":
        assert "not scored" in log
        assert "uniadapter[caption]" in log
        row = json.loads((out / "metrics.json").read_text())["rows"][1]
        assert row["method"] == "uniadapter"
        assert "cider" not in row
        measure = ["evaluate", str(out / "config.yaml"), "--adapter", str(out / "adapter")]
        assert main([*measure, "--output", str(tmp_path / "written")]) == 0
        assert len((tmp_path / "written/predictions.jsonl").read_text().splitlines()) == 8
        picture = str(tmp_path / "images/red.png")
        assert main(["caption", picture, "--adapter", str(out)]) == 0  # a run's folder
        assert capsys.readouterr().out.strip()
        short = ["--output", str(tmp_path / "short"), "--evaluate.longest", "3", "--evaluate.shortest", "0"]
        assert main([*command[:-2], "--model.base", "embedded", *short]) == 2
        assert "no room is left" in capsys.readouterr().err
        assert not (tmp_path / "short/history.jsonl").exists()
        assert main(["demo", "caption", "--output", str(tmp_path / "demo")]) == 2
        assert "uniadapter[caption]" in capsys.readouterr().err
        assert not (tmp_path / "demo").exists()


def test_what_a_demo_s_recipe_does_to_one_s_own_data_is_said(tmp_path: Path) -> None:
    """The command that README once had: eight pictures, one step, and a validation split of other pictures."""
    file = write_rows(tmp_path, "retrieval")
    own = ["--data.train", str(file), "--data.test", "null", "--train.max_steps", "1"]
    own += ["--data.hard_negatives", "0"]  # the rows name no groups
    assert main(["train", "scenes", *own, "--output", str(tmp_path / "run"), "--data.val", "null"]) == 0
    log = (tmp_path / "run/train.log").read_text()
    for part in ("8 rows, fewer than train.batch_size", "the run has 1 steps", "1 steps hardly change"):
        assert part in log
    assert "data.extra_tests.novel is still embedded:scenes/test_novel" in log


def test_advice() -> None:
    config = RunConfig(data=DataConfig(train="mine.jsonl", val="embedded:scenes/val", test="embedded:scenes/test"))
    assert [line.split(" ")[0] for line in remaining_embedded_splits(config)] == ["data.val", "data.test"]
    own = RunConfig(data=DataConfig(train="embedded:scenes/train", val="embedded:scenes/val"))
    assert remaining_embedded_splits(own) == []
    train = TrainConfig(batch_size=32, warmup_steps=10)
    assert training_warnings(RunConfig(train=train), 32, 400) == []
    assert len(training_warnings(RunConfig(train=train), 31, 10)) == 3


@pytest.mark.parametrize(
    "arguments, named",
    [
        (["--model.max_tokens", "65"], "model.max_tokens is 65: the base has 64 positions"),
        (["--model.image_size", "8"], "model.image_size is 8: smaller than the base's patches of 16"),
        (["--task", "caption", "--evaluate.longest", "65"], "evaluate.longest is 65"),
    ],
)
def test_what_the_base_cannot_is_refused_before_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    for command in ("train", "evaluate"):
        assert main([command, "--model.base", "embedded", *arguments, "--output", str(tmp_path / "run")]) == 2
        assert named in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_size_between_patches_is_said() -> None:
    sizes = BaseSizes.of_folder("embedded")
    assert sizes == BaseSizes(16, 64, families()["blip"])
    (line,) = check_fits(RunConfig(model=ModelConfig(image_size=100)), BaseSizes(16, 64, families()["blip"]))
    assert "last 4 pixels" in line
    assert check_fits(RunConfig(model=ModelConfig(image_size=96)), BaseSizes(16, 64, families()["blip"])) == []
    assert BaseSizes.of_folder("nowhere/at/all") is None
