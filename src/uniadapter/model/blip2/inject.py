"""Re-types the layers of a `Blip2ForImageTextRetrieval` in place; no weight moves."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel

from uniadapter.model.blip2.layers import (
    AdaptedCrossAttention,
    AdaptedQFormer,
    AdaptedQFormerLayer,
    AdaptedVisionLayer,
)
from uniadapter.model.kernels.linear import BaseLinear
from uniadapter.model.store import AdaptedHead, AdapterStore, retype


def inject(model: PreTrainedModel, heads: dict[str, nn.Linear], store: AdapterStore) -> None:
    """Re-type what an adapter changes, and the linear layers of both stacks; see `store.retype`."""
    vision, qformer = model.vision_model.encoder, model.qformer.encoder
    for index, layer in enumerate(vision.layers):
        retype(layer, AdaptedVisionLayer, store, "vision", index)
    retype(qformer, AdaptedQFormer, store, "encoder")
    for index, layer in enumerate(qformer.layer):
        retype(layer, AdaptedQFormerLayer, store, "encoder", index)
        if layer.has_cross_attention:
            retype(layer.crossattention.attention, AdaptedCrossAttention, store, "encoder", index)
    for stack in (vision, qformer):
        for module in stack.modules():
            if type(module) is nn.Linear:
                module.__class__ = BaseLinear
    for name, head in heads.items():
        if head.weight.is_floating_point():  # a quantised one computes in its own way
            retype(head, AdaptedHead, store, "vision")
            head.name = name  # type: ignore[assignment]
