"""Ranks and recall of retrieval, with and without reranking: pure functions on score matrices.

Protocol: BLIP's retrieval evaluation (arXiv 2201.12086), used by UniAdapter: the k gallery items with the
best contrastive (ITC) similarity are ordered by their matching (ITM) scores; the others follow in ITC order.
Ties count against the model: a wrong item with the score of the right one ranks before it, so that a constant
score gets no recall. If a query has several right items (five captions of one picture), the best one counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from uniadapter.errors import NonFiniteError

# The right items of each query: a mask [Q, G], one index per query [Q], or a sequence of indices
# for each query.
Positives = Tensor | Sequence[Sequence[int]]

FEWEST = 50  # pictures or videos of which it can be told whether they are found by chance
_CHUNK_ITEMS = 1 << 24  # scores processed at once, which takes some tens of megabytes


def ranks(scores: Tensor, positives: Positives) -> Tensor:
    """The rank of each query's best right item, from 1; wrong items with at least its score rank before it.

    Args:
        scores: [Q, G], higher is better; -inf is allowed, NaN is not.
        positives: bool [Q, G]; or int64 [Q], one right item each; or for each query a sequence of indices.

    Returns:
        [Q] int64 in 1..G, on the scores' device.

    Raises:
        NonFiniteError: a score is NaN.
        ValueError: a query has no right item, or an index lies outside the gallery.
    """
    right = _Right.of(positives, scores)
    result = torch.empty(scores.shape[0], dtype=torch.int64, device=scores.device)
    for rows in _chunks(*scores.shape):
        mask = right.mask(rows)
        result[rows] = 1 + _wrong_above(_numbers(scores[rows], "score", rows), mask)
    return result


def dual_softmax(itc: Tensor, temperature: float = 0.01) -> Tensor:
    """Similarities as the product of their softmax over the gallery and over the queries (CAMoE, arXiv 2109.04290).

    It is transductive: each score depends on all queries of the set.

    Args:
        itc: [Q, G] cosine similarities.
        temperature: of both softmaxes; 0.01 is that of CLIP, for which the method was published.

    Returns:
        [Q, G] in 0..1; symmetric in queries and gallery.
    """
    return torch.softmax(itc / temperature, dim=0) * torch.softmax(itc / temperature, dim=1)


def reranked_ranks(itc: Tensor, candidates: Tensor, candidate_scores: Tensor, positives: Positives) -> Tensor:
    """As `ranks`, after the candidates were sorted by their matching scores; all other items rank after them.

    Args:
        itc: [Q, G] contrastive similarities.
        candidates: [Q, k] int64, distinct items of the gallery, see `top_candidates`; k = 0 reranks nothing.
        candidate_scores: [Q, k], higher is better; compared only among one query's candidates.
        positives: as for `ranks`.

    Returns:
        [Q] int64 in 1..G; wrong items rank first among equal scores.

    Raises:
        ValueError: as `ranks`, or a query names a candidate twice.
    """
    right = _Right.of(positives, itc)
    result = torch.empty(itc.shape[0], dtype=torch.int64, device=itc.device)
    for rows in _chunks(*itc.shape):
        mask, chosen = right.mask(rows), candidates[rows].to(itc.device)
        scores = _numbers(candidate_scores[rows].to(itc.device), "matching score", rows)
        rest = ~_chosen_mask(chosen, itc.shape[1], rows)
        right_chosen = mask.gather(1, chosen)
        ahead = _wrong_above(scores, right_chosen)
        behind = chosen.shape[1] + _wrong_above(_numbers(itc[rows], "similarity", rows), mask & rest, ~mask & rest)
        result[rows] = 1 + torch.where(right_chosen.any(dim=1), ahead, behind)
    return result


def rerank_order(itc: Tensor, candidates: Tensor, candidate_scores: Tensor) -> Tensor:
    """The gallery in ranked order, for every query: candidates by their scores, then other items by ITC.

    For display; unlike in `reranked_ranks`, equal scores keep the order of the candidates, then that of the gallery.

    Args:
        itc: [Q, G] contrastive similarities.
        candidates: [Q, k] int64, distinct items.
        candidate_scores: [Q, k].

    Returns:
        [Q, G] int64, each row a permutation of the gallery.
    """
    result = torch.empty(itc.shape, dtype=torch.int64, device=itc.device)
    for rows in _chunks(*itc.shape):
        chosen = candidates[rows].to(itc.device)
        scores = _numbers(candidate_scores[rows].to(itc.device), "matching score", rows)
        first = chosen.gather(1, scores.argsort(dim=1, descending=True, stable=True))
        order = _numbers(itc[rows], "similarity", rows).argsort(dim=1, descending=True, stable=True)
        rest = ~_chosen_mask(chosen, itc.shape[1], rows).gather(1, order)
        result[rows] = torch.cat([first, order[rest].view(order.shape[0], -1)], dim=1)
    return result


def top_candidates(itc: Tensor, k: int) -> Tensor:
    """The k gallery items with the highest similarity, best first; `torch.topk` chooses among equal ones.

    Args:
        itc: [Q, G] contrastive similarities.
        k: number of candidates, limited to the gallery's size.

    Returns:
        [Q, min(k, G)] int64.
    """
    k = max(0, min(k, itc.shape[1]))
    result = torch.empty((itc.shape[0], k), dtype=torch.int64, device=itc.device)
    for rows in _chunks(*itc.shape):
        result[rows] = _numbers(itc[rows], "similarity", rows).topk(k, dim=1).indices
    return result


def retrieval_metrics(ranks: Tensor) -> dict[str, float]:
    """Recall at 1, 5 and 10 in percent, and the median and mean rank.

    Args:
        ranks: [Q] from `ranks` or `reranked_ranks`.

    Returns:
        `r@1`, `r@5`, `r@10` in 0..100, `median_rank` (for an even number of queries, the mean of the
        middle two) and `mean_rank`, both at best 1.

    Raises:
        ValueError: there are no queries.
    """
    count = ranks.shape[0]
    if count == 0:
        raise ValueError("retrieval metrics of no queries: the split is empty")
    ordered = ranks.sort().values.double()
    metrics = {f"r@{k}": 100.0 * int((ranks <= k).sum()) / count for k in (1, 5, 10)}
    metrics["median_rank"] = float(ordered[(count - 1) // 2] + ordered[count // 2]) / 2
    metrics["mean_rank"] = float(ordered.mean())
    return metrics


@dataclass(frozen=True)
class _Right:
    """The right items of all queries, as a mask or as (query, item) pairs sorted by query."""

    dense: Tensor | None
    query: Tensor
    item: Tensor
    gallery: int

    @classmethod
    def of(cls, positives: Positives, scores: Tensor) -> _Right:
        """From any form of positives, checked, on the device of the scores."""
        queries, gallery = scores.shape
        if len(positives) != queries:
            raise ValueError(f"positives are given for {len(positives)} queries, scores for {queries}")
        none = torch.empty(0, dtype=torch.int64, device=scores.device)
        if isinstance(positives, Tensor) and positives.dtype == torch.bool:
            if positives.shape != scores.shape:
                raise ValueError(f"the mask of positives is {tuple(positives.shape)}, scores {tuple(scores.shape)}")
            return cls(positives.to(scores.device), none, none, gallery)
        if isinstance(positives, Tensor):
            query, item = torch.arange(queries), positives.cpu()
        else:
            query = torch.repeat_interleave(torch.tensor([len(one) for one in positives], dtype=torch.int64))
            item = torch.tensor([index for one in positives for index in one], dtype=torch.int64)
        outside = (item < 0) | (item >= gallery)
        if bool(outside.any()):
            first = int(outside.nonzero()[0, 0])
            raise ValueError(f"query {int(query[first])}: right item {int(item[first])} is not in 0..{gallery - 1}")
        return cls(None, query.to(scores.device), item.to(scores.device), gallery)

    def mask(self, rows: slice) -> Tensor:
        """Bool [rows, G] of the right items; every row has one, or `ValueError`."""
        if self.dense is not None:
            mask = self.dense[rows]
        else:
            first, last = torch.searchsorted(self.query, self.query.new_tensor([rows.start, rows.stop])).tolist()
            mask = torch.zeros((rows.stop - rows.start, self.gallery), dtype=torch.bool, device=self.query.device)
            mask[self.query[first:last] - rows.start, self.item[first:last]] = True
        missing = ~mask.any(dim=1)
        if bool(missing.any()):
            raise ValueError(f"query {rows.start + int(missing.nonzero()[0, 0])} has no right item in the gallery")
        return mask


def is_at_chance(ranks: Tensor, gallery: int) -> bool:
    """Whether ranks are no better than those of a shuffled gallery: their mean is within three standard errors of it.

    Args:
        ranks: of each query's best positive, from 1, [queries].
        gallery: number of candidates.
    """
    if gallery < 2:
        return False
    place = (ranks.double().mean() - 1) / (gallery - 1)  # 0 is the best, a half is chance
    independent = min(len(ranks), gallery)  # the captions of one picture rank it alike
    return float(place) > 0.5 - 3 * (12 * independent) ** -0.5


def is_coin_toss(right: Tensor) -> bool:
    """Whether choices between two are right no more often than by chance: within three standard errors of a half.

    Args:
        right: whether each is, bool [choices].
    """
    return len(right) == 0 or float(right.double().mean()) <= 0.5 + 1.5 * len(right) ** -0.5


def _wrong_above(scores: Tensor, right: Tensor, wrong: Tensor | None = None) -> Tensor:
    """Number of wrong items that score at least as much as the best right one: [q, G] and masks to [q] int64."""
    if scores.shape[1] == 0:
        return torch.zeros(scores.shape[0], dtype=torch.int64, device=scores.device)
    best = scores.masked_fill(~right, -torch.inf).amax(dim=1, keepdim=True)
    return ((scores >= best) & (~right if wrong is None else wrong)).sum(dim=1)


def _chosen_mask(candidates: Tensor, gallery: int, rows: slice) -> Tensor:
    """Bool [q, G] of the candidates [q, k]."""
    mask = torch.zeros((candidates.shape[0], gallery), dtype=torch.bool, device=candidates.device)
    mask.scatter_(1, candidates, True)
    twice = mask.sum(dim=1) != candidates.shape[1]
    if bool(twice.any()):
        raise ValueError(f"query {rows.start + int(twice.nonzero()[0, 0])} names a candidate twice")
    return mask


def _numbers(scores: Tensor, what: str, rows: slice) -> Tensor:
    """Check that no score is NaN; integers become floats."""
    scores = scores if scores.is_floating_point() else scores.double()
    wrong = torch.isnan(scores).any(dim=1)
    if bool(wrong.any()):
        raise NonFiniteError(f"query {rows.start + int(wrong.nonzero()[0, 0])}: a {what} is NaN, so it has no rank")
    return scores


def _chunks(queries: int, gallery: int) -> Iterator[slice]:
    """Slices over the queries, each of a bounded number of scores."""
    step = max(1, _CHUNK_ITEMS // max(gallery, 1))
    for start in range(0, queries, step):
        yield slice(start, min(start + step, queries))
