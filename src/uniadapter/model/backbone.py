"""What the rest of the package may ask of a backbone, whatever family it is of.

Nothing outside a family's own folder knows where its towers, heads, special tokens or pooling are. `backbone(model)`
finds the family by the model's type; `encoding` and `decoding` have the public functions, which take the model.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from uniadapter.config import AdapterConfig
from uniadapter.model.adapter_set import AdapterSet, BackboneShape
from uniadapter.model.families import families, family_of
from uniadapter.model.features import AnswerTree, Context, FusionCache, Texts, Visuals
from uniadapter.model.frame_attention import FRAME_TEMPERATURE
from uniadapter.model.store import OWNER, AdapterStore, bare, original_types

Read = Literal["all", "first"]
Contrast = Literal["momentum", "softmax", "sigmoid"]
_lock = threading.Lock()


@dataclass(frozen=True)
class Layout:
    """What a base's config says, in the terms of every family.

    Args:
        family: name of the family, "blip".
        vision_layers: depth of the visual encoder.
        vision_width: its hidden size.
        text_layers: depth of the text encoder, or of the decoder where that is the only text model.
        text_width: its hidden size.
        feed_forward: width of the text model's feed-forward.
        feature_width: e, of the features that contrast compares; 0 without any.
        features: how many a visual has; where several, a text is compared with the most similar.
        vocabulary: tokens of the text model.
        positions: tokens that a text may have.
        image_size: side of the pictures in pixels.
        patch_size: side of a patch in pixels.
        mean: of each channel, subtracted from pixels in [0, 1].
        std: of each channel, divided by afterwards.
        resampling: filter of the resizing, by Pillow's name.
        padding: texts are padded to the longest of a batch, or all to `positions` ("max_length").
        contrast: the contrastive loss that the family was pre-trained with.
        fuses: it has a fused encoder and a matching head.
        decodes: it has a text decoder.
        packs: texts are computed without padding.
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
    padding: Literal["longest", "max_length"] = "longest"
    contrast: Contrast = "momentum"
    fuses: bool = False
    decodes: bool = False
    packs: bool = False
    features: int = 1


class Backbone(ABC):
    """One model, seen through its family. It holds nothing of its own, and is made whenever it is needed.

    Args:
        model: of transformers, with or without adapters.

    Attributes:
        heads: from the name of a head that a set trains a copy of to where it is in the model; adapter files carry
            them, so they are no part of the base's hash.
        scalars: the same for the numbers of the contrastive loss that learn, a logarithmic scale say.
        frame_temperature: of the softmax by which a text weighs the frames of a video, where that is asked for.
    """

    heads: ClassVar[Mapping[str, str]] = {}
    scalars: ClassVar[Mapping[str, str]] = {}
    frame_temperature: ClassVar[float] = FRAME_TEMPERATURE

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    @property
    def task(self) -> str | None:
        """What a task model is for, "retrieval", "vqa" or "caption"; None for a model of no task."""
        classes = {cls.__name__ for cls in type(self.model).__mro__}
        return next((task for task, name in families()[self.layout.family].classes.items() if name in classes), None)

    def no_task(self) -> TypeError:
        """The error for a model that is none of the family's task classes; says which those are."""
        family = families()[self.layout.family]
        *some, last = family.classes.values()
        named = f"{', '.join(some)} or {last}" if some else last
        return TypeError(
            f"{type(self.model).__name__} is not one of transformers' {family.title} task models: use {named}"
        )

    @property
    @abstractmethod
    def layout(self) -> Layout:
        """What the base's config says."""

    @property
    @abstractmethod
    def shape(self) -> BackboneShape:
        """What a set of adapters is built from.

        Raises:
            TypeError: the model is none of the family's task classes.
        """

    @abstractmethod
    def inject(self, store: AdapterStore) -> None:
        """Re-type the layers, see `store.retype`; without an active set they compute what they did."""

    @abstractmethod
    def vision_layers(self) -> list[nn.Module]:
        """The visual encoder's layers, in order."""

    @abstractmethod
    def stacks(self) -> Iterable[nn.Module]:
        """Modules whose frozen matrices may be kept in half precision: the layers of every tower."""

    @abstractmethod
    def checkpoint_vision(self) -> None:
        """Recompute the visual layers in the backward pass; the non-reentrant kind, or adapters lose gradients."""

    @abstractmethod
    def encode_visual(self, frames: Tensor, chunk: int = 0, stem: Any = None) -> Visuals:
        """See `encoding.encode_visual`; the frames [B, T, 3, H, W] are checked."""

    @abstractmethod
    def encode_text(self, ids: Tensor, mask: Tensor) -> Texts:
        """See `encoding.encode_text`."""

    def oddities(self) -> list[str]:
        """Settings of the base that differ from what its family was trained with, as lines to warn with.

        Raises:
            ConfigError: one makes the base useless.
        """
        return []

    def visual_feature(self, frames: Tensor, chunk: int = 0, stem: Any = None) -> Tensor:
        """`encode_visual`'s feature alone, where that is less work."""
        return self.encode_visual(frames, chunk, stem).feature

    def visual_stem(self, frames: Tensor, chunk: int = 0) -> Any:
        """What every adapter set of the frozen base computes alike for these frames; None if nothing."""
        return None

    def similarity(self, text: Tensor, visual: Tensor, frames: Tensor | None = None) -> Tensor:
        """Similarities [S, V] of texts [S, e] and visuals [V, e], in float32 for half precision.

        Args:
            text: features.
            visual: features.
            frames: features of the visuals' frames, [V, T, e], for families that can weigh them by the text.
        """
        return _fine(text) @ _fine(visual).T

    def parts(self, places: Mapping[str, str]) -> dict[str, Any]:
        """Of `heads` or `scalars`, those that this model has."""
        found = {}
        for name, place in places.items():
            part: Any = self.model
            for step in place.split("."):
                part = getattr(part, step, None)
            if part is not None:
                found[name] = part
        return found

    def new_set(self, config: AdapterConfig) -> AdapterSet:
        """A fresh set for this model, on the device of its weights, not yet injected.

        It is in float32 whatever half precision the base is in, or small updates would vanish in rounding.
        """
        reference = next(p for p in self.model.parameters() if p.is_floating_point())
        built = AdapterSet(config, self.shape, self.base_heads(), self.base_scalars())
        dtype = torch.float64 if reference.dtype == torch.float64 else torch.float32
        return built.to(device=reference.device, dtype=dtype)

    def base_heads(self) -> dict[str, nn.Linear]:
        """The base's own heads by name, where the model has them."""
        return {name: head for name, head in self.parts(self.heads).items() if isinstance(head, nn.Linear)}

    def base_scalars(self) -> dict[str, nn.Parameter]:
        """The base's own numbers of the contrastive loss by name."""
        return {name: one for name, one in self.parts(self.scalars).items() if isinstance(one, nn.Parameter)}


class FusingBackbone(Backbone):
    """A backbone that reads a text and a visual together."""

    @abstractmethod
    def begin_fusion(self, texts: Texts) -> FusionCache:
        """See `encoding.begin_fusion`."""

    @abstractmethod
    def fuse(
        self, texts: Texts, visuals: Visuals, pairs: Tensor, read: Read = "all", cache: FusionCache | None = None
    ) -> Tensor:
        """See `encoding.fuse`; the pairs are checked."""

    @abstractmethod
    def match(self, texts: Texts, visuals: Visuals, pairs: Tensor, cache: FusionCache | None = None) -> Tensor:
        """See `encoding.match`."""

    def fused_ids(self, ids: Tensor) -> Tensor:
        """Token ids [S, L] as the fused encoder was trained to see them."""
        return ids


class DecodingBackbone(Backbone):
    """A backbone that writes texts, or says how likely they are."""

    @property
    @abstractmethod
    def start_token(self) -> int:
        """The id that a decoder's text begins with."""

    @property
    @abstractmethod
    def end_token(self) -> int:
        """The id that it ends with."""

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
        """Ids [Q, L] by beam search, from start ids [1, G] on."""


def backbone(model: nn.Module) -> Backbone:
    """A model, seen through its family.

    Raises:
        TypeError: it is of no family; names those there are.
    """
    inner = bare(model)
    kind = getattr(getattr(inner, "config", None), "model_type", None)
    try:
        family = family_of(kind)
    except LookupError as error:
        raise TypeError(f"{type(inner).__name__} cannot be adapted: {error}") from None
    found: Backbone = family.part("backbone")(inner)
    return found


def fusing(model: nn.Module) -> FusingBackbone:
    """The same, for what needs a fused encoder.

    Raises:
        TypeError: the model has none.
    """
    found = backbone(model)
    if not isinstance(found, FusingBackbone) or not found.layout.fuses:
        raise TypeError(f"{type(found.model).__name__} has no fused encoder: it compares texts and visuals by features")
    return found


def decoding(model: nn.Module) -> DecodingBackbone:
    """The same, for what needs a text decoder.

    Raises:
        TypeError: the model has none.
    """
    found = backbone(model)
    if not isinstance(found, DecodingBackbone) or not found.layout.decodes:
        raise TypeError(f"{type(found.model).__name__} has no text decoder")
    return found


def task_of(model: nn.Module) -> str:
    """What a task model is for: "retrieval", "vqa" or "caption"; another model raises `TypeError`."""
    found = backbone(model)
    if found.task is None:
        raise found.no_task()
    return found.task


def require_task(model: nn.Module, task: str, what: str) -> None:
    """Refuse a model of another task.

    Args:
        model: any model.
        task: "retrieval", "vqa" or "caption".
        what: the function that needs it.

    Raises:
        TypeError: names the class that is needed and how to load it.
    """
    found = backbone(model)
    if found.task == task:
        return
    family = families()[found.layout.family]
    needed = family.classes.get(task)
    if needed is None:
        raise TypeError(f"{what} needs a model for {task}, and {family.title} has none: see `uniadapter families`")
    base = getattr(found.model.config, "name_or_path", "") or "BASE"
    raise TypeError(
        f"{what} needs a {needed}, not a {type(found.model).__name__}: "
        f"load it by load_model({str(base)[-100:]!r}, {task!r})"
    )


def adopt(model: nn.Module) -> AdapterStore:
    """Re-type the model's layers, once; no weight moves, and without a set the outputs are the base's.

    Even a BLIP without adapters gains by it: SDPA, and cross-attention masks that are obeyed.

    Raises:
        TypeError: the model is of no family, or none of its task classes.
    """
    inner = bare(model)
    if OWNER not in inner._modules:
        with _lock:  # of threads that ask a model first at the same time, one re-types it
            if OWNER not in inner._modules:
                seen = backbone(inner)
                _ = seen.shape  # raises for a model that is no task's
                sets = nn.ModuleDict()
                store = AdapterStore(sets)
                seen.inject(store)
                inner._uniadapter_store = store  # type: ignore[assignment]
                setattr(inner, OWNER, sets)  # last: it says that all is in place
    return inner._uniadapter_store  # type: ignore[return-value]


def restore(model: nn.Module) -> None:
    """Undo `adopt`: every layer has its original type again and no trace is left."""
    inner = bare(model)
    original_types(inner)
    if OWNER in inner._modules:
        delattr(inner, OWNER)
        del inner._uniadapter_store


def _fine(features: Tensor) -> Tensor:
    return features if features.dtype == torch.float64 else features.float()
