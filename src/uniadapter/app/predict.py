"""One call each for a user: features of pictures, videos and texts, scores of pairs, answers and captions.

An argument that is None is as the adapter in use was trained, and where its folder says nothing as BLIP has it.
Whatever mode the model is in, predictions are made in evaluation mode and without gradients, and leave it as it was.
Each takes the name of an adapter for this one call, so that threads may ask one model with different adapters.
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

from uniadapter.config import EvaluateConfig, ModelConfig
from uniadapter.data.media.images import EvaluationTransform
from uniadapter.data.media.inputs import Picture, Pictures, as_clips, as_texts, clip_length
from uniadapter.data.media.records import DataError
from uniadapter.data.text import clean_caption, clean_question
from uniadapter.evaluation.answering import AnswerList, Prediction, answer_questions
from uniadapter.evaluation.mode import evaluating
from uniadapter.evaluation.retrieval import encode_texts
from uniadapter.files.messages import shortened
from uniadapter.files.schema import whole_number
from uniadapter.model.backbone import backbone, require_task
from uniadapter.model.decoding import generate_texts, visual_context
from uniadapter.model.encoding import encode_visual, match
from uniadapter.model.features import Texts, Visuals
from uniadapter.model.sets import active_adapter, active_settings
from uniadapter.model.settings import first_given
from uniadapter.model.tokens import warn_of_cuts

logger = logging.getLogger(__name__)

_BATCH = 64
_BLOCK = 512
_CAPTION_WORDS, _QUESTION_WORDS = 30, 50  # as the files' are cut
_TOKENS = 35


@contextmanager
def _predicting(model: PreTrainedModel, adapter: str | None) -> Iterator[None]:
    """Evaluation mode, no gradients, and the adapter that the call names."""
    with active_adapter(model, adapter) if adapter is not None else nullcontext(), evaluating(model):
        yield


def image_features(
    model: PreTrainedModel,
    images: Pictures,
    frames: int | None = None,
    image_size: int | None = None,
    *,
    adapter: str | None = None,
) -> Visuals:
    """Encode pictures or videos for search, for `pair_scores`, `ask` and `caption`.

    Args:
        model: a BLIP, with or without an adapter.
        images: one, or a list, of files, Pillow images, arrays or tensors; each is resized to a square. Files may be
            videos, and a list (or an array of four dimensions) within the list is a video by its frames. See
            `uniadapter.data.media.inputs` and `uniadapter.data.media.pixels` for shapes and ranges.
        frames: of a video, the middles of as many equal segments; a picture among videos stands still. None takes
            all frames of videos that are given by their frames, and of a file as many as the adapter was trained for,
            or 1.
        image_size: side in pixels of the square; None takes the adapter's, or the base's.
        adapter: name of the set to use; None takes the active one.

    Returns:
        `Visuals`; `.feature` [V, e] has unit rows, so an inner product is a cosine similarity. V may be 0.

    Raises:
        DataError: a file is missing or broken; names it.
        TypeError: something is no picture.
        ValueError: `frames` or `image_size` is too small, or an array is no picture.

    Example:
        >>> ua.image_features(model, picture)
        Visuals(tokens=[1, 1, 37, 192], feature=[1, 64], frames=[1, 1, 64], float32 on cpu)
        >>> ua.image_features(model, [picture, Image.new("RGB", (80, 60)), torch.zeros(3, 60, 80)]).feature.shape
        torch.Size([3, 64])
    """
    clips = as_clips(images)
    layout = backbone(model).layout
    if image_size is not None and whole_number("image_size", image_size, 1) < layout.patch_size:
        raise ValueError(f"image_size is {image_size}: the base's patches are {layout.patch_size} pixels wide")
    stated = active_settings(model, adapter)
    length = clip_length(clips, frames, first_given(stated.frames, 1))
    transform = EvaluationTransform(
        first_given(image_size, stated.image_size, layout.image_size),
        first_given(stated.mean, layout.mean),
        first_given(stated.std, layout.std),
        first_given(stated.resampling, layout.resampling),
    )
    batch, parts = max(1, _BATCH // length), []
    with _predicting(model, adapter):
        for start in range(0, max(1, len(clips)), batch):
            read = [torch.stack([transform(f) for f in c.read(length)]) for c in clips[start : start + batch]]
            pixels = torch.stack(read) if read else torch.empty(0, length, 3, transform.size, transform.size)
            parts.append(encode_visual(model, pixels.to(model.device)))
    return Visuals.concatenate(parts)


def text_features(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: str | Sequence[str],
    max_tokens: int | None = None,
    *,
    adapter: str | None = None,
) -> Texts:
    """Encode texts, cleaned as captions are in training.

    Args:
        model: a BLIP with a text encoder and projections.
        tokenizer: the base's.
        texts: one, or a list.
        max_tokens: longer texts are cut to so many, and how many were is said in the log; if nothing says more 35, or
            as many as the model has positions.
        adapter: name of the set to use; None takes the active one.

    Returns:
        `Texts`; `.feature` [S, e] has unit rows. S may be 0.

    Raises:
        TypeError: something is no text, or the model is of another task.
        ValueError: a text cannot be encoded, or the model has not so many positions.

    Example:
        >>> text = ua.text_features(model, tokenizer, "a red box")
        >>> (ua.image_features(model, pictures).feature @ text.feature.T).shape
        torch.Size([2, 1])
    """
    require_task(model, "retrieval", "text_features")
    stated = active_settings(model, adapter)
    positions = backbone(model).layout.positions
    max_tokens = first_given(max_tokens, stated.max_tokens, min(_TOKENS, positions))
    cleaned = _cleaned(as_texts(texts), clean_caption, first_given(stated.max_words, _CAPTION_WORDS), "texts")
    if whole_number("max_tokens", max_tokens, 3) > positions:
        raise ValueError(f"max_tokens is {max_tokens}: the model takes {positions}")
    with _predicting(model, adapter):
        return encode_texts(model, tokenizer, cleaned, max_tokens, 4 * _BATCH)


def _cleaned(texts: list[str], clean: Callable[[str, int], str], words: int, noun: str) -> list[str]:
    """Texts as training reads them; how many lose their end by that is said in the log."""
    whole = [clean(text, sys.maxsize).split() for text in texts]
    cut = sum(len(text) > words for text in whole)
    if cut:
        logger.warning("%d of %d %s are longer than %d words and lose their end", cut, len(texts), noun, words)
    return [" ".join(text[:words]) for text in whole]


def pair_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    images: Pictures | Visuals,
    texts: str | Sequence[str] | Texts,
    pairs: Tensor | Sequence[tuple[int, int]] | None = None,
    *,
    adapter: str | None = None,
) -> Tensor:
    """How well texts and pictures match, by the fused encoder.

    Args:
        model: a BLIP with a matching head.
        tokenizer: the base's.
        images: pictures, or what `image_features` made of them.
        texts: texts, or what `text_features` made of them.
        pairs: (text, image) rows to score; None scores all.
        adapter: name of the set to use; None takes the active one.

    Returns:
        Probabilities that they belong together: [P] for pairs, [texts, images] for all.

    Raises:
        TypeError: something is no picture or text, or the model is of another task.
        ValueError: `pairs` has another shape or points outside.

    Example:
        >>> ua.pair_scores(model, tokenizer, pictures, ["a red box", "a blue box", "a star"]).shape
        torch.Size([3, 2])
        >>> ua.pair_scores(model, tokenizer, pictures, ["a red box", "a blue box"], [(0, 0), (1, 1)]).shape
        torch.Size([2])
    """
    require_task(model, "retrieval", "pair_scores")
    visuals = images if isinstance(images, Visuals) else image_features(model, images, adapter=adapter)
    encoded = texts if isinstance(texts, Texts) else text_features(model, tokenizer, texts, adapter=adapter)
    rows = _rows(pairs, len(encoded), len(visuals))
    # By visual, so that blocks share keys and values.
    order = torch.argsort(rows[:, 1], stable=True)
    scores = torch.empty(len(rows))
    with _predicting(model, adapter):
        for start in range(0, len(rows), _BLOCK):
            part = order[start : start + _BLOCK]
            logits = match(model, encoded, visuals, rows[part].to(model.device))
            scores[part] = logits.float().softmax(-1)[:, 1].cpu()
    return scores.view(len(encoded), len(visuals)) if pairs is None else scores


def _rows(pairs: Tensor | Sequence[tuple[int, int]] | None, texts: int, visuals: int) -> Tensor:
    """(text, image) rows [P, 2]."""
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


def ask(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    image: Picture | Sequence[Picture] | Visuals,
    questions: str | Sequence[str],
    answers: Sequence[str] | AnswerList | None = None,
    frames: int | None = None,
    image_size: int | None = None,
    k: int | None = None,
    *,
    adapter: str | None = None,
) -> list[Prediction]:
    """Answer questions about one picture or video.

    Args:
        model: a `BlipForQuestionAnswering`, with or without an adapter.
        tokenizer: the base's.
        image: one picture or video as `image_features` takes them, a list being a video's frames; or what
            `image_features` made of one.
        questions: one, or a list.
        answers: the list to choose from; None takes the one that the adapter was trained with, or lets the decoder
            write.
        frames: of a video, see `image_features`.
        image_size: see `image_features`.
        k: answers of the list whose whole likelihood is computed, the best by their first token; 0 means all. None
            means all, or with the adapter's own list as many as it was trained to.
        adapter: name of the set to use; None takes the active one.

    Returns:
        An answer a question, with its runners-up and their probabilities where it was chosen from a list.

    Raises:
        DataError: the file is missing or broken, or a question is empty.
        TypeError: something is no picture or text, or the model is of another task.
        ValueError: an answer of the list cannot be ranked, or there are several pictures.

    Example:
        >>> (found,) = ua.ask(asking, tokenizer, picture, "what colour is it?", ["red", "green"])
        >>> found.answer in ("red", "green")
        True
    """
    require_task(model, "vqa", "ask")
    stated = active_settings(model, adapter)
    words = first_given(stated.max_words, _QUESTION_WORDS)
    texts = _cleaned(as_texts(questions, "questions"), clean_question, words, "questions")
    if not all(texts):
        number = texts.index("") + 1
        raise DataError(f"question {number} is empty once cleaned: write one, or leave it out", "empty question")
    visuals = image
    if not isinstance(visuals, Visuals):
        visuals = image_features(model, [image], frames, image_size, adapter=adapter)  # type: ignore[list-item]
    if len(visuals) != 1:
        raise ValueError(f"ask is about one picture, and was given {len(visuals)}: call it for each")
    if answers is None and stated.answering != "generate":
        answers, k = stated.answers, first_given(k, stated.k, 0)
    listed = answers
    if answers is not None and not isinstance(answers, AnswerList):
        listed = AnswerList(as_texts(answers, "answers"), tokenizer, model)
    about, settings = [0] * len(texts), ModelConfig(max_tokens=first_given(stated.max_tokens, _TOKENS))
    config = EvaluateConfig(k=first_given(k, 0), beams=first_given(stated.beams, 3))
    warn_of_cuts(tokenizer, texts, settings.max_tokens, "questions")
    with _predicting(model, adapter):
        return answer_questions(model, tokenizer, visuals, texts, about, settings, config, listed)  # type: ignore[arg-type]


def caption(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    images: Pictures | Visuals,
    prompt: str | None = None,
    frames: int | None = None,
    beams: int | None = None,
    longest: int | None = None,
    shortest: int | None = None,
    image_size: int | None = None,
    *,
    adapter: str | None = None,
) -> list[str]:
    """Write a caption for each picture or video.

    Args:
        model: a `BlipForConditionalGeneration`, with or without an adapter.
        tokenizer: the base's.
        images: as `image_features` takes them, or what it made of them.
        prompt: what captions start with; not in what is returned. BLIP's is "a picture of".
        frames: of a video, see `image_features`.
        beams: of the search; BLIP's are 3.
        longest: tokens with the prompt, at most; BLIP's are 20.
        shortest: the same, at least; BLIP's are 5.
        image_size: see `image_features`.
        adapter: name of the set to use; None takes the active one.

    Returns:
        A caption a picture, in their order; a single picture gives a list of one.

    Raises:
        DataError: a file is missing or broken.
        TypeError: something is no picture, or the model is of another task.
        ValueError: the prompt leaves no room for a caption, or a number is out of its range.

    Example:
        >>> captions = ua.caption(captioner, tokenizer, pictures)
        >>> len(captions)
        2
    """
    require_task(model, "caption", "caption")
    stated = active_settings(model, adapter)
    (prompt,) = as_texts(first_given(prompt, stated.prompt, "a picture of "), "prompt")
    visuals = images
    if not isinstance(visuals, Visuals):
        visuals = image_features(model, visuals, frames, image_size, adapter=adapter)
    with _predicting(model, adapter):
        return generate_texts(
            model,
            tokenizer,
            visual_context(model, visuals),
            prompt,
            first_given(beams, stated.beams, 3),
            first_given(longest, stated.longest, 20),
            first_given(shortest, stated.shortest, 5),
        )
