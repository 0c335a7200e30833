"""Accuracy of answers: VQA accuracy, by agreement with ten annotators, and exact match.

VQA accuracy is that of the official evaluation (Antol et al., arXiv 1505.00468; v2: arXiv 1612.00837;
visualqa.org/evaluation.html), with answers normalised by `answer_text.normalise_answer`. MSRVTT-QA (Xu et al., ACM MM
2017) has one answer to each question, and is evaluated by exact match.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from uniadapter.data.layouts.records import DataError
from uniadapter.data.layouts.vqa_files import Annotation
from uniadapter.evaluation.answer_text import normalise_answer, strip_answer

_ENOUGH = 3  # number of agreeing annotators for full accuracy
_NAMED = 5  # most questions that an error names
QUESTION_WORDS = ("what", "who", "how", "when", "where")
OTHER = "other"


@dataclass(frozen=True)
class VqaScores:
    """VQA accuracy of a split.

    Args:
        overall: mean over the questions, 0..100, not rounded (the official script rounds to 2 places).
        by_answer_type: the same for each answer type, sorted by name.
        by_question_type: the same for each question type.
        by_question: from question_id to accuracy in 0..1, in the annotations' order; for paired comparisons.
    """

    overall: float
    by_answer_type: dict[str, float]
    by_question_type: dict[str, float]
    by_question: dict[int, float]


@dataclass(frozen=True)
class ExactMatchScores:
    """Percentage of answers that are exactly right.

    Args:
        overall: 0..100, not rounded.
        by_question_word: the same for the questions with "what", "who", "how", "when", "where" and "other", if any.
        counts: number of questions with each word.
        correct: whether each question was answered right, in order; for paired comparisons.
    """

    overall: float
    by_question_word: dict[str, float]
    counts: dict[str, int]
    correct: tuple[bool, ...]


def question_accuracy(prediction: str, answers: Sequence[str]) -> float:
    """VQA accuracy of one answer: min(1, agreeing / 3), averaged over the subsets without one annotator.

    With ten annotators, 0, 1, 2, 3, 4 agreeing ones give 0, 0.3, 0.6, 0.9, 1. The formula is the same for other
    numbers; with fewer than four annotators, even full agreement gives less than 1 (3: 2/3, 2: 1/3, 1: 0).

    As in the official script, *if all annotators typed the same, nothing is normalised*, neither their answers nor
    the prediction: if all typed "yes", both "Yes" and "yes." are wrong. Its author's reason is answers that are read
    off the picture (GT-Vision-Lab/VQA, issue 14). Older revisions of the script, and the copy in
    Cloud-CV/VQA-Challenge, always normalise the prediction, but only the punctuation of the annotators' answers. An
    annotator is left out by position, while the script leaves out all records equal to that one; in the official files
    `answer_id` tells them apart, so the result is the same.

    Args:
        prediction: the answer, as the model wrote it.
        answers: what each annotator typed.

    Returns:
        A number in 0..1.

    Raises:
        ValueError: there are no annotators.
    """
    if not answers:
        raise ValueError("the accuracy of an answer needs at least one annotator's")
    given, wanted = strip_answer(prediction), [strip_answer(answer) for answer in answers]
    if len(set(wanted)) > 1:
        given, wanted = normalise_answer(given), [normalise_answer(answer) for answer in wanted]
    count, agree = len(wanted), wanted.count(given)
    # The `agree` subsets that lack one of those who agree, and the others; in whole thirds, so 4 of 10 is 1.0.
    thirds = agree * min(_ENOUGH, agree - 1) + (count - agree) * min(_ENOUGH, agree)
    return thirds / (_ENOUGH * count)


def vqa_accuracy(predictions: Mapping[int, str], annotations: Sequence[Annotation]) -> VqaScores:
    """VQA accuracy of a split, overall and by type.

    Args:
        predictions: from question_id to answer, for exactly the annotated questions.
        annotations: of the split, see `read_vqa_annotations`.

    Raises:
        DataError: the questions of predictions and annotations differ, a question is annotated twice, or it has a
            single annotator, for whom the accuracy is undefined.
        ValueError: there are no questions.
    """
    if not annotations:
        raise ValueError("VQA accuracy of no questions: the split is empty")
    _same_questions(predictions, [annotation.question_id for annotation in annotations])
    by_question: dict[int, float] = {}
    answer_types: dict[str, list[float]] = defaultdict(list)
    question_types: dict[str, list[float]] = defaultdict(list)
    for one in annotations:
        if len(one.answers) < 2:  # its score would be 0 whatever the answer
            raise DataError(
                f"question {one.question_id} has {len(one.answers)} answers: VQA accuracy needs 2 or more "
                "annotators, take exact_match where there is one",
                "too few annotators",
            )
        accuracy = question_accuracy(predictions[one.question_id], one.answers)
        by_question[one.question_id] = accuracy
        answer_types[one.answer_type].append(accuracy)
        question_types[one.question_type].append(accuracy)
    return VqaScores(
        _percent(list(by_question.values())), _percent_each(answer_types), _percent_each(question_types), by_question
    )


def exact_match(predictions: Sequence[str], answers: Sequence[str], questions: Sequence[str]) -> ExactMatchScores:
    """Percentage of predictions that equal the answer, in lower case and stripped; overall and by question word.

    A question's word is its first run of letters, so "What's" counts as "what".

    Args:
        predictions: one for each question.
        answers: the right answers, in the same order.
        questions: their texts, in the same order.

    Raises:
        ValueError: the three differ in length, or are empty.
    """
    if not len(predictions) == len(answers) == len(questions):
        raise ValueError(
            f"{len(predictions)} predictions, {len(answers)} answers and {len(questions)} questions: "
            "they should be as many"
        )
    if not questions:
        raise ValueError("exact match of no questions: the split is empty")
    correct = tuple(
        given.strip().lower() == wanted.strip().lower() for given, wanted in zip(predictions, answers, strict=True)
    )
    groups: dict[str, list[float]] = {word: [] for word in (*QUESTION_WORDS, OTHER)}
    for question, right in zip(questions, correct, strict=True):
        groups[_question_word(question)].append(float(right))
    present = {word: values for word, values in groups.items() if values}
    return ExactMatchScores(
        _percent([float(right) for right in correct]),
        {word: _percent(values) for word, values in present.items()},
        {word: len(values) for word, values in present.items()},
        correct,
    )


def _same_questions(predictions: Mapping[int, str], asked: Sequence[int]) -> None:
    wanted = Counter(asked)
    twice = [number for number, count in wanted.items() if count > 1]
    if twice:
        raise DataError(f"question {twice[0]} is annotated twice: remove one of the records", "a question twice")
    lacking = [number for number in asked if number not in predictions]
    extra = [number for number in predictions if number not in wanted]
    faults = []
    if lacking:
        faults.append(f"lack {len(lacking)} of {len(asked)} questions ({_first(lacking)})")
    if extra:
        faults.append(f"have {len(extra)} that are not asked ({_first(extra)})")
    if faults:
        raise DataError(f"the predictions {' and '.join(faults)}: are they of this split?", "other questions")


def _first(numbers: Sequence[int]) -> str:
    more = ", …" if len(numbers) > _NAMED else ""
    return ", ".join(str(number) for number in numbers[:_NAMED]) + more


def _question_word(question: str) -> str:
    letters = re.search(r"[a-z]+", question.lower())
    return letters.group() if letters is not None and letters.group() in QUESTION_WORDS else OTHER


def _percent(values: Sequence[float]) -> float:
    return 100.0 * sum(values) / len(values)


def _percent_each(groups: Mapping[str, list[float]]) -> dict[str, float]:
    return {name: _percent(groups[name]) for name in sorted(groups)}
