"""A backbone of two towers and a dot product: what CLIP and SigLIP have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from uniadapter.errors import CheckpointError
from uniadapter.model.backbone import Backbone, Contrast, Layout
from uniadapter.model.dual.frames import FRAME_TEMPERATURE, pooled, weighted_similarity
from uniadapter.model.features import Visuals
from uniadapter.model.kernels.linear import replace_linears
from uniadapter.model.shape import BackboneShape
from uniadapter.model.store import AdapterStore, Role, adapt_heads, set_adapted_class


class DualBackbone(Backbone):
    """Two towers whose layers have norms before their parts, and which never meet.

    A family says which class its layers are re-typed to, what its heads are called, and how texts are read and states
    are pooled.

    Attributes:
        family: name of the family.
        layer: what its layers are re-typed to.
        contrast: the loss that it was pre-trained with.
        mean: of pixels, where the base says nothing else.
        std: likewise.
        crop: whether it was trained on the middle of pictures, where the base says nothing else.
    """

    family: ClassVar[str]
    layer: ClassVar[type[nn.Module]]
    contrast: ClassVar[Contrast]
    default_frame_temperature = FRAME_TEMPERATURE
    mean: ClassVar[tuple[float, float, float]]
    std: ClassVar[tuple[float, float, float]]
    crop: ClassVar[bool] = False

    @property
    def vision(self) -> Any:
        """The visual tower."""
        return self.model.vision_model

    @property
    def text(self) -> Any:
        """The textual tower."""
        return self.model.text_model

    @property
    @abstractmethod
    def feature_width(self) -> int:
        """e, of the features."""

    @property
    def layout(self) -> Layout:
        """What the base's config says."""
        config = self.model.config
        vision, text = config.vision_config, config.text_config
        return Layout(
            family=self.family,
            vision_layers=vision.num_hidden_layers,
            vision_width=vision.hidden_size,
            text_layers=text.num_hidden_layers,
            text_width=text.hidden_size,
            feed_forward=text.intermediate_size,
            feature_width=self.feature_width,
            vocabulary=text.vocab_size,
            positions=text.max_position_embeddings,
            image_size=_side("image_size", vision.image_size),
            patch_size=_side("patch_size", vision.patch_size),
            mean=tuple(getattr(config, "image_mean", self.mean)),
            std=tuple(getattr(config, "image_std", self.std)),
            resampling=getattr(config, "image_resampling", "bicubic"),
            crop=bool(getattr(config, "image_crop", self.crop)),
            contrast=self.contrast,
        )

    @property
    def shape(self) -> BackboneShape:
        """What an adapter set is built from."""
        if self.task is None:
            raise self.task_error()
        layout = self.layout
        return BackboneShape(
            layout.vision_layers, layout.vision_width, layout.text_layers, layout.text_width, encoder=False
        )

    def inject(self, store: AdapterStore) -> None:
        """Re-type the layers and heads, and the layers' products, which are then those of the faster library."""
        towers: tuple[tuple[Role, Any], ...] = (("vision", self.vision), ("encoder", self.text))
        for role, tower in towers:
            for index, layer in enumerate(tower.encoder.layers):
                set_adapted_class(layer, self.layer, store, role, index)
        replace_linears(*self.transformer_stacks())
        adapt_heads(self.base_heads(), store)

    def vision_layers(self) -> list[nn.Module]:
        """The visual tower's layers, in order."""
        return list(self.vision.encoder.layers)

    def transformer_stacks(self) -> tuple[nn.Module, ...]:
        """Both towers' layers."""
        return self.vision.encoder, self.text.encoder

    def checkpoint_vision(self) -> None:
        """Recompute the visual layers in the backward pass."""
        self.vision.gradient_checkpointing_enable({"use_reentrant": False})

    def encode_visual(self, frames: Tensor, chunk: int = 0, stem: Any = None) -> Visuals:
        """The last states as transformers gives them, and frames' unit features, whose normalised mean is a video's."""
        parts = list(self._seen(frames, chunk))
        tokens, feature = (torch.cat(one).unflatten(0, frames.shape[:2]) for one in zip(*parts, strict=True))
        return Visuals(tokens, pooled(feature), feature)

    def visual_feature(self, frames: Tensor, chunk: int = 0, stem: Any = None) -> Tensor:
        """`encode_visual`'s feature alone, [B, e]; the states of a chunk are let go before the next."""
        feature = torch.cat([feature for _, feature in self._seen(frames, chunk)])
        return pooled(feature.unflatten(0, frames.shape[:2]))

    def similarity(self, text: Tensor, visual: Tensor, frames: Tensor | None = None) -> Tensor:
        """Cosines of texts and visuals; of videos whose frames are given, each text weighs these for itself."""
        with torch.autocast(text.device.type, enabled=False):
            if frames is None or frames.shape[1] == 1:
                return super().similarity(text, visual)
            return weighted_similarity(text, frames, self.frame_temperature)

    def _seen(self, frames: Tensor, chunk: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Last states [f, N, d] and unit features [f, e] of frames, a chunk at a time."""
        size, patch = self.layout.image_size, self.layout.patch_size
        if frames.ndim != 5 or frames.shape[2] != 3 or not frames.shape[1]:
            raise ValueError(f"frames must be [B, T, 3, H, W] (an image is T = 1), not {list(frames.shape)}")
        height, width = frames.shape[-2:]
        if min(height, width) < patch:
            raise ValueError(f"pictures of {height} x {width} px are smaller than a patch of {patch} px")
        if chunk < 0:
            raise ValueError(f"{chunk} frames at once: frame_chunk must be at least 1, or 0 for all")
        flat = frames.flatten(0, 1)
        if not len(flat):  # attention cannot be asked about no frame, so a blank one tells the shapes
            states, feature = self._pooled(self.vision(pixel_values=flat.new_zeros((1, 3, size, size))))
            yield states[:0], feature[:0]
            return
        for some in flat.split(chunk) if chunk else (flat,):
            yield self._pooled(self.vision(pixel_values=some, interpolate_pos_encoding=(height, width) != (size, size)))

    @abstractmethod
    def _pooled(self, out: Any) -> tuple[Tensor, Tensor]:
        """Of what the visual tower gave, last states [f, N, d] and unit features [f, e]."""


def _side(name: str, value: object) -> int:
    """A picture's or a patch's side, of a config that may have two."""
    sides = list(value) if isinstance(value, (list, tuple)) else [value]
    if not sides or any(side != sides[0] for side in sides) or not isinstance(sides[0], int):
        raise CheckpointError(f"vision_config.{name} is {str(value)[:40]}: pictures and patches must be square here")
    return sides[0]
