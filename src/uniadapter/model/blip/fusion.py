"""BLIP's text encoder, on texts alone and, with cross-attention, on pairs of a text and a visual."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor
from transformers import PreTrainedModel

from uniadapter.model.adapter_set import AdapterSet
from uniadapter.model.backbone import Read
from uniadapter.model.blip.layers import AdaptedTextLayer
from uniadapter.model.blip.vision import project
from uniadapter.model.dispatch import adapter_store
from uniadapter.model.features import FusionCache, Texts, Visuals
from uniadapter.model.frame_attention import frame_weighted_attention, weights_of_tokens
from uniadapter.model.kernels.absorbed import absorbed_attention, absorbing_is_cheaper
from uniadapter.model.kernels.attention import attend, to_autocast_dtype
from uniadapter.model.kernels.linear import is_base_linear
from uniadapter.model.kernels.packing import (
    PackedPairs,
    Packing,
    Queries,
    check_right_padded,
    left_aligned,
    pack_pairs,
)
from uniadapter.model.mixed_sets import MixedSets
from uniadapter.model.pair_rows import pair_weights, rows_of_items
from uniadapter.model.store import head_dtype
from uniadapter.model.temporal import temporal_embedding

_CACHED_TEXTS = 64  # texts encoded at once: more is not faster, and needs more memory


def encode_text(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Texts:
    """See `encoding.encode_text`; texts are packed without padding."""
    if not hasattr(model, "text_encoder"):
        raise TypeError(f"{type(model).__name__} has no text encoder")
    adapter_store(model)
    text = model.config.text_config
    ids, mask = left_aligned(ids, mask, text.max_position_embeddings)
    if not len(ids):
        none = model.text_encoder.embeddings.word_embeddings.weight.new_zeros((0, 0, text.hidden_size))
        return Texts(ids, mask, none, project(model, "text_proj", none[:, :1].sum(1)))
    packing = Packing.of(mask.sum(1))
    longest = packing.tokens.shape[1]
    ids, mask = ids[:, :longest], mask[:, :longest]
    hidden = packing.pack(model.text_encoder.embeddings(input_ids=ids))
    padding = packing.mask(hidden.dtype)
    with adapter_store(model).rows(packing.text_of_token):
        for layer in model.text_encoder.encoder.layer:
            attended = layer.attend_self(hidden, packing, padding)
            hidden = layer.feed_forward(attended, layer.query_residual(attended, fused=False), fused=False)
    return Texts(ids, mask, packing.pad(hidden), project(model, "text_proj", hidden[packing.firsts]))


def enc_token_id(model: PreTrainedModel) -> int:
    """Id of [ENC], the fused encoder's first token: `text_config.enc_token_id`, else that of [DEC] + 1 (30523)."""
    text = model.config.text_config
    return int(getattr(text, "enc_token_id", None) or text.bos_token_id + 1)


def fused_ids(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """[ENC] in place of each text's first token, [S, L]; the given ids are not modified."""
    ids = ids.clone()
    ids[:, 0] = enc_token_id(model)
    return ids


def begin_fusion(model: PreTrainedModel, texts: Texts) -> FusionCache:
    """The first layer's self-attention with the active set's adapters in it; it does not depend on visuals."""
    store = adapter_store(model)
    check_right_padded(texts.mask)
    lengths = texts.mask.sum(1)
    first: AdaptedTextLayer = next(iter(model.text_encoder.encoder.layer))
    states = []
    for start in range(0, len(texts), _CACHED_TEXTS):
        some = slice(start, start + _CACHED_TEXTS)
        packing = Packing.of(lengths[some])
        ids = texts.ids[some, : packing.tokens.shape[1]].clone()
        ids[:, 0] = enc_token_id(model)
        hidden = packing.pack(model.text_encoder.embeddings(input_ids=ids))
        with store.rows(some), store.rows(packing.text_of_token):
            states.append(first.attend_self(hidden, packing, packing.mask(hidden.dtype)))
    return FusionCache(torch.cat(states), torch.cumsum(lengths, 0) - lengths, by=_acting(model))


def _acting(model: PreTrainedModel) -> AdapterSet | MixedSets | None:
    """What acts in self-attention: the active set, if it has adapters there, or the sets of rows; else None."""
    active = adapter_store(model).active
    return None if isinstance(active, AdapterSet) and active.self_adapter("encoder", 0) is None else active


def fuse(
    model: PreTrainedModel,
    texts: Texts,
    visuals: Visuals,
    pairs: Tensor,
    read: Read = "all",
    cache: FusionCache | None = None,
) -> Tensor:
    """See `encoding.fuse`: the texts of a visual are one long query, and texts are packed without padding."""
    adapter_store(model)
    if not len(pairs):
        shape = (0, model.config.text_config.hidden_size)
        return texts.states.new_zeros(shape if read == "first" else (0, texts.ids.shape[1], shape[1]))
    return _fuse(model, texts, visuals, pairs, read, cache)


def fuse_with_weights(
    model: PreTrainedModel, texts: Texts, visuals: Visuals, pairs: Tensor
) -> tuple[Tensor, list[Tensor]]:
    """As `fuse`, with the weights of each layer's cross-attention, which are computed for this alone.

    Args:
        model: with a text encoder.
        texts: S texts.
        visuals: V visuals.
        pairs: [P, 2] of (text row, visual row), at least one.

    Returns:
        States [P, L, d], and for each layer weights [P, H, L, T, N], which sum to 1 over T and N. Those of padding are
        undefined.
    """
    adapter_store(model)
    kept: list[Tensor] = []
    states = _fuse(model, texts, visuals, pairs, "all", None, kept)
    return states, [weights.unflatten(-1, visuals.tokens.shape[1:3]) for weights in kept]


def _fuse(
    model: PreTrainedModel,
    texts: Texts,
    visuals: Visuals,
    pairs: Tensor,
    read: Read,
    cache: FusionCache | None,
    kept: list[Tensor] | None = None,
) -> Tensor:
    """`fuse` for at least one pair; `kept` gets the attention weights of each layer, [P, H, L, T * N]."""
    device = texts.ids.device
    packed = pack_pairs(pairs, texts.mask.sum(1), texts.ids.shape[1])
    tokens = visuals.tokens  # they may be in a file, or in half precision
    tokens = tokens[packed.visuals.to(tokens.device)].to(device, model.dtype)
    packed = packed.to(device)
    states = _begun(model, texts, pairs[:, 0].to(device), cache, packed)
    with adapter_store(model).rows(packed.order):
        with rows_of_items(model, packed.pair_visuals, "visual"):
            visual = with_time(model, tokens)
        weights = pair_weights(model, texts, visuals, packed.texts, packed.pair_visuals)
        flat, patches = to_autocast_dtype(visual.flatten(1, 2)), visual.shape[2]
        return _fused_layers(model, states, flat, packed, weights, patches, read, kept)


def _begun(
    model: PreTrainedModel, texts: Texts, rows: Tensor, cache: FusionCache | None, packed: PackedPairs
) -> Tensor:
    """What the pairs' tokens begin with, [N, d]; `rows` are the texts of the pairs [P] in the order given."""
    found, by = packed.texts, _acting(model)
    if isinstance(by, MixedSets):  # a row's set begins its text
        if cache is None:
            some = torch.unique(rows)
            found = torch.searchsorted(some, found.contiguous())
            with rows_of_items(model, rows, "text"):
                cache = begin_fusion(model, texts.select(some))
    elif cache is None or cache.by is not by:  # made with another set
        cache = begin_fusion(model, texts)
    return cache.take(found[packed.pair_of_token], packed.position_in_text)


def with_time(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """Visual tokens [V, T, N, d] plus the temporal embedding, if there is one."""
    time = temporal_embedding(model, tokens.shape[1])
    if time is None:
        return tokens
    time = time.unsqueeze(2)
    same = tokens.dtype == model.vision_model.post_layernorm.weight.dtype  # else autocast has chosen the tokens' dtype
    return tokens + (time.to(tokens.dtype) if same else time)


def _fused_layers(
    model: PreTrainedModel,
    states: Tensor,
    visual: Tensor,
    packed: PackedPairs,
    weights: Tensor | None,
    patches: int,
    read: Read,
    kept: list[Tensor] | None = None,
) -> Tensor:
    """The fused layers, from the first one's self-attention outputs [N, d] of all pairs' tokens to the last states."""
    encoder, packing = model.text_encoder.encoder, packed.packing
    padding = packing.mask(states.dtype)
    with rows_of_items(model, packed.pair_visuals, "visual"):
        key_delta, value_delta = encoder.deltas(visual)
    last = len(encoder.layer) - 1
    for index, layer in enumerate(encoder.layer):
        first = read == "first" and index == last
        if index:
            with adapter_store(model).rows(packed.pair_of_token):
                states = layer.attend_self(states, packing, padding, first)
        elif first:
            states = states[packing.firsts]
        queries = packed.firsts if first else packed.tokens
        by_query = None
        if weights is not None:
            by_query = queries.pack(weights if first else weights[packed.pair_of_token])
        found: list[Tensor] | None = None if kept is None else []
        crossed = _cross(layer, states, visual, key_delta, value_delta, queries, by_query, patches, found)
        if kept is not None and found:
            kept.append(packed.restore(packing.pad(found[0]).transpose(1, 2)))
        with nullcontext() if first else adapter_store(model).rows(packed.pair_of_token):
            residual = layer.query_residual(states)
            del states  # else it would occupy memory during the feed-forward
            states = layer.feed_forward(crossed, residual, fused=True)
    return packed.restore(states if read == "first" else packing.pad(states))


def _cross(
    layer: AdaptedTextLayer,
    attended: Tensor,
    visual: Tensor,
    key_delta: Tensor | None,
    value_delta: Tensor | None,
    queries: Queries,
    weights: Tensor | None,
    patches: int,
    kept: list[Tensor] | None = None,
) -> Tensor:
    """Cross-attention of tokens [N, d] to their visuals, with its residual and norm; see `Queries`.

    With a list `kept`, attention weights are computed explicitly and appended to it, [N, H, K].
    """
    attention = layer.crossattention.self
    query = attention.split_heads(queries.pack(attention.query(attended)))
    dropout = attention.dropout.p if layer.training else 0.0
    _, heads, width, _ = query.shape
    plain = is_base_linear(attention.key) and is_base_linear(attention.value)
    inference = not (torch.is_grad_enabled() or dropout)
    if kept is not None:
        key, value = map(queries.repeat, attention.keys_values(visual, key_delta, value_delta))
        context, found = _explicit(query, key, value, weights, patches)
        kept.append(queries.unpack(found.transpose(1, 2)))
    elif plain and inference and absorbing_is_cheaper(width, visual.shape[1], visual.shape[2], heads):
        weigh = None if weights is None else lambda scores: scores * weights_of_tokens(weights, patches)[:, None]
        deltas = tuple(None if delta is None else queries.repeat(delta) for delta in (key_delta, value_delta))
        key, value = ((part.weight, part.bias) for part in (attention.key, attention.value))
        context = absorbed_attention(query, queries.repeat(visual), key, value, deltas, weigh)
    else:
        key, value = map(queries.repeat, attention.keys_values(visual, key_delta, value_delta))
        if weights is None:
            context = attend(query, key, value, dropout=dropout)
        else:
            context = frame_weighted_attention(query, key, value, weights, patches, dropout)
    return layer.crossattention.output(queries.unpack(context.transpose(1, 2).flatten(2)), attended)


def _explicit(query: Tensor, key: Tensor, value: Tensor, weights: Tensor | None, patches: int) -> tuple[Tensor, Tensor]:
    """Attention output [R, H, W, d_h] and weights [R, H, W, K]; arguments as for `frame_weighted_attention`."""
    scores = query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5
    if weights is not None:
        scores = scores * weights_of_tokens(weights, patches)[:, None].to(scores.dtype)
    probabilities = torch.softmax(scores, dim=-1)
    return probabilities @ value, probabilities


def match(
    model: PreTrainedModel, texts: Texts, visuals: Visuals, pairs: Tensor, cache: FusionCache | None = None
) -> Tensor:
    """See `encoding.match`."""
    states = fuse(model, texts, visuals, pairs, "first", cache)
    with torch.autocast(states.device.type, enabled=False):
        return model.itm_head(states.to(head_dtype(model.itm_head, states.dtype)))
