"""Answers and captions with the text decoder of a model: their likelihoods, and generation by beam search."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.config import ConfigError
from uniadapter.files.schema import as_int
from uniadapter.model.dispatch import decoding
from uniadapter.model.features import AnswerTree, Context, Visuals
from uniadapter.model.tokens import TokenBatch, prompt_length, tokenize


def question_context(model: PreTrainedModel, visuals: Visuals, ids: Tensor, mask: Tensor, rows: Tensor) -> Context:
    """Fuse questions with the visuals they are about, for the answer decoder to attend to.

    Args:
        model: with question encoder and answer decoder.
        visuals: V pictures or videos.
        ids: token ids of questions [Q, L]; for BLIP the first is replaced by [ENC].
        mask: [Q, L], 1 for tokens, 0 for padding; padding on the left is moved to the right.
        rows: visual of each question, [Q].

    Returns:
        The questions' states, [Q, L, d], and their mask. The decoder does not attend to padding; transformers' does.

    Raises:
        TypeError: the model has no text decoder.
    """
    return decoding(model).question_context(visuals, ids, mask, rows)


def visual_context(model: PreTrainedModel, visuals: Visuals) -> Context:
    """The context of a caption decoder: all tokens of each picture or video, [V, T * N, d]."""
    return decoding(model).visual_context(visuals)


def text_nll(
    model: PreTrainedModel, context: Context, rows: Tensor, ids: Tensor, mask: Tensor, given: int = 1
) -> Tensor:
    """Negative log-likelihood of texts, summed over their tokens: [P]; label-smoothed as the model's config says.

    Args:
        model: with a text decoder.
        context: of Q rows.
        rows: which row of the context each text is about, [P].
        ids: token ids [P, L], from the decoder's start token to its end token.
        mask: [P, L], 1 for tokens, 0 for padding.
        given: number of tokens at the start that are not predicted: the start token and the prompt's.
    """
    return decoding(model).text_nll(context, rows, ids, mask, given)


def rank_answers(model: PreTrainedModel, context: Context, tree: AnswerTree, k: int = 0) -> tuple[Tensor, Tensor]:
    """Rank a list of answers by likelihood, for each question.

    As in BLIP (arXiv 2201.12086, section 5.3): the k answers with the most probable first token are ranked by the
    likelihood of the whole answer.

    Args:
        model: with an answer decoder.
        context: of Q questions.
        tree: the A answers.
        k: answers whose whole likelihood is computed; 0 means all.

    Returns:
        Indices of answers, the likeliest first, and their negative log-likelihoods, both [Q, k].
    """
    return decoding(model).rank_answers(context, tree, k)


def decoder_tokens(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, texts: list[str], longest: int
) -> TokenBatch:
    """As `tokenize`, with the decoder's start token (BLIP's [DEC]) in place of the first token."""
    tokens = tokenize(tokenizer, texts, longest)
    tokens.ids[:, 0] = decoding(model).start_token
    return tokens


@torch.no_grad()
def generate_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    context: Context,
    prompt: str = "",
    beams: int = 3,
    longest: int = 20,
    shortest: int = 1,
) -> list[str]:
    """Generate a text for every row of a context, by beam search.

    Args:
        model: with a text decoder.
        tokenizer: the base's.
        context: of Q rows; its padding is masked, unlike in transformers' `generate` of BLIP's task classes.
        prompt: what every text starts with; not in the returned texts.
        beams: number of beams; 1 is greedy search.
        longest: most tokens of a text, start token and prompt included, as BLIP counts them.
        shortest: fewest tokens, counted likewise.

    Returns:
        Q texts.

    Raises:
        ConfigError: the prompt leaves no room for a text, or a number is out of its range.
    """
    decoder = decoding(model)
    check_lengths(tokenizer, prompt, beams, longest, shortest, decoder.layout.positions)
    beams, longest, shortest = int(beams), int(longest), int(shortest)  # numpy's and torch's too
    if not len(context):
        return []
    start = decoder_tokens(tokenizer, model, [prompt.strip()], longest).ids[:, :-1]  # without its end
    ids = decoder.generate(start, context, beams, longest, shortest)
    return [one.strip() for one in tokenizer.batch_decode(ids[:, start.shape[1] :], skip_special_tokens=True)]


def check_lengths(
    tokenizer: PreTrainedTokenizerBase, prompt: str, beams: int, longest: int, shortest: int, positions: int
) -> None:
    """Check the settings of a beam search before it would fail inside `generate`, or generate nothing.

    Raises:
        ConfigError: a number out of its range, or a prompt that leaves no room.
    """
    given = prompt_length(tokenizer, prompt)
    for name, value, low in (("beams", beams, 1), ("longest", longest, 1), ("shortest", shortest, 0)):
        if as_int(name, value) < low:
            raise ConfigError(f"{name} is {value}: it must be at least {low}")
    if longest > positions:
        raise ConfigError(f"longest is {longest}: the decoder takes {positions} tokens")
    if longest <= given:
        raise ConfigError(
            f"the prompt with its start takes {given} tokens, and longest is {longest}: no room is left for a text; "
            "raise longest, or shorten the prompt"
        )
    if shortest > longest:
        raise ConfigError(f"shortest is {shortest}, more than longest, {longest}")
