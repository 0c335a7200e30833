"""The bootstrap against a naive one and against what is known of intervals; the verdict's words."""

from __future__ import annotations

import random

import pytest
import torch

from uniadapter.evaluation import compare
from uniadapter.evaluation.compare import Interval, paired_bootstrap, verdict


def correctness(seeds: int, queries: int, share: float, seed: int) -> torch.Tensor:
    """Random right and wrong answers."""
    return torch.rand(seeds, queries, generator=torch.Generator().manual_seed(seed)) < share


def test_agrees_with_a_naive_bootstrap() -> None:
    """Draw seeds and queries with replacement, one resample at a time."""
    a, b = correctness(3, 40, 0.7, 0), correctness(3, 40, 0.5, 1)
    difference = (a.double() - b.double()).tolist()
    generator, means = random.Random(0), []
    for _ in range(4000):
        rows = generator.choices(range(3), k=3)
        columns = generator.choices(range(40), k=40)
        means.append(100 * sum(difference[i][j] for i in rows for j in columns) / 120)
    means.sort()
    interval = paired_bootstrap(a, b)
    assert interval.mean == pytest.approx(100 * float(a.double().mean() - b.double().mean()))
    assert interval.low == pytest.approx(means[100], abs=1.0)
    assert interval.high == pytest.approx(means[-101], abs=1.0)


def test_one_seed_has_the_width_of_the_normal_interval() -> None:
    """1.96 standard errors to each side, for many queries."""
    a, b = correctness(1, 2000, 0.6, 2)[0], correctness(1, 2000, 0.5, 3)[0]
    error = 100 * float((a.double() - b.double()).std()) / 2000**0.5
    interval = paired_bootstrap(a, b)
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_pairing_removes_what_both_share() -> None:
    """Equal answers differ by exactly nothing, however hard the queries."""
    a = correctness(2, 100, 0.5, 4)
    assert paired_bootstrap(a, a) == Interval(0.0, 0.0, 0.0)
    assert verdict(paired_bootstrap(a, a)).text == "equal within 0.0"


def test_seeds_that_disagree_widen_the_interval() -> None:
    """A method that wins everything on one seed and loses it on the other is not above."""
    a = torch.tensor([[1.0] * 200, [0.0] * 200, [1.0] * 200])
    interval = paired_bootstrap(a, 1 - a)
    assert interval.low <= -100 / 3
    assert interval.high == 100


def test_is_reproducible_and_bounded_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same seed gives the same interval, another a near one; chunks only change the order of draws."""
    a, b = correctness(3, 50, 0.6, 5), correctness(3, 50, 0.5, 6)
    first = paired_bootstrap(a, b, samples=2000, seed=3)
    assert first == paired_bootstrap(a, b, samples=2000, seed=3)
    uneven = torch.rand(3, 50, generator=torch.Generator().manual_seed(7))
    assert paired_bootstrap(a, uneven, seed=3) != paired_bootstrap(a, uneven, seed=4)
    monkeypatch.setattr(compare, "_CHUNK_ITEMS", 60)
    chunked = paired_bootstrap(a, b, samples=2000, seed=3)
    assert chunked.low == pytest.approx(first.low, abs=2)


def test_unusable_input_is_an_error() -> None:
    """Shapes that differ, nothing to compare, values that are no numbers, no resamples."""
    a = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="two equal shapes"):
        paired_bootstrap(a, a[:1])
    with pytest.raises(ValueError, match="two equal shapes"):
        paired_bootstrap(a[:, :0], a[:, :0])
    with pytest.raises(ValueError, match="NaN"):
        paired_bootstrap(a, a / 0)
    with pytest.raises(ValueError, match="samples"):
        paired_bootstrap(a, a, samples=0)


@pytest.mark.parametrize(
    ("low", "high", "text", "not_below"),
    [
        (0.1, 2.0, "above", True),
        (-3.0, -0.2, "below", False),
        (-0.9, -0.2, "below", True),
        (-0.8, 1.21, "equal within 1.3", True),
        (-2.3, 0.5, "equal within 2.3", False),
        (-1.0, 0.3, "equal within 1.0", False),
        (0.0, 1.0, "equal within 1.0", True),
        (-0.3, 0.0, "equal within 0.3", True),
    ],
)
def test_verdict_in_words(low: float, high: float, text: str, not_below: bool) -> None:
    """Above or below only where 0 is excluded; not below where -1 is."""
    interval = Interval((low + high) / 2, low, high)
    judged = verdict(interval)
    assert (judged.text, judged.not_below, judged.interval) == (text, not_below, interval)
