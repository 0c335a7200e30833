"""Attention by weight absorption: the key and value projections are applied to the queries and outputs instead.

To project a visual's K tokens to keys and values takes two multiplications with d x d matrices. Since q (W x + b) =
(q W) x + q b, the key projection can be absorbed into the queries, which then attend to the tokens x directly, and the
value projection is applied to the result. Attention itself then costs H times as much, so this is cheaper for few
queries: when one text is matched with many candidates, say. (DeepSeek-V2, arXiv 2405.04434, does it for its latents.)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Projection = tuple[Tensor, Tensor]  # weight and bias


def absorbing_is_cheaper(queries: int, tokens: int, width: int, heads: int) -> bool:
    """Whether absorbing the projections takes fewer multiplications than computing keys and values.

    Args:
        queries: number of queries that attend to one visual.
        tokens: K, tokens of the visual.
        width: d, hidden size.
        heads: H, attention heads.
    """
    projected = 2 * tokens * width * width + 2 * queries * tokens * width
    absorbed = 2 * queries * width * width + 2 * heads * queries * tokens * width
    return absorbed < projected


def absorbed_attention(
    query: Tensor,
    visual: Tensor,
    key: Projection,
    value: Projection,
    deltas: tuple[Tensor | None, Tensor | None] = (None, None),
    score_mod: Callable[[Tensor], Tensor] | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention to the keys and values of visual tokens, computed without these; equal up to rounding.

    Args:
        query: [R, H, W, d_h], not yet scaled.
        visual: tokens that are attended to, [R, K, d].
        key: weight [H * d_h, d] and bias [H * d_h] of the key projection.
        value: the same of the value projection.
        deltas: added to the keys and to the values, [R, K, H * d_h] each, or None.
        score_mod: maps scores [R, H, W, K] to scores, before the softmax.
        dropout: probability of dropping an attention weight.

    Returns:
        The attention output, [R, H, W, d_h].
    """
    rows, heads, width, size = query.shape
    query = query * size**-0.5
    by_head = query.transpose(0, 1).flatten(1, 2)  # [H, R * W, d_h]
    asked = (by_head @ key[0].view(heads, size, -1).to(query.dtype)).unflatten(1, (rows, width)).transpose(0, 1)
    scores = asked.flatten(1, 2) @ visual.transpose(1, 2)  # [R, H * W, K]
    scores = scores.view(rows, heads, width, visual.shape[1])
    scores += (query * key[1].view(heads, 1, size).to(query.dtype)).sum(-1, keepdim=True)
    if deltas[0] is not None:
        scores += query @ _split(deltas[0], heads).transpose(2, 3)
    probabilities = torch.softmax(scores if score_mod is None else score_mod(scores), dim=-1).to(visual.dtype)
    probabilities = nn.functional.dropout(probabilities, dropout)
    seen = (
        (probabilities.flatten(1, 2) @ visual).view(rows, heads, width, visual.shape[2]).transpose(0, 1).flatten(1, 2)
    )
    context = seen @ value[0].view(heads, size, -1).transpose(1, 2).to(seen.dtype)  # [H, R * W, d_h]
    context = context.unflatten(1, (rows, width)).transpose(0, 1) + value[1].view(heads, 1, size).to(seen.dtype)
    return context if deltas[1] is None else context + probabilities @ _split(deltas[1], heads)


def _split(states: Tensor, heads: int) -> Tensor:
    """[R, K, H * d_h] to [R, H, K, d_h]."""
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)
