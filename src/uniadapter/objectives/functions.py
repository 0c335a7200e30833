"""The four training losses as functions, for a training loop of your own.

The loss of retrieval is ITC on features plus ITM on the pairs that `hard_negative_pairs` draws from them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from uniadapter.objectives.contrastive import FeatureQueue
from uniadapter.objectives.contrastive import contrastive_loss as _contrastive_loss
from uniadapter.objectives.decoding import answer_loss, caption_loss
from uniadapter.objectives.matching import MatchingPairs, draw_negatives, matching_loss, matching_pairs

__all__ = [
    "FeatureQueue",
    "MatchingPairs",
    "answer_loss",
    "caption_loss",
    "contrastive_loss",
    "hard_negative_pairs",
    "matching_loss",
]


def contrastive_loss(
    visual: Tensor,
    text: Tensor,
    ids: Tensor | None = None,
    temperature: Tensor | float = 0.07,
    *,
    momentum: tuple[Tensor, Tensor] | None = None,
    queue: FeatureQueue | None = None,
    alpha: float = 0.0,
) -> Tensor:
    """Image-text contrastive loss (ITC; BLIP, arXiv 2201.12086, section 3.2): the mean of both directions.

    Args:
        visual: unit features of B visuals, [B, e]: `Visuals.feature`.
        text: of B texts, [B, e]; pair i is (visual i, text i).
        ids: [B] integers; rows with equal ids are each other's positives. None if all visuals differ.
        temperature: of the softmax, a number or a scalar tensor that may learn.
        momentum: visual and text features [B, e] of a momentum encoder to compare with; None compares with the batch
            itself.
        queue: momentum features of earlier batches to compare with as well; it is only read, `enqueue` afterwards.
        alpha: weight of the momentum encoder's soft targets, 0.4 in BLIP.

    Returns:
        The loss, a scalar of at least float32.

    Raises:
        ValueError: the shapes differ, the temperature is not positive, or alpha is positive without momentum features.

    Example:
        >>> visuals = ua.image_features(model, pictures)
        >>> texts = ua.text_features(model, tokenizer, ["a red box", "a blue box"])
        >>> ua.contrastive_loss(visuals.feature, texts.feature).shape
        torch.Size([])
    """
    count = _rows(visual, text, ids, temperature)
    ids = torch.arange(count, device=visual.device) if ids is None else ids
    queue = FeatureQueue(0, visual.shape[1]) if queue is None else queue
    gallery = (visual, text) if momentum is None else momentum
    if alpha and momentum is None:
        raise ValueError(f"alpha is {alpha} without momentum features: pass momentum=, or leave alpha at 0")
    return _contrastive_loss(visual, text, *gallery, queue, ids, temperature, alpha)


def hard_negative_pairs(
    visual: Tensor,
    text: Tensor,
    ids: Tensor | None = None,
    temperature: float = 0.07,
    generator: torch.Generator | None = None,
) -> MatchingPairs:
    """Pairs for image-text matching (ITM; BLIP, section 3.2): the positive ones, and hard negatives.

    For every text one visual with another id is drawn from the softmax of their similarities, and for every visual one
    text. The matching head's logits, `match(model, texts, visuals, pairs.pairs)`, and `pairs.labels` are the arguments
    of `matching_loss`.

    Args:
        visual: unit features of B visuals, [B, e].
        text: of B texts, [B, e]; pair i is (visual i, text i).
        ids: [B] integers; rows with equal ids are never each other's negatives. None if all visuals differ.
        temperature: of the softmax.
        generator: random number generator on the CPU; None takes torch's default.

    Returns:
        `pairs` [P, 2] of (text, visual) and `labels` [P]; P is 3 B, or less if all rows have the id of one.

    Raises:
        ValueError: the shapes differ, the temperature is not positive, or a similarity is NaN.

    Example:
        >>> visuals = ua.image_features(model, pictures)
        >>> texts = ua.text_features(model, tokenizer, ["a red box", "a blue box"])
        >>> drawn = ua.hard_negative_pairs(visuals.feature, texts.feature)
        >>> drawn.pairs.tolist()
        [[0, 0], [1, 1], [0, 1], [1, 0], [1, 0], [0, 1]]
        >>> loss = ua.matching_loss(ua.match(model, texts, visuals, drawn.pairs), drawn.labels)
    """
    count = _rows(visual, text, ids, temperature)
    ids = torch.arange(count, device=visual.device) if ids is None else ids
    with torch.no_grad(), torch.autocast(visual.device.type, enabled=False):
        similarity = text.float() @ visual.float().T / temperature
    uniforms = torch.rand(2, count, dtype=torch.float64, generator=generator)
    return matching_pairs(
        draw_negatives(similarity, ids, ids, uniforms[0]), draw_negatives(similarity.T, ids, ids, uniforms[1])
    )


def _rows(visual: Tensor, text: Tensor, ids: Tensor | None, temperature: Tensor | float) -> int:
    """B, the number of rows, after a check of the arguments."""
    if visual.ndim != 2 or visual.shape != text.shape or not visual.numel():
        raise ValueError(f"features must both be [B, e], not {list(visual.shape)} and {list(text.shape)}")
    if ids is not None and ids.shape != visual.shape[:1]:
        raise ValueError(f"ids is {list(ids.shape)}: it must have one number for each of the {len(visual)} pairs")
    scale = float(temperature.detach()) if isinstance(temperature, Tensor) else float(temperature)
    if scale <= 0:
        raise ValueError(f"temperature is {scale}: it must be above 0")
    return len(visual)
