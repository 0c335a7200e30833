"""The contrastive losses of CLIP and SigLIP on a model, over the batches of all processes."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from transformers import PreTrainedModel

from uniadapter.model.dispatch import adapter_store
from uniadapter.model.encoding import similarity
from uniadapter.model.features import Texts, Visuals
from uniadapter.objectives.row_blocks import mean_over_rows
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
    at_once: int = 0,
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
        at_once: pairs whose similarities are computed at once, at least, see `mean_over_rows`; 0 means all.

    Returns:
        The loss, a scalar, to be weighted by this process's share of the rows.
    """
    active = adapter_store(model).single
    weighted = active is not None and active.config.frame_aware
    gallery = gather_rows(visuals.feature, True)
    frames = gather_rows(visuals.frames, True) if weighted else None
    all_texts = gather_rows(texts.feature, True) if kind == "softmax" else None

    def loss(own: slice, feature: Tensor) -> Tensor:
        to_visual = similarity(model, feature, gallery, frames)
        if all_texts is None:
            return sigmoid_loss(to_visual, ids[own], all_ids, scale, bias)
        seen = visuals.frames[own] if weighted else None
        to_text = similarity(model, all_texts, visuals.feature[own], seen).T
        return softmax_loss(to_visual, to_text, ids[own], all_ids, scale.clamp(max=GREATEST_SCALE))

    return mean_over_rows(model, loss, texts.feature, len(all_ids), at_once)
