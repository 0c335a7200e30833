"""One call each for a user: features of pictures and texts, and scores of pairs of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.backbone import Texts, Visuals, encode_visual, match
from uniadapter.data.images import EvaluationTransform, load_picture
from uniadapter.data.text import clean_caption
from uniadapter.evaluation.retrieval import encode_texts

Picture = str | Path | Image.Image

_BATCH = 64
_BLOCK = 512


@torch.no_grad()
def image_features(model: PreTrainedModel, images: Sequence[Picture]) -> Visuals:
    """Encode pictures for search and for `pair_scores`.

    Args:
        model: a BLIP, with or without an adapter.
        images: files or Pillow images; each is resized to the model's square.

    Returns:
        `Visuals`; `.feature` [V, e] has unit rows, so an inner product is a cosine similarity.

    Raises:
        DataError: a file is missing or broken; names it.
    """
    transform = EvaluationTransform(model.config.vision_config.image_size)
    parts = []
    for start in range(0, len(images), _BATCH):
        loaded = [
            i.convert("RGB") if isinstance(i, Image.Image) else load_picture(Path(i))
            for i in images[start : start + _BATCH]
        ]
        frames = torch.stack([transform(picture) for picture in loaded])[:, None]
        parts.append(encode_visual(model, frames.to(model.device)))
    return Visuals.concatenate(parts)


def text_features(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int = 35
) -> Texts:
    """Encode texts, cleaned as captions are in training.

    Returns:
        `Texts`; `.feature` [S, e] has unit rows.
    """
    return encode_texts(model, tokenizer, [clean_caption(text) for text in texts], max_tokens, 4 * _BATCH)


@torch.no_grad()
def pair_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    images: Sequence[Picture] | Visuals,
    texts: Sequence[str] | Texts,
    pairs: Tensor | Sequence[tuple[int, int]] | None = None,
) -> Tensor:
    """How well texts and pictures match, by the fused encoder.

    Args:
        model: a BLIP with a matching head.
        tokenizer: the base's.
        images: pictures, or what `image_features` made of them.
        texts: texts, or what `text_features` made of them.
        pairs: (text, image) rows to score; None scores all.

    Returns:
        Probabilities that they belong together: [P] for pairs, [texts, images] for all.
    """
    visuals = images if isinstance(images, Visuals) else image_features(model, images)
    encoded = texts if isinstance(texts, Texts) else text_features(model, tokenizer, texts)
    if pairs is None:
        rows = torch.cartesian_prod(torch.arange(len(encoded)), torch.arange(len(visuals)))
    else:
        rows = torch.as_tensor(pairs).reshape(-1, 2)
    # By visual, so that blocks share keys and values.
    order = torch.argsort(rows[:, 1], stable=True)
    scores = torch.empty(len(rows))
    for start in range(0, len(rows), _BLOCK):
        part = order[start : start + _BLOCK]
        logits = match(model, encoded, visuals, rows[part].to(model.device))
        scores[part] = logits.float().softmax(-1)[:, 1].cpu()
    return scores.view(len(encoded), len(visuals)) if pairs is None else scores
