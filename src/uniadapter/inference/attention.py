"""Attention maps of a picture or video, in one call; see `inference.features` for the arguments it shares."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.data.media.user_inputs import Picture, as_texts
from uniadapter.inference.features import MAX_TOKENS, image_features, inference, text_features
from uniadapter.inference.predict import clean_questions
from uniadapter.model.attention_maps import AttentionMap, attention_by_layer, mean_map
from uniadapter.model.dispatch import fusing, task_of
from uniadapter.model.features import Texts, Visuals
from uniadapter.model.sets import active_settings
from uniadapter.model.settings import first_given
from uniadapter.model.tokens import tokenize


def attention_maps(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    image: Picture | Sequence[Picture] | Visuals,
    texts: str | Sequence[str],
    layer: int | None = None,
    frames: int | None = None,
    image_size: int | None = None,
    max_tokens: int | None = None,
    *,
    adapter: str | None = None,
) -> list[AttentionMap]:
    """Where the words of captions or questions look in one picture or video.

    The weights are those of the fused encoder's cross-attention, as the adapters leave them: computed with adapted keys
    and, where it is on, with frame-aware attention.

    Args:
        model: a BLIP for retrieval or question answering, with or without adapters.
        tokenizer: the base's.
        image: one picture or video, see `image_features` (a list is the frames of a video); or the result of
            `image_features` for one.
        texts: captions, for retrieval, or questions; one, or a list.
        layer: of the fused encoder, from 0, or from -1 backwards; None takes the mean over all layers.
        frames: number of frames of a video, see `image_features`.
        image_size: see `image_features`.
        max_tokens: longer texts are truncated to so many tokens; None takes the adapter's, or 35.
        adapter: name of the set to use; None takes the active one.

    Returns:
        A map for each text.

    Raises:
        DataError: the file is missing or broken, or a question is empty.
        TypeError: an item is not a picture or text, or the model has no texts that attend to patches.
        ValueError: there is no such layer, or there are several pictures.

    Example:
        >>> (found,) = ua.attention_maps(model, tokenizer, picture, "a red box")
        >>> found
        AttentionMap(words=['a', 'red', 'box'], patches=[3, 1, 6, 6])
        >>> bool(found.patches[1].sum() < 1)  # the rest is CLS's
        True
    """
    fusing(model)
    visuals = image
    if not isinstance(visuals, Visuals):
        visuals = image_features(model, [image], frames, image_size, adapter=adapter)  # type: ignore[list-item]
    if len(visuals) != 1:
        raise ValueError(f"attention_maps is about one picture, and was given {len(visuals)}: call it for each")
    if task_of(model) == "retrieval":
        encoded = text_features(model, tokenizer, texts, max_tokens, adapter=adapter)
    else:
        stated = active_settings(model, adapter)
        given = as_texts(texts, "questions")
        asked = clean_questions(given, [stated] * len(given))
        encoded = question_texts(model, tokenizer, asked, first_given(max_tokens, stated.max_tokens, MAX_TOKENS))
    with inference(model, adapter):
        found = attention_layers(model, tokenizer, visuals, encoded)
    count = len(found[0]) if found else 0
    if layer is not None and found and not -count <= layer < count:
        raise ValueError(f"layer is {layer}: the fused encoder has layers 0 to {count - 1}")
    return [mean_map(layers) if layer is None else layers[layer] for layers in found]


def attention_layers(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, visual: Visuals, texts: Texts
) -> list[list[AttentionMap]]:
    """For each text its maps over one visual in each layer of the fused encoder, with the active adapter set."""
    rows = torch.arange(len(texts), device=texts.ids.device)
    if not len(rows):
        return []
    return attention_by_layer(model, tokenizer, texts, visual, torch.stack([rows, rows * 0], 1))


def question_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: list[str],
    max_tokens: int,
) -> Texts:
    """Questions for the fused encoder, which needs no states and features of theirs; all in one batch."""
    tokens = tokenize(tokenizer, questions, max_tokens)
    ids, mask = tokens.ids.to(model.device), tokens.mask.to(model.device)
    none = torch.zeros((*ids.shape, 0), device=model.device)
    return Texts(ids, mask, none, none.sum(1))
