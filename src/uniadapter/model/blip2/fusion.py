"""Pairs of texts and pictures through the Q-Former, with what they have in common computed once.

A text and the queries attend to each other from the first layer on, but no text has met a picture before the first
cross-attention: the first layer's self-attention, and that layer's text states, are the text's own (`begin_fusion`).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from uniadapter.model.blip2.layers import AdaptedQFormerLayer
from uniadapter.model.blip2.qformer import Joint, attend_joint, cross, embedded_queries, embedded_text
from uniadapter.model.dispatch import adapter_store
from uniadapter.model.features import FusionCache, Texts, Visuals
from uniadapter.model.kernels.attention import to_autocast_dtype
from uniadapter.model.kernels.packing import Packing, Queries, check_right_padded
from uniadapter.model.pair_rows import pair_weights, rows_of_items
from uniadapter.model.store import AdaptedHead, head_dtype
from uniadapter.model.temporal import temporal_embedding

_TEXTS_AT_ONCE = 64  # whose first layer is computed together
_KEPT_TEXTS = 8192  # beyond which it is computed for each block of pairs: 0.8 GB of the released Q-Former's states


@dataclass(frozen=True)
class QueryCache(FusionCache):
    """What every pair of a text begins with; no rows where there are too many texts to keep it of all.

    Its `states` are those of the texts' tokens behind the first layer.

    Args:
        queries: behind the first layer's self-attention, [S, q, d].
    """

    queries: Tensor

    def __len__(self) -> int:
        return len(self.queries)


def begin_fusion(model: PreTrainedModel, texts: Texts) -> QueryCache:
    """Compute once what depends on the texts alone, for `match` to be called many times with the same texts.

    Raises:
        ValueError: the texts are not padded on the right.
    """
    store = adapter_store(model)
    check_right_padded(texts.mask)
    width = model.config.qformer_config.hidden_size
    if not 0 < len(texts) <= _KEPT_TEXTS:
        none = texts.feature.new_zeros((0, width))
        return QueryCache(none, texts.mask.sum(1)[:0], none[:, None])
    parts = []
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        some = slice(start, start + _TEXTS_AT_ONCE)
        with store.rows(some):
            parts.append(_first_layer(model, texts.ids[some], texts.mask[some]))
    lengths = texts.mask.sum(1)
    return QueryCache(
        torch.cat([part.text for part in parts]),
        torch.cumsum(lengths, 0) - lengths,
        torch.cat([part.queries for part in parts]),
    )


def _first_layer(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Joint:
    """The first layer, as far as it has seen no picture: queries behind its self-attention, texts behind all of it."""
    packing = Packing.of(mask.sum(1))
    layer: AdaptedQFormerLayer = next(iter(model.qformer.encoder.layer))
    queries = embedded_queries(model, model.embeddings.word_embeddings.weight.dtype)
    text = packing.pack(embedded_text(model, ids[:, : packing.tokens.shape[1]]))
    begun = attend_joint(layer, Joint(queries.expand(len(ids), -1, -1), text), packing, _mask(packing, queries))
    with adapter_store(model).rows(packing.text_of_token):
        return Joint(begun.queries, layer.finish_text(begun.text))


def _mask(packing: Packing, queries: Tensor) -> Tensor | None:
    """What hides the texts' padding where q queries stand before each text, [P, 1, 1, q + L]."""
    padding = packing.mask(queries.dtype)
    return None if padding is None else nn.functional.pad(padding, (queries.shape[-2], 0))


def fuse(
    model: PreTrainedModel, texts: Texts, visuals: Visuals, pairs: Tensor, cache: FusionCache | None = None
) -> Tensor:
    """The queries' last states for pairs of texts and pictures.

    Each picture's keys and values are projected once a cross-attention layer, however many texts meet it; texts stand
    behind one another, so that padding is not computed; the last layer computes the queries alone.

    Args:
        model: a BLIP-2 with a text path.
        texts: S texts, padded on the right.
        visuals: V pictures or videos, whose frames' tokens the queries see all at once.
        pairs: [P, 2] of (text row, picture row), in any order, repeats allowed.
        cache: what `begin_fusion` made of the same texts; without it that is computed here.

    Returns:
        [P, q, d]; row p belongs to pairs[p].
    """
    store = adapter_store(model)
    asked: Tensor = model.query_tokens
    count, width = asked.shape[1:]
    if not len(pairs):
        return texts.feature.new_zeros((0, count, width))
    device = texts.ids.device
    order = torch.argsort(pairs[:, 1].detach().cpu(), stable=True)
    rows, columns = pairs.detach().cpu()[order].unbind(1)
    met, meeting = torch.unique_consecutive(columns, return_counts=True)
    tokens = visuals.tokens[met.to(visuals.tokens.device)].to(device, asked.dtype)
    rows, columns = rows.to(device), columns.to(device)
    with store.rows(order):
        begun, packing = _begun(model, texts, rows, cache)
        weights = pair_weights(model, texts, visuals, rows, columns)
        states = _layers(model, begun, packing, tokens, columns, Queries.of(meeting * count).to(device), weights)
    return states[torch.argsort(order).to(device)]


def _begun(model: PreTrainedModel, texts: Texts, rows: Tensor, cache: FusionCache | None) -> tuple[Joint, Packing]:
    """What the pairs of these texts [P] begin with, and how their tokens stand."""
    if not isinstance(cache, QueryCache) or not len(cache):  # of these pairs' texts alone, each once
        check_right_padded(texts.mask)
        some, place = torch.unique(rows, return_inverse=True)
        ids, mask = texts.ids[some], texts.mask[some]
        with rows_of_items(model, rows, "text"):
            lengths, first = mask.sum(1), _first_layer(model, ids, mask)
        rows = place
        cache = QueryCache(first.text, torch.cumsum(lengths, 0) - lengths, first.queries)
    else:
        lengths = texts.mask.sum(1)
    packing = Packing.of(lengths[rows])
    longest = packing.tokens.shape[1]
    pair, place = packing.places // longest, packing.places % longest
    return Joint(cache.queries.index_select(0, rows), cache.take(rows[pair], place)), packing


def with_time(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """Visual tokens [V, T, N, d] plus the temporal embedding, if there is one."""
    time = temporal_embedding(model, tokens.shape[1])
    return tokens if time is None else tokens + time.unsqueeze(2).to(tokens.dtype)


def _layers(
    model: PreTrainedModel,
    joint: Joint,
    packing: Packing,
    tokens: Tensor,
    columns: Tensor,
    rows: Queries,
    weights: Tensor | None,
) -> Tensor:
    """From what `begin_fusion` gives to the queries' last states, [P, q, d], pairs sorted by picture, [P] columns."""
    encoder, mask = model.qformer.encoder, _mask(packing, joint.queries)
    with rows_of_items(model, columns, "visual"):
        visual = to_autocast_dtype(with_time(model, tokens).flatten(1, 2))
        deltas = encoder.deltas(visual)
    last = len(encoder.layer) - 1
    for index, layer in enumerate(encoder.layer):
        if index:
            joint = attend_joint(layer, joint, packing, mask, queries_only=index == last)
        attended = crossed = joint.queries
        if layer.has_cross_attention:
            crossed = cross(layer, attended, visual, deltas, rows, weights, tokens.shape[2])
        queries = layer.finish_queries(attended, crossed)
        text = joint.text
        if 0 < index < last:
            with adapter_store(model).rows(packing.text_of_token):
                text = layer.finish_text(text)
        joint = Joint(queries, text)
    return joint.queries


def match(
    model: PreTrainedModel, texts: Texts, visuals: Visuals, pairs: Tensor, cache: FusionCache | None = None
) -> Tensor:
    """Matching logits of pairs, see `fuse`: [P, 2], the mean over the queries; column 1 for "they belong together".

    The head itself runs outside autocast: rounding its logits to 8 bits would make ties.
    """
    states = fuse(model, texts, visuals, pairs, cache)
    head: AdaptedHead = model.itm_head
    with torch.autocast(states.device.type, enabled=False):
        return head(states.to(head_dtype(head, states.dtype))).mean(1)
