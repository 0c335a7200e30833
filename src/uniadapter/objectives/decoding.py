"""The losses of the text decoder: for answers to questions, and for captions.

Source: BLIP (arXiv 2201.12086), sections 3.2 (the language modelling loss, LM) and 5.3 (an answer decoder that attends
to the fused question), as in UniAdapter's released training code.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.model.decoding import decoder_tokens, question_context, text_nll, visual_context
from uniadapter.model.features import Visuals
from uniadapter.model.tokens import prompt_length, tokenize, with_prompt


def answer_loss(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    visuals: Visuals,
    questions: Sequence[str],
    answers: Sequence[str | Mapping[str, float]],
    rows: Tensor | None = None,
    max_tokens: int = 35,
) -> Tensor:
    """Weighted, label-smoothed negative log-likelihood of answers, divided by the number of questions.

    The released code divides by the number of frames as well.

    Args:
        model: with question encoder and answer decoder, such as `BlipForQuestionAnswering`.
        tokenizer: the base's.
        visuals: V pictures or videos, from `encode_visual`.
        questions: Q texts.
        answers: for each question its answer, or its answers with weights, which sum to 1 in VQA.
        rows: index of the visual of each question, [Q]; None if question i is about visual i.
        max_tokens: most tokens of a question, and of an answer.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: there are no questions, or not one answer and one visual for each.

    Example:
        >>> visuals = ua.encode_visual(asking, torch.zeros(1, 1, 3, 96, 96))
        >>> loss = ua.answer_loss(asking, tokenizer, visuals, ["what is it?"], ["a box"])
        >>> loss.requires_grad
        True
    """
    device = visuals.tokens.device
    rows = _rows(rows, len(questions), len(visuals), "question")
    if len(answers) != len(questions):
        raise ValueError(f"{len(questions)} questions have {len(answers)} answers: give one, or weighted ones, each")
    weighted = [{one: 1.0} if isinstance(one, str) else one for one in answers]
    asked = tokenize(tokenizer, list(questions), max_tokens)
    context = question_context(model, visuals, asked.ids.to(device), asked.mask.to(device), rows.to(device))
    texts = [text for own in weighted for text in own]
    weights = torch.tensor([weight for own in weighted for weight in own.values()], device=device)
    about = torch.tensor([row for row, own in enumerate(weighted) for _ in own], device=device)
    tokens = decoder_tokens(tokenizer, model, texts, max_tokens)
    nll = text_nll(model, context, about, tokens.ids.to(device), tokens.mask.to(device))
    return (nll * weights).sum() / len(questions)


def caption_loss(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    visuals: Visuals,
    captions: Sequence[str],
    rows: Tensor | None = None,
    prompt: str = "a picture of ",
    max_tokens: int = 40,
) -> Tensor:
    """Label-smoothed negative log-likelihood of captions, averaged over all tokens after the prompt.

    Args:
        model: with a caption decoder, such as `BlipForConditionalGeneration`.
        tokenizer: the base's.
        visuals: V pictures or videos, from `encode_visual`.
        captions: S texts.
        rows: index of the visual of each caption, [S]; None if caption i is about visual i.
        prompt: precedes every caption; its tokens are not predicted.
        max_tokens: most tokens of a caption with its prompt.

    Returns:
        The loss, a scalar.

    Raises:
        ValueError: there are no captions, or not one visual for each.

    Example:
        >>> visuals = ua.encode_visual(captioner, torch.zeros(1, 1, 3, 96, 96))
        >>> loss = ua.caption_loss(captioner, tokenizer, visuals, ["a red box"])
        >>> loss.requires_grad
        True
    """
    nll, count = caption_nll(model, tokenizer, visuals, captions, rows, prompt, max_tokens)
    return nll.sum() / max(1, count)


def caption_nll(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    visuals: Visuals,
    captions: Sequence[str],
    rows: Tensor | None,
    prompt: str,
    max_tokens: int,
) -> tuple[Tensor, int]:
    """The negative log-likelihood of each caption, [S], and the number of predicted tokens of all."""
    device = visuals.tokens.device
    rows = _rows(rows, len(captions), len(visuals), "caption")
    given = prompt_length(tokenizer, prompt)
    tokens = decoder_tokens(tokenizer, model, [with_prompt(prompt, caption) for caption in captions], max_tokens)
    ids, mask = tokens.ids.to(device), tokens.mask.to(device)
    nll = text_nll(model, visual_context(model, visuals), rows.to(device), ids, mask, given)
    return nll, int(mask[:, given:].sum())


def caption_terms(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, captions: Sequence[str], prompt: str, max_tokens: int
) -> int:
    """The number of tokens that `caption_nll` predicts, without predicting them."""
    tokens = decoder_tokens(tokenizer, model, [with_prompt(prompt, caption) for caption in captions], max_tokens)
    return int(tokens.mask[:, prompt_length(tokenizer, prompt) :].sum())


def _rows(rows: Tensor | None, texts: int, visuals: int, noun: str) -> Tensor:
    """Index of the visual of each text, [texts], checked."""
    if not texts:
        raise ValueError(f"there is no {noun}: a loss needs at least one")
    if rows is None:
        if texts != visuals:
            raise ValueError(f"{texts} {noun}s and {visuals} visuals: say by rows= which visual each is about")
        return torch.arange(texts)
    if rows.shape != (texts,):
        raise ValueError(f"rows is {list(rows.shape)}: it must name one visual for each of the {texts} {noun}s")
    return rows
