"""SigLIP (arXiv 2303.15343) and SigLIP 2 (arXiv 2502.14786) behind the interface: transformers' `SiglipModel`."""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor, nn
from transformers.models.siglip.modeling_siglip import SiglipEncoderLayer

from uniadapter.model.adapted_layers import AdaptedPreNormLayer
from uniadapter.model.backbone import Contrast, Layout
from uniadapter.model.dual.backbone import DualBackbone
from uniadapter.model.dual.frames import unit
from uniadapter.model.features import Texts
from uniadapter.model.kernels.packing import check_right_padded

NAFLEX = (
    "SigLIP 2 NaFlex cuts pictures of any shape into patches, for which there is no loader here; take one of fixed "
    "resolution, whose model_type is 'siglip': google/siglip2-base-patch16-224, say"
)


class AdaptedSiglipLayer(AdaptedPreNormLayer, SiglipEncoderLayer):
    """SigLIP's layer, the same class in both towers."""

    original = SiglipEncoderLayer


class SiglipBackbone(DualBackbone):
    """SigLIP: pictures pooled by attention, texts by their last place, which is nearly always padding.

    The visual tower ends in attention pooling, which stays frozen, so the textual tower's head is the only one.
    """

    family = "siglip"
    layer = AdaptedSiglipLayer
    contrast: ClassVar[Contrast] = "sigmoid"
    mean = std = (0.5, 0.5, 0.5)
    heads: ClassVar[dict[str, str]] = {"text_head": "text_model.head"}
    scalars: ClassVar[dict[str, str]] = {"logit_scale": "logit_scale", "logit_bias": "logit_bias"}

    @property
    def feature_width(self) -> int:
        """e, of the textual tower's head and the visual tower."""
        return int(self.model.config.text_config.projection_size)

    @property
    def layout(self) -> Layout:
        """What the base's config says.

        Raises:
            TypeError: it is a NaFlex model.
        """
        if self.model.config.model_type == "siglip2":
            raise TypeError(f"{type(self.model).__name__} cannot be adapted: {NAFLEX}")
        return super().layout

    def encode_text(self, ids: Tensor, mask: Tensor) -> Texts:
        """Encode texts.

        SigLIP was trained without a mask: padding is attended to, and the state of the last place is the feature. So
        padding is computed as any token, and shorter texts are padded here to all places that the model has.

        Args:
            ids: token ids [S, L], padded on the right.
            mask: [S, L], 1 for tokens, 0 for padding; says nothing but where a text ends.

        Returns:
            `Texts`, as long as the model has places; the mask is 0 for all padding.

        Raises:
            ValueError: the texts are longer than the model's places, padded on the left, or with another token than
                `text_config.pad_token_id`, which `load_model` takes from the tokenizer.
        """
        places = self.text.config.max_position_embeddings
        if ids.ndim != 2 or ids.shape != mask.shape:
            raise ValueError(f"ids and mask must both be [S, L], not {list(ids.shape)} and {list(mask.shape)}")
        if ids.shape[1] > places:
            raise ValueError(f"a text has {ids.shape[1]} tokens: the model takes {places}; cut it")
        mask = mask.long()
        if not len(ids):
            states = self.text.final_layer_norm.weight.new_zeros((0, places, self.text.config.hidden_size))
            return Texts(ids, mask, states, unit(self.text.head(states[:, -1])))
        check_right_padded(mask)
        ids, mask = self._padded(ids, mask, places)
        out = self.text(input_ids=ids)
        return Texts(ids, mask, out.last_hidden_state, unit(out.pooler_output))

    def _padded(self, ids: Tensor, mask: Tensor, places: int) -> tuple[Tensor, Tensor]:
        """Texts [S, L] and their mask, padded to all places."""
        missing = places - ids.shape[1]
        if not missing:
            return ids, mask
        pad = self.text.config.pad_token_id
        there = ids[mask == 0]
        if len(there) and bool((there != pad).any()):
            raise ValueError(
                f"texts are padded with token {int(there[there != pad][0])}, where text_config.pad_token_id is {pad}: "
                f"SigLIP reads padding too, so load the base by load_model, or pad to all {places} places"
            )
        return nn.functional.pad(ids, (0, missing), value=pad), nn.functional.pad(mask, (0, missing))

    def _pooled(self, out: Any) -> tuple[Tensor, Tensor]:
        return out.last_hidden_state, unit(out.pooler_output)
