"""Answers and captions for pictures and videos, in one call each; see `inference.features` for shared arguments."""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.config import EvaluateConfig, ModelConfig
from uniadapter.data.layouts.records import DataError
from uniadapter.data.media.user_inputs import Picture, Pictures, as_texts
from uniadapter.data.text import clean_question
from uniadapter.evaluation.answering import AnswerList, Prediction, answer_questions
from uniadapter.inference.features import MAX_TOKENS, clean_texts, image_features, inference
from uniadapter.model.decoding import generate_texts, visual_context
from uniadapter.model.dispatch import require_task
from uniadapter.model.features import Visuals
from uniadapter.model.sets import active_settings
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
    adapter: str | None = None,
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
        adapter: name of the set to use; None takes the active one.

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
    stated = active_settings(model, adapter)
    texts = clean_questions(as_texts(questions, "questions"), stated)
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
    about, settings = [0] * len(texts), ModelConfig(max_tokens=first_given(stated.max_tokens, MAX_TOKENS))
    config = EvaluateConfig(k=first_given(k, 0), beams=first_given(stated.beams, 3))
    warn_of_truncation(tokenizer, texts, settings.max_tokens, "questions")
    with inference(model, adapter):
        return answer_questions(model, tokenizer, visuals, texts, about, settings, config, listed)  # type: ignore[arg-type]


def clean_questions(questions: list[str], stated: InferenceSettings) -> list[str]:
    """Questions, cleaned as in training; an empty one is an error."""
    words = first_given(stated.max_words, _QUESTION_WORDS)
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
    adapter: str | None = None,
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
        adapter: name of the set to use; None takes the active one.

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
    stated = active_settings(model, adapter)
    (prompt,) = as_texts(first_given(prompt, stated.prompt, "a picture of "), "prompt")
    visuals = images
    if not isinstance(visuals, Visuals):
        visuals = image_features(model, visuals, frames, image_size, adapter=adapter)
    with inference(model, adapter):
        return generate_texts(
            model,
            tokenizer,
            visual_context(model, visuals),
            prompt,
            first_given(beams, stated.beams, 3),
            first_given(longest, stated.longest, 20),
            first_given(shortest, stated.shortest, 5),
        )
