"""Scaled dot-product attention, by the fastest way for the device and dtype, with bounded memory for scores."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

SCORE_ELEMENTS = 1 << 22  # most scores held at once (16 MB of float32)
_MANY = (
    512  # with more queries than this, a multiple of 4 is faster in half precision: 577 take a fifth longer than 580
)
_HALF = (torch.bfloat16, torch.float16)


def attend(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, dropout: float = 0.0) -> Tensor:
    """softmax(q k / sqrt(d_h) + mask) v.

    By PyTorch's fused attention, except in half precision on a CPU, where its kernel takes 1.5 times (forward) to twice
    (with the backward pass) as long as separate matrix multiplications (docs/log.md, 2026-11-25).

    Args:
        query: [B, H, Q, d_h].
        key: [B, H, K, d_h].
        value: [B, H, K, d_h].
        mask: additive, broadcastable to [B, H, Q, K], in the query's dtype, or None.
        dropout: probability of dropping an attention weight.

    Returns:
        The attention output, [B, H, Q, d_h].
    """
    if query.device.type != "cpu" or query.dtype not in _HALF:
        return nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, dropout_p=dropout)
    asked = query.shape[2]
    query = query * query.shape[-1] ** -0.5
    if mask is None and asked > _MANY:
        query = nn.functional.pad(query, (0, 0, 0, -asked % 4))
    key, value = key.to(query.dtype), value.to(query.dtype)  # as autocast does for the fused one
    with torch.autocast("cpu", enabled=False):  # autocast would convert all scores for the softmax, and back
        if torch.is_grad_enabled() or query.shape[:3].numel() * key.shape[2] <= SCORE_ELEMENTS:
            scores = query @ key.transpose(-1, -2)
            return (_weights(scores if mask is None else scores + mask, dropout) @ value)[:, :, :asked]
    seen = None if mask is None else mask.expand(len(query), -1, query.shape[2], -1)

    def masked(scores: Tensor, row: int, part: slice) -> Tensor:
        return scores if seen is None else scores.add_(seen[row, :, part])

    return attention_in_chunks(query, key, value, masked, dropout)[:, :, :asked]


def layer_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, weights: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Attention of a layer, with the attention weights if they are asked for.

    Args:
        query: [B, H, Q, d_h].
        key: [B, H, K, d_h].
        value: [B, H, K, d_h].
        mask: additive, broadcastable to [B, H, Q, K], or None.
        dropout: probability of dropping an attention weight.
        weights: whether to return the attention weights, which takes the slower, eager way.

    Returns:
        The attention output [B, Q, H * d_h], and the weights [B, H, Q, K] or None.
    """
    if mask is not None:
        # In the query's dtype, which autocast may have changed. The lowest float32 would become -inf in it, as would
        # the dtype's own lowest plus a negative score, and a row that is masked throughout would become NaN.
        mask = mask.clamp(min=torch.finfo(query.dtype).min / 2).to(query.dtype)
    if weights:
        scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
        probabilities = torch.softmax(scores if mask is None else scores + mask, dim=-1)
        context = nn.functional.dropout(probabilities, dropout) @ value
    else:
        probabilities = None
        context = attend(query, key, value, mask, dropout)
    return context.transpose(1, 2).flatten(2), probabilities


def to_autocast_dtype(states: Tensor) -> Tensor:
    """States in the dtype of autocast, if it is on, so that several layers do not each convert them."""
    kind = states.device.type
    if not torch.is_autocast_enabled(kind) or states.dtype == torch.float64:
        return states
    return states.to(torch.get_autocast_dtype(kind))


def attention_in_chunks(
    query: Tensor, key: Tensor, value: Tensor, score_mod: Callable[[Tensor, int, slice], Tensor], dropout: float = 0.0
) -> Tensor:
    """Attention for a few queries at a time, to bound the memory for scores.

    Args:
        query: [B, H, Q, d_h], already scaled unless `score_mod` does it.
        key: [B, H, K, d_h].
        value: [B, H, K, d_h].
        score_mod: maps scores [H, q, K], their row among B and their slice of the Q queries to scores.
        dropout: probability of dropping an attention weight.

    Returns:
        The attention output, [B, H, Q, d_h].
    """
    step = max(1, SCORE_ELEMENTS // (query.shape[1] * key.shape[2]))
    out = []
    with torch.autocast(query.device.type, enabled=False):
        for row in range(len(query)):
            parts = []
            for start in range(0, query.shape[2], step):
                part = slice(start, start + step)
                scores = score_mod(query[row, :, part] @ key[row].transpose(-1, -2), row, part)
                parts.append(_weights(scores, dropout) @ value[row])
            out.append(parts[0] if len(parts) == 1 else torch.cat(parts, dim=1))
    return torch.stack(out)


def _weights(scores: Tensor, dropout: float) -> Tensor:
    """Softmax, which accumulates in float32, and dropout."""
    return nn.functional.dropout(torch.softmax(scores, dim=-1), dropout)
