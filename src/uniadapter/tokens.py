"""Texts as token ids, padded to the longest of them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class TokenBatch:
    """Tokenised texts: ids [B, L] and mask [B, L]."""

    ids: Tensor
    mask: Tensor


def tokenize(tokenizer: PreTrainedTokenizerBase, texts: list[str], longest: int) -> TokenBatch:
    """Tokenise texts, padded to the longest of them and cut to `longest` tokens."""
    out = tokenizer(texts, padding=True, truncation=True, max_length=longest, return_tensors="pt")
    return TokenBatch(out["input_ids"], out["attention_mask"])


def decoder_tokens(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, texts: list[str], longest: int
) -> TokenBatch:
    """Texts for the decoder: as `tokenize`, with [DEC] in the place of the first token."""
    tokens = tokenize(tokenizer, texts, longest)
    tokens.ids[:, 0] = int(model.config.text_config.bos_token_id)
    return tokens
