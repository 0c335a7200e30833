"""Embedded questions: correct answers, balanced against guessing; and configs that compare methods fairly."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from uniadapter.app.demo import DEMOS
from uniadapter.app.parsing import read_config
from uniadapter.checkpoints.adapters import add_adapter
from uniadapter.checkpoints.loading import load_model, load_tokenizer
from uniadapter.config import ConfigError, DataConfig, RunConfig
from uniadapter.data.loaders import train_loader, visual_loader
from uniadapter.data.questions import load_questions
from uniadapter.embedded import easy_vqa
from uniadapter.embedded.annotations import SPLITS, question_rows, read_specifications
from uniadapter.files.assets import package_path
from uniadapter.model.counting import count_parameters

ROOT = Path(__file__).resolve().parents[1]
TASKS = [*((folder, split) for folder in ("scenes", "clips") for split in SPLITS), ("drawn", "test")]
Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def readers() -> dict[str, Any]:
    """Independent answers to the questions, in a checkout but not in the wheel."""
    sys.path.insert(0, str(ROOT))
    try:
        pytest.importorskip("world.tasks")
        from world.tasks import answering, reading_clips
        from world.tasks.names import task_names
        from world.tasks.writing import asked_for
    finally:
        sys.path.remove(str(ROOT))
    names = task_names()
    kinds = asked_for(names)
    of_scenes = lambda text, scene: answering.answer(text, scene, names.of, kinds)  # noqa: E731
    return {
        "scenes": of_scenes,
        "drawn": of_scenes,
        "clips": lambda text, clip: reading_clips.answer(text, clip["parts"], names.of),
    }


def asked(folder: str, split: str) -> Rows:
    return read_specifications(folder, f"vqa_{split}")


@pytest.mark.parametrize(("folder", "split"), TASKS)
def test_every_answer_is_true(folder: str, split: str, readers: dict[str, Any]) -> None:
    specified = {row["id"]: row for row in read_specifications(folder, split)}
    for row in asked(folder, split)[: 4000 if split == "train" else None]:
        assert readers[folder](row["question"], specified[row["about"]]) == row["answer"], row


@pytest.mark.parametrize(("folder", "split"), TASKS)
def test_answers_cannot_be_guessed_without_the_visual(folder: str, split: str) -> None:
    """The same question is answered yes and no equally often, and no answer stands out among those of a type."""
    by_text: dict[str, Counter[str]] = {}
    by_kind: dict[str, Counter[str]] = {}
    for row in asked(folder, split):
        by_kind.setdefault(row["kind"], Counter())[row["answer"]] += 1
        if row["answer"] in ("yes", "no"):
            by_text.setdefault(row["question"], Counter())[row["answer"]] += 1
    assert all(answers["yes"] == answers["no"] for answers in by_text.values())
    assert len(by_kind) >= (6 if folder == "drawn" else 7)
    for kind, answers in by_kind.items():
        share = max(answers.values()) / answers.total()
        assert share <= (0.5 if len(answers) <= 4 else 0.3), (kind, answers)


@pytest.mark.parametrize(("folder", "split"), TASKS)
def test_every_answer_is_one_of_training(folder: str, split: str) -> None:
    trained = asked("scenes" if folder == "drawn" else folder, "train")
    assert {row["answer"] for row in asked(folder, split)} <= {row["answer"] for row in trained}


def test_the_rows_that_are_written() -> None:
    scenes = [{"id": "2", "partner": "1"}, {"id": "1", "partner": "2"}, {"id": "3", "partner": None}]
    questions = [{"about": one, "question": "what?", "answer": "cat", "kind": "what"} for one in "231"]
    rows = question_rows(questions, scenes, "image", "{}.png")
    assert [row["group"] for row in rows] == ["1", "3", "1"]
    assert rows[0] == {
        "image": "2.png", "question": "what?", "answer": "cat", "question_id": 0, "answer_type": "what", "group": "1",
    }  # fmt: skip
    assert [row["question_id"] for row in rows] == [0, 1, 2]


def shipped(task: str, method: str) -> RunConfig:
    return read_config(package_path("configs") / f"{DEMOS[task].configs[method]}.yaml")


@pytest.mark.parametrize("task", list(DEMOS))
def test_adapters_of_the_demos_are_complete_and_small(task: str) -> None:
    config = shipped(task, "uniadapter")
    model = load_model(config.model.base, config.task)
    add_adapter(model, config.model.adapter)
    assert count_parameters(model).trainable_percent <= 2.2
    assert config.model.adapter.cross
    assert config.model.adapter.key_value > 0
    if config.task == "retrieval":
        assert config.objective.matching
        assert config.evaluate.k > 0
    if config.data.frames > 1:
        assert config.model.adapter.temporal_frames == config.data.frames


@pytest.mark.parametrize("task", ["scenes", "vqa", "video", "videoqa", "caption"])
def test_no_text_is_longer_than_the_demos_allow(task: str) -> None:
    config, tokenizer = shipped(task, "uniadapter"), load_tokenizer()
    folder = DEMOS[task].assets
    for split in SPLITS:
        if config.task == "vqa":
            texts = [row["question"] for row in asked(folder, split)]
        else:
            field = "references" if config.task == "caption" else "captions"
            texts = [text for row in read_specifications(folder, split) for text in row[field]]
        assert max(len(text.split()) for text in texts) <= config.data.max_words
        prompt = config.model.prompt if config.task == "caption" else ""
        longest = max(map(len, tokenizer([prompt + text for text in texts])["input_ids"]))
        assert longest <= config.model.max_tokens
        if config.task == "caption":
            assert longest <= config.evaluate.longest


def test_every_picture_is_replaced_by_a_blank_one(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (40, 40), (200, 30, 30)).save(tmp_path / f"{name}.png")
    rows = [{"image": f"{name}.png", "question": "what?", "answer": name} for name in ("a", "b")]
    (tmp_path / "q.json").write_text(json.dumps(rows))
    config = DataConfig(workers=0, augment=False)
    split = load_questions(tmp_path / "q.json", config, "train")
    for blank in (False, True):
        chosen = replace(config, blank=blank)
        for loader in (train_loader(split, chosen, size=32, batch_size=2, seed=0),
                       visual_loader(split, chosen, size=32, batch_size=2)):  # fmt: skip
            (batch,) = loader
            assert batch.frames.shape == (2, 1, 3, 32, 32)
            assert bool(torch.all(batch.frames == 0)) == blank


@pytest.mark.parametrize("task", list(DEMOS))
def test_configs_of_methods_differ_only_in_method_and_learning_rate(task: str) -> None:
    """Same data, order, steps and augmentation: a fair comparison."""
    one, other = (shipped(task, method) for method in ("uniadapter", "full_fine_tuning"))
    assert one.model.method == "uniadapter"
    assert other.model.method == "full"
    assert (one.data, one.objective, one.evaluate) == (other.data, other.objective, other.evaluate)
    assert replace(one.train, lr=1) == replace(other.train, lr=1)
    same = ("base", "image_size", "max_tokens", "prompt")
    assert [getattr(one.model, name) for name in same] == [getattr(other.model, name) for name in same]


def test_easy_vqa_is_read_from_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "package"
    written: dict[str, list[Any]] = {"train": [], "test": []}
    for part, pictures in (("train", (0, 3599, 3600)), ("test", (0,))):
        (source / part / "images").mkdir(parents=True)
        for number in pictures:
            Image.new("RGB", (64, 64), (0, 0, 255)).save(source / part / "images" / f"{number}.png")
            written[part] += [["what color is the shape?", "blue", number], ["is there a circle?", "no", number]]
        (source / part / "questions.json").write_text(json.dumps(written[part]))
    monkeypatch.setattr(easy_vqa, "package_data", lambda: source)
    folder = easy_vqa.prepare_easy_vqa(tmp_path)
    found = {
        name: load_questions(folder / f"{name}.json", DataConfig(workers=0), name) for name in ("train", "val", "test")
    }
    assert [len(split.texts) for split in found.values()] == [4, 2, 2]
    assert [len(split.visuals) for split in found.values()] == [2, 1, 1]
    assert found["test"].kinds == ["color", "yes/no"]


def test_missing_easy_vqa_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install .uniadapter\[easy-vqa\]"):
        easy_vqa.package_data()
