"""Transformers' BLIP-2 layers with adapters: what `inject` re-types the existing layers to.

Only what an adapter changes is overridden. Attention goes through transformers' attention interface here, so whatever
`attn_implementation` a model was loaded with holds for its own `forward`; `qformer.py` runs the same layers on packed
texts and grouped pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.blip_2.modeling_blip_2 import (
    Blip2EncoderLayer,
    Blip2QFormerEncoder,
    Blip2QFormerLayer,
    Blip2QFormerMultiHeadAttention,
    eager_attention_forward,
)

from uniadapter.model.adapted_layers import AdaptedKeysValues, AdaptedPreNormLayer
from uniadapter.model.store import ACTIVE, Adapted, CheckpointedLayer


class AdaptedVisionLayer(AdaptedPreNormLayer, Blip2EncoderLayer):
    """BLIP-2's visual layer; the adapter stands beside the MLP and reads the states before their second norm."""

    original = Blip2EncoderLayer


class AdaptedCrossAttention(AdaptedKeysValues, Blip2QFormerMultiHeadAttention):
    """The Q-Former's cross-attention, whose keys and values take the deltas of the key/value adapters."""

    original = Blip2QFormerMultiHeadAttention

    def forward(  # noqa: D102 - transformers' interface
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        key_delta: Tensor | None = None,
        value_delta: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        if encoder_hidden_states is None:
            raise ValueError("the Q-Former's cross-attention needs the picture's states: give encoder_hidden_states")
        key, value = self.keys_values(encoder_hidden_states, key_delta, value_delta)
        attend: Callable[..., Any] = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        context, weights = attend(
            self,
            self.split_heads(self.query(hidden_states)),
            key,
            value,
            encoder_attention_mask,
            dropout=self.attention_dropout if self.training else 0.0,
            scaling=self.scaling,
            **kwargs,
        )
        return context.flatten(2), weights


class AdaptedQFormerLayer(CheckpointedLayer, Blip2QFormerLayer):
    """A Q-Former layer, whose queries and texts share one adapter.

    With a the self-attention's output and c the cross-attention's (c = a in layers that have none):

        queries  FFN_query(c) + A(a, vision) + A(c, cross)      A(a, vision) is the query residual
        texts    FFN(a) + A(a, text)
    """

    original = Blip2QFormerLayer

    def finish_queries(self, attended: Tensor, crossed: Tensor, name: str | None = ACTIVE) -> Tensor:
        """The queries' states behind their feed-forward.

        Args:
            attended: a, behind the self-attention, [..., q, d].
            crossed: c, behind the cross-attention; `attended` itself in a layer without one.
            name: of the set.

        Returns:
            [..., q, d].
        """
        out = self.feed_forward_chunk_query(crossed)
        residual = self._adapter("vision", name)
        if residual is not None:
            out = out + residual(attended, "vision")
        cross = self._adapter("cross", name) if self.has_cross_attention else None
        return out if cross is None else out + cross(crossed, "cross")

    def finish_text(self, attended: Tensor, name: str | None = ACTIVE) -> Tensor:
        """FFN(a) + A(a, text) for texts' states behind the self-attention, [..., d]."""
        out = self.feed_forward_chunk(attended)
        adapter = self._adapter("text", name)
        return out if adapter is None else out + adapter(attended, "text")

    def forward(  # noqa: D102 - transformers' interface
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        query_length: int = 0,
        key_delta: Tensor | None = None,
        value_delta: Tensor | None = None,
        adapter: str | None = ACTIVE,
        **kwargs: Any,
    ) -> Tensor:
        attended = self.attention(hidden_states=hidden_states, attention_mask=attention_mask, **kwargs)
        if not query_length:
            return self.finish_text(attended, adapter)
        queries, text = attended[:, :query_length], attended[:, query_length:]
        crossed = queries
        if self.has_cross_attention:
            if encoder_hidden_states is None:
                raise ValueError("encoder_hidden_states must be given for cross-attention layers")
            crossed = self.crossattention(
                hidden_states=queries,
                attention_mask=attention_mask,
                encoder_hidden_states=encoder_hidden_states,
                encoder_attention_mask=encoder_attention_mask,
                key_delta=key_delta,
                value_delta=value_delta,
                **kwargs,
            )
        out = self.finish_queries(queries, crossed, adapter)
        return torch.cat([out, self.finish_text(text, adapter)], dim=1) if text.shape[1] else out


class AdaptedQFormer(Adapted, Blip2QFormerEncoder):
    """The stack of Q-Former layers; computes the key/value deltas once for all of them."""

    original = Blip2QFormerEncoder

    def deltas(self, states: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """What the key/value adapters add for attended states [B, K, d_vision], [B, K, d] each."""
        active = self.store.active
        return (None, None) if active is None else active.key_value("encoder", states)

    def forward(  # noqa: D102 - transformers' interface
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        if encoder_hidden_states is not None:
            kwargs["key_delta"], kwargs["value_delta"] = self.deltas(encoder_hidden_states)
        return super().forward(hidden_states, attention_mask, encoder_hidden_states, *args, **kwargs)
