"""Texts from the decoder by beam search: answers, and captions."""

from __future__ import annotations

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.config import ConfigError
from uniadapter.files.schema import whole_number
from uniadapter.model.blip.decoder import Context
from uniadapter.model.tokens import decoder_tokens, prompt_tokens


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
    """Write a text for every row of a context.

    Args:
        model: a BLIP with a text decoder.
        tokenizer: the base's.
        context: of Q rows; its padding is masked, which transformers' own `generate` of BLIP's task classes does not.
        prompt: what every text starts with; not in what is returned.
        beams: of the search; 1 is greedy.
        longest: tokens of a text, [DEC] and prompt included, as BLIP counts them.
        shortest: the same, at least.

    Returns:
        Q texts.

    Raises:
        ConfigError: the prompt leaves no room for a text, or a number is out of its range.
    """
    text = model.config.text_config
    check_lengths(tokenizer, prompt, beams, longest, shortest, text.max_position_embeddings)
    beams, longest, shortest = int(beams), int(longest), int(shortest)  # numpy's and torch's too
    if not len(context):
        return []
    start = decoder_tokens(tokenizer, model, [prompt.strip()], longest).ids[:, :-1]  # without [SEP]
    ids = model.text_decoder.generate(
        input_ids=start.expand(len(context), -1).to(context.states.device),
        encoder_hidden_states=context.states,
        encoder_attention_mask=context.mask,
        num_beams=beams,
        do_sample=False,
        max_length=longest,
        min_length=shortest,
        eos_token_id=text.sep_token_id,
        pad_token_id=text.pad_token_id,
    )
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
