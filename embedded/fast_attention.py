"""Fused attention for the pre-training run: transformers' BLIP has the eager kind only."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.blip.modeling_blip import BlipAttention
from transformers.models.blip.modeling_blip_text import BlipTextSelfAttention


class FastVisionAttention(BlipAttention):
    """Same weights, same result, one fused kernel."""

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> tuple[Tensor, None]:
        """Hidden states and no attention probabilities."""
        batch, length, width = hidden_states.shape
        qkv = self.qkv(hidden_states).view(batch, length, 3, self.num_heads, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(query, key, value)
        return self.projection(mixed.transpose(1, 2).reshape(batch, length, width)), None


class FastTextAttention(BlipTextSelfAttention):
    """Self- or cross-attention; the mask of the keys is whichever one was handed in."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, None]:
        """Hidden states and no attention probabilities."""
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        batch, length, width = hidden_states.shape

        def split(states: Tensor) -> Tensor:
            heads = (self.num_attention_heads, self.attention_head_size)
            return states.view(batch, -1, *heads).transpose(1, 2)

        query, key = split(self.query(hidden_states)), split(self.key(source))
        if attention_mask is not None:
            attention_mask = attention_mask.to(query.dtype)
        mixed = F.scaled_dot_product_attention(query, key, split(self.value(source)), attention_mask)
        return mixed.transpose(1, 2).reshape(batch, length, width), None


def use_fast_attention(model: nn.Module) -> None:
    """Re-type the attention layers in place; no weight moves."""
    for module in model.modules():
        if type(module) is BlipAttention:
            module.__class__ = FastVisionAttention
        elif type(module) is BlipTextSelfAttention:
            module.__class__ = FastTextAttention
