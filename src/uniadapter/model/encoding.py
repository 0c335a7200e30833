"""Encode visuals, encode texts, and fuse pairs of them, with a model of any family.

Losses, evaluation and commands use a model only through these functions. A "visual" is a picture or a video; a picture
is a video of one frame. `fuse` takes a list of pairs, so that a visual's keys and values are computed once.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor
from transformers import PreTrainedModel

from uniadapter.errors import ConfigError
from uniadapter.model.backbone import Contrast, Read
from uniadapter.model.dispatch import adapter_store, backbone, fusing
from uniadapter.model.features import FusionCache, Texts, Visuals
from uniadapter.model.store import store_of


def encode_visual(model: PreTrainedModel, frames: Tensor, chunk: int = 0, stem: Any = None) -> Visuals:
    """Encode pictures or videos.

    Args:
        model: of transformers, of any family (`uniadapter families`), with or without adapters.
        frames: normalised pixels [B, T, 3, H, W]; an image is T = 1. Sizes other than the model's interpolate its
            position embeddings, where its family can.
        chunk: frames that are encoded at once; 0 means all.
        stem: the result of `visual_stem` for the same frames, to save computing it again.

    Returns:
        `Visuals`; the feature of a video is the mean of its frames', as its family pools them: a BLIP's is the
        projected, normalised mean of its frames' CLS states.

    Raises:
        ValueError: `frames` has another shape.

    Example:
        >>> ua.encode_visual(model, torch.zeros(2, 1, 3, 96, 96))
        Visuals(tokens=[2, 1, 37, 192], feature=[2, 64], frames=[2, 1, 64], float32 on cpu)
    """
    _check_frames(frames)
    store = store_of(model)
    if not chunk or store is None or store.mixed is None:
        return backbone(model).encode_visual(frames, chunk, stem)
    each, parts = max(1, chunk // max(1, frames.shape[1])), []  # whole visuals: a row's frames have one set
    for start in range(0, max(1, len(frames)), each):
        with store.rows(slice(start, start + each)):
            parts.append(backbone(model).encode_visual(frames[start : start + each]))
    return Visuals.concatenate(parts)


def visual_feature(model: PreTrainedModel, frames: Tensor, chunk: int = 0, stem: Any = None) -> Tensor:
    """The feature of `encode_visual` alone, [B, e], which is less work: the other tokens skip the last layer."""
    _check_frames(frames)
    return backbone(model).visual_feature(frames, chunk, stem)


def visual_stem(model: PreTrainedModel, frames: Tensor, chunk: int = 0) -> Any:
    """Compute the part of the visual encoder that precedes all adapters, once for several adapter sets.

    A trained set and its momentum copy share it, for example. The base must be frozen.

    Args:
        model: of any family.
        frames: normalised pixels [B, T, 3, H, W].
        chunk: frames that are computed at once; 0 means all.

    Returns:
        A value for the argument `stem` of `encode_visual` and `visual_feature`; None if the family has none.
    """
    return backbone(model).visual_stem(frames, chunk)


def _check_frames(frames: Tensor) -> None:
    if frames.ndim != 5 or frames.shape[2] != 3:
        raise ValueError(f"frames must be [B, T, 3, H, W] (an image is T = 1), not {list(frames.shape)}")


def encode_text(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Texts:
    """Encode texts alone.

    Args:
        model: with a text encoder.
        ids: token ids [S, L].
        mask: [S, L], 1 for tokens, 0 for padding. Padding on the left is moved to the right; columns that are padding
            in every row are cut, if the family packs texts without padding.

    Returns:
        `Texts`, of the longest text's length. The states of padding are undefined.

    Raises:
        TypeError: the model has no text encoder.
        ValueError: the mask has holes or other values than 0 and 1, or a text has no token or too many.

    Example:
        >>> tokens = tokenizer(["a red car", "a cat"], padding=True, return_tensors="pt")
        >>> ua.encode_text(model, tokens["input_ids"], tokens["attention_mask"])
        Texts(ids=[2, 5], mask=[2, 5], states=[2, 5, 192], feature=[2, 64], float32 on cpu)
    """
    return backbone(model).encode_text(ids, mask)


def similarity(model: PreTrainedModel, text: Tensor, visual: Tensor, frames: Tensor | None = None) -> Tensor:
    """Contrastive similarities of all texts and visuals, as the model's family compares them.

    Args:
        model: of any family.
        text: features of texts, [S, e].
        visual: features of visuals, [V, e], or [V, q, e] where a family has several of a visual.
        frames: features of the visuals' frames, [V, T, e], if the active set weighs frames by the text.

    Returns:
        [S, V], float32 for features in half precision.
    """
    return backbone(model).similarity(text, visual, frames)


def contrast_of(model: PreTrainedModel, wanted: Contrast | Literal["auto"] = "auto") -> Contrast:
    """The kind of contrastive loss to train a model with.

    Args:
        model: of any family.
        wanted: a kind, or "auto" for the one that the family was pre-trained with.

    Raises:
        ConfigError: the model cannot be trained with it.
    """
    layout = backbone(model).layout
    kind = layout.contrast if wanted == "auto" else wanted
    if kind == "momentum" and layout.features > 1:
        raise ConfigError(
            "objective.loss momentum keeps one feature a visual, and this base has several: set objective.loss softmax"
        )
    return kind


def loss_scalars(model: PreTrainedModel) -> dict[str, Tensor]:
    """The learnable numbers of the contrastive loss: the active set's, else the base's own.

    Returns:
        `logit_scale`, the logarithm of the factor on similarities, and `logit_bias`, as far as the family has them.
    """
    active = adapter_store(model).single
    own = {} if active is None else dict(active.scalars.items())
    return {**backbone(model).base_scalars(), **own}


def fused_ids(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Token ids as the fused encoder was trained with; for BLIP, [ENC] replaces the first token.

    `pair_scores`, `fuse` and `ask` do this themselves. transformers' `BlipProcessor` and `forward` do not, and so score
    pairs in a form that BLIP was not trained on.

    Args:
        model: with a fused encoder.
        ids: token ids [S, L], padded on the right, from a tokenizer or processor; they are not modified.

    Example:
        >>> import torch, uniadapter as ua
        >>> model, tokenizer = ua.load_model(), ua.load_tokenizer()
        >>> inputs = tokenizer(["a red box", "two dogs"], padding=True, return_tensors="pt")
        >>> inputs["input_ids"] = ua.fused_ids(model, inputs["input_ids"])
        >>> logits = model(pixel_values=torch.zeros(2, 3, 96, 96), **inputs).itm_score  # now as `pair_scores` has them
    """
    return fusing(model).fused_ids(ids)


def begin_fusion(model: PreTrainedModel, texts: Texts) -> FusionCache:
    """Precompute what does not depend on visuals, for several calls of `fuse` with the same texts and adapter.

    Args:
        model: with a fused encoder.
        texts: S texts.

    Raises:
        TypeError: the model has no fused encoder.
        ValueError: the texts are not padded on the right.
    """
    return fusing(model).begin_fusion(texts)


def fuse(
    model: PreTrainedModel,
    texts: Texts,
    visuals: Visuals,
    pairs: Tensor,
    read: Read = "all",
    cache: FusionCache | None = None,
) -> Tensor:
    """Run the fused text encoder on pairs of a text and a visual.

    In each layer a visual's keys and values are computed once for all its pairs. For BLIP, the texts of one visual are
    one long query, the first layer's self-attention is computed once a text, and texts are packed without padding.

    Args:
        model: with a fused encoder.
        texts: S texts; for BLIP their first token is replaced by [ENC].
        visuals: V visuals.
        pairs: [P, 2] of (text row, visual row), in any order, repeats allowed.
        read: "all" states, or only those of the "first" token; then the last layer computes nothing else.
        cache: the result of `begin_fusion` for the same texts, to save computing it again.

    Returns:
        [P, L, d], or [P, d] for "first"; row p belongs to pairs[p]. States of padding are undefined.

    Raises:
        TypeError: the model has no fused encoder.
        ValueError: `pairs` has another shape or points outside.

    Example:
        >>> texts = ua.text_features(model, tokenizer, ["a red box", "a star"])
        >>> visuals = ua.image_features(model, picture)
        >>> ua.fuse(model, texts, visuals, torch.tensor([[0, 0], [1, 0]]), "first").shape
        torch.Size([2, 192])
    """
    _check_pairs(pairs, len(texts), len(visuals))
    return fusing(model).fuse(texts, visuals, pairs, read, cache)


def fuse_with_weights(
    model: PreTrainedModel, texts: Texts, visuals: Visuals, pairs: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """As `fuse`, with the attention weights, which `fuse` never has: it is slower and takes more memory.

    Args:
        model: with a fused encoder whose texts attend to visual tokens, a BLIP.
        texts: S texts.
        visuals: V visuals.
        pairs: [P, 2] of (text row, visual row), at least one.

    Returns:
        States [P, L, d], equal to those of `fuse` up to rounding, and for each layer the weights of its
        cross-attention, [P, H, L, T, N]: adapters on keys and values and frame-aware attention are in them, and each
        token's sum to 1 over T and N. States and weights of padding are undefined.

    Raises:
        TypeError: the model has no fused encoder, or its texts do not attend to visual tokens themselves.
        ValueError: `pairs` is empty, has another shape or points outside.
    """
    _check_pairs(pairs, len(texts), len(visuals))
    if not len(pairs):
        raise ValueError("pairs is empty: attention weights are of at least one pair")
    return fusing(model).fuse_with_weights(texts, visuals, pairs)


def match(
    model: PreTrainedModel, texts: Texts, visuals: Visuals, pairs: Tensor, cache: FusionCache | None = None
) -> Tensor:
    """Logits of the matching head for pairs, see `fuse`: [P, 2]; column 1, "they match", is the rerank score.

    The head runs outside autocast: rounding its logits to bfloat16 would make ties.

    Raises:
        TypeError: the model has no fused encoder.
        ValueError: `pairs` has another shape or points outside.

    Example:
        >>> texts = ua.text_features(model, tokenizer, ["a red box", "a star"])
        >>> visuals = ua.image_features(model, picture)
        >>> ua.match(model, texts, visuals, torch.tensor([[0, 0], [1, 0]])).shape
        torch.Size([2, 2])
    """
    _check_pairs(pairs, len(texts), len(visuals))
    return fusing(model).match(texts, visuals, pairs, cache)


def _check_pairs(pairs: Tensor, texts: int, visuals: int) -> None:
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ValueError(f"pairs must be [P, 2] of (text row, visual row), not {list(pairs.shape)}")
    if len(pairs) and (int(pairs.min()) < 0 or int(pairs[:, 0].max()) >= texts or int(pairs[:, 1].max()) >= visuals):
        raise ValueError(f"pairs point outside the {texts} texts and {visuals} visuals")
