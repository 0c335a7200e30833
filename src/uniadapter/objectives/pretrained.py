"""The contrastive losses of CLIP and SigLIP on a model, over the batches of all processes."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from transformers import PreTrainedModel

from uniadapter.model.dispatch import adapter_store
from uniadapter.model.encoding import similarity
from uniadapter.model.features import Texts, Visuals
from uniadapter.objectives.sigmoid import sigmoid_loss
from uniadapter.objectives.softmax import GREATEST_SCALE, softmax_loss
from uniadapter.processes.distributed import gather_rows


def pretrained_contrast(
    model: PreTrainedModel,
    kind: Literal["softmax", "sigmoid"],
    texts: Texts,
    visuals: Visuals,
    ids: Tensor,
    all_ids: Tensor,
    scale: Tensor,
    bias: Tensor,
) -> Tensor:
    """CLIP's or SigLIP's loss on this process's n pairs and the visuals and texts of all processes.

    Args:
        model: its family defines the similarity; frames are weighted if the active set is frame-aware.
        kind: "softmax" or "sigmoid".
        texts: n texts.
        visuals: n visuals.
        ids: [n] int64, id of each pair's visual.
        all_ids: [G] int64, the ids of all processes.
        scale: factor on similarities, a scalar.
        bias: added to them in the sigmoid loss, a scalar.

    Returns:
        The loss, a scalar, to be weighted by this process's share of the rows.
    """
    active = adapter_store(model).single
    weighted = active is not None and active.config.frame_aware
    gallery = gather_rows(visuals.feature, True)
    frames = gather_rows(visuals.frames, True) if weighted else None
    to_visual = similarity(model, texts.feature, gallery, frames)
    if kind == "sigmoid":
        return sigmoid_loss(to_visual, ids, all_ids, scale, bias)
    own = visuals.frames if weighted else None
    to_text = similarity(model, gather_rows(texts.feature, True), visuals.feature, own).T
    return softmax_loss(to_visual, to_text, ids, all_ids, scale.clamp(max=GREATEST_SCALE))
