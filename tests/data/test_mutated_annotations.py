"""Annotation files of every layout with one value changed are either read or refused in one short line."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from data_pictures import picture

from uniadapter.config import DataConfig
from uniadapter.data.captions import load_retrieval
from uniadapter.data.layouts.records import DataError
from uniadapter.data.layouts.vqa_files import read_results, read_vqa_annotations, read_vqa_questions
from uniadapter.data.questions import load_questions, read_answer_list

Write = Callable[[str, Any], Path]
ODD: tuple[Any, ...] = (
    None, True, -1, 1.5, 2**70, 1e308, "", " ", "x" * 100_000, "\ud83d", "\0", "🙂", "../x", "/", ".", "~", "a.mp4",
    "https://x/y.jpg", [], {}, [[]], [None], {"a": {"b": [1]}}, ["a"] * 3, [0] * 50, {"answer": None},
    {"ids": [1], "weights": ["x"]}, "[" * 500, "['a", float("nan"),
)  # fmt: skip
ANSWER = {"question_id": 1, "image_id": 1, "question_type": "what", "answer_type": "other",
          "multiple_choice_answer": "x", "answers": [{"answer": "x", "answer_id": n} for n in range(3)]}  # fmt: skip
CAPTIONS: dict[str, Any] = {
    "pairs.json": [{"image": "a.png", "caption": ["x", "y"], "image_id": 3, "split": "train"}] * 2,
    "dataset_coco.json": {"images": [
        {"filepath": "f", "filename": "a.png", "split": "train", "cocoid": 1, "sentences": [{"raw": "x"}]},
        {"filename": "b.png", "split": "val", "sentences": [{"raw": "y"}]}]},
    "captions_val2017.json": {"info": {}, "images": [{"id": 1, "file_name": "a.png"},
                                                     {"id": "x", "file_name": "b.png"}],
                              "annotations": [{"image_id": 1, "caption": "x"}, {"image_id": "x", "caption": "y"}]},
    "textcaps.json": {"data": [{"image_id": "a", "image_path": "a.png", "caption_str": "x"}] * 2},
    "llava.json": [{"id": "0", "image": "a.png", "conversations": [
        {"from": "human", "value": "<image>x"}, {"from": "gpt", "value": "y"}]}] * 2,
    "chat.json": [{"images": ["a.png"], "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]},
                                                     {"role": "assistant", "content": "y"}]}],
    "activity.json": {"v_1": {"duration": 1.0, "timestamps": [[0, 1]], "sentences": ["x", "y"]}},
    "keyed.json": {"a.png": ["x", "y"], "b.png": "z"},
    "columns.json": {"image": ["a.png", "b.png"], "caption": ["x", "y"]},
    "alpro.json": [{"clip_name": "v_1", "caption": "x"}] * 2,
    "msrvtt.json": [{"video_id": "v_1", "sentence": "x"}] * 2,
    "train_data.json": [{"video": "v_1.mp4", "description": "x", "times": [[0, 1]]}] * 2,
}  # fmt: skip
QUESTIONS: dict[str, Any] = {
    "own.json": [{"image": "a.png", "question": "what", "answer": "x", "question_id": 1, "answer_type": "other"}] * 2,
    "vizwiz.json": [{"image": "a.png", "question": "what", "answers": [{"answer": "x"}, {"answer": "y"}]}] * 2,
    "aokvqa.json": [{"image": "a.png", "question": "what", "direct_answers": [], "choices": ["x", "y"],
                     "correct_choice_idx": 1, "split": "train"}],
    "label.json": [{"image": "a.png", "question": "what", "label": {"ids": ["x"], "weights": [1.0]}},
                   {"image": "a.png", "question": "what", "label": {"x": 0.3, "y": 1}}],
    "gqa.json": {"01": {"imageId": "a", "question": "what", "answer": "x"}},
    "official.json": {"data_subtype": "val2014",
                      "questions": [{"image_id": 1, "question": "what", "question_id": 1}] * 2},
    "llava.json": CAPTIONS["llava.json"],
}  # fmt: skip
MSRVTT = {"videos": [{"video_id": "v_1"}], "sentences": [{"video_id": "v_1", "caption": "x"}] * 2}


@pytest.fixture
def media(write: Write, tmp_path: Path) -> Path:
    for name in ("a.png", "b.png", "COCO_val2014_000000000001.jpg"):
        write(name, picture(1))
    write("v_1.mp4", b"\0"), write("list.csv", "video_id\nv_1\n"), write("names.txt", "v_1\n")
    return tmp_path


def places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every container with every key or index in it."""
    keys = list(content) if isinstance(content, dict) else range(len(content)) if isinstance(content, list) else []
    for key in keys:
        yield content, key
        yield from places(content[key])


def mutated(content: Any, rng: random.Random) -> Any:
    """The same with a value replaced, wrapped, dropped or doubled, or a key renamed."""
    content = copy.deepcopy([content])
    inside, key = rng.choice(list(places(content)))
    kind = rng.choice(("odd", "odd", "odd", "wrap", "drop", "name"))
    if kind == "odd":
        inside[key] = rng.choice(ODD)
    elif kind == "wrap":
        inside[key] = rng.choice(([inside[key]], {"x": inside[key]}, {"x": [inside[key]]}))
    elif kind == "drop" or not isinstance(inside, dict):
        del inside[key]
    else:
        inside[rng.choice(("", "x", "\ud83d", "image", "x" * 100_000))] = inside.pop(key)
    return content[0] if content else None


def tried(read: Callable[[], Any]) -> Any:
    """What is read; None where it was refused as it should be."""
    try:
        return read()
    except DataError as error:
        message = str(error)
        assert len(message) <= 300, message
        assert "\n" not in message
        message.encode()
        return None


@pytest.mark.parametrize("seed", range(3))
def test_mutated_files(write: Write, media: Path, seed: int) -> None:
    rng = random.Random(seed)
    for number in range(100):
        captions = number % 2 == 0
        name, content = rng.choice(list((CAPTIONS if captions else QUESTIONS).items()))
        text = json.dumps(mutated(content, rng))
        file = write(name, text)
        config = DataConfig(on_error=rng.choice(("raise", "skip")), workers=0)
        load: Callable[..., Any] = load_retrieval if captions else load_questions
        split = tried(lambda: load(file, config, "train"))  # noqa: B023
        if split is not None:
            assert len(split.texts) == len(split.text_visual) > 0
            json.dumps([split.texts, split.visual_ids, getattr(split, "question_ids", [])], ensure_ascii=False).encode()
            split.summary().encode()


def test_mutated_files_beside_others(write: Write, media: Path) -> None:
    rng = random.Random(0)
    for _ in range(60):
        on_error = rng.choice(("raise", "skip"))
        beside = write("beside.json", json.dumps(mutated(MSRVTT, rng)))
        tried(lambda: load_retrieval(media / "list.csv", DataConfig(captions=str(beside), on_error=on_error), "train"))  # noqa: B023
        beside = write("beside.json", json.dumps(mutated({"v_1": [["a", "b"], "c"]}, rng)))
        tried(lambda: load_retrieval(media / "names.txt", DataConfig(captions=str(beside), on_error=on_error), "train"))  # noqa: B023
        notes = write("notes.json", json.dumps(mutated({"annotations": [ANSWER] * 2}, rng)))
        file = write("q.json", QUESTIONS["official.json"])
        tried(lambda: load_questions(file, DataConfig(annotations={"val": str(notes)}, on_error=on_error), "val"))  # noqa: B023
        tried(lambda: read_vqa_annotations(notes))  # noqa: B023
        tried(lambda: read_vqa_questions(write("r.json", json.dumps(mutated(QUESTIONS["official.json"], rng)))))
        tried(lambda: read_results(write("r.json", json.dumps(mutated([{"question_id": 1, "answer": "x"}], rng)))))
        tried(lambda: read_answer_list(write("r.json", json.dumps(mutated(rng.choice((["x", "y"], {"x": 1})), rng)))))


def test_damaged_text(write: Write, media: Path) -> None:
    rng = random.Random(0)
    tables = {
        "a.csv": 'image,caption\na.png,"x, y"\nb.png,z\n', "a.tsv": "image\tcaption\na.png\tx\n",
        "a.token": "a.png#0\tx\nb.png#1\ty\n", "results.csv": "image_name| comment_number| comment\na.png| 0| x\n",
        "lsmdc.csv": "v_1\t00.00.51.926\t00.00.54.129\t00.00.51.926\t00.00.54.129\tx\n",
        "a.jsonl": '{"image": "a.png", "caption": "x"}\n{"image": "b.png", "caption": "y"}\n', "names.txt": "v_1\nx\n",
    }  # fmt: skip
    for _ in range(200):
        name, text = rng.choice(list(tables.items()))
        content = bytearray(text.encode())
        place = rng.randrange(len(content))
        match rng.choice(("cut", "byte", "insert", "double")):
            case "cut":
                del content[place:]
            case "byte":
                content[place] = rng.randrange(256)
            case "insert":
                content[place:place] = rng.choice(
                    (b'"', b"\0", b"\r", b"\xff", b"\xed\xa0\xbd", b"x" * 200_000, b"\n\n", b"|")
                )
            case _:
                content *= 2
        file = write(name, bytes(content))
        config = DataConfig(on_error=rng.choice(("raise", "skip")), captions=str(write("c.json", {"v_1": ["x"]})))
        tried(lambda: load_retrieval(file, config, "train"))  # noqa: B023
