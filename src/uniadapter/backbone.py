"""The one way through the model: encode visuals, encode texts, fuse pairs of them.

Everything above this file (losses, evaluation, commands) talks to a BLIP through these functions. An image is a video
of one frame. `fuse` takes pairs, so that a visual's keys and values are projected once however many texts meet it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from uniadapter.encoded import Begun, Texts, Visuals
from uniadapter.frame_attention import frame_weighted_attention, frame_weights
from uniadapter.grouping import Groups, group_pairs, length_parts
from uniadapter.inject import AdaptedTextLayer, adopt

Read = Literal["all", "first"]

_BEGUN_TEXTS = 256  # texts whose fusion is begun at once


def _project(model: PreTrainedModel, head: str, states: Tensor) -> Tensor:
    """Unit-length features [..., e] of states [..., d]; e = 0 where the model has no such head."""
    linear = getattr(model, head, None)
    if linear is None:
        return states.new_zeros((*states.shape[:-1], 0))
    projected = linear(states)
    projected = projected if projected.dtype == torch.float64 else projected.float()
    return nn.functional.normalize(projected, dim=-1)


def encode_visual(model: PreTrainedModel, frames: Tensor, chunk: int = 0) -> Visuals:
    """Encode pictures or videos.

    Args:
        model: a BLIP of transformers, with or without adapters.
        frames: normalised pixels [B, T, 3, H, W]; an image is T = 1. Sizes other than the model's interpolate its
            position embeddings, as BLIP does.
        chunk: frames that go through the visual encoder at once; 0 means all.

    Returns:
        `Visuals`; the feature of a video is the projected, normalised mean of its frames' CLS states.

    Raises:
        ValueError: `frames` has another shape.
    """
    if frames.ndim != 5 or frames.shape[2] != 3:
        raise ValueError(f"frames must be [B, T, 3, H, W] (an image is T = 1), not {list(frames.shape)}")
    adopt(model)
    batch, count = frames.shape[:2]
    size = model.config.vision_config.image_size
    other_size = frames.shape[-2:] != (size, size)
    flat = frames.flatten(0, 1)
    parts = flat.split(chunk) if chunk else (flat,)
    states = torch.cat(
        [model.vision_model(pixel_values=p, interpolate_pos_encoding=other_size).last_hidden_state for p in parts]
    )
    tokens = states.unflatten(0, (batch, count))
    cls = tokens[:, :, 0]
    return Visuals(tokens, _project(model, "vision_proj", cls.mean(1)), _project(model, "vision_proj", cls))


def encode_text(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Texts:
    """Encode texts alone.

    Args:
        model: a BLIP with a text encoder.
        ids: token ids [S, L].
        mask: [S, L], 1 for tokens, 0 for padding on the right; columns that are padding everywhere are cut.

    Returns:
        `Texts`, of the longest text's length. Texts are encoded in parts of about one length, so states of padding
        are those of the part's padding, or 0.

    Raises:
        TypeError: the model has no text encoder.
    """
    if not hasattr(model, "text_encoder"):
        raise TypeError(f"{type(model).__name__} has no text encoder")
    adopt(model)
    lengths = mask.sum(1)
    parts = length_parts(lengths)
    encoded = []
    for part in parts:
        longest = int(lengths[part].max())
        some, seen = ids[part, :longest], mask[part, :longest]
        states = model.text_encoder(input_ids=some, attention_mask=seen).last_hidden_state
        encoded.append(Texts(some, seen, states, _project(model, "text_proj", states[:, 0])))
    return encoded[0] if len(parts) == 1 else Texts.concatenate(encoded).select(torch.argsort(torch.cat(parts)))


def enc_token_id(model: PreTrainedModel) -> int:
    """[ENC], a fused text's first token: `text_config.enc_token_id`, or the id behind [DEC] as in BLIP (30523)."""
    text = model.config.text_config
    return int(getattr(text, "enc_token_id", None) or text.bos_token_id + 1)


def begin_fusion(model: PreTrainedModel, texts: Texts) -> Begun:
    """Compute once what depends on the texts alone, for `fuse` to be called many times with the same texts.

    Args:
        model: a BLIP with a text encoder.
        texts: S texts; their first token is replaced by [ENC].
    """
    adopt(model)
    lengths = texts.mask.sum(1)
    parts = []
    order = torch.argsort(lengths, stable=True)
    for rows in order.split(_BEGUN_TEXTS):  # of about one length, so that padding is not computed
        longest = int(lengths[rows].max())
        ids, mask = texts.ids[rows, :longest], texts.mask[rows, :longest]
        parts.append(_begin(model, ids, mask)[mask.bool()])
    ends = torch.cumsum(lengths[order], 0)
    return Begun(torch.cat(parts), torch.empty_like(ends).index_copy(0, order, ends - lengths[order]))


def _begin(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Tensor:
    """Embeddings and the first layer's self-attention of texts that begin with [ENC], [S, L, d]."""
    ids = ids.clone()
    ids[:, 0] = enc_token_id(model)
    hidden = model.text_encoder.embeddings(input_ids=ids)
    first: AdaptedTextLayer = next(iter(model.text_encoder.encoder.layer))
    return first.attend_self(hidden, _additive(mask, hidden.dtype))


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor | None:
    """What is added to scores of texts whose mask is [S, L]: [S, 1, 1, L]; None where nothing is padding."""
    return None if bool(mask.all()) else (1.0 - mask[:, None, None].to(dtype)) * torch.finfo(dtype).min


def fuse(
    model: PreTrainedModel,
    texts: Texts,
    visuals: Visuals,
    pairs: Tensor,
    read: Read = "all",
    begun: Begun | None = None,
) -> Tensor:
    """Run the fused text encoder over pairs of texts and visuals.

    Each visual's keys and values are projected once a layer; the texts of one visual attend to them as one long query;
    what depends on a text alone (the first layer's self-attention and its query residual) is computed once a text. For
    the first token alone, pairs are fused in parts of about one text length, so that padding is not computed.

    Args:
        model: a BLIP with a text encoder.
        texts: S texts; their first token is replaced by [ENC].
        visuals: V visuals, all of whose tokens are real.
        pairs: [P, 2] of (text row, visual row), in any order, repeats allowed.
        read: "all" states, or only those of the "first" token, for which the last layer computes nothing else.
        begun: what `begin_fusion` made of the same texts; without it that is computed here.

    Returns:
        [P, L, d], or [P, d] for "first"; row p belongs to pairs[p].

    Raises:
        ValueError: `pairs` has another shape or points outside.
    """
    adopt(model)
    _check_pairs(pairs, len(texts), len(visuals))
    if not len(pairs):
        shape = (0, model.config.text_config.hidden_size)
        return texts.states.new_zeros(shape if read == "first" else (0, texts.ids.shape[1], shape[1]))
    if read == "all":
        everything = torch.arange(len(texts), device=texts.ids.device)
        start = None if begun is None else begun.take(everything, texts.ids.shape[1])
        return _fuse_part(model, texts, visuals, pairs, read, start)
    lengths = texts.mask.sum(1)[pairs[:, 0]]
    parts = length_parts(lengths, pairs[:, 1], visuals.tokens.shape[1] * visuals.tokens.shape[2])
    states = []
    for part in parts:  # with the texts that it names, without their common padding
        rows, index = torch.unique(pairs[part, 0], return_inverse=True)
        longest = int(texts.mask[rows].sum(1).max())
        own = torch.stack([index, pairs[part, 1]], dim=1)
        start = None if begun is None else begun.take(rows, longest)
        states.append(_fuse_part(model, texts.select(rows).cut(longest), visuals, own, read, start))
    return torch.cat(states)[torch.argsort(torch.cat(parts))]


def _fuse_part(
    model: PreTrainedModel, texts: Texts, visuals: Visuals, pairs: Tensor, read: Read, start: Tensor | None
) -> Tensor:
    """`fuse` of pairs whose texts are of about one length."""
    groups = group_pairs(pairs, texts.ids.shape[1]).to(texts.ids.device)
    active = adopt(model).active
    tokens = visuals.tokens  # which may be kept elsewhere: in a file, in less precision
    tokens = tokens[groups.visuals.to(tokens.device)].to(texts.ids.device, model.dtype)
    visual = with_time(model, tokens)
    weights = None
    if active is not None and active.config.frame_aware:
        per_pair = frame_weights(texts.feature[groups.texts], visuals.frames[groups.pair_visuals])
        weights = groups.spread(per_pair)
    patches = visual.shape[2]
    start = _begin(model, texts.ids, texts.mask) if start is None else start
    return _fused_layers(model, start, texts.mask, visual.flatten(1, 2), groups, weights, patches, read)


def _check_pairs(pairs: Tensor, texts: int, visuals: int) -> None:
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise ValueError(f"pairs must be [P, 2] of (text row, visual row), not {list(pairs.shape)}")
    if len(pairs) and (int(pairs.min()) < 0 or int(pairs[:, 0].max()) >= texts or int(pairs[:, 1].max()) >= visuals):
        raise ValueError(f"pairs point outside the {texts} texts and {visuals} visuals")


def with_time(model: PreTrainedModel, tokens: Tensor) -> Tensor:
    """Visual tokens [V, T, N, d] with the active set's temporal embedding, where it has one."""
    active = adopt(model).active
    if active is None or not hasattr(active, "time"):
        return tokens
    return tokens + _temporal(active.time, tokens.shape[1]).unsqueeze(2)


def _temporal(time: Tensor, frames: int) -> Tensor:
    """The temporal embedding [1, T, d] of that many frames, interpolated where it was trained on another number."""
    if time.shape[1] == frames:
        return time
    return nn.functional.interpolate(time.transpose(1, 2), size=frames, mode="linear").transpose(1, 2)


def _fused_layers(
    model: PreTrainedModel,
    states: Tensor,
    text_mask: Tensor,
    visual: Tensor,
    groups: Groups,
    weights: Tensor | None,
    patches: int,
    read: Read,
) -> Tensor:
    """The fused layers, from the first one's self-attention of texts [S, L, d] to the states of pairs."""
    encoder = model.text_encoder.encoder
    mask = _additive(text_mask, model.dtype)
    key_delta, value_delta = encoder.deltas(visual)
    last = len(encoder.layer) - 1
    for index, layer in enumerate(encoder.layer):
        first = read == "first" and index == last
        attended = layer.attend_self(states, mask, first) if index else states[:, :1] if first else states
        residual = layer.residual(attended)
        if index == 0:  # until here rows are texts; from here on they are pairs
            attended = attended[groups.texts]
            residual = None if residual is None else residual[groups.texts]
            mask = None if mask is None else mask[groups.texts]
        crossed = _cross(layer, attended, visual, key_delta, value_delta, groups, weights, patches)
        states = layer.finish(crossed, residual, fused=True)
    return groups.restore(states[:, 0] if read == "first" else states)


def _cross(
    layer: AdaptedTextLayer,
    attended: Tensor,
    visual: Tensor,
    key_delta: Tensor | None,
    value_delta: Tensor | None,
    groups: Groups,
    weights: Tensor | None,
    patches: int,
) -> Tensor:
    """Cross-attention of pairs [P, L, d] to their visuals, residual and norm included; a group is one query."""
    attention = layer.crossattention.self
    key, value = attention.keys_values(visual, key_delta, value_delta)
    key, value = groups.repeat(key), groups.repeat(value)
    query = attention.heads(groups.pack(attention.query(attended)))
    dropout = attention.dropout.p if layer.training else 0.0
    if weights is None:
        context = nn.functional.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
    else:
        context = frame_weighted_attention(query, key, value, weights, patches, dropout)
    packed = context.transpose(1, 2).flatten(2)
    return layer.crossattention.output(groups.unpack(packed, attended.shape[1]), attended)


def match(model: PreTrainedModel, texts: Texts, visuals: Visuals, pairs: Tensor, begun: Begun | None = None) -> Tensor:
    """Matching logits of pairs, see `fuse`: [P, 2], column 1 for "they belong together" (the rerank score).

    The head itself runs outside autocast: rounding its logits to 8 bits would make ties.
    """
    states = fuse(model, texts, visuals, pairs, "first", begun)
    with torch.autocast(states.device.type, enabled=False):
        return model.itm_head(states.to(model.itm_head.weight.dtype))
