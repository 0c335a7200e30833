"""Subclasses of transformers' BLIP layers with adapters and fused attention; `inject` gives them to existing layers."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers.models.blip.modeling_blip import BlipAttention, BlipEncoderLayer, BlipMLP
from transformers.models.blip.modeling_blip_text import (
    BlipTextEncoder,
    BlipTextIntermediate,
    BlipTextLayer,
    BlipTextSelfAttention,
)

from uniadapter.model.adapted_layers import AdaptedKeysValues, AdaptedPreNormLayer, plus
from uniadapter.model.adapter import QueryKeyValue
from uniadapter.model.kernels.absorbed import absorbed_attention
from uniadapter.model.kernels.attention import layer_attention, to_autocast_dtype
from uniadapter.model.kernels.linear import frozen_linear, is_base_linear, linear_then_activation
from uniadapter.model.kernels.packing import Packing
from uniadapter.model.store import ACTIVE, Adapted, CheckpointedLayer


def _wants_weights(module: nn.Module, kwargs: dict[str, Any]) -> bool:
    """Whether the call, or else the config, asks for attention weights."""
    return bool(kwargs.get("output_attentions", getattr(module.config, "output_attentions", False)))


class AdaptedVisionAttention(Adapted, BlipAttention):
    """BLIP's visual self-attention, through fused attention."""

    original = BlipAttention

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """As `BlipAttention`: states [B, N, d] to states [B, N, d] and the weights, if asked for."""
        query, key, value = self._split_heads(self.qkv(hidden_states))
        dropout = self.dropout.p if self.training else 0.0
        context, weights = layer_attention(query, key, value, None, dropout, _wants_weights(self, kwargs))
        return self.projection(context), weights

    def class_token(self, hidden_states: Tensor) -> Tensor:
        """Output for the CLS token alone, [B, d], for states [B, N, d]; with `absorbed_attention`."""
        if not is_base_linear(self.qkv):
            return self(hidden_states)[0][:, 0]
        hidden, width = to_autocast_dtype(hidden_states), hidden_states.shape[-1]
        (asks, *attended) = zip(self.qkv.weight.split(width), self.qkv.bias.split(width), strict=True)
        (query,) = self._split_heads(frozen_linear(hidden[:, :1], *asks))
        context = absorbed_attention(query, hidden, *attended, dropout=self.dropout.p if self.training else 0.0)
        return self.projection(context.flatten(1))

    def _split_heads(self, states: Tensor) -> Tensor:
        """[B, N, k d] to [k, B, H, N, d_h]."""
        return states.unflatten(-1, (-1, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)


class AdaptedVisionLayer(AdaptedPreNormLayer, BlipEncoderLayer):
    """BLIP's visual layer with an adapter in parallel to the MLP, on the states before the second norm."""

    original = BlipEncoderLayer

    def class_token(self, hidden_states: Tensor) -> Tensor:
        """Output for the CLS token alone, [B, d], for states [B, N, d]."""
        x = hidden_states[:, 0] + self.self_attn.class_token(self.layer_norm1(hidden_states))
        return self.with_adapter(x, x + self.mlp(self.layer_norm2(x)))


class AdaptedTextAttention(AdaptedKeysValues, BlipTextSelfAttention):
    """BLIP's text self- or cross-attention, fused; applies the mask of cross-attention, which transformers loses."""

    original = BlipTextSelfAttention

    def forward(  # noqa: D102 - transformers' interface
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        cache: Any = None,
        key_delta: Tensor | None = None,
        value_delta: Tensor | None = None,
        query_delta: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        cross = encoder_hidden_states is not None
        states = encoder_hidden_states if cross else hidden_states
        cache = past_key_values if cache is None else cache  # its names before and from transformers 5.24
        if cache is None:
            key, value = self.keys_values(states, key_delta, value_delta)
        else:
            key, value = self._cached(cache, cross, states, key_delta, value_delta)
        dropout = self.dropout.p if self.training else 0.0
        mask = encoder_attention_mask if cross else attention_mask
        query = self.split_heads(plus(self.query(hidden_states), query_delta))
        return layer_attention(query, key, value, mask, dropout, _wants_weights(self, kwargs))

    def _cached(
        self, cache: Any, cross: bool, states: Tensor, key_delta: Tensor | None, value_delta: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Keys and values with an `EncoderDecoderCache`; those of cross-attention are computed once."""
        part = cache.cross_attention_cache if cross else cache.self_attention_cache
        if cross and cache.is_updated.get(self.layer_idx):
            layer = part.layers[self.layer_idx]
            return layer.keys, layer.values
        key, value = part.update(*self.keys_values(states, key_delta, value_delta), self.layer_idx)
        if cross:
            cache.is_updated[self.layer_idx] = True
        return key, value


class AdaptedTextLayer(CheckpointedLayer, BlipTextLayer):
    """BLIP's text layer in three parts, between which `fuse` goes from texts to pairs.

    On a text alone: FFN(a) + A(a, text), where a is the output of self-attention. Fused: c = cross-attention(a), then
    FFN(c) + A(a, text) + A(c, cross), where A(a, text) is the paper's query residual.
    """

    original = BlipTextLayer

    def attend_self(self, hidden: Tensor, packing: Packing, mask: Tensor | None, first: bool = False) -> Tensor:
        """Self-attention with its residual and norm.

        Args:
            hidden: states of the N tokens of S texts, [N, d].
            packing: of the texts.
            mask: additive, broadcastable to [S, 1, L, L], or None.
            first: compute only the first token of each text.

        Returns:
            [N, d]; for `first`, [S, d].
        """
        attention: AdaptedTextAttention = self.attention.self
        asking = hidden[packing.firsts] if first else hidden
        lower = to_autocast_dtype(hidden)
        query_delta, *deltas = self.self_deltas(lower)
        parts = zip((attention.key, attention.value), deltas, strict=True)
        key, value = (attention.split_heads(packing.pad(plus(part(lower), delta))) for part, delta in parts)
        query = attention.query(to_autocast_dtype(asking) if first else lower)
        if query_delta is not None:
            query = query + (query_delta[packing.firsts] if first else query_delta)
        query = attention.split_heads(query[:, None] if first else packing.pad(query))
        dropout = attention.dropout.p if self.training else 0.0
        context, _ = layer_attention(query, key, value, mask, dropout)
        return self.attention.output(context[:, 0] if first else packing.pack(context), asking)

    def self_deltas(self, states: Tensor, name: str | None = ACTIVE) -> QueryKeyValue:
        """What the set `name` adds to queries, keys and values of the self-attention of states [..., d]; or Nones."""
        found = self.store.named(name)
        assert self.role != "vision"  # a text layer is an encoder's or a decoder's
        return (None, None, None) if found is None else found.self_deltas(self.role, self.index, states)

    def query_residual(self, attended: Tensor, name: str | None = ACTIVE, fused: bool = True) -> Tensor | None:
        """A(a, text) for self-attention outputs a [..., d], with the set `name`; None if it has no such adapter.

        On a text alone, where it is no residual of queries, it does not depend on `adapter.query_residual`.
        """
        adapter = self._adapter("text", name, residual=fused)
        return None if adapter is None else adapter(attended, "text")

    def feed_forward(self, crossed: Tensor, residual: Tensor | None, fused: bool, name: str | None = ACTIVE) -> Tensor:
        """FFN(c) + A(a, text) + A(c, cross) if fused, else FFN(a) + A(a, text).

        Args:
            crossed: c, or a if not fused, [..., d].
            residual: A(a, text) from `query_residual`.
            fused: whether cross-attention came before.
            name: of the set.

        Returns:
            [..., d].
        """
        out = self.feed_forward_chunk(crossed)
        if residual is not None:
            out = out + residual
        adapter = self._adapter("cross", name) if fused else None
        return out if adapter is None else out + adapter(crossed, "cross")

    def forward(  # noqa: D102 - transformers' interface
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        cache: Any = None,
        key_delta: Tensor | None = None,
        value_delta: Tensor | None = None,
        adapter: str | None = ACTIVE,
        **kwargs: Any,
    ) -> Tensor:
        # `BlipTextAttention.forward` loses keyword arguments and the encoder's mask, so its two parts are called here.
        cache = past_key_values if cache is None else cache  # its names before and from transformers 5.24
        names = ("query_delta", "key_delta", "value_delta")
        deltas = dict(zip(names, self.self_deltas(hidden_states, adapter), strict=True))
        context, _ = self.attention.self(hidden_states, attention_mask, cache=cache, **deltas, **kwargs)
        attended = self.attention.output(context, hidden_states)
        residual = self.query_residual(attended, adapter, encoder_hidden_states is not None)
        if encoder_hidden_states is None:
            return self.feed_forward(attended, residual, False, adapter)
        context, _ = self.crossattention.self(
            attended,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            cache=cache,
            key_delta=key_delta,
            value_delta=value_delta,
            **kwargs,
        )
        return self.feed_forward(self.crossattention.output(context, attended), residual, True, adapter)


class FusedGeluMLP(BlipMLP):
    """BLIP's visual feed-forward; without gradients, GELU is fused into the first linear layer."""

    original = BlipMLP

    def forward(self, hidden_states: Tensor) -> Tensor:
        """As `BlipMLP`, [..., d] to [..., d]."""
        return self.fc2(linear_then_activation(hidden_states, self.fc1, self.activation_fn))


class FusedGeluIntermediate(BlipTextIntermediate):
    """The first half of BLIP's textual feed-forward; without gradients, GELU is fused into the linear layer."""

    original = BlipTextIntermediate

    def forward(self, hidden_states: Tensor) -> Tensor:
        """As `BlipTextIntermediate`, [..., d] to [..., 4 d]."""
        return linear_then_activation(hidden_states, self.dense, self.intermediate_act_fn)


class AdaptedTextEncoder(Adapted, BlipTextEncoder):
    """BLIP's stack of text layers; computes the outputs of the key/value adapters once for all of them.

    They are computed here, from `encoder_hidden_states`, because `generate` passes on no further keyword arguments. In
    generation that happens at the first token alone; later the cache holds the adapted keys and values.
    """

    original = BlipTextEncoder

    def deltas(self, states: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Outputs of the key and the value adapter, [B, K, d_text] each, for attended states [B, K, d]; or Nones."""
        active = self.store.active
        assert self.role != "vision"  # a text stack is an encoder or a decoder
        return (None, None) if active is None else active.key_value(self.role, states)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As `BlipTextEncoder`, [B, L, d] to [B, L, d]."""
        states, cache = kwargs.get("encoder_hidden_states"), kwargs.get("cache", kwargs.get("past_key_values"))
        if states is not None and not getattr(cache, "is_updated", {}).get(0):
            kwargs["key_delta"], kwargs["value_delta"] = self.deltas(states)
        return super().forward(hidden_states, *args, **kwargs)
