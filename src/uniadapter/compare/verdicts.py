"""Means with intervals, and verdicts on a reference against each other arm, from the correctness of each query."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from uniadapter.evaluation.compare import paired_bootstrap, verdict

Correct = dict[str, dict[str, list[Tensor]]]  # test set -> arm -> correctness of the queries, one tensor a seed


def means(correct: Correct) -> dict[str, dict[str, Any]]:
    """For each test set and arm the mean over queries and seeds, with its 95% interval, in points."""
    out: dict[str, dict[str, Any]] = {}
    for name, arms in correct.items():
        for arm, runs in arms.items():
            values = torch.stack(runs)
            interval = paired_bootstrap(values, torch.zeros_like(values))  # the difference to nothing is the mean
            out.setdefault(name, {})[arm] = {
                "mean": interval.mean, "interval_95": [interval.low, interval.high], "seeds": len(runs),
            }  # fmt: skip
    return out


def verdicts(correct: Correct, reference: str) -> dict[str, dict[str, Any]]:
    """For each test set the reference against every other arm, query by query, over the seeds that both have.

    Zero-shot has one run, which is that of every seed.
    """
    out: dict[str, dict[str, Any]] = {}
    for name, arms in correct.items():
        for other, runs in arms.items():
            if other == reference or reference not in arms:
                continue
            mine = arms[reference]
            count = len(mine) if other == "zero_shot" else min(len(mine), len(runs))
            ours = torch.stack(mine[:count])
            theirs = torch.stack(runs * count if other == "zero_shot" else runs[:count])
            interval = paired_bootstrap(ours, theirs)
            found = verdict(interval)
            out.setdefault(name, {})[other] = {
                "seeds": count, "verdict": found.text, "not_below": found.not_below,
                "difference": interval.mean, "interval_95": [interval.low, interval.high],
                reference: 100 * float(ours.mean()), other: 100 * float(theirs.mean()),
            }  # fmt: skip
    return out
