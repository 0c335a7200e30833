"""The losses of the text decoder: answers to questions, and captions.

Source: BLIP (arXiv 2201.12086), sections 3.2 (the language modelling loss, LM) and 5.3 (questions: an answer decoder
over the fused question), as UniAdapter's released training uses them.
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
    """Negative log-likelihood of answers, label-smoothed, weighed, divided by the number of questions.

    The release divides a batch of videos by the frames too, so that there gradients shrink with them.

    Args:
        model: a `BlipForQuestionAnswering`.
        tokenizer: the base's.
        visuals: V pictures or videos, from `encode_visual`.
        questions: Q texts.
        answers: for each question its answer, or its answers with weights, which add up to 1 in VQA.
        rows: visual of each question, [Q]; None where question i is about visual i.
        max_tokens: of a question, and of an answer.

    Returns:
        A scalar.

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
        raise ValueError(f"{len(questions)} questions have {len(answers)} answers: give one, or weighed ones, for each")
    weighed = [{one: 1.0} if isinstance(one, str) else one for one in answers]
    asked = tokenize(tokenizer, list(questions), max_tokens)
    context = question_context(model, visuals, asked.ids.to(device), asked.mask.to(device), rows.to(device))
    texts = [text for own in weighed for text in own]
    weights = torch.tensor([weight for own in weighed for weight in own.values()], device=device)
    about = torch.tensor([row for row, own in enumerate(weighed) for _ in own], device=device)
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
    """Negative log-likelihood of captions, label-smoothed, a mean over all tokens after the prompt.

    Args:
        model: a `BlipForConditionalGeneration`.
        tokenizer: the base's.
        visuals: V pictures or videos, from `encode_visual`.
        captions: S texts.
        rows: visual of each caption, [S]; None where caption i is about visual i.
        prompt: stands before every caption, and is not learnt.
        max_tokens: of a caption with its prompt.

    Returns:
        A scalar.

    Raises:
        ValueError: there are no captions, or not one visual for each.

    Example:
        >>> visuals = ua.encode_visual(captioner, torch.zeros(1, 1, 3, 96, 96))
        >>> loss = ua.caption_loss(captioner, tokenizer, visuals, ["a red box"])
        >>> loss.requires_grad
        True
    """
    nll, count = caption_nll(model, tokenizer, visuals, captions, rows, prompt, max_tokens)
    return nll / max(1, count)


def caption_nll(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    visuals: Visuals,
    captions: Sequence[str],
    rows: Tensor | None,
    prompt: str,
    max_tokens: int,
) -> tuple[Tensor, int]:
    """The sum that `caption_loss` divides by the number of tokens, and that number."""
    device = visuals.tokens.device
    rows = _rows(rows, len(captions), len(visuals), "caption")
    given = prompt_length(tokenizer, prompt)
    tokens = decoder_tokens(tokenizer, model, [with_prompt(prompt, caption) for caption in captions], max_tokens)
    ids, mask = tokens.ids.to(device), tokens.mask.to(device)
    nll = text_nll(model, visual_context(model, visuals), rows.to(device), ids, mask, given)
    return nll.sum(), int(mask[:, given:].sum())


def _rows(rows: Tensor | None, texts: int, visuals: int, noun: str) -> Tensor:
    """Visual of each text, [texts]."""
    if not texts:
        raise ValueError(f"there is no {noun}: a loss needs at least one")
    if rows is None:
        if texts != visuals:
            raise ValueError(f"{texts} {noun}s and {visuals} visuals: say by rows= which visual each is about")
        return torch.arange(texts)
    if rows.shape != (texts,):
        raise ValueError(f"rows is {list(rows.shape)}: it must name one visual for each of the {texts} {noun}s")
    return rows
