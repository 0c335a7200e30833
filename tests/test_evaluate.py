"""`evaluate`: its results replace nobody else's, its rows say what was loaded, and it works from any folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from squares import karpathy
from test_commands import base, write_run  # noqa: F401
from uniadapter.app.cli import main
from uniadapter.app.parsing import read_config


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a folder but its logs and what lies below `evaluations`."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.suffix != ".log"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in files if "evaluations" not in file.parts}


def rows(file: Path) -> list[dict[str, Any]]:
    return json.loads(file.read_text())["rows"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:  # noqa: F811
    """A folder with a run of adapters (`run`) and one of full fine-tuning (`full`)."""
    folder = tmp_path_factory.mktemp("trained")
    files = karpathy(folder, "flickr30k")
    run = write_run(folder, base, files, train={"epochs": 1})
    assert main(["train", str(run)]) == 0
    assert main(["train", str(run), "--output", str(folder / "full"), "--model.method", "full"]) == 0
    return folder


def test_an_evaluation_leaves_a_training_run_as_it_was(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The README's own command."""
    run = trained / "run"
    before = contents(run)
    command = ["evaluate", str(run / "config.yaml"), "--adapter", str(run / "adapter")]
    assert main(command) == 0
    assert main(command) == 0
    assert main([*command, "--split", "val"]) == 0
    assert contents(run) == before
    found = {file.parent.name.rpartition("-")[0]: rows(file)[0] for file in run.glob("evaluations/*/metrics.json")}
    assert set(found) == {"test-uniadapter", "val-uniadapter"}
    trained_row = rows(run / "metrics.json")[1]
    for key in ("method", "text_to_image", "trainable_parameters", "trainable_percent", "checkpoint_bytes"):
        assert found["test-uniadapter"][key] == trained_row[key]
    assert "evaluations" in capsys.readouterr().out


def test_an_evaluation_replaces_the_same_one_alone(trained: Path, tmp_path: Path) -> None:
    command = ["evaluate", str(trained / "run.yaml"), "--output", str(tmp_path / "out")]
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("mine")
    assert main(command) == 0
    first = contents(tmp_path / "out")
    assert rows(tmp_path / "out/metrics.json")[0]["method"] == "zero_shot"
    assert main([*command, "--evaluate.batch_size", "3"]) == 0  # the same figures
    assert not (tmp_path / "out/evaluations").exists()
    assert main([*command, "--evaluate.k", "2"]) == 0  # other figures
    assert main([*command, "--adapter", str(trained / "run/adapter")]) == 0
    assert len(list((tmp_path / "out/evaluations").iterdir())) == 2
    assert set(contents(tmp_path / "out")) == set(first)
    assert contents(tmp_path / "out")["thesis.tex"] == b"mine"


@pytest.mark.parametrize("how", [["--model.base", "full/model"], ["--adapter", "full/model"], ["--adapter", "full"]])
def test_a_fully_fine_tuned_folder_is_called_that(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: list[str]
) -> None:
    monkeypatch.chdir(trained)
    assert main(["evaluate", "full/config.yaml", *how, "--output", str(tmp_path / "out")]) == 0
    found, wanted = rows(tmp_path / "out/metrics.json")[0], rows(trained / "full/metrics.json")[1]
    assert found["method"] == wanted["method"] == "full_fine_tuning"
    for key in ("text_to_image", "trainable_parameters", "trainable_percent", "checkpoint_bytes", "adapter_percent"):
        assert found[key] == wanted[key]


def test_a_run_s_folder_names_its_adapter(trained: Path, tmp_path: Path) -> None:
    assert (
        main(["evaluate", str(trained / "run.yaml"), "--adapter", str(trained / "run"), "--output", str(tmp_path)]) == 0
    )
    assert rows(tmp_path / "metrics.json")[0]["method"] == "uniadapter"


def test_a_run_is_evaluated_from_another_folder(
    tmp_path: Path,
    base: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its config was written with relative paths; the one in its folder holds for every working directory."""
    (tmp_path / "work").mkdir()
    files = karpathy(tmp_path / "work", "flickr30k")
    shutil.copytree(base, tmp_path / "work/base")
    run = write_run(tmp_path / "work", Path("base"), files, train={"epochs": 1})
    config = yaml.safe_load(run.read_text())
    config["output"] = "run"
    config["data"] |= {"root": ".", **{name: Path(file).name for name, file in files.items()}}
    config["data"]["extra_tests"] = {"more": config["data"]["test"]}
    run.write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path / "work")
    assert main(["train", "run.yaml"]) == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    folder = tmp_path / "work/run"
    command = ["evaluate", str(folder / "config.yaml"), "--adapter", str(folder / "adapter"), "--split", "more"]
    assert main(command) == 0
    measured = next(folder.glob("evaluations/*/metrics.json"))
    assert rows(measured)[0]["text_to_image"] == rows(folder / "metrics.json")[1]["text_to_image"]
    assert not list((tmp_path / "elsewhere").iterdir())
    kept = read_config(folder / "config.yaml")
    assert kept == kept.with_absolute_paths()


def test_blank_pictures_are_named_in_the_row(trained: Path, tmp_path: Path) -> None:
    assert main(["evaluate", str(trained / "run.yaml"), "--data.blank", "true", "--output", str(tmp_path)]) == 0
    assert rows(tmp_path / "metrics.json")[0]["setting"] == "blank pictures"


def test_runs_of_one_process_have_their_own_precision() -> None:
    from uniadapter.config import TrainConfig
    from uniadapter.training.optimizer import make_accelerator

    for precision in ("no", "bf16", "no"):
        assert make_accelerator(TrainConfig(precision=precision)).mixed_precision == precision  # type: ignore[arg-type]


def test_a_picture_that_is_not_there_is_said_before_a_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["ask", "nowhere.png", "what is it?"], ["caption", "nowhere.png"]):
        assert main([*command, "--base", "nowhere/either"]) == 2
        assert "nowhere.png does not exist" in capsys.readouterr().err


@pytest.mark.parametrize("split, advice", [("tset", "did you mean test?"), ("dev", "there is train, val, test, novel")])
def test_a_split_that_is_not_there(trained: Path, capsys: pytest.CaptureFixture[str], split: str, advice: str) -> None:
    more = ["--data.extra_tests.novel", "x.json"]
    assert main(["evaluate", str(trained / "run.yaml"), *more, "--split", split]) == 2
    assert advice in capsys.readouterr().err
