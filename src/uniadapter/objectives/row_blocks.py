"""A contrastive loss a block of rows at a time, so that not all similarities of a large batch exist at once."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from transformers import PreTrainedModel

from uniadapter.model.recomputing import recomputed

SIMILARITIES = 1 << 24  # of a block: 64 MB in float32, and a few times that while its softmax is computed


def mean_over_rows(
    model: PreTrainedModel, loss: Callable[[slice, Tensor], Tensor], feature: Tensor, columns: int, at_once: int
) -> Tensor:
    """A loss that is a mean over rows, from blocks of them whose similarities are computed again in the backward pass.

    Args:
        model: whose features are compared.
        loss: the mean over some rows, given their slice and their features.
        feature: of all n rows, [n, ...].
        columns: with how many others each row is compared.
        at_once: rows of a block at least; more where they have few columns. 0 takes all in one.

    Returns:
        The loss, a scalar; of no rows, what the function gives for none.
    """
    count = len(feature)
    block = max(at_once, SIMILARITIES // max(1, columns))
    if not at_once or count <= block:
        return loss(slice(0, count), feature)
    total = feature.new_zeros(())
    for low in range(0, count, block):
        own = slice(low, min(low + block, count))
        part = recomputed(model, lambda rows, own=own: loss(own, rows), feature[own])
        total = total + part * ((own.stop - low) / count)
    return total
