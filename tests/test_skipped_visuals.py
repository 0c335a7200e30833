"""Visuals left out of an evaluation are logged, counted in `metrics.json`, and mentioned with the scores."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import BlipForConditionalGeneration, BlipForQuestionAnswering

from squares import save_base, save_pictures, save_tokenizer
from tiny import tiny_config
from uniadapter import report
from uniadapter.app.cli import main

FIELDS = {"retrieval": "caption", "vqa": "question", "caption": "caption"}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("bases")
    folders = {"retrieval": save_base(folder / "retrieval")}
    for name, cls in (("vqa", BlipForQuestionAnswering), ("caption", BlipForConditionalGeneration)):
        torch.manual_seed(0)
        cls(tiny_config()).save_pretrained(folder / name)
        save_tokenizer(folder / name)
        folders[name] = folder / name
    return folders


def run_file(folder: Path, base: Path, task: str, lost: dict[str, bytes | None], on_error: str) -> Path:
    """Eight sound pictures, and some that are broken, or not there at all (None), with two texts each."""
    names = save_pictures(folder / "pictures")
    for name, content in lost.items():
        if content is not None:
            (folder / "pictures" / name).write_bytes(content)
    rows: list[dict[str, Any]] = []
    for number, name in enumerate([*names, *lost]):
        for text in ("the square", "a square"):
            more = {"answer": "red", "question_id": len(rows)} if task == "vqa" else {"image_id": number}
            rows.append({"image": name, FIELDS[task]: text, **more})
    (folder / "test.json").write_text(json.dumps(rows))
    data = {"test": str(folder / "test.json"), "root": str(folder / "pictures"), "workers": 0, "on_error": on_error}
    if task == "vqa":
        (folder / "answers.json").write_text('["red", "blue"]')
        data["answer_list"] = str(folder / "answers.json")
    config = {"task": task, "output": str(folder / "out"), "model": {"base": str(base)}, "data": data,
              "evaluate": {"k": 2, "batch_size": 4, "block": 16}}  # fmt: skip
    (folder / "run.yaml").write_text(yaml.safe_dump(config))
    return folder / "run.yaml"


@pytest.mark.parametrize("task", FIELDS)
def test_scores_say_how_many_visuals_they_are_over(
    tmp_path: Path, bases: dict[str, Path], task: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if task == "caption":
        pytest.importorskip("pycocoevalcap")
    run = run_file(tmp_path, bases[task], task, {"broken.png": b"\x89PNG broken", "none.png": None}, "skip")
    assert main(["evaluate", str(run)]) == 0
    over = f"8 of 10 pictures and 16 of 20 {'questions' if task == 'vqa' else 'captions'}"
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    left_out = metrics["skipped"]["test"]
    assert (left_out["count"], left_out["over"]) == (2, over)
    assert {Path(name).name: kind for name, kind in left_out["names"].items()} == {
        "broken.png": "corrupt picture",
        "none.png": "missing picture",
    }
    row = metrics["rows"][0]
    assert (row["gallery"], row["queries"], row["skipped"], row["over"]) == (8, 16, 2, over)
    log = " ".join((tmp_path / "out/evaluate.log").read_text().split())
    assert f"only {over} are there: left out" in log
    assert "none.png (missing picture)" in log
    assert "broken.png (corrupt picture)" in log
    printed = " ".join(capsys.readouterr().out.split())
    assert f", over {over} " in printed
    for shown in (printed, report.markdown_table(metrics)):
        assert f"scores are over {over}; the rest could not be read" in shown
    assert f"test: the scores are over {over}. Left out: 1 " in page(tmp_path, metrics)


def page(folder: Path, metrics: dict[str, Any]) -> str:
    return Path(report.write_report(folder, metrics, [])).read_text()


def test_a_whole_test_set_says_so_by_its_counts(tmp_path: Path, bases: dict[str, Path]) -> None:
    assert main(["evaluate", str(run_file(tmp_path, bases["retrieval"], "retrieval", {}, "skip"))]) == 0
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert "skipped" not in metrics
    row = metrics["rows"][0]
    assert (row["gallery"], row["queries"], "skipped" in row, "over" in row) == (8, 16, False, False)
    assert "are over" not in report.markdown_table(metrics) + page(tmp_path, metrics)


def test_where_faults_are_not_skipped_one_ends_the_run(
    tmp_path: Path, bases: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_file(tmp_path, bases["retrieval"], "retrieval", {"broken.png": b"\x89PNG broken"}, "raise")
    assert main(["evaluate", str(run)]) == 2
    assert "broken.png cannot be read" in capsys.readouterr().err


def test_each_test_set_says_how_many_visuals_its_scores_are_over() -> None:
    costs = {
        "trainable_parameters": 0,
        "trainable_percent": 0,
        "adapter_percent": 0,
        "checkpoint_bytes": 0,
        "seconds": 1,
    }
    rows = [
        {"method": "zero_shot", **costs},
        {"method": "zero_shot", **costs, "test_set": "shifted", "over": "3 of 4 videos and 5 of 6 captions"},
    ]
    note = "shifted: scores are over 3 of 4 videos and 5 of 6 captions; the rest could not be read."
    assert note in report.markdown_table({"task": "retrieval", "seed": 0, "rows": rows})
