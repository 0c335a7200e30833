"""Selection of a dozen test examples for a run's page, with results before and after training."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

from uniadapter import report
from uniadapter.data.media.images import VisualSource, load_picture
from uniadapter.data.questions import QuestionSplit
from uniadapter.data.splits import RetrievalSplit
from uniadapter.evaluation.answering import Prediction
from uniadapter.evaluation.retrieval import RetrievalResult
from uniadapter.tasks import Result

COUNT = 12
STAYED_RIGHT, CORRECTED, WRONG = "right before and after", "corrected by training", "wrong after training"

Right = Callable[[int], tuple[bool, bool]]  # row to whether it is right (before, after) training


def select_examples(
    split: RetrievalSplit, before: Result, after: Result, frames: int = 0
) -> list[report.QueryExample | report.TextExample]:
    """Examples of a split: the first one that stayed right, was corrected, and is wrong; the others evenly spaced.

    The first three have a `reason`. Captions are not right or wrong, so all of them are evenly spaced.

    Args:
        split: the test split.
        before: results before training.
        after: results after training.
        frames: frames of a clip that the model sees, which are shown; 0 if unknown.
    """
    if isinstance(split, QuestionSplit):

        def answered(row: int) -> tuple[bool, bool]:
            right = split.answers[row]
            return before.detail[row].answer.lower() in right, after.detail[row].answer.lower() in right

        chosen = _chosen(len(split.texts), answered if all(split.answers) else None)
        return [
            _question(split, row, before.detail[row], after.detail[row], why, frames) for row, why in chosen.items()
        ]
    if isinstance(after.detail, RetrievalResult):

        def found(text: int) -> tuple[bool, bool]:
            return bool(before.detail.text_ranks[text] == 1), bool(after.detail.text_ranks[text] == 1)

        chosen = _chosen(len(split.texts), found)
        return [_query(split, text, before.detail, after.detail, why, frames) for text, why in chosen.items()]
    owned = split.visual_texts()
    return [
        report.TextExample(
            _visual(split.visuals[visual]), "", [split.texts[text] for text in owned[visual]],
            [(before.detail[visual], None)], [(after.detail[visual], None)], frames=frames,
        )
        for visual in _chosen(len(split.visuals), None)
    ]  # fmt: skip


def _chosen(total: int, right: Right | None) -> dict[int, str]:
    """Rows to show, each with the reason for its selection, "" for the evenly spaced ones."""
    rows: dict[int, str] = {}
    for why, wanted in ((STAYED_RIGHT, (True, True)), (CORRECTED, (False, True)), (WRONG, (None, False))):
        for row in range(total if right else 0):
            before, after = right(row)  # type: ignore[misc]
            if after == wanted[1] and wanted[0] in (None, before):
                rows[row] = why
                break
    spread = [row for row in range(0, total, max(1, total // COUNT)) if row not in rows]
    return {**rows, **dict.fromkeys(spread[: COUNT - len(rows)], "")}


def _visual(source: VisualSource) -> Path | bytes:
    """A visual's file, or the PNG bytes of a dataset's picture."""
    if isinstance(source, Path):
        return source
    buffer = io.BytesIO()
    load_picture(source, "").save(buffer, "PNG")
    return buffer.getvalue()


def _question(
    split: QuestionSplit, row: int, before: Prediction, after: Prediction, why: str, frames: int
) -> report.TextExample:
    return report.TextExample(
        _visual(split.visuals[split.text_visual[row]]), split.texts[row], list(split.answers[row]),
        before.ranked or [(before.answer, None)], after.ranked or [(after.answer, None)], why,
        frames=frames,
    )  # fmt: skip


def _query(
    split: RetrievalSplit, text: int, before: RetrievalResult, after: RetrievalResult, why: str, frames: int
) -> report.QueryExample:
    return report.QueryExample(
        query=split.texts[text],
        before=_ranked(split, text, before, frames),
        after=_ranked(split, text, after, frames),
        rank_before=int(before.text_ranks[text]),
        rank_after=int(after.text_ranks[text]),
        right=_visual(split.visuals[split.text_visual[text]]),
        reason=why,
    )


def _ranked(split: RetrievalSplit, text: int, result: RetrievalResult, frames: int) -> list[report.RankedItem]:
    """The top five visuals, with frame weights for videos."""
    order, weights = result.text_order[text, :5].tolist(), result.frame_weights[text]
    moving, owner, near = weights.shape[-1] > 1, split.text_visual[text], _hard_negatives(split, text)
    return [
        report.RankedItem(
            _visual(split.visuals[i]),
            correct=i == owner,
            frame_weights=weight.tolist() if moving else (),
            caption=_first_caption(split, i),
            frames=frames,
            hard_negative=i in near,
        )
        for i, weight in zip(order, weights, strict=False)
    ]


def _hard_negatives(split: RetrievalSplit, text: int) -> set[int]:
    """Other visuals of a text's group, where the annotation file names groups."""
    if not split.text_group or split.text_group[text] is None:
        return set()
    group = split.text_group[text]
    of_group = {v for v, other in zip(split.text_visual, split.text_group, strict=True) if other == group}
    return of_group - {split.text_visual[text]}


def _first_caption(split: RetrievalSplit, visual: int) -> str:
    """The first caption of a visual."""
    return next((text for text, owner in zip(split.texts, split.text_visual, strict=True) if owner == visual), "")
