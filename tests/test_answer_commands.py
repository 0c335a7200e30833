"""Questions and captions through `train` and `evaluate`, in the layouts that circulate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import BlipForConditionalGeneration, BlipForQuestionAnswering

from squares import COLOURS, save_pictures, save_tokenizer
from tiny import tiny_config
from uniadapter.app import predicting
from uniadapter.app.cli import main
from uniadapter.checkpoints.adapter_folder import read_adapter_file
from uniadapter.data.batches import Batch
from uniadapter.inference.features import image_features
from uniadapter.tasks.answering import AnswerLoss
from uniadapter.training.loss import StepInfo


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name, cls in (("vqa", BlipForQuestionAnswering), ("caption", BlipForConditionalGeneration)):
        folder = tmp_path_factory.mktemp("bases") / name
        torch.manual_seed(0)
        cls(tiny_config()).save_pretrained(folder)
        save_tokenizer(folder)
        folders[name] = folder
    return folders


def run_file(folder: Path, base: Path, task: str, data: dict[str, Any], **more: Any) -> Path:
    config: dict[str, Any] = {
        "task": task,
        "output": str(folder / "run"),
        "model": {"base": str(base), "adapter": {"bottleneck": 16, "key_value": 8, "scale": 1.0}},
        "data": {"root": str(folder / "pictures"), "workers": 0, "flip": False, "augment": False, **data},
        "train": {"epochs": 120, "batch_size": 8, "lr": 3e-2, "log_every": 20, "schedule": "linear"},
        "evaluate": {"batch_size": 4, "k": 8, **more},
    }
    file = folder / "run.yaml"
    file.write_text(yaml.safe_dump(config))
    return file


def dump(file: Path, content: object) -> str:
    file.write_text(json.dumps(content))
    return str(file)


def vqa_rows(names: list[str], wrong: str) -> list[dict[str, Any]]:
    """BLIP's layout: ten annotators, nine of one mind."""
    return [
        {"image": name, "question": "the square?", "answer": [Path(name).stem] * 9 + [wrong], "dataset": "vqa",
         "question_id": number}
        for number, name in enumerate(names)
    ]  # fmt: skip


def test_vqa_files_learn_measure_and_answer(
    tmp_path: Path, bases: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    names = save_pictures(tmp_path / "pictures")
    rows = vqa_rows(names, "a square")
    train = dump(tmp_path / "vqa_train.json", rows)
    test = dump(tmp_path / "vqa_val.json", [*rows, {**rows[0], "answer": ["nothing listed"] * 10, "question_id": 99}])
    run = run_file(tmp_path, bases["vqa"], "vqa", {"train": train, "test": test})
    assert main(["train", str(run)]) == 0
    out = tmp_path / "run"
    measured = {row["method"]: row for row in json.loads((out / "metrics.json").read_text())["rows"]}
    assert measured["uniadapter"]["metric"] == "VQA accuracy"
    assert measured["uniadapter"]["accuracy"] > measured["zero_shot"]["accuracy"] + 30
    assert (measured["uniadapter"]["out_of_list"], measured["uniadapter"]["answer_list"]) == (1, 9)
    assert "test: of 9 questions 1 have no answer among the 9 to choose from" in (out / "train.log").read_text()
    assert json.loads((out / "adapter/uniadapter_config.json").read_text())["extra"]["answers"][0] == "red"
    assert "accuracy" in (out / "report.html").read_text()
    unanswered = dump(tmp_path / "vqa_test.json", [{k: v for k, v in row.items() if k != "answer"} for row in rows])
    again = ["--output", str(tmp_path / "again"), "--adapter", str(out / "adapter"), "--data.train", "null"]
    assert main(["evaluate", str(run), *again, "--data.test", unanswered]) == 0
    results = json.loads((tmp_path / "again/vqa_results.json").read_text())
    assert [row["question_id"] for row in results] == list(range(8))
    lines = [json.loads(line) for line in (tmp_path / "again/predictions.jsonl").read_text().splitlines()]
    assert [line["answer"] for line in lines] == [row["answer"] for row in results]
    assert all(len(line["ranked"]) == 5 for line in lines)
    right = sum(line["answer"] == Path(name).stem for line, name in zip(lines, names, strict=True))
    # of eight right answers 9 in 10 agree (1.0 each); the ninth question has none that is listed
    assert measured["uniadapter"]["accuracy"] == pytest.approx(100 * right / 9, abs=4)
    assert main(["evaluate", str(run), *again, "--data.test", unanswered, "--evaluate.answers", "generate"]) == 0
    capsys.readouterr()
    picture = str(tmp_path / "pictures" / names[2])
    assert main(["ask", picture, "The square?", "What?", "--adapter", str(out / "adapter")]) == 0
    said = capsys.readouterr().out.splitlines()
    assert (said[0], said[6]) == ("The square?", "What?")
    assert said[1].split()[1] == lines[2]["answer"]
    assert all(line.split()[0].endswith("%") for line in said[1:6])
    assert main(["ask", str(tmp_path / "none.png"), "What?", "--adapter", str(out / "adapter")]) == 2
    assert "none.png does not exist" in capsys.readouterr().err


def test_msrvtt_qa_is_scored_by_exact_match_and_question_word(
    tmp_path: Path, bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from PIL import Image

    for number, colour in enumerate(COLOURS.values()):
        folder = tmp_path / "pictures" / f"video{number}"
        folder.mkdir(parents=True)
        for frame in range(3):
            Image.new("RGB", (40, 30), colour).save(folder / f"{frame}.png")
    rows = [
        {"id": n, "video_id": n, "question": f"{word} the square", "answer": colour, "category_id": 1}
        for n, (colour, word) in enumerate(zip(COLOURS, ["what", "who"] * 4, strict=True))
    ]
    train = dump(tmp_path / "train_qa.json", rows)
    data = {"train": train, "test": train, "frames": 2, "answer_count": 6}
    run = run_file(tmp_path, bases["vqa"], "vqa", data)
    assert main(["train", str(run), "--train.epochs", "2"]) == 0
    row = json.loads((tmp_path / "run/metrics.json").read_text())["rows"][1]
    assert row["metric"] == "exact match"
    assert set(row["by_question_word"]) == {"what", "who"}
    assert 0 < row["majority_answer"] <= 100
    assert (row["answer_list"], row["out_of_list"]) == (6, 2)
    adapter = tmp_path / "run/adapter"
    assert read_adapter_file(adapter)[0].extra["frames"] == 2
    seen: list[int] = []

    def spy(model: Any, files: Any, frames: int) -> Any:
        seen.append(frames)
        return image_features(model, files, frames)

    monkeypatch.setattr(predicting, "image_features", spy)
    for more in ([], ["--frames", "3"]):
        assert main(["ask", str(tmp_path / "pictures/video0"), "what is it?", "--adapter", str(adapter), *more]) == 0
    assert seen == [2, 3]
    assert main(["ask", str(tmp_path / "pictures/video0"), " ", "--adapter", str(adapter)]) == 2
    assert "question 1 is empty" in capsys.readouterr().err


def test_captions_are_learnt_and_scored(
    tmp_path: Path, bases: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pycocoevalcap")
    names = save_pictures(tmp_path / "pictures")
    train = [{"image": n, "caption": f"a {Path(n).stem} square", "image_id": n} for n in names]
    test = [{"image": n, "caption": [f"a {Path(n).stem} square", f"the {Path(n).stem} square"]} for n in names]
    data = {"train": dump(tmp_path / "train.json", train), "test": dump(tmp_path / "test.json", test)}
    run = run_file(tmp_path, bases["caption"], "caption", data, beams=2, longest=9, shortest=5)
    assert main(["train", str(run)]) == 0
    rows = {row["method"]: row for row in json.loads((tmp_path / "run/metrics.json").read_text())["rows"]}
    assert rows["uniadapter"]["cider"] > rows["zero_shot"]["cider"]
    assert rows["uniadapter"]["tokenizer"] in ("ptb", "simple")
    again = ["--output", str(tmp_path / "again"), "--adapter", str(tmp_path / "run/adapter")]
    assert main(["evaluate", str(run), *again]) == 0
    lines = [json.loads(line) for line in (tmp_path / "again/predictions.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == names
    assert all(line["caption"] for line in lines)
    capsys.readouterr()
    assert main(["caption", str(tmp_path / "pictures" / names[0]), "--adapter", str(tmp_path / "run/adapter")]) == 0
    assert capsys.readouterr().out.strip()


def test_questions_of_one_picture_train_together(
    tmp_path: Path, bases: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = save_pictures(tmp_path / "pictures")
    rows = [row for row in vqa_rows(names, "a square") for _ in range(4)]
    train = dump(tmp_path / "train.json", [{**row, "question_id": number} for number, row in enumerate(rows)])
    run = run_file(tmp_path, bases["vqa"], "vqa", {"train": train, "test": train, "together": 3})
    seen: list[tuple[int, int]] = []
    forward = AnswerLoss.forward

    def spy(task: AnswerLoss, batch: Batch, step: StepInfo) -> dict[str, torch.Tensor]:
        seen.append((len(batch), len(batch.frames)))
        return forward(task, batch, step)

    monkeypatch.setattr(AnswerLoss, "forward", spy)
    assert main(["train", str(run), "--train.epochs", "30"]) == 0
    assert len(seen) == 30 * 4
    assert {samples for samples, _ in seen} == {8}
    assert 16 * 30 <= sum(visuals for _, visuals in seen) <= (16 + 3) * 30  # a batch's end cuts one group at most
    before, after = json.loads((tmp_path / "run/metrics.json").read_text())["rows"]
    assert after["accuracy"] > before["accuracy"] + 30
    assert "together: 3\n" in (tmp_path / "run/config.yaml").read_text()
    capsys.readouterr()
    assert main(["train", str(run), "--task", "retrieval"]) == 2
    error = "error: data.together is 3: a retrieval batch needs distinct visuals; leave it at 1"
    assert capsys.readouterr().err.strip().splitlines()[-1] == error
    assert main(["train", str(run), "--data.together", "0"]) == 2
    assert "data.together is 0: it must be at least 1" in capsys.readouterr().err


def test_what_cannot_be_answered_is_one_line(
    tmp_path: Path, bases: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    names = save_pictures(tmp_path / "pictures")
    rows = vqa_rows(names, "blue")
    test = dump(tmp_path / "test.json", rows)
    cases = [
        ({"test": test}, "there is no list of answers: set data.answer_list"),
        ({"test": test, "answer_list": dump(tmp_path / "empty.json", [])}, "empty.json is an empty list of answers"),
        ({"test": test, "answer_list": dump(tmp_path / "blank.json", ["red", ""])}, "blank.json[1]"),
        ({"test": test, "answer_list": dump(tmp_path / "long.json", ["red " * 60])}, "the decoder takes 38"),
        ({"test": test, "answer_list": str(tmp_path / "none.json")}, "does not exist"),
    ]
    for data, message in cases:
        run = run_file(tmp_path, bases["vqa"], "vqa", data)
        assert main(["evaluate", str(run), "--output", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith("error: ")
        assert message in error
    run = run_file(tmp_path, bases["vqa"], "vqa", {"train": dump(tmp_path / "t.json", [{**rows[0], "answer": []}])})
    assert main(["train", str(run)]) == 2
    assert "t.json[0]: the question has no answer" in capsys.readouterr().err
