"""Questions about pictures or videos, with their answers, as files have them: every layout in circulation.

BLIP's vqa_train.json, vqa_val.json   {image, question, answer: [texts, repeats are weight], dataset, question_id}
BLIP's vg_qa.json                     {image, question, answer, dataset: "vg"}, of less weight
BLIP's vqa_test.json                  {image, question, question_id}
the official VQA v2 and OK-VQA files  {questions: [{image_id, question, question_id}]}, and beside it the
annotations, {annotations: [{question_id, answers: [{answer}, …], …}]}
MSRVTT-QA                             {id, video_id: number, question, answer, category_id}
ALPRO's of MSRVTT-QA                  {video_id, question, answer, answer_type}
LAVIS's, UMT's and VindLU's           {image or video, question, answer, question_id}
VizWiz, A-OKVQA, GQA, TextVQA, …      `answers.py` says where their answers are, `layouts.py` how their rows are kept
one's own JSONL, CSV, Parquet         image or video, question, answer
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniadapter.data.layouts.answers import answers_of
from uniadapter.data.layouts.fields import VISUAL_IDS, VISUALS
from uniadapter.data.layouts.pairs import pictures_of, visual_of
from uniadapter.data.layouts.registry import layout_of, layout_rows, named_layout
from uniadapter.data.layouts.sources import Reading, Source, open_source
from uniadapter.data.layouts.vqa_files import Annotation, read_vqa_annotations
from uniadapter.data.media.records import (
    DataError,
    ErrorPolicy,
    Record,
    Required,
    Row,
    half_a_character,
    id_field,
    is_whole,
    text_field,
    wrong_type,
)

GENOME_WEIGHT = 0.2  # of an answer of Visual Genome, in BLIP's training
_REQUIRED: Required = ((*VISUALS, *VISUAL_IDS), "question")
_FOLDER = re.compile(r"[\w-]+")


@dataclass(frozen=True)
class Asked:
    """A question as a file has it.

    Args:
        record: what it is about; its `caption` is the question.
        question_id: the file's id; None without one.
        annotators: every answer, as typed.
        weight: of all answers together.
        kind: answer type.
        question_type: first words, as official files have them.
        official: of a file without answers, which has them in a file of its own.
    """

    record: Record
    question_id: str | int | None
    annotators: tuple[str, ...]
    weight: float = 1.0
    kind: str = ""
    question_type: str = ""
    official: bool = False


def read_questions(
    path: str | Path,
    problems: ErrorPolicy,
    annotations: str | Path | None = None,
    *,
    layout: str = "auto",
    split: str = "train",
    fields: Mapping[str, str] | None = None,
) -> Iterator[Asked]:
    """Stream the questions of a file.

    Args:
        path: the file, or a folder of pictures with its metadata.
        problems: what becomes of records that cannot be used.
        annotations: the official file of answers, beside an official file of questions.
        layout: one of `LAYOUTS`; "auto", and one that has captions alone, tells by the first row.
        split: that is read, of files that hold several.
        fields: our names of fields to the file's.

    Raises:
        DataError: as `read_records`; with `on_error="raise"` also for the first bad record.
    """
    source = open_source(path)
    if _is_official(source):
        yield from _official(source, problems, annotations)
        return
    if _is_answers(source):
        raise DataError(
            f"{source.path} is an official file of answers: name it as data.annotations: {{{split}: …}}, and that of "
            f"the questions as data.{split}",
            "no questions",
        )
    chosen = named_layout(source, layout, records=False)
    chosen = layout_of(source, records=False) if chosen.rows is None else chosen
    reading = Reading(source, problems, "question", split, None, fields or {})
    for origin, row in layout_rows(chosen, reading, _REQUIRED):
        try:
            yield _asked(origin, row, problems)
        except DataError as error:
            problems.report(error)


def _asked(origin: str, row: Row, problems: ErrorPolicy) -> Asked:
    answers = answers_of(origin, row, problems)
    question = text_field(origin, row, "question", "a text")
    visual = visual_of(origin, row)
    number = _number(origin, row)
    weight = GENOME_WEIGHT if row.get("dataset") == "vg" else 1.0
    record = Record(visual.path, question, visual.visual_id, origin, visual.noun, visual.others)
    return Asked(
        record, number, answers, weight, _word(origin, row, "answer_type"), _word(origin, row, "question_type")
    )


def _number(origin: str, row: Row) -> str | int | None:
    """The question's id, if the row has one."""
    for name in ("question_id", "id"):
        if row.get(name) not in (None, ""):
            return id_field(origin, name, row[name])
    return None


def _word(origin: str, row: Row, name: str) -> str:
    value = row.get(name)
    if value in (None, ""):
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise wrong_type(origin, name, value, "a text")
    if not is_whole(str(value)):
        raise half_a_character(origin, name)
    return str(value)


def _is_official(source: Source) -> bool:
    """Whether a file is an official one, whose questions name COCO's pictures by their numbers alone."""
    questions = (source.first or {}).get("questions")
    if source.form != "object" or not isinstance(questions, list):
        return False
    row = questions[0] if questions else {}
    return not isinstance(row, Mapping) or "image_id" in row or not set(row) - {"question", "question_id"}


def _is_answers(source: Source) -> bool:
    rows = (source.first or {}).get("annotations")
    row = rows[0] if source.form == "object" and isinstance(rows, list) and rows else None
    return isinstance(row, Mapping) and {"question_id", "answers"} <= row.keys() and "question" not in row


def _official(source: Source, problems: ErrorPolicy, annotations: str | Path | None) -> Iterator[Asked]:
    content = source.first or {}
    known: Mapping[str | int, Annotation] = {}
    if annotations is not None:
        known = {one.question_id: one for one in read_vqa_annotations(annotations)}
    kind = content.get("data_subtype")
    # The questions of test-dev are about pictures of the test.
    folder = kind.replace("-dev", "") if isinstance(kind, str) and _FOLDER.fullmatch(kind) else ""
    for index, row in enumerate(content["questions"]):
        origin = f"{source.path}.questions[{index}]"
        try:
            yield _official_question(origin, row, folder, known)
        except DataError as error:
            problems.report(error)


def _official_question(origin: str, row: Any, folder: str, known: Mapping[str | int, Annotation]) -> Asked:
    if not isinstance(row, Mapping) or not {"image_id", "question", "question_id"} <= set(row):
        raise DataError(f"{origin}: no image_id, question and question_id: is it an official file?", "missing field")
    question = text_field(origin, row, "question", "a text")
    number = id_field(origin, "image_id", row["image_id"])
    question_id = id_field(origin, "question_id", row["question_id"])
    if isinstance(row.get("image"), str) and row["image"].strip():
        first, *others = (row["image"], *pictures_of(number))
    else:
        first, *others = pictures_of(number, [folder] if folder else [])
    record = Record(first, question, number, origin, others=tuple(others))
    one = known.get(question_id)
    if one is None:
        return Asked(record, question_id, (), official=True)
    return Asked(record, question_id, one.answers, 1.0, one.answer_type, one.question_type)
