"""The interface to a pre-trained model of any family: what the rest of the package may use of it.

Only a family's own folder knows where its encoders, heads, special tokens and pooling are. `backbone(model)` finds the
family by `model.config.model_type`; the public functions, which take the model, are in `encoding` and `decoding`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from uniadapter.config import AdapterConfig
from uniadapter.model.adapter_set import AdapterSet
from uniadapter.model.families import families
from uniadapter.model.features import AnswerTree, Context, FusionCache, Texts, Visuals
from uniadapter.model.frame_attention import FRAME_TEMPERATURE
from uniadapter.model.shape import BackboneShape
from uniadapter.model.store import AdapterStore, store_of

# Of pixels in [0, 1], for each channel; BLIP and BLIP-2 took them over.
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
Read = Literal["all", "first"]
Contrast = Literal["momentum", "softmax", "sigmoid"]


@dataclass(frozen=True)
class Layout:
    """What a base's config says, in the same terms for every family.

    Args:
        family: name of the family, "blip".
        vision_layers: depth of the visual encoder.
        vision_width: its hidden size.
        text_layers: depth of the text encoder, or of the decoder where that is the only text model.
        text_width: its hidden size.
        feed_forward: inner width of the text model's feed-forward layers.
        feature_width: e, width of the features that the contrastive loss compares; 0 without any.
        features: number of features of a visual; of several, the one most similar to a text counts.
        vocabulary: number of token ids of the text model.
        positions: the most tokens that a text may have.
        image_size: side of the square pictures in pixels.
        patch_size: side of a patch in pixels.
        mean: of each channel, subtracted from pixels in [0, 1].
        std: of each channel; pixels are divided by it after the subtraction.
        resampling: Pillow's name of the filter that pictures are resized with.
        crop: whether the middle square of a picture is shown, rather than the whole picture squeezed to a square.
        contrast: the contrastive loss that the family was pre-trained with.
        fuses: whether it has a fused encoder and a matching head.
        decodes: whether it has a text decoder.
        packs: whether texts are packed without padding.
    """

    family: str
    vision_layers: int
    vision_width: int
    text_layers: int
    text_width: int
    feed_forward: int
    feature_width: int
    vocabulary: int
    positions: int
    image_size: int
    patch_size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    resampling: str = "bicubic"
    contrast: Contrast = "momentum"
    fuses: bool = False
    decodes: bool = False
    packs: bool = False
    features: int = 1
    crop: bool = False


class Backbone(ABC):
    """The operations of one model, as its family implements them. It has no state, and is created at each use.

    Args:
        model: a task model of transformers, with or without adapters.

    Attributes:
        heads: from the names of the heads that an adapter set trains copies of to their attribute paths in the model.
            Adapter files contain them, so the base's hash leaves them out.
        scalars: the same for learnable numbers of the contrastive loss, such as `logit_scale`.
        default_frame_temperature: see `frame_temperature`.
    """

    heads: ClassVar[Mapping[str, str]] = {}
    scalars: ClassVar[Mapping[str, str]] = {}
    default_frame_temperature: ClassVar[float] = FRAME_TEMPERATURE

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    @property
    def frame_temperature(self) -> float:
        """Temperature of the softmax by which a text weighs the frames of a video, where asked for."""
        store = store_of(self.model)
        active = store.single if store is not None else None
        stated = active.config.frame_temperature if active is not None else None
        return self.default_frame_temperature if stated is None else stated

    @property
    def task(self) -> str | None:
        """The model's task: "retrieval", "vqa" or "caption"; None if its class is none of the family's task classes."""
        classes = {cls.__name__ for cls in type(self.model).__mro__}
        return next((task for task, name in families()[self.layout.family].classes.items() if name in classes), None)

    def task_error(self) -> TypeError:
        """The error, not raised here, for a model that is none of the family's task classes; names them."""
        family = families()[self.layout.family]
        *some, last = family.classes.values()
        named = f"{', '.join(some)} or {last}" if some else last
        return TypeError(
            f"{type(self.model).__name__} is not one of transformers' {family.title} task models: use {named}"
        )

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """Sizes, preprocessing and capabilities, from the base's config."""

    @property
    @abstractmethod
    def shape(self) -> BackboneShape:
        """The sizes that an adapter set is built from.

        Raises:
            TypeError: the model is none of the family's task classes.
        """

    @abstractmethod
    def inject(self, store: AdapterStore) -> None:
        """Give the layers their adapted classes, see `store`; without an active set outputs do not change."""

    @abstractmethod
    def vision_layers(self) -> list[nn.Module]:
        """The visual encoder's layers, in order."""

    @abstractmethod
    def transformer_stacks(self) -> Iterable[nn.Module]:
        """Modules whose frozen matrices may be kept in half precision: the layers of every encoder and decoder."""

    @abstractmethod
    def checkpoint_vision(self) -> None:
        """Turn on gradient checkpointing of the visual layers; non-reentrant, or adapters would get no gradients."""

    @abstractmethod
    def encode_visual(self, frames: Tensor, chunk: int = 0, stem: Any = None) -> Visuals:
        """See `encoding.encode_visual`; the caller has checked the shape of the frames [B, T, 3, H, W]."""

    @abstractmethod
    def encode_text(self, ids: Tensor, mask: Tensor) -> Texts:
        """See `encoding.encode_text`."""

    def config_warnings(self) -> list[str]:
        """Warnings, a line each, about settings of the base's config that differ from the original checkpoints'.

        Raises:
            ConfigError: with one of the settings the base cannot be used.
        """
        return []

    def visual_feature(self, frames: Tensor, chunk: int = 0, stem: Any = None) -> Tensor:
        """The feature of `encode_visual` alone, [B, e]; a family overrides it where that is less work."""
        return self.encode_visual(frames, chunk, stem).feature

    def visual_stem(self, frames: Tensor, chunk: int = 0) -> Any:
        """States that do not depend on the active adapter set, to be passed as `stem`; None if there are none."""
        return None

    def similarity(self, text: Tensor, visual: Tensor, frames: Tensor | None = None) -> Tensor:
        """Similarities [S, V] of texts [S, e] and visuals [V, e], in float32 for half precision.

        Args:
            text: features.
            visual: features.
            frames: features of the visuals' frames, [V, T, e], for families that can weigh them by the text.
        """
        return _fine(text) @ _fine(visual).T

    def submodules(self, places: Mapping[str, str]) -> dict[str, Any]:
        """The parts of this model at the attribute paths of `heads` or `scalars`; those it lacks are left out."""
        found = {}
        for name, place in places.items():
            part: Any = self.model
            for step in place.split("."):
                part = getattr(part, step, None)
            if part is not None:
                found[name] = part
        return found

    def new_set(self, config: AdapterConfig) -> AdapterSet:
        """A new adapter set for this model, on its device, not yet added to it.

        It is float32 on a base in half precision too, where rounding would swallow small updates.
        """
        reference = next(p for p in self.model.parameters() if p.is_floating_point())
        built = AdapterSet(config, self.shape, self.base_heads(), self.base_scalars())
        dtype = torch.float64 if reference.dtype == torch.float64 else torch.float32
        return built.to(device=reference.device, dtype=dtype)

    def base_heads(self) -> dict[str, nn.Linear]:
        """The base's own heads by name, as far as the model has them."""
        return {name: head for name, head in self.submodules(self.heads).items() if isinstance(head, nn.Linear)}

    def base_scalars(self) -> dict[str, nn.Parameter]:
        """The base's own learnable numbers of the contrastive loss, by name."""
        return {name: one for name, one in self.submodules(self.scalars).items() if isinstance(one, nn.Parameter)}


class FusingBackbone(Backbone):
    """A backbone with a fused encoder, whose text layers attend to visual tokens, and a matching head.

    Attributes:
        words_attend: whether the tokens of a text attend to visual tokens themselves, and `fuse_with_weights` works.
    """

    words_attend: ClassVar[bool] = False

    @abstractmethod
    def begin_fusion(self, texts: Texts) -> FusionCache:
        """See `encoding.begin_fusion`."""

    @abstractmethod
    def fuse(
        self, texts: Texts, visuals: Visuals, pairs: Tensor, read: Read = "all", cache: FusionCache | None = None
    ) -> Tensor:
        """See `encoding.fuse`; the caller has checked the pairs."""

    @abstractmethod
    def match(self, texts: Texts, visuals: Visuals, pairs: Tensor, cache: FusionCache | None = None) -> Tensor:
        """See `encoding.match`."""

    def fuse_with_weights(self, texts: Texts, visuals: Visuals, pairs: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `encoding.fuse_with_weights`; a family whose texts attend to patches themselves overrides it."""
        raise TypeError(f"{type(self.model).__name__}: words of its texts do not attend to patches, as a BLIP's do")

    def fused_ids(self, ids: Tensor) -> Tensor:
        """See `encoding.fused_ids`: token ids [S, L] to token ids [S, L]."""
        return ids


class DecodingBackbone(Backbone):
    """A backbone with a text decoder: likelihoods of texts, and generation."""

    @property
    @abstractmethod
    def start_token(self) -> int:
        """Id of the token that a decoder's text begins with."""

    @property
    @abstractmethod
    def end_token(self) -> int:
        """Id of the token that it ends with."""

    @abstractmethod
    def question_context(self, visuals: Visuals, ids: Tensor, mask: Tensor, rows: Tensor) -> Context:
        """See `decoding.question_context`."""

    @abstractmethod
    def visual_context(self, visuals: Visuals) -> Context:
        """See `decoding.visual_context`."""

    @abstractmethod
    def text_nll(self, context: Context, rows: Tensor, ids: Tensor, mask: Tensor, given: int = 1) -> Tensor:
        """See `decoding.text_nll`."""

    @abstractmethod
    def rank_answers(self, context: Context, tree: AnswerTree, k: int) -> tuple[Tensor, Tensor]:
        """See `decoding.rank_answers`."""

    @abstractmethod
    def generate(self, start: Tensor, context: Context, beams: int, longest: int, shortest: int) -> Tensor:
        """Token ids [Q, L] found by beam search, one row for each row of the context; all begin with `start` [1, G]."""


def _fine(features: Tensor) -> Tensor:
    return features if features.dtype == torch.float64 else features.float()
