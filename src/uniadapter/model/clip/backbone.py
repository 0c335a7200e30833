"""CLIP (arXiv 2103.00020) behind the interface: transformers' `CLIPModel`, adapted in both towers."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor
from transformers.models.clip.modeling_clip import CLIPEncoderLayer

from uniadapter.model.adapted_layers import AdaptedPreNormLayer
from uniadapter.model.backbone import CLIP_MEAN, CLIP_STD, Contrast
from uniadapter.model.dual.backbone import DualBackbone
from uniadapter.model.dual.frames import unit
from uniadapter.model.features import Texts
from uniadapter.model.kernels.packing import left_aligned

COMPARED = 2  # an `eos_token_id` with which transformers takes the greatest id of a text for its end token


class AdaptedCLIPLayer(AdaptedPreNormLayer, CLIPEncoderLayer):
    """CLIP's layer, the same class in both towers."""

    original = CLIPEncoderLayer


class CLIPBackbone(DualBackbone):
    """CLIP: a class token for pictures, the end token's state under a causal mask for texts, a projection each."""

    family = "clip"
    layer = AdaptedCLIPLayer
    contrast: ClassVar[Contrast] = "softmax"
    mean = CLIP_MEAN
    crop = True
    std = CLIP_STD
    heads: ClassVar[dict[str, str]] = {"visual_projection": "visual_projection", "text_projection": "text_projection"}
    scalars: ClassVar[dict[str, str]] = {"logit_scale": "logit_scale"}

    @property
    def feature_width(self) -> int:
        """e, of the projections."""
        return int(self.model.config.projection_dim)

    def encode_text(self, ids: Tensor, mask: Tensor) -> Texts:
        """Encode texts.

        Args:
            ids: token ids [S, L], with the end token behind each text.
            mask: [S, L], 1 for tokens, 0 for padding. Padding on the left is moved to the right; columns that are
                padding everywhere are cut: no token looks ahead, so nothing depends on them.

        Returns:
            `Texts`; the feature is the projected state of the end token: its first place, or in configs older than
            transformers 4.31 (`eos_token_id` 2) that of the greatest id, as transformers pools.

        Raises:
            ValueError: a mask has holes or is no mask, or a text has no token, no end token, or too many tokens.
        """
        ids, mask = left_aligned(ids, mask, self.text.config.max_position_embeddings)
        if not len(ids):
            states = self.text.final_layer_norm.weight.new_zeros((0, 0, self.text.config.hidden_size))
            return Texts(ids, mask, states, unit(self.model.text_projection(states[:, :1].sum(1))))
        longest = int(mask.sum(1).max())
        ids, mask = ids[:, :longest], mask[:, :longest]
        end = self.text.eos_token_id
        if end != COMPARED and not bool((ids == end).any(1).all()):
            raise ValueError(
                f"a text has no end token ({end}), whose state is CLIP's feature: tokenise it with CLIP's own"
            )
        # Without its mask the attention may take its causal kernel; only padding, which nothing reads, is then other.
        out = self.text(input_ids=ids)
        return Texts(ids, mask, out.last_hidden_state, unit(self.model.text_projection(out.pooler_output)))

    def _pooled(self, out: Any) -> tuple[Tensor, Tensor]:
        return out.last_hidden_state, unit(self.model.visual_projection(out.pooler_output))
