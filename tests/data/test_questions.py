"""Question files: published layouts, records left out, and lists of candidate answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_pictures import picture

from uniadapter.config import DataConfig
from uniadapter.data.layouts.records import DataError
from uniadapter.data.questions import answer_weights, frequent_answers, load_questions, read_answer_list

Write = Callable[[str, Any], Path]
TEN = ["red"] * 6 + ["dark red"] * 3 + ["Blue"]


@pytest.fixture
def pictures(write: Write, tmp_path: Path) -> Path:
    for number in (1, 2):
        write(f"train2014/COCO_train2014_{number:012d}.jpg", picture(number))
    for name in ("a.jpg", "b.jpg"):
        write(name, picture(3))
    return tmp_path


@pytest.fixture
def frames(write: Write, tmp_path: Path) -> Path:
    for name in ("video7010", "video7"):
        for frame in range(2):
            write(f"videos/{name}/{frame}.jpg", picture(frame))
    return tmp_path / "videos"


def test_blip_files(write: Write, pictures: Path) -> None:
    train = [
        {"image": "train2014/COCO_train2014_000000000001.jpg", "question": "What color is it?", "answer": TEN,
         "dataset": "vqa", "question_id": 11},
        {"image": "a.jpg", "question": "Where?", "answer": "on a Table", "dataset": "vg"},
    ]  # fmt: skip
    split = load_questions(write("vqa_train.json", train), DataConfig(), "train")
    assert split.texts == ["what color is it?", "where?"]
    assert split.answers == [{"red": 0.6, "dark red": 0.3, "blue": 0.1}, {"on a table": 0.2}]
    assert split.question_ids == [11, 1]
    assert split.annotators[0] == tuple(TEN)
    assert frequent_answers(split) == ["red", "dark red", "on a table", "blue"]
    assert frequent_answers(split, 1) == ["red"]
    test = [{"image": "b.jpg", "question": "Is it?", "question_id": 5}]
    found = load_questions(write("vqa_test.json", test), DataConfig(), "test")
    assert (found.answers, found.annotators, found.question_ids) == ([{}], [()], [5])


def test_official_files(write: Write, pictures: Path) -> None:
    questions = {
        "data_subtype": "train2014",
        "questions": [
            {"image_id": 1, "question": "What color?", "question_id": 1000},
            {"image_id": 2, "question": "How many?", "question_id": 2000},
        ],
    }
    notes = {
        "annotations": [
            {"question_id": 2000, "image_id": 2, "question_type": "how many", "answer_type": "number",
             "multiple_choice_answer": "2", "answers": [{"answer": "2", "answer_id": n} for n in range(10)]},
            {"question_id": 1000, "image_id": 1, "question_type": "what color", "answer_type": "other",
             "answers": [{"answer": text, "answer_id": n} for n, text in enumerate(TEN)]},
        ]
    }  # fmt: skip
    file = write("v2_OpenEnded_mscoco_train2014_questions.json", questions)
    annotations = {"train": str(write("v2_mscoco_train2014_annotations.json", notes))}
    split = load_questions(file, DataConfig(annotations=annotations), "train")
    assert split.answers == [{"red": 0.6, "dark red": 0.3, "blue": 0.1}, {"2": 1.0}]
    assert (split.kinds, split.question_types) == (["other", "number"], ["what color", "how many"])
    assert split.visuals == [pictures / f"train2014/COCO_train2014_{n:012d}.jpg" for n in (1, 2)]
    assert load_questions(file, DataConfig(), "test").answers == [{}, {}]
    with pytest.raises(DataError, match="the question has no answer"):
        load_questions(file, DataConfig(), "train")


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("train_qa.json", [{"id": 1, "video_id": 7010, "question": "what is it", "answer": "cat", "category_id": 3}]),
        ("train.jsonl", [{"video_id": "video7010", "question": "what is it", "answer": "cat", "answer_type": "what"}]),
        ("qa_train.json", [{"video": "video7010.mp4", "question": "what is it", "answer": "cat", "question_id": 1}]),
        ("msrvtt_qa.json", [{"image": "video7010.mp4", "question": "what is it", "answer": "cat", "question_id": 1}]),
    ],
)
def test_video_layouts(name: str, rows: list[dict[str, Any]], write: Write, frames: Path) -> None:
    split = load_questions(write(name, rows), DataConfig(root=str(frames)), "train")
    assert split.visuals == [frames / "video7010"]
    assert (split.texts, split.answers, split.noun) == (["what is it"], [{"cat": 1.0}], "videos")


def test_ones_own_files(write: Write, pictures: Path) -> None:
    csv = write("own.csv", "image,question,answer\na.jpg,How many?,2\nb.jpg,Is it?,yes\na.jpg,What?,a cat\n")
    split = load_questions(csv, DataConfig(), "train")
    assert [list(answers) for answers in split.answers] == [["2"], ["yes"], ["a cat"]]
    assert split.text_visual == [0, 1, 0]
    lines = [
        {"image": "a.jpg", "question": "How many?", "answer": 2},
        {"image": "b.jpg", "question": "?", "answer": True},
    ]
    jsonl = write("own.jsonl", lines)
    assert [list(a) for a in load_questions(jsonl, DataConfig(), "train").answers] == [["2"], ["true"]]


def test_skipped_questions_are_counted_and_all_fields_stay_aligned(write: Write, pictures: Path) -> None:
    (pictures / "broken.jpg").write_bytes(b"no picture")
    rows = [
        {"image": "a.jpg", "question": "one", "answer": "1", "question_id": 1},
        {"image": "a.jpg", "question": "two", "answer": "", "question_id": 2},
        {"image": "broken.jpg", "question": "three", "answer": "3", "question_id": 3},
        {"image": "none.jpg", "question": "four", "answer": "4", "question_id": 4},
        {"image": "b.jpg", "question": "...", "answer": "5", "question_id": 5},
        {"question": "six", "answer": "6", "question_id": 6},
        {"image": "b.jpg", "question": "seven", "answer": ["7", None], "question_id": 7},
        {"image": "b.jpg", "question": "eight " * 10_000, "answer": "8", "question_id": 8},
        {"image": "b.jpg", "question": "これは何ですか", "answer": "猫", "question_id": 9},
    ]
    file = write("val.json", rows)
    split = load_questions(file, DataConfig(on_error="skip", max_words=50), "val", answered=True)
    assert split.question_ids == [1, 8, 9]
    assert [list(a) for a in split.answers] == [["1"], ["8"], ["猫"]]
    assert len(split.texts[1].split()) == 50
    assert len(split.annotators) == len(split.kinds) == len(split.question_types) == len(split.texts) == 3
    assert dict(split.skipped) == {
        "question without an answer": 1, "corrupt picture": 1, "missing picture": 1, "empty question": 1,
        "missing field": 1, "unusable answer": 1,
    }  # fmt: skip
    assert "1 questions cut to 50 words" in split.summary()
    for row, message in [(rows[1], "has no answer"), (rows[6], "field 'answer'"), (rows[4], "empty once cleaned")]:
        with pytest.raises(DataError, match=message) as error:
            load_questions(write("one.json", [row]), DataConfig(), "train")
        assert "one.json[0]" in str(error.value)


@pytest.mark.parametrize(
    ("content", "expected"),
    [(["Yes", "no", "yes ", "a  cat"], ["yes", "no", "a cat"]), ({"no": 1, "yes": 0}, ["yes", "no"])],
)
def test_lists_of_answers(content: object, expected: list[str], tmp_path: Path) -> None:
    file = tmp_path / "answer_list.json"
    file.write_text(json.dumps(content))
    assert read_answer_list(file) == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [([], "empty list"), (["yes", " "], r"answer_list\.json\[1\]: an answer is empty"), ([1], "list of strings"),
     ("yes", "list of strings")],
)  # fmt: skip
def test_lists_of_answers_that_are_none(content: object, message: str, tmp_path: Path) -> None:
    file = tmp_path / "answer_list.json"
    file.write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        read_answer_list(file)


def test_weights_are_shares() -> None:
    assert answer_weights(["Yes", "yes", "no", " YES "]) == {"yes": 0.75, "no": 0.25}
    assert answer_weights(()) == {}
