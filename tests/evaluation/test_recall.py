"""Ranks against a naive version that sorts, over random scores full of ties."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from uniadapter.evaluation import recall
from uniadapter.evaluation.recall import (
    dual_softmax,
    ranks,
    rerank_order,
    reranked_ranks,
    retrieval_metrics,
    top_candidates,
)


def naive_rank(scores: list[tuple[float, ...]], right: set[int]) -> int:
    """Sort everything, wrong items first among equals, and look where the first right one is."""
    order = sorted(range(len(scores)), key=lambda item: (tuple(-part for part in scores[item]), item in right))
    return 1 + next(place for place, item in enumerate(order) if item in right)


def draw(case: int) -> tuple[torch.Generator, Tensor, list[list[int]]]:
    """Scores of few distinct values, and one to three right items a query, some named twice."""
    generator = torch.Generator().manual_seed(case)
    queries, gallery = int(torch.randint(1, 12, (), generator=generator)), case % 9 + 1
    scores = torch.randint(-2, 3, (queries, gallery), generator=generator) / 3
    counts = torch.randint(1, 4, (queries,), generator=generator).tolist()
    return generator, scores, [torch.randint(gallery, (n,), generator=generator).tolist() for n in counts]


def as_mask(positives: list[list[int]], scores: Tensor) -> Tensor:
    """The same right items as a mask."""
    mask = torch.zeros(scores.shape, dtype=torch.bool)
    for query, items in enumerate(positives):
        mask[query, items] = True
    return mask


@pytest.fixture(params=[1 << 24, 7], ids=["whole", "chunks"])
def _chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recall, "_CHUNK_ITEMS", request.param)


@pytest.mark.usefixtures("_chunk")
@pytest.mark.parametrize("case", range(30))
def test_ranks_equal_sorting(case: int) -> None:
    """Lists, masks and single indices agree with the specification."""
    _, scores, positives = draw(case)
    expected = [
        naive_rank([(float(one),) for one in row], set(right)) for row, right in zip(scores, positives, strict=True)
    ]
    assert ranks(scores, positives).tolist() == expected
    assert ranks(scores, as_mask(positives, scores)).tolist() == expected
    assert ranks((scores * 3).long(), positives).tolist() == expected
    single = torch.tensor([items[0] for items in positives])
    assert torch.equal(ranks(scores, single), ranks(scores, [[int(one)] for one in single]))


@pytest.mark.usefixtures("_chunk")
@pytest.mark.parametrize("case", range(40))
def test_reranked_ranks_equal_sorting_two_tiers(case: int) -> None:
    """Candidates by their scores, the rest behind them by ITC, ties against the model in both."""
    generator, itc, positives = draw(case)
    candidates = top_candidates(itc, int(torch.randint(0, 12, (), generator=generator)))
    scores = torch.randint(-2, 3, candidates.shape, generator=generator).float() * 100
    expected = []
    for query, row in enumerate(itc):
        tiers: list[tuple[float, ...]] = [(0.0, float(one)) for one in row]
        for item, score in zip(candidates[query].tolist(), scores[query].tolist(), strict=True):
            tiers[item] = (1.0, score)
        expected.append(naive_rank(tiers, set(positives[query])))
    assert reranked_ranks(itc, candidates, scores, positives).tolist() == expected


@pytest.mark.usefixtures("_chunk")
@pytest.mark.parametrize("case", range(10))
def test_rerank_order_agrees_with_the_ranks_without_ties(case: int) -> None:
    """A permutation in which each item stands at its rank."""
    generator = torch.Generator().manual_seed(case)
    itc = torch.rand(5, 9, generator=generator)
    candidates = top_candidates(itc, case)
    scores = torch.rand(candidates.shape, generator=generator)
    order = rerank_order(itc, candidates, scores)
    assert torch.equal(order.sort(dim=1).values, torch.arange(9).expand(5, -1))
    for place in range(9):
        assert (reranked_ranks(itc, candidates, scores, order[:, place]) == place + 1).all()


def test_order_of_ties_is_stable() -> None:
    """Equal candidates keep their order, equal others the gallery's."""
    order = rerank_order(torch.zeros(1, 5), torch.tensor([[3, 1]]), torch.zeros(1, 2))
    assert order.tolist() == [[3, 1, 0, 2, 4]]


def test_reranking_nothing_or_by_the_same_scores_changes_nothing() -> None:
    """With k = 0, and with all candidates scored by ITC itself."""
    _, itc, positives = draw(35)
    plain = ranks(itc, positives)
    none = top_candidates(itc, 0)
    assert torch.equal(reranked_ranks(itc, none, torch.zeros(none.shape), positives), plain)
    every = top_candidates(itc, 10**6)
    assert every.shape == itc.shape
    assert torch.equal(reranked_ranks(itc, every, itc.gather(1, every), positives), plain)


def test_a_constant_score_earns_nothing() -> None:
    """Pessimistic ties: every wrong item stands before the right one."""
    assert ranks(torch.zeros(2, 7), torch.tensor([0, 3])).tolist() == [7, 7]
    assert ranks(torch.full((1, 7), -torch.inf), [[0, 1]]).tolist() == [6]


def test_unusable_input_is_an_error_that_names_the_query() -> None:
    """NaN, no right item, one outside the gallery, a candidate twice, counts that differ."""
    scores = torch.zeros(3, 4)
    broken = scores.clone()
    broken[2, 1] = torch.nan
    right = torch.zeros(3, dtype=torch.int64)
    with pytest.raises(ValueError, match="query 2: a score is NaN"):
        ranks(broken, right)
    with pytest.raises(ValueError, match="query 1 has no right item"):
        ranks(scores, [[0], [], [1]])
    with pytest.raises(ValueError, match=r"query 1: right item 4 is not in 0\.\.3"):
        ranks(scores, [[0], [4], [1]])
    with pytest.raises(ValueError, match="2 queries"):
        ranks(scores, [[0], [1]])
    candidates = torch.tensor([[0, 1], [2, 2], [1, 3]])
    with pytest.raises(ValueError, match="query 1 names a candidate twice"):
        reranked_ranks(scores, candidates, torch.zeros(3, 2), right)
    matching = torch.tensor([[0.0, torch.nan], [0.0, 0.0], [0.0, 0.0]])
    with pytest.raises(ValueError, match="query 0: a matching score is NaN"):
        reranked_ranks(scores, torch.tensor([[0, 1]] * 3), matching, right)


def test_metrics_of_known_ranks() -> None:
    """Percentages, the median of an even and an odd number, the mean."""
    metrics = retrieval_metrics(torch.tensor([1, 2, 5, 6, 10, 11, 1, 40]))
    assert metrics == {"r@1": 25.0, "r@5": 50.0, "r@10": 75.0, "median_rank": 5.5, "mean_rank": 9.5}
    assert retrieval_metrics(torch.tensor([7, 1, 3]))["median_rank"] == 3
    with pytest.raises(ValueError, match="no queries"):
        retrieval_metrics(torch.empty(0, dtype=torch.int64))


def test_dual_softmax_is_the_naive_product_and_the_same_from_both_sides() -> None:
    itc = torch.randn(4, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64) / 10
    found = dual_softmax(itc, 0.05)
    for query in range(4):
        for item in range(3):
            value = (itc[query, item] / 0.05).exp()
            expected = value / (itc[query] / 0.05).exp().sum() * value / (itc[:, item] / 0.05).exp().sum()
            assert found[query, item] == pytest.approx(float(expected))
    assert torch.allclose(dual_softmax(itc.T, 0.05).T, found)
