"""The Q-Former run on packed texts and on grouped pairs, so that padding is not computed and a picture is read once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from uniadapter.model.blip2.layers import AdaptedCrossAttention, AdaptedQFormerLayer
from uniadapter.model.frame_attention import frame_weighted_attention
from uniadapter.model.kernels.attention import attend, layer_attention, to_autocast_dtype
from uniadapter.model.kernels.packing import Packing, Queries


@dataclass(frozen=True)
class Joint:
    """States of P pairs on their way through the Q-Former.

    Args:
        queries: of the q queries of each pair, [P, q, d].
        text: of all texts' tokens, one text behind the other, no padding, [N, d].
    """

    queries: Tensor
    text: Tensor


def embedded_queries(model: PreTrainedModel, dtype: torch.dtype) -> Tensor:
    """The queries as the first layer sees them, [1, q, d].

    Args:
        model: a BLIP-2.
        dtype: that they go through before the norm: alone their own, beside a text the embeddings'.
    """
    return _normed(model, model.query_tokens.to(dtype))


def embedded_text(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Token ids [S, L] as the first layer sees them, [S, L, d]."""
    return _normed(model, model.embeddings(input_ids=ids))


def _normed(model: PreTrainedModel, states: Tensor) -> Tensor:
    """Behind the norm and dropout before the first layer, in the dtype that the Q-Former is kept in."""
    qformer = model.qformer
    return qformer.dropout(qformer.layernorm(states.to(qformer.layernorm.weight.dtype)))


def _heads(layer: AdaptedQFormerLayer, states: Tensor) -> Tensor:
    """[B, L, d] to [B, H, L, d_h]."""
    attention = layer.attention.attention
    return states.unflatten(-1, (attention.num_attention_heads, attention.attention_head_size)).transpose(1, 2)


def _dropout(layer: AdaptedQFormerLayer) -> float:
    return layer.attention.attention.attention_dropout if layer.training else 0.0


def attend_text(layer: AdaptedQFormerLayer, hidden: Tensor, packing: Packing, mask: Tensor | None) -> Tensor:
    """Self-attention of texts alone, residual and norm included, [N, d].

    Args:
        layer: of the Q-Former.
        hidden: states of the N tokens of S texts, [N, d].
        packing: how they stand.
        mask: additive, [S, 1, 1, L], or None.
    """
    parts, once = layer.attention.attention, to_autocast_dtype(hidden)
    query, key, value = (_heads(layer, packing.pad(part(once))) for part in (parts.query, parts.key, parts.value))
    context, _ = layer_attention(query, key, value, mask, _dropout(layer))
    return layer.attention.output(packing.pack(context), hidden)


def attend_joint(
    layer: AdaptedQFormerLayer, joint: Joint, packing: Packing, mask: Tensor | None, queries_only: bool = False
) -> Joint:
    """Self-attention of queries and texts to each other, residual and norm included.

    Args:
        layer: of the Q-Former.
        joint: P pairs.
        packing: how the pairs' texts stand.
        mask: additive, of the texts' padding, [P, 1, 1, q + L], or None.
        queries_only: the last layer's texts are read by nobody, so their states stay as they are.
    """
    parts = layer.attention.attention
    queries, text = to_autocast_dtype(joint.queries), to_autocast_dtype(joint.text)

    def both(part: torch.nn.Module) -> Tensor:
        return _heads(layer, torch.cat([part(queries), packing.pad(part(text))], dim=1))

    asked = _heads(layer, parts.query(queries)) if queries_only else both(parts.query)
    context, _ = layer_attention(asked, both(parts.key), both(parts.value), mask, _dropout(layer))
    count = queries.shape[1]
    attended = layer.attention.output(context[:, :count], joint.queries)
    if queries_only:
        return Joint(attended, joint.text)
    return Joint(attended, layer.attention.output(packing.pack(context[:, count:]), joint.text))


def cross(
    layer: AdaptedQFormerLayer,
    attended: Tensor,
    visual: Tensor,
    deltas: tuple[Tensor | None, Tensor | None],
    rows: Queries,
    weights: Tensor | None = None,
    patches: int = 0,
) -> Tensor:
    """Cross-attention of P pairs' queries to their pictures, residual and norm included, [P, q, d].

    A picture's keys and values are projected once; the queries of all its pairs attend to them as one long query.

    Args:
        layer: of the Q-Former, with a cross-attention.
        attended: queries behind the self-attention, [P, q, d], sorted by picture.
        visual: states of the pictures' tokens, [V, K, d_vision].
        deltas: of keys and values, [V, K, d] each, or None.
        rows: how the P * q queries are laid out as rows, each of one picture.
        weights: of each pair's frames, [P, T], for frame-aware attention.
        patches: tokens a frame, where there are weights.
    """
    attention: AdaptedCrossAttention = layer.crossattention.attention
    query = attention.split_heads(rows.pack(attention.query(to_autocast_dtype(attended)).flatten(0, 1)))
    key, value = map(rows.repeat, attention.keys_values(visual, *deltas))
    dropout = attention.attention_dropout if layer.training else 0.0
    if weights is None:
        context = attend(query, key, value, dropout=dropout)
    else:
        by_query = rows.pack(weights.repeat_interleave(attended.shape[1], 0))
        context = frame_weighted_attention(query, key, value, by_query, patches, dropout)
    context = rows.unpack(context.transpose(1, 2).flatten(2)).unflatten(0, attended.shape[:2])
    return layer.crossattention.output(context, attended)
