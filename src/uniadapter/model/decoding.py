"""Text decoders of any family that has one: likelihoods of texts given what they are about, and texts themselves."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.config import ConfigError
from uniadapter.files.schema import whole_number
from uniadapter.model.backbone import decoding
from uniadapter.model.features import AnswerTree, Context, Visuals
from uniadapter.model.tokens import TokenBatch, prompt_tokens, tokenize


def question_context(model: PreTrainedModel, visuals: Visuals, ids: Tensor, mask: Tensor, rows: Tensor) -> Context:
    """Fuse questions with what they ask about.

    Args:
        model: with question encoder and answer decoder.
        visuals: V pictures or videos.
        ids: token ids of questions [Q, L]; in a BLIP the first is replaced by [ENC].
        mask: [Q, L], 1 for tokens, 0 for padding; padding on the left is moved to the right.
        rows: visual of each question, [Q].

    Returns:
        The questions' states, [Q, L, d], and their mask: padding is never attended to (transformers' own does).
    """
    return decoding(model).question_context(visuals, ids, mask, rows)


def visual_context(model: PreTrainedModel, visuals: Visuals) -> Context:
    """What a caption decoder attends to: all tokens of a picture or video, [V, T * N, d]."""
    return decoding(model).visual_context(visuals)


def text_nll(
    model: PreTrainedModel, context: Context, rows: Tensor, ids: Tensor, mask: Tensor, given: int = 1
) -> Tensor:
    """Negative log-likelihood of texts, label-smoothed as the model's config says, summed over tokens: [P].

    Args:
        model: with a text decoder.
        context: of Q rows.
        rows: context of each text, [P].
        ids: token ids [P, L], first the decoder's start, last its end.
        mask: [P, L], 1 for tokens.
        given: tokens at the start that are not predicted: the first, and the prompt's.
    """
    return decoding(model).text_nll(context, rows, ids, mask, given)


def rank_answers(model: PreTrainedModel, context: Context, tree: AnswerTree, k: int = 0) -> tuple[Tensor, Tensor]:
    """The likeliest answers of a list for each question.

    Args:
        model: with an answer decoder.
        context: of Q questions.
        tree: of the A answers.
        k: answers whose whole likelihood is computed, the best by their first token; 0 means all.

    Returns:
        Rows of answers by likelihood, best first, and their negative log-likelihoods, both [Q, k].
    """
    return decoding(model).rank_answers(context, tree, k)


def decoder_tokens(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, texts: list[str], longest: int
) -> TokenBatch:
    """Texts for the decoder: as `tokenize`, with its start (BLIP's [DEC]) in the place of the first token."""
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
    """Write a text for every row of a context, by beam search.

    Args:
        model: with a text decoder.
        tokenizer: the base's.
        context: of Q rows; its padding is masked, which transformers' own `generate` of BLIP's task classes does not.
        prompt: what every text starts with; not in what is returned.
        beams: of the search; 1 is greedy.
        longest: tokens of a text, start and prompt included, as BLIP counts them.
        shortest: the same, at least.

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
    """Refuse what would silently write nothing, or fail in the depths of the search.

    Raises:
        ConfigError: a number out of its range, or a prompt that leaves no room.
    """
    given = prompt_tokens(tokenizer, prompt)
    for name, value, low in (("beams", beams, 1), ("longest", longest, 1), ("shortest", shortest, 0)):
        if whole_number(name, value) < low:
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
