"""Splits for question answering, and lists of candidate answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from uniadapter.config import DataConfig
from uniadapter.data.layouts.annotation_file import read_json
from uniadapter.data.layouts.records import DataError, ErrorPolicy, is_valid_unicode
from uniadapter.data.question_files import read_questions
from uniadapter.data.split_builder import CleanText, SplitBuilder, data_root, finish_split
from uniadapter.data.splits import RetrievalSplit, Sample
from uniadapter.data.text import clean_question


@dataclass
class QuestionSplit(RetrievalSplit):
    """Questions of one split; `texts` are the cleaned questions, `text_visual` the index of each one's visual.

    Args:
        question_ids: the file's id of each question; its index if the file has none.
        answers: for each question its distinct answers, lower case, with weights (their sum is 1, for Visual Genome
            0.2); empty if the file has none.
        annotators: for each question all answers as typed, one per annotator; official VQA accuracy needs them.
        kinds: for each question its answer type; "" if unknown.
        question_types: for each question its first words, from official files; "" elsewhere.
    """

    question_ids: list[str | int] = field(default_factory=list)
    answers: list[dict[str, float]] = field(default_factory=list)
    annotators: list[tuple[str, ...]] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)
    question_types: list[str] = field(default_factory=list)

    text_noun: ClassVar[str] = "questions"

    def sample(self, row: int) -> Sample:
        """The training sample of a question, with its answers."""
        return replace(super().sample(row), answers=self.answers[row])

    def keep_texts(self, kept: Sequence[int]) -> None:
        """Drop all questions but these; indices in order."""
        super().keep_texts(kept)
        for name in ("question_ids", "answers", "annotators", "kinds", "question_types"):
            values = getattr(self, name)
            setattr(self, name, [values[row] for row in kept])


def load_questions(
    path: str | Path,
    config: DataConfig,
    name: str,
    answered: bool | None = None,
    clean: CleanText = clean_question,
) -> QuestionSplit:
    """Read a split of questions.

    Args:
        path: an annotation file in one of the layouts of `question_files.py`, or a folder of pictures.
        config: `root`, `annotations`, `layout`, `fields`, `max_words`, `on_error` and `workers` are used.
        name: of the split.
        answered: whether every question must have an answer; None requires it for "train" only.
        clean: cleans a question.

    Raises:
        DataError: the file cannot be read or nothing in it is usable; with `on_error="raise"` also at the first record
            that cannot be used.
    """
    policy = ErrorPolicy(config.on_error)
    root = data_root(path, config)
    split = QuestionSplit(name, skipped=policy.skipped, errors=policy.errors)
    builder = SplitBuilder(split, policy, clean, config.max_words, "question")
    needed = name == "train" if answered is None else answered
    records = read_questions(
        path, policy, config.annotations.get(name), layout=config.layout, split=name, fields=config.fields
    )
    numbers: set[str | int] = set()
    for record in records:
        if needed and not record.answers:
            remedy = "give it one, or remove the record"
            if record.official:
                remedy = f"set data.annotations: {{{name}: FILE}} to the official annotation file"
            message = f"{record.visual.origin}: the question has no answer: {remedy}"
            policy.report(DataError(message, "question without an answer"))
            continue
        before = len(split.texts)
        builder.add_file(record.visual, root)
        if len(split.texts) > before:
            if record.question_id in numbers:
                policy.changed["repeated question ids"] += 1
            elif record.question_id is not None:
                numbers.add(record.question_id)
            split.question_ids.append(before if record.question_id is None else record.question_id)
            split.answers.append(answer_weights(record.answers, record.weight))
            split.annotators.append(record.answers)
            split.kinds.append(record.kind)
            split.question_types.append(record.question_type)
    builder.describe(Path(path).name)
    check = config.on_error == "skip" and name != "train"
    return finish_split(split, policy, str(path), check, config.workers)


def answer_weights(answers: Sequence[str], weight: float = 1.0) -> dict[str, float]:
    """Distinct answers, lower case, each with `weight` times its share of all answers."""
    counts = Counter(" ".join(text.lower().split()) for text in answers)
    return {text: weight * count / len(answers) for text, count in counts.items()}


def frequent_answers(split: QuestionSplit, count: int = 0) -> list[str]:
    """The candidate answers of a training split, most frequent first, ties in file order.

    Args:
        split: its answers' weights are summed.
        count: how many to take; 0 takes all.
    """
    votes: Counter[str] = Counter()
    for answers in split.answers:
        votes.update(answers)
    return [text for text, _ in votes.most_common(count or None)]


def read_answer_list(path: str | Path) -> list[str]:
    """Read a file of candidate answers: a JSON list, or an object of answer to number (ALPRO's `train_ans2label.json`).

    Returns:
        The answers in lower case, without repeats, in the order of the list or of the numbers.

    Raises:
        DataError: the file is missing, empty or in another format, or an answer is empty.
    """
    content = read_json(Path(path))
    if isinstance(content, Mapping):
        numbers = content
        if not all(isinstance(number, (int, float)) for number in numbers.values()):
            raise DataError(
                f"{path} should be an object of answer to number, or a list of strings", "not a list of answers"
            )
        content = sorted(content, key=lambda text: (numbers[text], text))
    if not isinstance(content, list) or not all(isinstance(text, str) for text in content):
        raise DataError(
            f"{path} should be a list of strings, or an object of answer to number", "not a list of answers"
        )
    if not content:
        raise DataError(f"{path} is an empty list of answers: fill it, or leave data.answer_list out", "no answers")
    for index, text in enumerate(content):
        if not text.strip():
            raise DataError(f"{path}[{index}]: an answer is empty: remove it", "empty answer")
        if not is_valid_unicode(text):
            raise DataError(f"{path}[{index}]: an answer has a lone surrogate: write it in full", "broken answer")
    return list(dict.fromkeys(" ".join(text.lower().split()) for text in content))
