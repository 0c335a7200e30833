"""CLIP's loss: each text picks its visual among all of the batch, each visual its text.

Source: CLIP (arXiv 2103.00020, section 2.3 and figure 3). Where several rows show the same visual, they share the
target evenly, as in BLIP's loss (`contrastive.py`), whose queue and momentum encoder this one has not.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from uniadapter.objectives.contrastive import hard_targets

GREATEST_SCALE = 100.0  # CLIP's clip of the factor on similarities, which it learns


def softmax_loss(to_visual: Tensor, to_text: Tensor, ids: Tensor, gallery_ids: Tensor, scale: Tensor | float) -> Tensor:
    """The mean of text-to-visual and visual-to-text cross-entropy over the pairs of all processes.

    Each process's loss times its `Share.weight` has the whole batch's loss as its mean. It is computed in float32
    (float64 stays) whatever autocast says.

    Args:
        to_visual: [n, G] similarities of this process's n texts and the visuals of all processes, dot products of unit
            features; gathered with their gradients.
        to_text: [n, G] of this process's n visuals and the texts of all processes.
        ids: [n] int64, the visual of each of this process's pairs; each is in `gallery_ids` at least once.
        gallery_ids: [G] int64 of all pairs.
        scale: factor on the similarities, the exponential of CLIP's `logit_scale`; a number or a tensor that may learn.

    Returns:
        A scalar; 0, still attached to everything, where this process has no pairs.

    Raises:
        ValueError: there is not one id for each row and column.

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
    if not len(ids):  # a gathered gallery must pass on the others' gradients all the same
        return (to_visual.sum() + to_text.sum()) * scale
    with torch.autocast(to_visual.device.type, enabled=False):
        rows = [one if one.dtype == torch.float64 else one.float() for one in (to_visual, to_text)]
        targets = hard_targets(ids, gallery_ids, rows[0].dtype)
        return (F.cross_entropy(rows[0] * scale, targets) + F.cross_entropy(rows[1] * scale, targets)) / 2
