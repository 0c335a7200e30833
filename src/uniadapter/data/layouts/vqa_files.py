"""The official file formats of VQA v2: questions, annotations, and the result file for EvalAI."""

from __future__ import annotations

import json
import operator
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from uniadapter.data.layouts.annotation_file import read_json
from uniadapter.data.layouts.records import DataError, field_names
from uniadapter.files.writing import write_text


@dataclass(frozen=True, slots=True)
class Question:
    """One question of an official file.

    Args:
        question_id: unique in the split.
        image_id: COCO's id of the picture.
        question: the text, not cleaned.
    """

    question_id: int
    image_id: int
    question: str


@dataclass(frozen=True, slots=True)
class Annotation:
    """The annotators' answers to one question.

    Args:
        question_id: unique in the split.
        image_id: COCO's id of the picture.
        question_type: first words of the question ("how many"), as in the file.
        answer_type: "yes/no", "number" or "other".
        answers: as typed, one per annotator; ten in the official files.
    """

    question_id: int
    image_id: int
    question_type: str
    answer_type: str
    answers: tuple[str, ...]


def read_vqa_questions(path: str | Path) -> list[Question]:
    """The questions of `v2_OpenEnded_mscoco_{split}_questions.json`, in file order.

    Raises:
        DataError: the file is missing or in another format, or repeats a question.
    """
    found: dict[int, Question] = {}
    for origin, row in _rows(Path(path), "questions"):
        number = _new_id(origin, row, found)
        found[number] = Question(number, _field(origin, row, "image_id", int), _field(origin, row, "question", str))
    return list(found.values())


def read_vqa_annotations(path: str | Path) -> list[Annotation]:
    """The annotations of `v2_mscoco_{split}_annotations.json`, in file order.

    Raises:
        DataError: the file is missing or in another format, repeats a question, or has a question without answers.
    """
    found: dict[int, Annotation] = {}
    for origin, row in _rows(Path(path), "annotations"):
        number = _new_id(origin, row, found)
        answers = _field(origin, row, "answers", list)
        if not answers:
            raise DataError(f"{origin}: the list of answers is empty: remove the record", "no answers")
        found[number] = Annotation(
            number,
            _field(origin, row, "image_id", int),
            _field(origin, row, "question_type", str),
            _field(origin, row, "answer_type", str),
            tuple(_field(f"{origin}.answers[{index}]", one, "answer", str) for index, one in enumerate(answers)),
        )
    return list(found.values())


def write_results(path: str | Path, predictions: Mapping[int, str]) -> Path:
    """Write the result file for EvalAI atomically: a list of `{question_id, answer}`.

    Args:
        path: the file.
        predictions: question id to answer.

    Raises:
        DataError: a question's id is not an integer, or its answer not a string.
        WriteError: the file cannot be written; an existing one is unchanged.
    """
    target = Path(path)
    rows = []
    for number, answer in predictions.items():
        try:
            rows.append({"question_id": operator.index(number), "answer": answer})  # NumPy's integers as well
        except TypeError:
            raise _wrong_type(f"{target}: prediction {number!r}", "question_id", number, int) from None
        if not isinstance(answer, str):
            raise _wrong_type(f"{target}: question {number}", "answer", answer, str)
    return write_text(target, json.dumps(rows))


def read_results(path: str | Path) -> dict[int, str]:
    """The answers of a result file, question id to text, in file order.

    Raises:
        DataError: the file is missing or in another format, or repeats a question.
    """
    found: dict[int, str] = {}
    for origin, row in _rows(Path(path), None):
        number = _new_id(origin, row, found)
        found[number] = _field(origin, row, "answer", str)
    return found


def _rows(file: Path, key: str | None) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield (origin, record) of the list in a JSON file, at its top level or under a key."""
    content = read_json(file)
    rows = content.get(key) if key is not None and isinstance(content, dict) else content
    if not isinstance(rows, list) or (key is not None and rows is content):
        form = "a list of records" if key is None else f"an object with a list under {key!r}"
        raise DataError(f"{file} should be {form}: is it the right file?", "not a list of records")
    for index, row in enumerate(rows):
        yield (f"{file}[{index}]" if key is None else f"{file}.{key}[{index}]"), row


_Kind = TypeVar("_Kind")
_WANTED = {int: "a whole number", str: "a string", list: "a list"}


def _field(origin: str, row: Any, name: str, kind: type[_Kind]) -> _Kind:
    if not isinstance(row, Mapping):
        raise DataError(
            f"{origin} is of type {type(row).__name__}: it should be an object with fields", "not an object"
        )
    if name not in row:
        raise DataError(f"{origin}: no field {name!r} (it has {field_names(row)}): add it", "missing field")
    value = row[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise _wrong_type(origin, name, value, kind)
    return value


def _new_id(origin: str, row: Any, known: Collection[int]) -> int:
    number = _field(origin, row, "question_id", int)
    if number in known:
        raise DataError(f"{origin}: question {number} is repeated: remove one of them", "twice")
    return number


def _wrong_type(origin: str, name: str, value: object, wanted: type) -> DataError:
    found = f"of type {type(value).__name__}"
    return DataError(f"{origin}: field {name!r} is {found}: it should be {_WANTED[wanted]}", f"unusable {name}")
