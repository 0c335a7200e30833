"""Folders, tables with names of one's own, relative paths, and long captions, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from squares import COLOURS, save_base, save_pictures
from uniadapter.app.cli import main


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A short run's YAML in the working directory, its data a folder of pictures with a text beside each."""
    monkeypatch.chdir(tmp_path)
    save_base(tmp_path / "base")
    for name in save_pictures(tmp_path / "pics"):
        colour = Path(name).stem
        (tmp_path / "pics" / f"{colour}.txt").write_text(
            f"A {colour} square.\n{' '.join(['the square of'] * 9)} {colour}"
        )
    rows = "".join(f"{colour}.png;A {colour} square\n" for colour in COLOURS)
    (tmp_path / "own.csv").write_text(f"photo;said\n{rows}{rows}")
    config = {
        "output": "run",
        "model": {"base": "base", "adapter": {"bottleneck": 8, "key_value": 4}, "max_tokens": 12},
        "data": {"train": "pics", "test": "pics", "workers": 0},
        "objective": {"queue_size": 0, "momentum": 0.0},
        "train": {"max_steps": 2, "batch_size": 8, "lr": 1e-3},
        "evaluate": {"k": 2},
    }
    Path("run.yaml").write_text(yaml.safe_dump(config))
    return tmp_path / "run"


def test_a_folder_trains_and_is_measured_from_elsewhere(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["train", "run.yaml"]) == 0
    log = (run / "train.log").read_text()
    assert "train: 8 pictures, 16 captions" in log
    assert "8 of 16 captions are longer than 12 tokens and are truncated" in log
    row = {one["method"]: one for one in json.loads((run / "metrics.json").read_text())["rows"]}["uniadapter"]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert main(["evaluate", str(run / "config.yaml"), "--adapter", str(run / "adapter"), "--output", "again"]) == 0
    measured = json.loads(Path("again/metrics.json").read_text())["rows"][0]
    assert measured["text_to_image"] == row["text_to_image"]
    csv = ["--data.test", str(tmp_path / "own.csv"), "--data.root", str(tmp_path / "pics"), "--output", "csv"]
    assert main(["evaluate", str(run / "config.yaml"), *csv, "--data.fields", "{image: photo, caption: said}"]) == 0
    log = Path("csv/evaluate.log").read_text()
    assert "test: 8 pictures, 16 captions; 8 repeated captions of the same picture" in log


def test_names_that_are_not_known_are_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "run.yaml", "--data.test", "own.csv"]) == 2
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "no field 'image' or 'video' and 'caption' (it has photo, said)" in said
    assert main(["evaluate", "run.yaml", "--data.fields", "{imagge: photo}"]) == 2
    assert "did you mean image?" in capsys.readouterr().err
