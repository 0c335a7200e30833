"""Image-text matching loss (ITM): a binary classification of positive pairs and hard negatives.

Source: BLIP (arXiv 2201.12086, section 3.2, after ALBEF, arXiv 2107.07651, section 3.2), as in UniAdapter's released
training code: for every pair, one negative visual for its text and one negative text for its visual are drawn from the
softmax of the features' similarities.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from uniadapter.errors import NonFiniteError
from uniadapter.processes import seeds as draws

NONE = -1  # drawn if every column has the row's own id


@dataclass(frozen=True)
class MatchingPairs:
    """Pairs for the matching head, and their labels.

    Args:
        pairs: [P, 2] int64 (text row, visual row): the positives, then each text with its negative visual,
            then each visual with its negative text.
        labels: [P] int64, 1 = match.
        left_out: number of missing negatives, for rows without another id: P = 3B - left_out.
    """

    pairs: Tensor
    labels: Tensor
    left_out: int


def negative_uniforms(seed: int, stream: int, epoch: int, sample_ids: Sequence[int] | Tensor) -> Tensor:
    """One number in [0, 1) for each sample, which does not depend on the process or batch that the sample is in.

    Args:
        seed: of the run.
        stream: `draws.NEGATIVE_VISUAL` or `draws.NEGATIVE_TEXT`.
        epoch: counted from 0.
        sample_ids: [B].

    Returns:
        [B] float64, on the CPU.
    """
    return torch.tensor([draws.uniform(seed, stream, epoch, int(one)) for one in sample_ids], dtype=torch.float64)


@torch.no_grad()
def draw_negatives(
    similarity: Tensor, ids: Tensor, gallery_ids: Tensor, uniforms: Tensor, keys: Tensor | None = None
) -> Tensor:
    """Draw for each row a column with another id, from the softmax over those columns.

    By inverse transform sampling, in float64 on the CPU, so that draws are the same on every device.

    Args:
        similarity: [B, G] logits: inner products of features, divided by the temperature. For text rows and visual
            columns, negative visuals are drawn; for visual rows and text columns, negative texts.
        ids: [B] int64 of the rows.
        gallery_ids: [G] int64 of the columns; one with the row's id is never drawn.
        uniforms: [B] in [0, 1), see `negative_uniforms`.
        keys: [G] sort keys of the columns, such as sample ids, so that draws do not depend on how a batch is divided
            among processes; None keeps the columns' order.

    Returns:
        [B] int64 columns, on the similarities' device; `NONE` (-1) for a row without a column of another id.

    Raises:
        NonFiniteError: a similarity is NaN or infinite.
    """
    device = similarity.device
    logits = similarity.detach().to("cpu", torch.float64)
    if not bool(torch.isfinite(logits).all()):
        row = int((~torch.isfinite(logits)).any(dim=1).nonzero()[0, 0])
        raise NonFiniteError(f"hard negatives: a similarity of row {row} is NaN or infinite")
    order = torch.arange(logits.shape[1]) if keys is None else torch.argsort(keys.cpu(), stable=True)
    allowed = ids.cpu()[:, None] != gallery_ids.cpu()[order][None]
    rows = allowed.any(dim=1)
    drawn = torch.full((logits.shape[0],), NONE, dtype=torch.int64)
    if bool(rows.any()):
        masked = logits[:, order].masked_fill(~allowed, -torch.inf)[rows]
        weights = torch.exp(masked - masked.amax(dim=1, keepdim=True))  # the largest is 1
        cumulative = weights.cumsum(dim=1)
        target = uniforms.to("cpu", torch.float64)[rows, None] * cumulative[:, -1:]
        # The first column whose cumulative sum exceeds the target. A uniform number rounded up to 1 would point beyond
        # the last column; then the last one with a positive weight is taken.
        found = torch.searchsorted(cumulative, target, right=True)[:, 0]
        last = torch.where(weights > 0, torch.arange(weights.shape[1]), 0).amax(dim=1)
        drawn[rows] = order[torch.minimum(found, last)]
    return drawn.to(device)


def matching_pairs(negative_visual: Tensor, negative_text: Tensor, first_row: int = 0) -> MatchingPairs:
    """The pairs of one batch: B positive ones, and the negatives that were drawn.

    Args:
        negative_visual: [B] int64, visual row drawn for each text, or `NONE`.
        negative_text: [B] int64, text row drawn for each visual, or `NONE`.
        first_row: index of the batch's first row among the rows that negatives are drawn from.
    """
    own = torch.arange(first_row, first_row + negative_visual.shape[0], device=negative_visual.device)
    has_visual, has_text = negative_visual != NONE, negative_text != NONE
    pairs = torch.cat(
        [
            torch.stack([own, own], dim=1),
            torch.stack([own, negative_visual], dim=1)[has_visual],
            torch.stack([negative_text, own], dim=1)[has_text],
        ]
    )
    labels = torch.zeros(pairs.shape[0], dtype=torch.int64, device=pairs.device)
    labels[: own.shape[0]] = 1
    return MatchingPairs(pairs, labels, 3 * own.shape[0] - pairs.shape[0])


def matching_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy over the pairs, in at least float32.

    Args:
        logits: [P, 2] of (no match, match).
        labels: [P] int64, 1 = match.

    Returns:
        The loss, a scalar; 0, connected to the graph, if there are no pairs.

    Example:
        >>> ua.matching_loss(torch.tensor([[0.0, 2.0], [1.0, -1.0]]), torch.tensor([1, 0]))
        tensor(0.1269)
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return F.cross_entropy(logits, labels) if labels.shape[0] else logits.sum() * 0
