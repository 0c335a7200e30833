"""A layer with a norm before each of its two parts, as CLIP and SigLIP have it in both towers, with its adapter."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from uniadapter.model.store import ACTIVE, CheckpointedLayer


class AdaptedPreNormLayer(CheckpointedLayer):
    """What stands before transformers' own layer class in a re-typed one.

    The parts are the original's, called as it calls them, so that masks, `is_causal` and whatever else goes to the
    attention arrive there in every implementation of it.
    """

    self_attn: nn.Module
    layer_norm1: nn.Module
    layer_norm2: nn.Module
    mlp: nn.Module

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, adapter: str | None = ACTIVE, **kwargs: Any
    ) -> Tensor:
        """As the original: x <- x + attn(norm1 x), then x <- x + mlp(norm2 x) + A(x, use).

        Args:
            hidden_states: [B, N, d].
            attention_mask: as transformers makes it for the implementation in use, or None.
            adapter: name of the set to use where gradient checkpointing computes the layer again.
            kwargs: go to the attention.

        Returns:
            [B, N, d].
        """
        x = hidden_states + self.self_attn(self.layer_norm1(hidden_states), attention_mask=attention_mask, **kwargs)[0]
        out = x + self.mlp(self.layer_norm2(x))
        use: Any = "vision" if self.role == "vision" else "text"
        found = self._adapter(use, adapter)
        return out if found is None else out + found(x, use)
