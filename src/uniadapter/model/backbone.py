"""The one way through the model: encode visuals, encode texts, fuse pairs of them.

Everything above this file (losses, evaluation, commands) talks to a BLIP through these functions. An image is a video
of one frame. `fuse` takes pairs, so that a visual's keys and values are projected once however many texts meet it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from uniadapter.model.blip.inject import adopt
from uniadapter.model.blip.layers import AdaptedTextLayer, head_dtype
from uniadapter.model.blip.vision import Stem, all_tokens, class_tokens
from uniadapter.model.features import FusionCache, Texts, Visuals
from uniadapter.model.frame_attention import by_token, frame_weighted_attention, frame_weights
from uniadapter.model.kernels.absorbed import absorbed_attention, pays
from uniadapter.model.kernels.attention import attend, lowered
from uniadapter.model.kernels.linear import is_plain
from uniadapter.model.kernels.packing import Groups, Packing, Queries, group_pairs, left_aligned, refuse_padding_before

Read = Literal["all", "first"]

_CACHED_TEXTS = 64  # texts of one pass: more brings nothing, and a whole gallery would need its memory


def _project(model: PreTrainedModel, head: str, states: Tensor) -> Tensor:
    """Unit-length features [..., e] of states [..., d]; e = 0 where the model has no such head."""
    linear = getattr(model, head, None)
    if linear is None:
        return states.new_zeros((*states.shape[:-1], 0))
    if not torch.is_autocast_enabled(states.device.type):
        states = states.to(head_dtype(linear, states.dtype))
    projected = linear(states)
    projected = projected if projected.dtype == torch.float64 else projected.float()
    return nn.functional.normalize(projected, dim=-1)


def encode_visual(model: PreTrainedModel, frames: Tensor, chunk: int = 0, stem: Stem | None = None) -> Visuals:
    """Encode pictures or videos.

    Args:
        model: a BLIP of transformers, with or without adapters.
        frames: normalised pixels [B, T, 3, H, W]; an image is T = 1. Sizes other than the model's interpolate its
            position embeddings, as BLIP does.
        chunk: frames that go through the visual encoder at once; 0 means all.
        stem: what `visual_stem` made of the same frames; without it that is computed here.

    Returns:
        `Visuals`; the feature of a video is the projected, normalised mean of its frames' CLS states.

    Raises:
        ValueError: `frames` has another shape.

    Example:
        >>> ua.encode_visual(model, torch.zeros(2, 1, 3, 96, 96))
        Visuals(tokens=[2, 1, 37, 192], feature=[2, 64], frames=[2, 1, 64], float32 on cpu)
    """
    _check_frames(frames)
    tokens = all_tokens(model, frames, chunk, stem)
    cls = tokens[:, :, 0]
    return Visuals(tokens, _project(model, "vision_proj", cls.mean(1)), _project(model, "vision_proj", cls))


def visual_feature(model: PreTrainedModel, frames: Tensor, chunk: int = 0, stem: Stem | None = None) -> Tensor:
    """`encode_visual`'s feature alone, [B, e]: in the last layer nothing is computed but what it reads."""
    _check_frames(frames)
    return _project(model, "vision_proj", class_tokens(model, frames, chunk, stem).mean(1))


def _check_frames(frames: Tensor) -> None:
    if frames.ndim != 5 or frames.shape[2] != 3:
        raise ValueError(f"frames must be [B, T, 3, H, W] (an image is T = 1), not {list(frames.shape)}")


def encode_text(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Texts:
    """Encode texts alone.

    Args:
        model: a BLIP with a text encoder.
        ids: token ids [S, L].
        mask: [S, L], 1 for tokens, 0 for padding. Padding on the left is moved to the right; columns that are padding
            everywhere are cut.

    Returns:
        `Texts`, of the longest text's length. Padding is not computed; its states mean nothing.

    Raises:
        TypeError: the model has no text encoder.
        ValueError: a mask has holes, is no mask, or a text has no token or more than the model has positions.

    Example:
        >>> tokens = tokenizer(["a red box", "a star"], padding=True, return_tensors="pt")
        >>> ua.encode_text(model, tokens["input_ids"], tokens["attention_mask"])
        Texts(ids=[2, 5], mask=[2, 5], states=[2, 5, 192], feature=[2, 64], float32 on cpu)
    """
    if not hasattr(model, "text_encoder"):
        raise TypeError(f"{type(model).__name__} has no text encoder")
    adopt(model)
    text = model.config.text_config
    ids, mask = left_aligned(ids, mask, text.max_position_embeddings)
    if not len(ids):
        none = model.text_encoder.embeddings.word_embeddings.weight.new_zeros((0, 0, text.hidden_size))
        return Texts(ids, mask, none, _project(model, "text_proj", none[:, :1].sum(1)))
    packing = Packing.of(mask.sum(1))
    longest = packing.tokens.shape[1]
    ids, mask = ids[:, :longest], mask[:, :longest]
    hidden = packing.pack(model.text_encoder.embeddings(input_ids=ids))
    padding = packing.mask(hidden.dtype)
    for layer in model.text_encoder.encoder.layer:
        attended = layer.attend_self(hidden, packing, padding)
        hidden = layer.finish(attended, layer.residual(attended), fused=False)
    return Texts(ids, mask, packing.pad(hidden), _project(model, "text_proj", hidden[packing.firsts]))


def enc_token_id(model: PreTrainedModel) -> int:
    """[ENC], a fused text's first token: `text_config.enc_token_id`, or the id behind [DEC] as in BLIP (30523)."""
    text = model.config.text_config
    return int(getattr(text, "enc_token_id", None) or text.bos_token_id + 1)


def fused_ids(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Ids of texts as the fused encoder was trained to see them: [ENC] in the place of their first token.

    `pair_scores`, `fuse` and `ask` do this by themselves. transformers' own `forward` and processor do not: they score
    a pair as BLIP never saw one.

    Args:
        model: a BLIP.
        ids: of texts [S, L], padded on the right, as a tokenizer or processor gives them; left as they are.

    Example:
        >>> import torch, uniadapter as ua
        >>> model, tokenizer = ua.load_model(), ua.load_tokenizer()
        >>> inputs = tokenizer(["a red box", "two dogs"], padding=True, return_tensors="pt")
        >>> inputs["input_ids"] = ua.fused_ids(model, inputs["input_ids"])
        >>> logits = model(pixel_values=torch.zeros(2, 3, 96, 96), **inputs).itm_score  # now as `pair_scores` has them
    """
    ids = ids.clone()
    ids[:, 0] = enc_token_id(model)
    return ids


def begin_fusion(model: PreTrainedModel, texts: Texts) -> FusionCache:
    """Compute once what depends on the texts alone, for `fuse` to be called many times with the same texts.

    Args:
        model: a BLIP with a text encoder.
        texts: S texts; their first token is replaced by [ENC].

    Raises:
        ValueError: the texts are not padded on the right.
    """
    adopt(model)
    refuse_padding_before(texts.mask)
    lengths = texts.mask.sum(1)
    first: AdaptedTextLayer = next(iter(model.text_encoder.encoder.layer))
    states = []
    for some, ids in zip(lengths.split(_CACHED_TEXTS), texts.ids.split(_CACHED_TEXTS), strict=True):
        packing = Packing.of(some)
        ids = ids[:, : packing.tokens.shape[1]].clone()
        ids[:, 0] = enc_token_id(model)
        hidden = packing.pack(model.text_encoder.embeddings(input_ids=ids))
        states.append(first.attend_self(hidden, packing, packing.mask(hidden.dtype)))
    return FusionCache(torch.cat(states), torch.cumsum(lengths, 0) - lengths)


def fuse(
    model: PreTrainedModel,
    texts: Texts,
    visuals: Visuals,
    pairs: Tensor,
    read: Read = "all",
    cache: FusionCache | None = None,
) -> Tensor:
    """Run the fused text encoder over pairs of texts and visuals.

    Each visual's keys and values are projected once a layer; the texts of one visual attend to them as one long query;
    the first layer's self-attention is computed once a text. Tokens of all texts stand behind one another, so that
    padding is not computed.

    Args:
        model: a BLIP with a text encoder.
        texts: S texts; their first token is replaced by [ENC].
        visuals: V visuals, all of whose tokens are real.
        pairs: [P, 2] of (text row, visual row), in any order, repeats allowed.
        read: "all" states, or only those of the "first" token, for which the last layer computes nothing else.
        cache: what `begin_fusion` made of the same texts; without it that is computed here.

    Returns:
        [P, L, d], or [P, d] for "first"; row p belongs to pairs[p]. States of padding mean nothing.

    Raises:
        ValueError: `pairs` has another shape or points outside.

    Example:
        >>> texts = ua.text_features(model, tokenizer, ["a red box", "a star"])
        >>> visuals = ua.image_features(model, picture)
        >>> ua.fuse(model, texts, visuals, torch.tensor([[0, 0], [1, 0]]), "first").shape
        torch.Size([2, 192])
    """
    adopt(model)
    _check_pairs(pairs, len(texts), len(visuals))
    if not len(pairs):
        shape = (0, model.config.text_config.hidden_size)
        return texts.states.new_zeros(shape if read == "first" else (0, texts.ids.shape[1], shape[1]))
    device = texts.ids.device
    groups = group_pairs(pairs, texts.mask.sum(1), texts.ids.shape[1])
    active = adopt(model).active
    tokens = visuals.tokens  # which may be kept elsewhere: in a file, in less precision
    tokens = tokens[groups.visuals.to(tokens.device)].to(device, model.dtype)
    groups = groups.to(device)
    visual = with_time(model, tokens)
    weights = None
    if active is not None and active.config.frame_aware:
        weights = frame_weights(texts.feature[groups.texts], visuals.frames[groups.pair_visuals])
    cache = begin_fusion(model, texts) if cache is None else cache
    states = cache.take(groups.texts[groups.pair_of_token], groups.place_in_text)
    return _fused_layers(model, states, lowered(visual.flatten(1, 2)), groups, weights, visual.shape[2], read)


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
    time = _temporal(active.time, tokens.shape[1]).unsqueeze(2)
    half = tokens.dtype == model.vision_model.post_layernorm.weight.dtype  # or whatever the base computes in
    return tokens + (time.to(tokens.dtype) if half else time)


def _temporal(time: Tensor, frames: int) -> Tensor:
    """The temporal embedding [1, T, d] of that many frames, interpolated where it was trained on another number."""
    if time.shape[1] == frames:
        return time
    return nn.functional.interpolate(time.transpose(1, 2), size=frames, mode="linear").transpose(1, 2)


def _fused_layers(
    model: PreTrainedModel,
    states: Tensor,
    visual: Tensor,
    groups: Groups,
    weights: Tensor | None,
    patches: int,
    read: Read,
) -> Tensor:
    """The fused layers, from the first one's self-attention of all pairs' tokens [N, d] to the states of pairs."""
    encoder, packing = model.text_encoder.encoder, groups.packing
    padding = packing.mask(states.dtype)
    key_delta, value_delta = encoder.deltas(visual)
    last = len(encoder.layer) - 1
    for index, layer in enumerate(encoder.layer):
        first = read == "first" and index == last
        if index:
            states = layer.attend_self(states, packing, padding, first)
        elif first:
            states = states[packing.firsts]
        queries = groups.firsts if first else groups.tokens
        by_query = None
        if weights is not None:
            by_query = queries.pack(weights if first else weights[groups.pair_of_token])
        crossed = _cross(layer, states, visual, key_delta, value_delta, queries, by_query, patches)
        residual = layer.residual(states)
        del states  # or it lived on beside the feed-forward's wide states
        states = layer.finish(crossed, residual, fused=True)
    return groups.restore(states if read == "first" else packing.pad(states))


def _cross(
    layer: AdaptedTextLayer,
    attended: Tensor,
    visual: Tensor,
    key_delta: Tensor | None,
    value_delta: Tensor | None,
    queries: Queries,
    weights: Tensor | None,
    patches: int,
) -> Tensor:
    """Cross-attention of tokens [N, d] to their visuals, residual and norm included; a visual's are one query."""
    attention = layer.crossattention.self
    query = attention.heads(queries.pack(attention.query(attended)))
    dropout = attention.dropout.p if layer.training else 0.0
    _, heads, width, _ = query.shape
    lean = not (torch.is_grad_enabled() or dropout) and is_plain(attention.key) and is_plain(attention.value)
    if lean and pays(width, visual.shape[1], visual.shape[2], heads):
        weigh = None if weights is None else lambda scores: scores * by_token(weights, patches)[:, None]
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


def match(
    model: PreTrainedModel, texts: Texts, visuals: Visuals, pairs: Tensor, cache: FusionCache | None = None
) -> Tensor:
    """Matching logits of pairs, see `fuse`: [P, 2], column 1 for "they belong together" (the rerank score).

    The head itself runs outside autocast: rounding its logits to 8 bits would make ties.

    Example:
        >>> texts = ua.text_features(model, tokenizer, ["a red box", "a star"])
        >>> visuals = ua.image_features(model, picture)
        >>> ua.match(model, texts, visuals, torch.tensor([[0, 0], [1, 0]])).shape
        torch.Size([2, 2])
    """
    states = fuse(model, texts, visuals, pairs, "first", cache)
    with torch.autocast(states.device.type, enabled=False):
        return model.itm_head(states.to(head_dtype(model.itm_head, states.dtype)))
