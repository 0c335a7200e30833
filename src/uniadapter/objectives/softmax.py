"""CLIP's loss: symmetric cross-entropy over the similarities of all texts and visuals of a batch.

Source: CLIP (arXiv 2103.00020, section 2.3 and figure 3). If several rows have the same visual, the target is divided
evenly among them, as in BLIP's loss (`contrastive.py`); there is no queue and no momentum encoder.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from uniadapter.objectives.contrastive import hard_targets

GREATEST_SCALE = 100.0  # limit of the learned factor on similarities, as in CLIP


def softmax_loss(to_visual: Tensor, to_text: Tensor, ids: Tensor, gallery_ids: Tensor, scale: Tensor | float) -> Tensor:
    """The mean of text-to-visual and visual-to-text cross-entropy over the pairs of all processes.

    The mean over processes of the loss times `Share.weight` is the loss of the whole batch. Computed in float32 (or
    float64) under autocast too.

    Args:
        to_visual: [n, G] similarities of this process's n texts and the visuals of all processes, dot products of unit
            features that were gathered with their gradients.
        to_text: [n, G] of this process's n visuals and the texts of all processes.
        ids: [n] int64, id of the visual of each of this process's pairs; each is in `gallery_ids` at least once.
        gallery_ids: [G] int64 of all pairs.
        scale: factor on the similarities, the exponential of CLIP's `logit_scale`; a number or a tensor that may learn.

    Returns:
        The loss, a scalar; 0, connected to the graph, if this process has no pairs.

    Raises:
        ValueError: the number of ids does not match the rows and columns.

    Example:
        >>> import torch
        >>> from uniadapter.objectives.softmax import softmax_loss
        >>> similarity = torch.tensor([[0.5, 0.1], [0.2, 0.6]])
        >>> ids = torch.tensor([0, 1])
        >>> round(float(softmax_loss(similarity, similarity.T, ids, ids, scale=10.0)), 4)
        0.0229
    """
    wanted = (len(ids), len(gallery_ids))
    if to_visual.shape != wanted or to_text.shape != wanted:
        raise ValueError(
            f"softmax loss got similarities {list(to_visual.shape)} and {list(to_text.shape)} for {len(ids)} pairs "
            f"among {len(gallery_ids)}: pass one id for each row and each column"
        )
    if not len(ids):  # gathered features must pass gradients to other processes
        return (to_visual.sum() + to_text.sum()) * scale
    with torch.autocast(to_visual.device.type, enabled=False):
        rows = [one if one.dtype == torch.float64 else one.float() for one in (to_visual, to_text)]
        targets = hard_targets(ids, gallery_ids, rows[0].dtype)
        return (F.cross_entropy(rows[0] * scale, targets) + F.cross_entropy(rows[1] * scale, targets)) / 2
