"""Whether one method is better than another: a paired bootstrap over queries and seeds, and its verdict in words."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK_ITEMS = 1 << 22  # resampled values held at once
_POINTS = 100.0  # a fraction of 1 is 100 points


@dataclass(frozen=True)
class Interval:
    """A difference and its 95% interval, in points (hundredths, as recall and accuracy are given).

    Args:
        mean: the difference that was measured.
        low: 2.5% quantile of the resampled differences.
        high: 97.5% quantile.
    """

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """The conclusion from an interval.

    Args:
        text: "above", "below" or "equal within x", x in points, rounded up.
        not_below: whether the interval excludes a loss of 1 point or more.
        interval: of the difference.
    """

    text: str
    not_below: bool
    interval: Interval


def paired_bootstrap(a: Tensor, b: Tensor, samples: int = 10_000, seed: int = 0) -> Interval:
    """Estimate mean(a) - mean(b) and its interval, resampling the queries and, independently, the seeds.

    Paired: each resample takes the same queries and seeds from both methods, so the difficulty of a query cancels out.
    Percentile intervals (Efron and Tibshirani, 1993, chapter 13).

    Args:
        a: [seeds, queries] correctness 0/1 (bool, integer or float), or any value per query of which 1 is 100
            points; [queries] for one seed.
        b: the same for the other method.
        samples: number of resamples.
        seed: of the resampling.

    Returns:
        The difference and its 95% interval, in points.

    Raises:
        ValueError: the two differ in shape, are empty, or hold a NaN.
    """
    if a.shape != b.shape or a.dim() not in (1, 2) or a.numel() == 0:
        raise ValueError(
            f"a paired comparison needs two equal shapes [seeds, queries], not {tuple(a.shape)} and {tuple(b.shape)}"
        )
    if samples < 1:
        raise ValueError(f"a bootstrap of {samples} samples: it needs at least 1")
    difference = (a.detach().cpu().double() - b.detach().cpu().double()).view(-1, a.shape[-1])
    if not bool(torch.isfinite(difference).all()):
        raise ValueError("a paired comparison of values that are NaN or infinite")
    seeds, queries = difference.shape
    generator = torch.Generator().manual_seed(seed)
    step = max(1, _CHUNK_ITEMS // queries)
    means = []
    for start in range(0, samples, step):
        count = min(step, samples - start)
        drawn_seeds = torch.randint(seeds, (count, seeds), generator=generator)
        times = torch.zeros((count, seeds), dtype=torch.float64)
        times.scatter_add_(1, drawn_seeds, torch.ones_like(times))
        drawn_queries = torch.randint(queries, (count, queries), generator=generator)
        means.append((times @ difference / seeds).gather(1, drawn_queries).mean(dim=1))
    low, high = torch.quantile(torch.cat(means), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(_POINTS * float(difference.mean()), _POINTS * low, _POINTS * high)


def verdict(interval: Interval) -> Verdict:
    """Put an interval into words: "above" or "below" if it excludes 0, else "equal within" its larger end."""
    if interval.low > 0:
        text = "above"
    elif interval.high < 0:
        text = "below"
    else:
        # Rounded up, so that the statement holds; the small number allows for binary rounding.
        within = math.ceil(10 * max(-interval.low, interval.high) - 1e-9) / 10
        text = f"equal within {within:.1f}"
    return Verdict(text, interval.low > -1, interval)
