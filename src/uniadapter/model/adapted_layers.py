"""Layers that several families have alike, with their adapters; a family's class puts them before transformers' own."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from uniadapter.model.store import ACTIVE, Adapted, CheckpointedLayer


def plus(states: Tensor, delta: Tensor | None) -> Tensor:
    """States and what an adapter adds, if there is one."""
    return states if delta is None else states + delta


class AdaptedPreNormLayer(CheckpointedLayer):
    """A layer with a norm before each of its two parts, and an adapter in parallel to the second.

    The parts are the original's, called as it calls them, so that masks, `is_causal` and whatever else goes to the
    attention arrive there in every implementation of it.
    """

    self_attn: nn.Module
    layer_norm1: nn.Module
    layer_norm2: nn.Module
    mlp: nn.Module

    def forward(self, hidden_states: Tensor, *args: Any, adapter: str | None = ACTIVE, **kwargs: Any) -> Tensor:
        """As the original: x <- x + attn(norm1 x), then x <- x + mlp(norm2 x) + A(x, use).

        Args:
            hidden_states: [B, N, d].
            args: go to the attention.
            adapter: name of the set to use where gradient checkpointing computes the layer again.
            kwargs: go to the attention.

        Returns:
            [B, N, d].
        """
        return self.with_adapter(*self.without_adapter(hidden_states, *args, **kwargs), adapter)

    def without_adapter(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """What does not depend on this layer's adapter: x after the attention, and x + mlp(norm2 x), both [B, N, d]."""
        x = hidden_states + self.self_attn(self.layer_norm1(hidden_states), *args, **kwargs)[0]
        return x, x + self.mlp(self.layer_norm2(x))

    def with_adapter(self, x: Tensor, out: Tensor, name: str | None = ACTIVE) -> Tensor:
        """The layer's output, from the results x and out of `without_adapter`, with the adapter of the set `name`."""
        use: Any = "vision" if self.role == "vision" else "text"
        found = self._adapter(use, name)
        return out if found is None else out + found(x, use)


class AdaptedKeysValues(Adapted):
    """An attention whose keys and values take the deltas of the key/value adapters."""

    key: nn.Module
    value: nn.Module
    num_attention_heads: int
    attention_head_size: int

    def split_heads(self, states: Tensor) -> Tensor:
        """Split [B, L, d] into [B, H, L, d_h]."""
        return states.unflatten(-1, (self.num_attention_heads, self.attention_head_size)).transpose(1, 2)

    def keys_values(
        self, states: Tensor, key_delta: Tensor | None = None, value_delta: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Keys and values [B, H, K, d_h] of attended states [B, K, d]; deltas are added to the projections."""
        key, value = plus(self.key(states), key_delta), plus(self.value(states), value_delta)
        return self.split_heads(key), self.split_heads(value)
