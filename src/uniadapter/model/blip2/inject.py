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
from uniadapter.model.kernels.linear import replace_linears
from uniadapter.model.store import AdapterStore, adapt_heads, set_adapted_class


def inject(model: PreTrainedModel, heads: dict[str, nn.Linear], store: AdapterStore) -> None:
    """Re-type what an adapter changes, and the linear layers of both stacks; see `store.set_adapted_class`."""
    vision, qformer = model.vision_model.encoder, model.qformer.encoder
    for index, layer in enumerate(vision.layers):
        set_adapted_class(layer, AdaptedVisionLayer, store, "vision", index)
    set_adapted_class(qformer, AdaptedQFormer, store, "encoder")
    for index, layer in enumerate(qformer.layer):
        set_adapted_class(layer, AdaptedQFormerLayer, store, "encoder", index)
        if layer.has_cross_attention:
            set_adapted_class(layer.crossattention.attention, AdaptedCrossAttention, store, "encoder", index)
    replace_linears(vision, qformer)
    adapt_heads(heads, store)
