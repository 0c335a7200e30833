"""Scores of a split of questions, whatever its questions have of answers."""

from __future__ import annotations

import pytest

from uniadapter.data.questions import QuestionSplit, answer_weights
from uniadapter.evaluation.answering import Prediction
from uniadapter.tasks.answering import score_answers


def split_of(*annotators: tuple[str, ...]) -> QuestionSplit:
    count = len(annotators)
    return QuestionSplit(
        "test", texts=["what is it"] * count, text_visual=[0] * count, question_ids=list(range(count)),
        answers=[answer_weights(own) for own in annotators], annotators=list(annotators), kinds=[""] * count,
        question_types=[""] * count,
    )  # fmt: skip


def said(*answers: str) -> list[Prediction]:
    return [Prediction(answer) for answer in answers]


@pytest.mark.parametrize(
    "annotators, answers, accuracy, right",
    [
        ([("red",), ("blue",)], ["red", "red"], 50.0, [1, 0]),
        ([("red",), (), ("blue",)], ["red", "", "blue"], 100.0, [1, 0, 1]),
        ([("red",) * 10, ("blue",)], ["red", "blue"], 100.0, [1, 1]),
        ([("red",) * 10, (), ("blue",)], ["red", "x", "x"], 50.0, [1, 0, 0]),
    ],
)
def test_questions_without_an_answer_or_with_one_among_many(
    annotators: list[tuple[str, ...]], answers: list[str], accuracy: float, right: list[int]
) -> None:
    split = split_of(*annotators)
    scores, each, headline = score_answers(split, said(*answers))
    assert scores["accuracy"] == accuracy
    assert each.tolist() == right
    missing = sum(not own for own in annotators)
    assert scores.get("unanswered", 0) == missing
    assert ("have no answer" in headline) == bool(missing)
    assert len(split.texts) == len(annotators)  # as it was


def test_a_split_without_answers_has_no_score() -> None:
    scores, each, headline = score_answers(split_of((), ()), said("a", "b"))
    assert (scores, each.tolist()) == ({}, [0, 0])
    assert "the file has no answers to compare with" in headline
