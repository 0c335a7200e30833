"""Splits from data in memory: Hugging Face datasets and lists of rows, with any recognised column names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from uniadapter.config import DataConfig
from uniadapter.data.captions import from_dataset, load_retrieval
from uniadapter.data.layouts.answers import parse_answers
from uniadapter.data.layouts.field_names import match_fields
from uniadapter.data.layouts.records import DataError, ErrorPolicy, Record, group_field
from uniadapter.data.media.arrays import from_array
from uniadapter.data.media.images import DatasetPicture, Rows
from uniadapter.data.media.paths import has_video_suffix
from uniadapter.data.questions import QuestionSplit, answer_weights, load_questions
from uniadapter.data.split_builder import SplitBuilder, finish_split
from uniadapter.data.splits import RetrievalSplit
from uniadapter.data.text import clean_question

Data = str | os.PathLike[str] | RetrievalSplit | Rows | Sequence[Any] | Mapping[str, Any]
_VISUALS = ("image", "video")


def make_split(data: Data, task: str, config: DataConfig, name: str = "train") -> RetrievalSplit:
    """A split from a file, a folder, a dataset or a list.

    Args:
        data: an annotation file or a folder of pictures with their texts; a Hugging Face `Dataset`, or a `DatasetDict`
            with a split of this name; a sequence of mappings (`image` and `caption`, or `image`, `question` and
            `answer`, their aliases in `layouts/field_names.py`, or the names in `config.fields`) or of tuples (picture,
            caption) or (picture, question, answer). A picture is a Pillow image, an array, a tensor or a file name.
        task: "retrieval", "vqa" or "caption".
        config: as for `load_retrieval`.
        name: of the split.

    Raises:
        DataError: no row is usable, or with `on_error="raise"` one row is not.
        TypeError: `data` is of another type.
    """
    if isinstance(data, RetrievalSplit):
        return data
    if isinstance(data, (str, os.PathLike)):
        load = load_questions if task == "vqa" else load_retrieval
        return load(Path(data).expanduser(), config, name)
    given: Any = data
    if isinstance(data, Mapping):
        if name not in data:
            raise DataError(f"the dataset has no split {name!r} (it has {', '.join(map(str, data))}): pass one of them")
        given = data[name]
    if not hasattr(given, "__len__") or not hasattr(given, "__getitem__"):
        raise TypeError(
            f"cannot train on a {type(given).__name__}: pass a file, a folder, a list of rows, or a dataset with a "
            "length"
        )
    if not len(given):
        raise DataError("the dataset is empty: there is nothing to train on", "empty split")
    rows: Rows = given if hasattr(given, "column_names") else _MappedRows(given, task)
    names = _match_columns(rows, task, config)
    if task == "vqa":
        return _question_split(rows, names, config, name)
    visual = names.get("image") or names["video"]
    group = names.get("group")
    return from_dataset(rows, visual, names["caption"], group_column=group, config=config, name=name)


class _MappedRows:
    """A sequence whose rows are converted to mappings, and arrays to Pillow images, on access."""

    def __init__(self, rows: Any, task: str) -> None:
        self.rows = rows
        self.names = ("image", "question", "answer") if task == "vqa" else ("image", "caption")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int, /) -> dict[str, Any]:
        values = self.rows[row]
        if isinstance(values, (tuple, list)):
            if len(values) != len(self.names):
                raise DataError(f"row {row} has {len(values)} values: it must be ({', '.join(self.names)})", "odd row")
            values = dict(zip(self.names, values, strict=True))
        if not isinstance(values, Mapping):
            raise DataError(f"row {row} is a {type(values).__name__}: it must be a mapping or a tuple", "odd row")
        return {str(key): _picture(value, f"row {row}, {key!r}") for key, value in values.items()}


def _picture(value: Any, name: str) -> Any:
    if hasattr(value, "__array__") and hasattr(value, "ndim") and value.ndim in (2, 3):
        return from_array(value, name)
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _match_columns(rows: Rows, task: str, config: DataConfig) -> dict[str, str]:
    """Expected column names to the dataset's."""
    first = rows[0]
    found = match_fields(first, config.fields)
    needed = ("question",) if task == "vqa" else ("caption",)
    lacking = [name for name in needed if name not in found]
    if not set(found) & set(_VISUALS):
        lacking.append("image")
    if lacking:
        wanted = " and ".join(map(repr, lacking))
        raise DataError(
            f"the dataset has no column {wanted} (it has {', '.join(map(str, first))}): rename them, or map them with "
            "data.fields",
            "missing field",
        )
    return found


def _question_split(rows: Rows, names: Mapping[str, str], config: DataConfig, name: str) -> QuestionSplit:
    policy = ErrorPolicy(config.on_error)
    split = QuestionSplit(name, skipped=policy.skipped, errors=policy.errors)
    builder = SplitBuilder(split, policy, clean_question, config.max_words, "question")
    visual = names.get("image") or names["video"]
    # Drop the picture column of a Hugging Face dataset, so that reading the questions does not decode pictures.
    lazy = hasattr(rows, "remove_columns") and not isinstance(rows[0][visual], str)
    texts: Any = rows.remove_columns(visual) if lazy else rows  # type: ignore[attr-defined]
    for number in range(len(rows)):
        origin = f"{name}[{number}]"
        row = texts[number]
        row = {**row, **{expected: row.get(actual) for expected, actual in names.items()}}
        try:
            answers = parse_answers(origin, row, policy)
            if not answers:
                raise DataError(f"{origin}: the question has no answer: give it one", "question without an answer")
            if not isinstance(row["question"], str):
                raise DataError(f"{origin}: the question is not a string", "unusable question")
        except DataError as error:
            policy.report(error)
            continue
        before = len(split.texts)
        _add_text(builder, rows, number, row.get(visual), visual, row["question"], origin, config, group_field(row))
        if len(split.texts) > before:
            split.question_ids.append(before)
            split.answers.append(answer_weights(answers))
            split.annotators.append(answers)
            split.kinds.append("")
            split.question_types.append("")
    builder.describe()
    return finish_split(split, policy, name, config.on_error == "skip" and name != "train", config.workers)


def _add_text(
    builder: SplitBuilder,
    rows: Rows,
    number: int,
    picture: Any,
    column: str,
    text: str,
    origin: str,
    config: DataConfig,
    group: str | int | None,
) -> None:
    """Add a text of a picture, which is a file name or a value in the dataset."""
    if isinstance(picture, str):
        noun = "video" if has_video_suffix(picture) else "picture"
        builder.add_file(Record(picture, text, picture, origin, noun, group=group), Path(config.root or ""))
    else:
        builder.add((column, number), DatasetPicture(rows, number, column), number, text, origin, group)
