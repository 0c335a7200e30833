"""Answers and captions for pictures and videos, in one call each; see `inference.features` for shared arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.config import EvaluateConfig, ModelConfig
from uniadapter.data.layouts.records import DataError
from uniadapter.data.media.user_inputs import Picture, Pictures, as_texts
from uniadapter.data.text import clean_question
from uniadapter.evaluation.answering import AnswerList, AnswerWay, Prediction, answer_rows
from uniadapter.evaluation.blocks import rows_by
from uniadapter.inference.features import MAX_TOKENS, clean_texts, image_features, inference
from uniadapter.inference.rows import Adapter, names_of_rows, settings_of_rows
from uniadapter.model.decoding import generate_texts, visual_context
from uniadapter.model.dispatch import require_task
from uniadapter.model.features import Visuals
from uniadapter.model.pair_rows import arranged
from uniadapter.model.settings import InferenceSettings, first_given
from uniadapter.model.tokens import warn_of_truncation

_QUESTION_WORDS = 50  # most words of a question, as in training


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
    adapter: Adapter = None,
) -> list[Prediction]:
    """Answer questions about one picture or video.

    Args:
        model: for question answering, with or without adapters.
        tokenizer: the base's.
        image: one picture or video, see `image_features` (a list is the frames of a video); or the result of
            `image_features` for one.
        questions: one, or a list.
        answers: the list to choose from; None takes the adapter's, or lets the decoder generate answers.
        frames: number of frames of a video, see `image_features`.
        image_size: see `image_features`.
        k: number of answers whose whole likelihood is computed, those with the most probable first token; 0 means all.
            None means all, or for the adapter's own list the adapter's number.
        adapter: name of the set to use, or of each question's; None takes the active one.

    Returns:
        An answer to each question; if it was chosen from a list, with the most probable ones and their probabilities.

    Raises:
        DataError: the file is missing or broken, or a question is empty.
        TypeError: an item is not a picture or text, or the model is for another task.
        ValueError: an answer of the list cannot be ranked, or there are several pictures.

    Example:
        >>> (found,) = ua.ask(asking, tokenizer, picture, "what colour is it?", ["red", "green"])
        >>> found.answer in ("red", "green")
        True
    """
    require_task(model, "vqa", "ask")
    asked = as_texts(questions, "questions")
    names = names_of_rows(model, adapter, len(asked), "questions")
    if isinstance(image, Visuals):
        if len(image) != 1:
            raise ValueError(f"ask is about one picture, and was given {len(image)}: use ask_each")
        return _answered(model, tokenizer, image, asked, [0] * len(asked), answers, k, adapter)
    # With several sets the picture is encoded once with each.
    sets = list(dict.fromkeys(names)) if names else None
    rows = [sets.index(name) for name in names] if names and sets else [0] * len(asked)
    pictures: Any = [image] * len(sets or [None])
    visuals = image_features(model, pictures, frames, image_size, adapter=adapter if sets is None else sets)
    return _answered(model, tokenizer, visuals, asked, rows, answers, k, adapter)


def ask_each(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    images: Pictures | Visuals,
    questions: str | Sequence[str],
    answers: Sequence[str] | AnswerList | None = None,
    frames: int | None = None,
    image_size: int | None = None,
    k: int | None = None,
    *,
    adapter: Adapter = None,
) -> list[Prediction]:
    """Answer a question about each of several pictures or videos, in one batch.

    Args:
        model: for question answering, with or without adapters.
        tokenizer: the base's.
        images: Q pictures or videos, see `image_features`; or its result.
        questions: Q texts, the i-th about the i-th picture.
        answers: see `ask`.
        frames: see `ask`.
        image_size: see `ask`.
        k: see `ask`.
        adapter: name of the set to use, or of each question's; None takes the active one.

    Returns:
        Q answers.

    Raises:
        DataError, TypeError: as `ask`.
        ValueError: as `ask`, or there is another number of questions than of pictures.

    Example:
        >>> found = ua.ask_each(asking, tokenizer, [picture, picture], ["what is it?", "what colour is it?"])
        >>> len(found)
        2
    """
    require_task(model, "vqa", "ask_each")
    asked = as_texts(questions, "questions")
    visuals = (
        images if isinstance(images, Visuals) else image_features(model, images, frames, image_size, adapter=adapter)
    )
    if len(visuals) != len(asked):
        raise ValueError(f"there are {len(asked)} questions about {len(visuals)} pictures: give one for each")
    return _answered(model, tokenizer, visuals, asked, list(range(len(asked))), answers, k, adapter)


def _answered(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    visuals: Visuals,
    questions: list[str],
    rows: list[int],
    answers: Sequence[str] | AnswerList | None,
    k: int | None,
    adapter: Adapter,
) -> list[Prediction]:
    """Answer questions about visuals, given by their rows; those with the same list of answers together."""
    names = names_of_rows(model, adapter, len(questions), "questions")
    stated = settings_of_rows(model, adapter, names)
    each = stated if names else stated * len(questions)
    texts, ways = clean_questions(questions, each), _ways(model, tokenizer, each, answers, k)
    found: dict[int, Prediction] = {}
    with inference(model, adapter):
        for longest, members in rows_by([first_given(own.max_tokens, MAX_TOKENS) for own in each]).items():
            some = [texts[row] for row in members]
            warn_of_truncation(tokenizer, some, longest, "questions")
            with arranged(model, torch.tensor(members)):
                given = answer_rows(
                    model, tokenizer, visuals, some, [rows[row] for row in members], ModelConfig(max_tokens=longest),
                    EvaluateConfig().batch_size, [ways[row] for row in members],
                )  # fmt: skip
            found.update(zip(members, given, strict=True))
    return [found[row] for row in range(len(texts))]


def _ways(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    stated: Sequence[InferenceSettings],
    answers: Sequence[str] | AnswerList | None,
    k: int | None,
) -> list[AnswerWay]:
    """How each question is answered, by the caller's list or that of its set; equal ones are the same object."""
    if answers is not None and not isinstance(answers, AnswerList):
        answers = AnswerList(as_texts(answers, "answers"), tokenizer, model)
    made: dict[Any, AnswerWay] = {}
    ways = []
    for own in stated:
        listed = own.answers if answers is None and own.answering != "generate" else None
        numbers = first_given(k, own.k if listed else None, 0), first_given(own.beams, 3)
        if (listed, numbers) not in made:
            choice = AnswerList(listed, tokenizer, model) if listed else answers
            made[listed, numbers] = AnswerWay(EvaluateConfig(k=numbers[0], beams=numbers[1]), choice)
        ways.append(made[listed, numbers])
    return ways


def clean_questions(questions: list[str], stated: Sequence[InferenceSettings]) -> list[str]:
    """Questions, cleaned as in training; an empty one is an error.

    Args:
        questions: Q texts.
        stated: settings of each one's set.
    """
    words = [first_given(own.max_words, _QUESTION_WORDS) for own in stated]
    texts = clean_texts(questions, clean_question, words, "questions")
    if not all(texts):
        number = texts.index("") + 1
        raise DataError(f"question {number} is empty once cleaned: write one, or leave it out", "empty question")
    return texts


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
    adapter: Adapter = None,
) -> list[str]:
    """Generate a caption for each picture or video, by beam search.

    Args:
        model: for captioning, with or without adapters.
        tokenizer: the base's.
        images: see `image_features`; or its result.
        prompt: what captions start with; not in the returned captions. BLIP's is "a picture of".
        frames: number of frames of a video, see `image_features`.
        beams: number of beams; 3 in BLIP.
        longest: most tokens of a caption, prompt included; 20 in BLIP.
        shortest: fewest tokens, counted likewise; 5 in BLIP.
        image_size: see `image_features`.
        adapter: name of the set to use, or of each picture's; None takes the active one.

    Returns:
        A caption for each picture, in order; for a single picture, a list of one.

    Raises:
        DataError: a file is missing or broken.
        TypeError: an item is not a picture, or the model is for another task.
        ValueError: the prompt leaves no room for a caption, or a number is out of its range.

    Example:
        >>> captions = ua.caption(captioner, tokenizer, pictures)
        >>> len(captions)
        2
    """
    require_task(model, "caption", "caption")
    visuals = images
    if not isinstance(visuals, Visuals):
        visuals = image_features(model, visuals, frames, image_size, adapter=adapter)
    names = names_of_rows(model, adapter, len(visuals), "images")
    stated = settings_of_rows(model, adapter, names)
    plans = []
    for own in stated if names else stated * len(visuals):
        (start,) = as_texts(first_given(prompt, own.prompt, "a picture of "), "prompt")
        lengths = first_given(longest, own.longest, 20), first_given(shortest, own.shortest, 5)
        plans.append((start, first_given(beams, own.beams, 3), *lengths))
    found: dict[int, str] = {}
    with inference(model, adapter):
        context = visual_context(model, visuals)
        for plan, members in rows_by(plans).items():
            index = torch.tensor(members, device=context.mask.device)
            with arranged(model, index):
                texts = generate_texts(model, tokenizer, context.select(index), *plan)
            found.update(zip(members, texts, strict=True))
    return [found[row] for row in range(len(visuals))]
