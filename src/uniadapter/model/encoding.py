"""The one way through a model of any family: encode visuals, encode texts, fuse pairs of them.

Everything above (losses, evaluation, commands) talks to a model through these functions. An image is a video of one
frame. `fuse` takes pairs, so that a visual's keys and values are projected once however many texts meet it.
"""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor
from transformers import PreTrainedModel

from uniadapter.errors import ConfigError
from uniadapter.model.backbone import Contrast, Read, adopt, backbone, fusing
from uniadapter.model.features import FusionCache, Texts, Visuals


def encode_visual(model: PreTrainedModel, frames: Tensor, chunk: int = 0, stem: Any = None) -> Visuals:
    """Encode pictures or videos.

    Args:
        model: of transformers, of any family (`uniadapter families`), with or without adapters.
        frames: normalised pixels [B, T, 3, H, W]; an image is T = 1. Sizes other than the model's interpolate its
            position embeddings, where its family can.
        chunk: frames that go through the visual encoder at once; 0 means all.
        stem: what `visual_stem` made of the same frames; without it that is computed here.

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
    return backbone(model).encode_visual(frames, chunk, stem)


def visual_feature(model: PreTrainedModel, frames: Tensor, chunk: int = 0, stem: Any = None) -> Tensor:
    """`encode_visual`'s feature alone, [B, e]: nothing is computed in the last layer but what it reads."""
    _check_frames(frames)
    return backbone(model).visual_feature(frames, chunk, stem)


def visual_stem(model: PreTrainedModel, frames: Tensor, chunk: int = 0) -> Any:
    """Compute once what every set of a frozen base computes alike for these frames, a set and its momentum say.

    Args:
        model: of any family.
        frames: normalised pixels [B, T, 3, H, W].
        chunk: frames that go through at once; 0 means all.

    Returns:
        What `encode_visual` and `visual_feature` take; None where there is nothing in common.
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
            everywhere are cut, where the family computes no padding.

    Returns:
        `Texts`, of the longest text's length. The states of padding mean nothing.

    Raises:
        TypeError: the model has no text encoder.
        ValueError: a mask has holes, is no mask, or a text has no token or more than the model has positions.

    Example:
        >>> tokens = tokenizer(["a red box", "a star"], padding=True, return_tensors="pt")
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
        frames: features of the visuals' frames, [V, T, e], for an active set that weighs them by the text.

    Returns:
        [S, V], float32 for features in half precision.
    """
    return backbone(model).similarity(text, visual, frames)


def contrast_of(model: PreTrainedModel, wanted: Contrast | Literal["auto"] = "auto") -> Contrast:
    """The contrastive loss for a model: that which is wanted, or "auto" for that which its family was trained with.

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
    """The numbers of the base's own contrastive loss, the active set's where it trains them.

    Returns:
        As far as the family has them, `logit_scale`, the logarithm of the factor on similarities, and `logit_bias`.
    """
    active = adopt(model).active
    own = {} if active is None else dict(active.scalars.items())
    return {**backbone(model).base_scalars(), **own}


def fused_ids(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Ids of texts as the fused encoder was trained to see them: in a BLIP, [ENC] in the place of their first token.

    `pair_scores`, `fuse` and `ask` do this by themselves. transformers' own `forward` and processor do not: they score
    a pair as BLIP never saw one.

    Args:
        model: with a fused encoder.
        ids: of texts [S, L], padded on the right, as a tokenizer or processor gives them; left as they are.

    Example:
        >>> import torch, uniadapter as ua
        >>> model, tokenizer = ua.load_model(), ua.load_tokenizer()
        >>> inputs = tokenizer(["a red box", "two dogs"], padding=True, return_tensors="pt")
        >>> inputs["input_ids"] = ua.fused_ids(model, inputs["input_ids"])
        >>> logits = model(pixel_values=torch.zeros(2, 3, 96, 96), **inputs).itm_score  # now as `pair_scores` has them
    """
    return fusing(model).fused_ids(ids)


def begin_fusion(model: PreTrainedModel, texts: Texts) -> FusionCache:
    """Compute once what depends on the texts alone, for `fuse` to be called many times with the same texts.

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
    """Run the fused text encoder over pairs of texts and visuals.

    Each visual's keys and values are projected once a layer; in a BLIP the texts of one visual attend to them as one
    long query, the first layer's self-attention is computed once a text, and all texts are packed without padding.

    Args:
        model: with a fused encoder.
        texts: S texts; in a BLIP their first token is replaced by [ENC].
        visuals: V visuals, all of whose tokens are real.
        pairs: [P, 2] of (text row, visual row), in any order, repeats allowed.
        read: "all" states, or only those of the "first" token, for which the last layer computes nothing else.
        cache: what `begin_fusion` made of the same texts; without it that is computed here.

    Returns:
        [P, L, d], or [P, d] for "first"; row p belongs to pairs[p]. States of padding mean nothing.

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


def match(
    model: PreTrainedModel, texts: Texts, visuals: Visuals, pairs: Tensor, cache: FusionCache | None = None
) -> Tensor:
    """Matching logits of pairs, see `fuse`: [P, 2], column 1 for "they belong together" (the rerank score).

    The head itself runs outside autocast: rounding its logits to 8 bits would make ties.

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
