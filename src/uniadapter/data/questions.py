"""Questions about pictures or videos, with their answers: every layout in circulation, and one's own.

BLIP's vqa_train.json, vqa_val.json   {image, question, answer: [texts, repeats are weight], dataset, question_id}
BLIP's vg_qa.json                     {image, question, answer, dataset: "vg"}, of less weight
BLIP's vqa_test.json                  {image, question, question_id}
the official VQA v2 files             {questions: [{image_id, question, question_id}]}, and beside it the
annotations, {annotations: [{question_id, answers: [{answer}, …], …}]}
MSRVTT-QA                             {id, video_id: number, question, answer, category_id}
ALPRO's of MSRVTT-QA                  {video_id, question, answer, answer_type}
LAVIS's, UMT's and VindLU's           {image or video, question, answer, question_id}
one's own JSONL or CSV                image or video, question, answer
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uniadapter.config import DataConfig
from uniadapter.data.building import SplitBuilder, finish_split
from uniadapter.data.files import video_name
from uniadapter.data.pairs import visual_fields
from uniadapter.data.records import (
    DataError,
    Problems,
    Record,
    Row,
    first_row,
    read_json,
    read_rows,
    text_field,
    wrong_type,
)
from uniadapter.data.splits import RetrievalSplit
from uniadapter.data.text import clean_question
from uniadapter.data.vqa_files import Annotation, read_vqa_annotations

GENOME_WEIGHT = 0.2  # of an answer of Visual Genome, in BLIP's training
_VISUALS = ("image", "video", "video_id", "image_id")


@dataclass
class QuestionSplit(RetrievalSplit):
    """Questions of one split; `texts` are the cleaned questions, `text_visual` what each is about.

    Args:
        question_ids: the file's id of each question; without one, its number in the file.
        answers: for each question its distinct answers, lower case, with their weights (1 in all, of Visual Genome
            less); empty where the file has none.
        annotators: for each question every answer as typed, one an annotator; official accuracy needs them.
        kinds: for each question its answer type, "" where the file says none.
        question_types: for each question its first words as the official files have them, "" elsewhere.
    """

    question_ids: list[str | int] = field(default_factory=list)
    answers: list[dict[str, float]] = field(default_factory=list)
    annotators: list[tuple[str, ...]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    question_types: list[str] = field(default_factory=list)

    def keep_texts(self, kept: Sequence[int]) -> None:
        """Leave out all questions but these."""
        super().keep_texts(kept)
        for name in ("question_ids", "answers", "annotators", "kinds", "question_types"):
            values = getattr(self, name)
            setattr(self, name, [values[row] for row in kept])


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
    """

    record: Record
    question_id: str | int | None
    annotators: tuple[str, ...]
    weight: float = 1.0
    kind: str = ""
    question_type: str = ""


def load_questions(path: str | Path, config: DataConfig, name: str, answered: bool | None = None) -> QuestionSplit:
    """Read a split of questions.

    Args:
        path: in any of the layouts above.
        config: `root`, `annotations`, `max_words`, `on_error` and `workers` are used.
        name: of the split.
        answered: every question must have an answer; None means: those of "train" must.

    Raises:
        DataError: the file cannot be read or nothing in it is usable; with `on_error="raise"` also at the first record
            that cannot be used.
    """
    problems = Problems(config.on_error)
    root = Path(config.root) if config.root else Path(path).parent
    split = QuestionSplit(name, skipped=problems.skipped)
    builder = SplitBuilder(split, problems, clean_question, config.max_words, "question")
    needed = name == "train" if answered is None else answered
    for asked in read_questions(path, problems, config.annotations.get(name)):
        if needed and not asked.annotators:
            message = f"{asked.record.origin}: the question has no answer: give it one, or remove the record"
            problems.report(DataError(message, "question without an answer"))
            continue
        before = len(split.texts)
        builder.add_file(asked.record, root)
        if len(split.texts) > before:
            split.question_ids.append(before if asked.question_id is None else asked.question_id)
            split.answers.append(weighed(asked.annotators, asked.weight))
            split.annotators.append(asked.annotators)
            split.kinds.append(asked.kind)
            split.question_types.append(asked.question_type)
    builder.describe(Path(path).name)
    check = config.on_error == "skip" and name != "train"
    return finish_split(split, problems, str(path), check, config.workers)


def read_questions(path: str | Path, problems: Problems, annotations: str | Path | None = None) -> Iterator[Asked]:
    """Stream the questions of a file.

    Args:
        path: the file.
        problems: what becomes of records that cannot be used.
        annotations: the official file of answers, beside an official file of questions.

    Raises:
        DataError: as `read_rows`; with `on_error="raise"` also for the first bad record.
    """
    if "questions" in (first_row(path) or {}):
        yield from _official(Path(path), problems, annotations)
        return
    for origin, row in read_rows(path, problems, required=(_VISUALS, "question")):
        try:
            yield _asked(origin, row)
        except DataError as error:
            problems.report(error)


def _asked(origin: str, row: Row) -> Asked:
    answers = _answers(origin, row)
    question = text_field(origin, row, "question", "a text")
    visual, visual_id, noun = _visual(origin, row)
    number = next((row[key] for key in ("question_id", "id") if row.get(key) not in (None, "")), None)
    weight = GENOME_WEIGHT if row.get("dataset") == "vg" else 1.0
    record = Record(visual, question, visual_id, origin, noun)
    return Asked(record, number, answers, weight, str(row.get("answer_type") or ""))


def _visual(origin: str, row: Row) -> tuple[str, str | int, str]:
    """Path, id and noun; MSRVTT-QA's `video_id` is a number, ALPRO's a name."""
    if row.get("image") is not None or row.get("video") is not None:
        return visual_fields(origin, row)
    value = row.get("video_id")
    if value is None:
        raise wrong_type(origin, "image", row.get("image"), "the path of a picture")
    numbered = isinstance(value, int) or str(value).isdigit()
    return video_name(f"video{value}" if numbered else str(value)), value, "video"


def _answers(origin: str, row: Row) -> tuple[str, ...]:
    value = row.get("answer")
    if value is None or value == "":
        return ()
    found = value if isinstance(value, list) else [value]
    # An answer such as 2 or true stands unquoted in files that people write themselves.
    texts = [str(one).lower() if isinstance(one, (bool, int, float)) else one for one in found]
    if not all(isinstance(text, str) for text in texts):
        raise wrong_type(origin, "answer", value, "a text, or a list of texts")
    return tuple(text for text in texts if text.strip())


def _official(file: Path, problems: Problems, annotations: str | Path | None) -> Iterator[Asked]:
    content = read_json(file)
    known: Mapping[int, Annotation] = {}
    if annotations is not None:
        known = {one.question_id: one for one in read_vqa_annotations(annotations)}
    folder = str(content.get("data_subtype") or "")
    for index, row in enumerate(content["questions"]):
        origin = f"{file}.questions[{index}]"
        try:
            yield _official_question(origin, row, folder, known)
        except DataError as error:
            problems.report(error)


def _official_question(origin: str, row: Any, folder: str, known: Mapping[int, Annotation]) -> Asked:
    if not isinstance(row, Mapping) or not {"image_id", "question", "question_id"} <= set(row):
        raise DataError(f"{origin}: no image_id, question and question_id: is it an official file?", "missing field")
    number, question = row["image_id"], text_field(origin, row, "question", "a text")
    if not isinstance(number, int):
        raise wrong_type(origin, "image_id", number, "COCO's number of a picture")
    picture = f"{folder}/COCO_{folder}_{number:012d}.jpg" if folder else f"{number:012d}.jpg"
    record = Record(picture, question, number, origin)
    one = known.get(row["question_id"])
    if one is None:
        return Asked(record, row["question_id"], ())
    return Asked(record, row["question_id"], one.answers, 1.0, one.answer_type, one.question_type)


def weighed(annotators: Sequence[str], weight: float = 1.0) -> dict[str, float]:
    """Distinct answers, lower case, each with its share of the annotators."""
    counts = Counter(" ".join(text.lower().split()) for text in annotators)
    return {text: weight * count / len(annotators) for text, count in counts.items()}


def frequent_answers(split: QuestionSplit, count: int = 0) -> list[str]:
    """A list of answers from a training split: the most frequent, ties in the order in which they come; 0 takes all."""
    votes: Counter[str] = Counter()
    for answers in split.answers:
        votes.update(answers)
    return [text for text, _ in votes.most_common(count or None)]


def read_answer_list(path: str | Path) -> list[str]:
    """A file of answers: a JSON list of texts, or an object of answer to number (ALPRO's `train_ans2label.json`).

    Repeats are left out.

    Raises:
        DataError: the file is missing, of another form or empty, or an answer is an empty text.
    """
    content = read_json(Path(path))
    if isinstance(content, Mapping):
        content = sorted(content, key=lambda text: (content[text], text))
    if not isinstance(content, list) or not all(isinstance(text, str) for text in content):
        raise DataError(f"{path} should be a list of texts, or an object of answer to number", "not a list of answers")
    if not content:
        raise DataError(f"{path} is an empty list of answers: fill it, or leave data.answer_list out", "no answers")
    for index, text in enumerate(content):
        if not text.strip():
            raise DataError(f"{path}[{index}]: an answer is an empty text: remove it", "empty answer")
    return list(dict.fromkeys(" ".join(text.lower().split()) for text in content))
