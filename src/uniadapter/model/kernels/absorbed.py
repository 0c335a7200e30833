"""Cross-attention of few queries: the weights of keys and values go onto the queries, and no visual is projected.

A visual's keys and values cost two products of its K tokens with d x d weights, whoever asks. With q (W x + b) =
(q W) x + q b they can be left out: each head's queries are taken to the visual's space and meet its tokens themselves.
That costs each query H times as much on the K tokens, so it pays for few queries a visual: a search whose one text
meets many candidates.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Projection = tuple[Tensor, Tensor]  # weight and bias


def pays(queries: int, tokens: int, width: int, heads: int) -> bool:
    """Whether projecting the queries is the lesser work.

    Args:
        queries: of a visual.
        tokens: of a visual.
        width: d.
        heads: H.
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
    change: Callable[[Tensor], Tensor] | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention to the keys and values that two projections would make of visual tokens, without making them.

    Args:
        query: [R, H, W, d_h].
        visual: tokens attended to, [R, K, d].
        key: weight [H * d_h, d] and bias of their key projection.
        value: of their value projection.
        deltas: what is added to keys and to values, [R, K, H * d_h] each, or None.
        change: from scores [R, H, W, K] to other scores, before the softmax.
        dropout: probability on the attention's weights.

    Returns:
        The context, [R, H, W, d_h].
    """
    rows, heads, width, size = query.shape
    query = query * size**-0.5
    by_head = query.transpose(0, 1).flatten(1, 2)  # [H, R * W, d_h]
    asked = (by_head @ key[0].view(heads, size, -1).to(query.dtype)).unflatten(1, (rows, width)).transpose(0, 1)
    scores = asked.flatten(1, 2) @ visual.transpose(1, 2)  # [R, H * W, K]
    scores = scores.view(rows, heads, width, -1)
    scores += (query * key[1].view(heads, 1, size).to(query.dtype)).sum(-1, keepdim=True)
    if deltas[0] is not None:
        scores += query @ _split(deltas[0], heads).transpose(2, 3)
    probabilities = torch.softmax(scores if change is None else change(scores), dim=-1).to(visual.dtype)
    probabilities = nn.functional.dropout(probabilities, dropout)
    seen = (probabilities.flatten(1, 2) @ visual).view(rows, heads, width, -1).transpose(0, 1).flatten(1, 2)
    context = seen @ value[0].view(heads, size, -1).transpose(1, 2).to(seen.dtype)  # [H, R * W, d_h]
    context = context.unflatten(1, (rows, width)).transpose(0, 1) + value[1].view(heads, 1, size).to(seen.dtype)
    return context if deltas[1] is None else context + probabilities @ _split(deltas[1], heads)


def _split(states: Tensor, heads: int) -> Tensor:
    """[R, K, H * d_h] to [R, H, K, d_h]."""
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)
