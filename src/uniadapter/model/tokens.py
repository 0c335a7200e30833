"""Tokenisation of texts, padded to the longest of a batch."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import BatchEncoding, PreTrainedTokenizerBase

logger = logging.getLogger(__name__)

_AT_ONCE = 4096  # texts
_lock = threading.Lock()


@dataclass(frozen=True)
class TokenBatch:
    """Tokenised texts.

    Args:
        ids: token ids, [B, L], padded on the right.
        mask: 1 for tokens, 0 for padding, [B, L].
    """

    ids: Tensor
    mask: Tensor


def call_tokenizer(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], **options: Any) -> BatchEncoding:
    """Call a tokenizer, from one thread at a time, since a call changes a fast tokenizer's padding and truncation."""
    with _lock:
        return tokenizer(list(texts), **options)


def token_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, without special tokens."""
    found: list[list[int]] = call_tokenizer(tokenizer, texts, add_special_tokens=False)["input_ids"]
    return found


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: list[str], longest: int) -> TokenBatch:
    """Tokenise texts, padded on the right to the longest of them and cut to `longest` tokens.

    Raises:
        ValueError: `longest` leaves no room for a text between the first token and the last.
    """
    _check(longest)
    if not texts:
        return TokenBatch(*torch.zeros((2, 0, 0), dtype=torch.long))
    options = {"padding": True, "padding_side": "right", "truncation": True, "max_length": longest}
    out = call_tokenizer(tokenizer, texts, return_tensors="pt", **options)
    return TokenBatch(out["input_ids"], out["attention_mask"])


def warn_of_truncation(
    tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], longest: int, noun: str = "texts"
) -> int:
    """Log a warning about texts that will be truncated, and one about texts with unknown words ([UNK]).

    Args:
        tokenizer: of the base.
        texts: to be tokenised.
        longest: most tokens of a text.
        noun: what the texts are, for the message: "captions", "questions".

    Returns:
        Number of texts with more than `longest` tokens.

    Raises:
        ValueError: `longest` leaves no room for a text between the first token and the last.
    """
    _check(longest)
    cut = unknown = 0
    room = longest - tokenizer.num_special_tokens_to_add()
    for start in range(0, len(texts), _AT_ONCE):
        # Without special tokens, one of which may be the unknown token too, as CLIP's last is.
        part = texts[start : start + _AT_ONCE]
        ids = call_tokenizer(tokenizer, part, verbose=False, add_special_tokens=False)["input_ids"]
        cut += sum(len(row) > room for row in ids)
        unknown += sum(tokenizer.unk_token_id in row for row in ids)
    if unknown:
        logger.warning(
            "%d of %d %s have words that the base's tokenizer does not know (they become [UNK]): is it made for their "
            "language?", unknown, len(texts), noun,
        )  # fmt: skip
    if cut:
        logger.warning(
            "%d of %d %s are longer than %d tokens and are truncated: raise max_tokens", cut, len(texts), noun, longest
        )
    return cut


def _check(longest: int) -> None:
    if longest < 3:
        raise ValueError(f"max_tokens is {longest}: it must be at least 3, for a text and the special tokens around it")


def with_prompt(prompt: str, text: str) -> str:
    """Prompt and text, with one space between them."""
    return f"{prompt.strip()} {text}" if prompt.strip() else text


def prompt_length(tokenizer: PreTrainedTokenizerBase, prompt: str) -> int:
    """Number of decoder tokens before the text that follows a prompt: the start token and the prompt's own."""
    return 1 + len(token_ids(tokenizer, [prompt.strip()])[0]) if prompt.strip() else 1
