"""SigLIP's loss: an independent binary classification of every pair of a text and a visual.

Source: SigLIP (arXiv 2303.15343, section 3.2 and algorithm 1).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def sigmoid_loss(
    similarity: Tensor, ids: Tensor, gallery_ids: Tensor, scale: Tensor | float, bias: Tensor | float
) -> Tensor:
    """-log sigmoid(z (scale * similarity + bias)), summed over the visuals of all processes, the mean over texts.

    z is 1 if text and visual have the same id, else -1. Each process computes the rows of its own texts, so only
    visuals are gathered; the mean over processes of the loss times `Share.weight` is the loss of the whole batch.
    Computed in float32 (or float64) under autocast too.

    Args:
        similarity: [n, G] of this process's n texts and the visuals of all processes, dot products of unit features
            that were gathered with their gradients.
        ids: [n] int64, id of each text's visual.
        gallery_ids: [G] int64 of the visuals.
        scale: factor on the similarities, the exponential of SigLIP's `logit_scale`; a number or a tensor that may
            learn.
        bias: added to them, SigLIP's `logit_bias`.

    Returns:
        The loss, a scalar; 0, connected to the graph, if this process has no texts.

    Raises:
        ValueError: the number of ids does not match the rows and columns.

    Example:
        >>> import torch
        >>> from uniadapter.objectives.sigmoid import sigmoid_loss
        >>> similarity = torch.tensor([[0.5, 0.1], [0.2, 0.6]])
        >>> ids = torch.tensor([0, 1])
        >>> round(float(sigmoid_loss(similarity, ids, ids, scale=10.0, bias=-4.0)), 4)
        0.3079
    """
    if similarity.shape != (len(ids), len(gallery_ids)):
        raise ValueError(
            f"sigmoid loss got similarities {list(similarity.shape)} for {len(ids)} texts and {len(gallery_ids)} "
            "visuals: pass one id for each row and each column"
        )
    with torch.autocast(similarity.device.type, enabled=False):
        full = similarity if similarity.dtype == torch.float64 else similarity.float()
        logits = full * scale + bias
        sign = (ids[:, None] == gallery_ids[None]).to(logits.dtype) * 2 - 1
        return -F.logsigmoid(sign * logits).sum() / max(len(ids), 1)
