"""A dozen queries, questions or captions of a test split for a run's page, before and after."""

from __future__ import annotations

import io
from pathlib import Path

from uniadapter import report
from uniadapter.data.images import Source, load_picture
from uniadapter.data.questions import QuestionSplit
from uniadapter.data.splits import RetrievalSplit
from uniadapter.evaluation.answering import Prediction
from uniadapter.evaluation.retrieval import RetrievalResult
from uniadapter.jobs import Result

COUNT = 12


def examples_of(split: RetrievalSplit, before: Result, after: Result) -> list[report.QueryExample | report.TextExample]:
    """Evenly spread over the split, never chosen by result."""
    if isinstance(split, QuestionSplit):
        return [_question(split, row, before.detail[row], after.detail[row]) for row in _spread(len(split.texts))]
    if isinstance(after.detail, RetrievalResult):
        return [_query(split, text, before.detail, after.detail) for text in _spread(len(split.texts))]
    owned = split.visual_texts()
    return [
        report.TextExample(
            _shown(split.visuals[visual]), "", [split.texts[text] for text in owned[visual]],
            [(before.detail[visual], None)], [(after.detail[visual], None)],
        )
        for visual in _spread(len(split.visuals))
    ]  # fmt: skip


def _shown(source: Source) -> Path | bytes:
    """A visual for the page: its file, or the bytes of a dataset's picture."""
    if isinstance(source, Path):
        return source
    buffer = io.BytesIO()
    load_picture(source, "").save(buffer, "PNG")
    return buffer.getvalue()


def _spread(total: int) -> range:
    return range(0, total, max(1, total // COUNT))[:COUNT]


def _question(split: QuestionSplit, row: int, before: Prediction, after: Prediction) -> report.TextExample:
    return report.TextExample(
        _shown(split.visuals[split.text_visual[row]]), split.texts[row], list(split.answers[row]),
        before.ranked or [(before.answer, None)], after.ranked or [(after.answer, None)],
    )  # fmt: skip


def _query(split: RetrievalSplit, text: int, before: RetrievalResult, after: RetrievalResult) -> report.QueryExample:
    return report.QueryExample(
        query=split.texts[text],
        before=_ranked(split, text, before),
        after=_ranked(split, text, after),
        rank_before=int(before.text_ranks[text]),
        rank_after=int(after.text_ranks[text]),
        right=_shown(split.visuals[split.text_visual[text]]),
    )


def _ranked(split: RetrievalSplit, text: int, result: RetrievalResult) -> list[report.RankedItem]:
    """The top five, with the weight of each frame where there are several and they are weighed."""
    order, weights = result.text_order[text, :5].tolist(), result.frame_weights[text]
    moving, owner = weights.shape[-1] > 1, split.text_visual[text]
    return [
        report.RankedItem(_shown(split.visuals[i]), correct=i == owner, frame_weights=weight.tolist() if moving else ())
        for i, weight in zip(order, weights, strict=False)
    ]
