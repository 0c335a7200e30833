"""Pictures and texts alone: BLIP-2's features for contrast, several of a picture and one of a text."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from uniadapter.model.blip2.qformer import attend_text, embedded_text
from uniadapter.model.dispatch import adapter_store
from uniadapter.model.features import Texts, Visuals
from uniadapter.model.kernels.packing import Packing, left_aligned
from uniadapter.model.store import head_dtype

_SCORES = 1 << 26  # similarities of single queries held at once, 256 MB


def encode_visual(model: PreTrainedModel, frames: Tensor, chunk: int = 0) -> Visuals:
    """Encode pictures or videos.

    A video's frames go through the Q-Former one by one, as the pictures that it was trained on, and its feature is the
    projected, normalised mean of each query's states over the frames. What a query looks for is the same in each
    frame, so their mean stays that query's; one softmax over all frames' tokens would be a length that the Q-Former
    never saw. Of a picture this is what the base gives.

    Args:
        model: a BLIP-2, with or without adapters.
        frames: normalised pixels [B, T, 3, H, W]; an image is T = 1. Sizes other than the model's interpolate its
            position embeddings, as transformers does.
        chunk: frames that go through at once; 0 means all.

    Returns:
        `Visuals` with several features a row: tokens [B, T, N, d_vision], feature [B, q, e], frames [B, T, q, e].

    Raises:
        ValueError: the chunk is negative.
    """
    adapter_store(model)
    if chunk < 0:
        raise ValueError(f"{chunk} frames at once: frame_chunk must be at least 1, or 0 for all")
    size = model.config.vision_config.image_size
    other = tuple(frames.shape[-2:]) != (size, size)
    tokens, queries = [], []
    flat = frames.flatten(0, 1)
    for part in flat.split(chunk) if chunk else (flat,):
        seen = model.vision_model(pixel_values=part, interpolate_pos_encoding=other).last_hidden_state
        tokens.append(seen)
        asked = model.query_tokens.expand(len(seen), -1, -1)
        queries.append(model.qformer(query_embeds=asked, encoder_hidden_states=seen).last_hidden_state)
    states = torch.cat(queries).unflatten(0, frames.shape[:2])
    feature = project(model, "vision_projection", states.mean(1))
    each = feature.unsqueeze(1) if frames.shape[1] == 1 else project(model, "vision_projection", states)
    return Visuals(torch.cat(tokens).unflatten(0, frames.shape[:2]), feature, each)


def encode_text(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> Texts:
    """Encode texts alone.

    Args:
        model: a BLIP-2 with a text path.
        ids: token ids [S, L], without the image tokens that transformers' processor puts before them.
        mask: [S, L], 1 for tokens, 0 for padding. Padding on the left is moved to the right; columns that are padding
            everywhere are cut.

    Returns:
        `Texts`, of the longest text's length. Padding is not computed; its states mean nothing.

    Raises:
        ValueError: a mask has holes, is no mask, or a text has no token or more than the model has positions.
    """
    adapter_store(model)
    ids, mask = left_aligned(ids, mask, model.config.qformer_config.max_position_embeddings)
    if not len(ids):
        none = model.qformer.layernorm.weight.new_zeros((0, 0, model.config.qformer_config.hidden_size))
        return Texts(ids, mask, none, project(model, "text_projection", none[:, :1].sum(1)))
    packing = Packing.of(mask.sum(1))
    longest = packing.tokens.shape[1]
    ids, mask = ids[:, :longest], mask[:, :longest]
    hidden = packing.pack(embedded_text(model, ids))
    padding = packing.mask(hidden.dtype)
    with adapter_store(model).rows(packing.text_of_token):
        for layer in model.qformer.encoder.layer:
            hidden = layer.finish_text(attend_text(layer, hidden, packing, padding))
    return Texts(ids, mask, packing.pad(hidden), project(model, "text_projection", hidden[packing.firsts]))


def project(model: PreTrainedModel, head: str, states: Tensor) -> Tensor:
    """Unit-length features [..., e] of states [..., d], in at least float32."""
    linear = getattr(model, head)
    if not torch.is_autocast_enabled(states.device.type):
        states = states.to(head_dtype(linear, states.dtype))
    projected = linear(states)
    projected = projected if projected.dtype == torch.float64 else projected.float()
    return nn.functional.normalize(projected, dim=-1)


def similarity(text: Tensor, visual: Tensor) -> Tensor:
    """The largest inner product of a text with any of a picture's queries, [S, V]; outside autocast, or they would tie.

    Args:
        text: unit features [S, e].
        visual: unit features [V, q, e].
    """
    at_once = max(1, _SCORES // max(1, len(text) * visual.shape[1]))
    with torch.autocast(text.device.type, enabled=False):
        parts = [torch.einsum("se,vqe->svq", text, part).amax(-1) for part in visual.split(at_once)]
    return torch.cat(parts, dim=1) if parts else text.new_zeros((len(text), 0))
