"""Features of pictures, videos and texts, and matching scores of pairs, in one call each.

An argument that is None takes the value that the active adapter was trained with, else the base's or BLIP's default.
During a call the model is in evaluation mode, without gradients. `adapter=` names the set that a call uses, so that
threads can use one model with different adapters. A list of names gives each row its own set: one forward pass then
serves several adapters, see `active_adapter`.
"""

from __future__ import annotations

import logging
import reprlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.data.media.images import EvaluationTransform
from uniadapter.data.media.user_inputs import Clip, Pictures, as_clips, as_texts, clip_length
from uniadapter.data.text import clean_caption
from uniadapter.evaluation.blocks import rows_by
from uniadapter.evaluation.mode import evaluation_mode
from uniadapter.evaluation.retrieval import encode_texts
from uniadapter.files.messages import shortened
from uniadapter.files.schema import as_int
from uniadapter.inference.rows import Adapter, agreed, names_of_items, names_of_rows, settings_of_rows
from uniadapter.model.dispatch import backbone, require_task
from uniadapter.model.encoding import encode_visual, match
from uniadapter.model.features import Texts, Visuals
from uniadapter.model.pair_rows import arranged
from uniadapter.model.sets import active_adapter, active_settings
from uniadapter.model.settings import InferenceSettings, first_given

logger = logging.getLogger(__name__)

MAX_TOKENS = 35  # of a text, as BLIP's retrieval has it
_BATCH = 64  # frames encoded at once
_TEXT_BATCH = 256  # texts encoded at once
_BLOCK = 512  # pairs fused at once
_CAPTION_WORDS = 30  # most words of a caption, as in training


@contextmanager
def inference(model: PreTrainedModel, adapter: Adapter) -> Iterator[None]:
    """Within the block: evaluation mode, no gradients, and the set `adapter` active, if a name is given."""
    with active_adapter(model, adapter) if adapter is not None else nullcontext(), evaluation_mode(model):
        yield


def image_features(
    model: PreTrainedModel,
    images: Pictures,
    frames: int | None = None,
    image_size: int | None = None,
    *,
    adapter: Adapter = None,
) -> Visuals:
    """Encode pictures or videos for search, `pair_scores`, `ask` and `caption`.

    Args:
        model: a task model of any family, with or without adapters.
        images: one, or a list, of files, Pillow images, arrays or tensors; each is resized to a square. Files may be
            videos, and a list (or an array of four dimensions) within the list is a video by its frames. See
            `uniadapter.data.media.user_inputs` and `uniadapter.data.media.arrays` for shapes and ranges.
        frames: number of frames of a video, the middles of as many equal segments; a picture among videos is repeated.
            None takes all frames of a video given as frames, and for files the adapter's number, or 1.
        image_size: side in pixels of the square; None takes the adapter's, or the base's.
        adapter: name of the set to use, or of each picture's; None takes the active one.

    Returns:
        `Visuals` with V rows; those of `.feature` [V, e] have length 1, so inner products are cosine similarities.

    Raises:
        DataError: a file is missing or broken; names it.
        TypeError: an item is not a picture.
        ValueError: `frames` or `image_size` is too small, an array has not the shape of a picture, or the pictures'
            sets were trained with different sizes or numbers of frames.

    Example:
        >>> ua.image_features(model, picture)
        Visuals(tokens=[1, 1, 37, 192], feature=[1, 64], frames=[1, 1, 64], float32 on cpu)
        >>> ua.image_features(model, [picture, Image.new("RGB", (80, 60)), torch.zeros(3, 60, 80)]).feature.shape
        torch.Size([3, 64])
    """
    return _encoded(model, as_clips(images), frames, image_size, adapter)


def _encoded(
    model: PreTrainedModel, clips: list[Clip], frames: int | None, image_size: int | None, adapter: Adapter
) -> Visuals:
    names = names_of_rows(model, adapter, len(clips), "images")
    stated = settings_of_rows(model, adapter, names)
    length = clip_length(clips, frames, agreed(names, "frames", [first_given(frames, own.frames, 1) for own in stated]))
    transforms = [_transform(model, image_size, own) for own in stated]
    side = agreed(names, "image_size", [one.size for one in transforms])
    each = transforms if names else transforms * len(clips)
    batch, parts = max(1, _BATCH // length), []
    with inference(model, adapter):
        for start in range(0, max(1, len(clips)), batch):
            part = slice(start, start + batch)
            shown = zip(clips[part], each[part], strict=True)
            read = [torch.stack([transform(frame) for frame in clip.read(length)]) for clip, transform in shown]
            pixels = torch.stack(read) if read else torch.empty(0, length, 3, side, side)
            with arranged(model, part):
                parts.append(encode_visual(model, pixels.to(model.device)))
    return Visuals.concatenate(parts)


def picture_transform(
    model: PreTrainedModel, image_size: int | None = None, adapter: str | None = None
) -> EvaluationTransform:
    """How `image_features` makes a picture the model's input; see there for the arguments and errors."""
    return _transform(model, image_size, active_settings(model, adapter))


def _transform(model: PreTrainedModel, image_size: int | None, stated: InferenceSettings) -> EvaluationTransform:
    layout = backbone(model).layout
    if image_size is not None and as_int("image_size", image_size, 1) < layout.patch_size:
        raise ValueError(f"image_size is {image_size}: the base's patches are {layout.patch_size} pixels wide")
    return EvaluationTransform(
        first_given(image_size, stated.image_size, layout.image_size),
        first_given(stated.mean, layout.mean),
        first_given(stated.std, layout.std),
        first_given(stated.resampling, layout.resampling),
        first_given(stated.crop, layout.crop),
    )


def text_features(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: str | Sequence[str],
    max_tokens: int | None = None,
    *,
    adapter: Adapter = None,
) -> Texts:
    """Encode texts, cleaned as captions are in training.

    Args:
        model: a retrieval model of any family.
        tokenizer: the base's.
        texts: one, or a list.
        max_tokens: longer texts are truncated to so many tokens, with a warning in the log; None takes the adapter's,
            or 35, or the model's number of positions if that is less.
        adapter: name of the set to use, or of each text's; None takes the active one.

    Returns:
        `Texts` with S rows; those of `.feature` [S, e] have length 1.

    Raises:
        TypeError: an item is not a text, or the model is for another task.
        ValueError: a text cannot be encoded, or `max_tokens` exceeds the model's positions.

    Example:
        >>> text = ua.text_features(model, tokenizer, "a red box")
        >>> (ua.image_features(model, pictures).feature @ text.feature.T).shape
        torch.Size([2, 1])
    """
    require_task(model, "retrieval", "text_features")
    given = as_texts(texts)
    names = names_of_rows(model, adapter, len(given), "texts")
    stated = settings_of_rows(model, adapter, names)
    positions = backbone(model).layout.positions
    most = [first_given(max_tokens, own.max_tokens, min(MAX_TOKENS, positions)) for own in stated]
    words = [first_given(own.max_words, _CAPTION_WORDS) for own in stated]
    cleaned = clean_texts(given, clean_caption, words if names else words * len(given), "texts")
    for one in most:
        if as_int("max_tokens", one, 3) > positions:
            raise ValueError(f"max_tokens is {one}: the model takes {positions}")
    groups = rows_by(most if names else most * len(given)) or {most[0]: []}  # no texts are one empty group
    parts = []
    with inference(model, adapter):
        for longest, members in groups.items():
            with arranged(model, torch.tensor(members, dtype=torch.long)):
                some = [cleaned[row] for row in members]
                parts.append(encode_texts(model, tokenizer, some, longest, _TEXT_BATCH))
    if len(parts) == 1:
        return parts[0]
    order = torch.tensor([row for members in groups.values() for row in members])
    return Texts.concatenate(parts).select(order.argsort())


def clean_texts(texts: list[str], clean: Callable[[str, int], str], words: Sequence[int], noun: str) -> list[str]:
    """Clean texts as in training.

    Args:
        texts: to be cleaned.
        clean: maps a text and a number of words to the cleaned text.
        words: most words of each text; a warning says how many texts are truncated.
        noun: what the texts are, for the warning.
    """
    whole = [clean(text, sys.maxsize).split() for text in texts]
    cut = [most for text, most in zip(whole, words, strict=True) if len(text) > most]
    if cut:
        logger.warning("%d of %d %s are longer than %d words and are truncated", len(cut), len(texts), noun, cut[0])
    return [" ".join(text[:most]) for text, most in zip(whole, words, strict=True)]


def pair_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    images: Pictures | Visuals,
    texts: str | Sequence[str] | Texts,
    pairs: Tensor | Sequence[tuple[int, int]] | None = None,
    *,
    adapter: Adapter = None,
) -> Tensor:
    """Matching probabilities of texts and pictures, by the fused encoder and the matching head.

    Args:
        model: a retrieval model with a matching head.
        tokenizer: the base's.
        images: pictures, or the result of `image_features`.
        texts: texts, or the result of `text_features`.
        pairs: (text, image) rows to score; None scores all.
        adapter: name of the set to use, or of each pair's; None takes the active one.

    Returns:
        Probabilities that text and picture match: [P] for pairs, [texts, images] for all.

    Raises:
        TypeError: an item is not a picture or text, or the model has no matching head.
        ValueError: `pairs` has another shape or points outside, or a text or picture is in pairs of different sets.

    Example:
        >>> ua.pair_scores(model, tokenizer, pictures, ["a red box", "a blue box", "a star"]).shape
        torch.Size([3, 2])
        >>> ua.pair_scores(model, tokenizer, pictures, ["a red box", "a blue box"], [(0, 0), (1, 1)]).shape
        torch.Size([2])
    """
    require_task(model, "retrieval", "pair_scores")
    said = texts if isinstance(texts, Texts) else as_texts(texts)
    shown = images if isinstance(images, Visuals) else as_clips(images)
    rows = _rows(pairs, len(said), len(shown))
    names = names_of_rows(model, adapter, len(rows), "pairs")
    own = [adapter if names is None else names_of_items(rows[:, column], names, count, noun)
           for column, count, noun in ((0, len(said), "text"), (1, len(shown), "image"))]  # fmt: skip
    visuals = shown if isinstance(shown, Visuals) else _encoded(model, shown, None, None, own[1])
    encoded = said if isinstance(said, Texts) else text_features(model, tokenizer, said, adapter=own[0])
    # Sorted by visual, so that a block computes a visual's keys and values once.
    order = torch.argsort(rows[:, 1], stable=True)
    scores = torch.empty(len(rows))
    with inference(model, adapter):
        for start in range(0, len(rows), _BLOCK):
            part = order[start : start + _BLOCK]
            with arranged(model, part):
                logits = match(model, encoded, visuals, rows[part].to(model.device))
            scores[part] = logits.float().softmax(-1)[:, 1].cpu()
    return scores.view(len(encoded), len(visuals)) if pairs is None else scores


def _rows(pairs: Tensor | Sequence[tuple[int, int]] | None, texts: int, visuals: int) -> Tensor:
    """Indices (text, image) [P, 2], checked."""
    if pairs is None:
        return torch.cartesian_prod(torch.arange(texts), torch.arange(visuals)).view(-1, 2)
    try:
        rows = torch.as_tensor(pairs).cpu()
    except (TypeError, ValueError, RuntimeError):
        raise TypeError(f"pairs is {shortened(reprlib.repr(pairs), 80)}: it must be rows of (text, image)") from None
    if not rows.numel():
        return torch.empty(0, 2, dtype=torch.long)
    whole = not (rows.is_floating_point() or rows.is_complex() or rows.dtype == torch.bool)
    if not whole or rows.ndim not in (1, 2) or rows.shape[-1] != 2:
        raise ValueError(f"pairs must be whole numbers [P, 2] of (text, image), not {rows.dtype} {list(rows.shape)}")
    return rows.reshape(-1, 2).long()
