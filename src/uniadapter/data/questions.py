"""Splits of questions about pictures or videos, with their answers, and lists of the answers to choose from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from uniadapter.config import DataConfig
from uniadapter.data.asking import read_questions
from uniadapter.data.building import SplitBuilder, data_root, finish_split
from uniadapter.data.layouts.sources import read_json
from uniadapter.data.media.records import DataError, ErrorPolicy, is_whole
from uniadapter.data.splits import RetrievalSplit
from uniadapter.data.text import clean_question


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

    text_noun: ClassVar[str] = "questions"

    def keep_texts(self, kept: Sequence[int]) -> None:
        """Leave out all questions but these."""
        super().keep_texts(kept)
        for name in ("question_ids", "answers", "annotators", "kinds", "question_types"):
            values = getattr(self, name)
            setattr(self, name, [values[row] for row in kept])


def load_questions(path: str | Path, config: DataConfig, name: str, answered: bool | None = None) -> QuestionSplit:
    """Read a split of questions.

    Args:
        path: in any of the layouts that `asking.py` lists, or a folder of pictures.
        config: `root`, `annotations`, `layout`, `fields`, `max_words`, `on_error` and `workers` are used.
        name: of the split.
        answered: every question must have an answer; None means: those of "train" must.

    Raises:
        DataError: the file cannot be read or nothing in it is usable; with `on_error="raise"` also at the first record
            that cannot be used.
    """
    problems = ErrorPolicy(config.on_error)
    root = data_root(path, config)
    split = QuestionSplit(name, skipped=problems.skipped)
    builder = SplitBuilder(split, problems, clean_question, config.max_words, "question")
    needed = name == "train" if answered is None else answered
    asking = read_questions(
        path, problems, config.annotations.get(name), layout=config.layout, split=name, fields=config.fields
    )
    numbers: set[str | int] = set()
    for asked in asking:
        if needed and not asked.annotators:
            remedy = "give it one, or remove the record"
            if asked.official:
                remedy = f"set data.annotations: {{{name}: FILE}} to the official file of its answers"
            message = f"{asked.record.origin}: the question has no answer: {remedy}"
            problems.report(DataError(message, "question without an answer"))
            continue
        before = len(split.texts)
        builder.add_file(asked.record, root)
        if len(split.texts) > before:
            if asked.question_id in numbers:
                problems.changed["question ids that stand there more than once"] += 1
            elif asked.question_id is not None:
                numbers.add(asked.question_id)
            split.question_ids.append(before if asked.question_id is None else asked.question_id)
            split.answers.append(weighed(asked.annotators, asked.weight))
            split.annotators.append(asked.annotators)
            split.kinds.append(asked.kind)
            split.question_types.append(asked.question_type)
    builder.describe(Path(path).name)
    check = config.on_error == "skip" and name != "train"
    return finish_split(split, problems, str(path), check, config.workers)


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
        numbers = content
        if not all(isinstance(number, (int, float)) for number in numbers.values()):
            raise DataError(
                f"{path} should be an object of answer to number, or a list of texts", "not a list of answers"
            )
        content = sorted(content, key=lambda text: (numbers[text], text))
    if not isinstance(content, list) or not all(isinstance(text, str) for text in content):
        raise DataError(f"{path} should be a list of texts, or an object of answer to number", "not a list of answers")
    if not content:
        raise DataError(f"{path} is an empty list of answers: fill it, or leave data.answer_list out", "no answers")
    for index, text in enumerate(content):
        if not text.strip():
            raise DataError(f"{path}[{index}]: an answer is an empty text: remove it", "empty answer")
        if not is_whole(text):
            raise DataError(
                f"{path}[{index}]: an answer has half of a surrogate pair: write it in full", "broken answer"
            )
    return list(dict.fromkeys(" ".join(text.lower().split()) for text in content))
