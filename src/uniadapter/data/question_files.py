"""Reading of question-answer annotations (VQA, video QA) in the layouts of the published datasets.

BLIP's vqa_train.json, vqa_val.json   {image, question, answer: [texts, repeated by weight], dataset, question_id}
BLIP's vg_qa.json                     {image, question, answer, dataset: "vg"}, with a lower weight
BLIP's vqa_test.json                  {image, question, question_id}
official VQA v2 and OK-VQA files      {questions: [{image_id, question, question_id}]}, and a file of annotations,
                                      {annotations: [{question_id, answers: [{answer}, …], …}]}
MSRVTT-QA                             {id, video_id: number, question, answer, category_id}
ALPRO's MSRVTT-QA                     {video_id, question, answer, answer_type}
LAVIS, UMT, VindLU                    {image or video, question, answer, question_id}
VizWiz, A-OKVQA, GQA, TextVQA, …      fields of answers: `layouts/answers.py`; file formats: `layouts/registry.py`
your own JSONL, CSV, Parquet          image or video, question, answer
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniadapter.data.layouts.annotation_file import AnnotationFile, ReadRequest, open_annotations
from uniadapter.data.layouts.answers import parse_answers
from uniadapter.data.layouts.field_names import VISUAL_IDS, VISUALS
from uniadapter.data.layouts.pairs import parse_visual, picture_paths
from uniadapter.data.layouts.records import (
    DataError,
    ErrorPolicy,
    Record,
    Required,
    Row,
    group_field,
    id_field,
    is_valid_unicode,
    lone_surrogate_error,
    text_field,
    wrong_type_error,
)
from uniadapter.data.layouts.registry import find_layout, layout_rows, recognise_layout
from uniadapter.data.layouts.visual_genome import GENOME_WEIGHT
from uniadapter.data.layouts.vqa_files import Annotation, read_vqa_annotations

_REQUIRED: Required = ((*VISUALS, *VISUAL_IDS), "question")
_FOLDER = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class QuestionRecord:
    """A question as read from a file.

    Args:
        visual: its picture or video; the record's `caption` is the question.
        question_id: the file's id; None if it has none.
        answers: one per annotator, not normalised.
        weight: sum of the weights of the answers.
        kind: answer type ("yes/no", "number", …); "" if unknown.
        question_type: first words of the question, in official files; "" elsewhere.
        official: from an official question file, whose answers are in a separate annotation file.
    """

    visual: Record
    question_id: str | int | None
    answers: tuple[str, ...]
    weight: float = 1.0
    kind: str = ""
    question_type: str = ""
    official: bool = False


def read_questions(
    path: str | Path,
    policy: ErrorPolicy,
    annotations: str | Path | None = None,
    *,
    layout: str = "auto",
    split: str = "train",
    fields: Mapping[str, str] | None = None,
) -> Iterator[QuestionRecord]:
    """Stream the questions of a file.

    Args:
        path: the file, or a folder of pictures with a metadata file.
        policy: handles records that cannot be used.
        annotations: the official annotation file, for an official question file.
        layout: one of `LAYOUTS`; "auto", and layouts that hold only captions, are detected from the first row.
        split: to read, from files with several.
        fields: expected field names to the file's.

    Raises:
        DataError: as `read_records`; with `on_error="raise"` also for the first bad record.
    """
    source = open_annotations(path)
    if _is_vqa_questions(source):
        yield from _read_vqa_files(source, policy, annotations)
        return
    if _is_vqa_annotations(source):
        raise DataError(
            f"{source.path} is an official annotation file (answers): set data.annotations: {{{split}: …}} to it, and "
            f"data.{split} to the question file",
            "no questions",
        )
    chosen = find_layout(source, layout, records=False)
    chosen = recognise_layout(source, records=False) if chosen.rows is None else chosen
    request = ReadRequest(source, policy, "question", split, None, fields or {})
    for origin, row in layout_rows(chosen, request, _REQUIRED):
        try:
            yield _question_record(origin, row, policy)
        except DataError as error:
            policy.report(error)


def _question_record(origin: str, row: Row, policy: ErrorPolicy) -> QuestionRecord:
    answers = parse_answers(origin, row, policy)
    question = text_field(origin, row, "question", "a string")
    visual = parse_visual(origin, row)
    number = _question_id(origin, row)
    weight = GENOME_WEIGHT if row.get("dataset") == "vg" else 1.0
    group = group_field(row)
    record = Record(visual.path, question, visual.visual_id, origin, visual.noun, visual.others, group)
    return QuestionRecord(
        record,
        number,
        answers,
        weight,
        _optional_text(origin, row, "answer_type"),
        _optional_text(origin, row, "question_type"),
    )


def _question_id(origin: str, row: Row) -> str | int | None:
    """The question's id; None if the row has none."""
    for name in ("question_id", "id"):
        if row.get(name) not in (None, ""):
            return id_field(origin, name, row[name])
    return None


def _optional_text(origin: str, row: Row, name: str) -> str:
    value = row.get(name)
    if value in (None, ""):
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise wrong_type_error(origin, name, value, "a string")
    if not is_valid_unicode(str(value)):
        raise lone_surrogate_error(origin, name)
    return str(value)


def _is_vqa_questions(source: AnnotationFile) -> bool:
    """Whether a file is an official question file, which identifies pictures by COCO's image ids."""
    questions = (source.first or {}).get("questions")
    if source.form != "object" or not isinstance(questions, list):
        return False
    row = questions[0] if questions else {}
    return not isinstance(row, Mapping) or "image_id" in row or not set(row) - {"question", "question_id"}


def _is_vqa_annotations(source: AnnotationFile) -> bool:
    rows = (source.first or {}).get("annotations")
    row = rows[0] if source.form == "object" and isinstance(rows, list) and rows else None
    return isinstance(row, Mapping) and {"question_id", "answers"} <= row.keys() and "question" not in row


def _read_vqa_files(
    source: AnnotationFile, policy: ErrorPolicy, annotations: str | Path | None
) -> Iterator[QuestionRecord]:
    content = source.first or {}
    known: Mapping[str | int, Annotation] = {}
    if annotations is not None:
        known = {one.question_id: one for one in read_vqa_annotations(annotations)}
    kind = content.get("data_subtype")
    # The questions of test-dev are about pictures of the test split.
    folder = kind.replace("-dev", "") if isinstance(kind, str) and _FOLDER.fullmatch(kind) else ""
    for index, row in enumerate(content["questions"]):
        origin = f"{source.path}.questions[{index}]"
        try:
            yield _vqa_question(origin, row, folder, known)
        except DataError as error:
            policy.report(error)


def _vqa_question(origin: str, row: Any, folder: str, known: Mapping[str | int, Annotation]) -> QuestionRecord:
    if not isinstance(row, Mapping) or not {"image_id", "question", "question_id"} <= set(row):
        raise DataError(f"{origin}: no image_id, question and question_id: is it an official file?", "missing field")
    question = text_field(origin, row, "question", "a string")
    number = id_field(origin, "image_id", row["image_id"])
    question_id = id_field(origin, "question_id", row["question_id"])
    if isinstance(row.get("image"), str) and row["image"].strip():
        first, *others = (row["image"], *picture_paths(number))
    else:
        first, *others = picture_paths(number, [folder] if folder else [])
    record = Record(first, question, number, origin, others=tuple(others))
    one = known.get(question_id)
    if one is None:
        return QuestionRecord(record, question_id, (), official=True)
    return QuestionRecord(record, question_id, one.answers, 1.0, one.answer_type, one.question_type)
