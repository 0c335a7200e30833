"""BLIP's visual encoder: the states of all tokens, or of the CLS tokens that the contrastive loss reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from uniadapter.model.blip.layers import AdaptedVisionLayer
from uniadapter.model.dispatch import adapter_store
from uniadapter.model.features import Visuals
from uniadapter.model.store import head_dtype


@dataclass(frozen=True)
class Stem:
    """The first visual layer without its adapter, which all adapter sets of a frozen base share; see `visual_stem`.

    Args:
        attended: states of F frames after the first layer's attention, [F, N, d].
        out: the first layer's output without its adapter, [F, N, d].
    """

    attended: Tensor
    out: Tensor


def visual_stem(model: PreTrainedModel, frames: Tensor, chunk: int = 0) -> Stem | None:
    """See `encoding.visual_stem`; the base must be frozen.

    Args:
        model: a BLIP of transformers.
        frames: normalised pixels [B, T, 3, H, W].
        chunk: frames that are computed at once; 0 means all.

    Returns:
        The first layer without its adapter; None with attention dropout, which each encoder draws for itself.
    """
    if model.training and model.config.vision_config.attention_dropout > 0:
        return None
    first = _layers(model)[0]
    with torch.no_grad():
        parts = [first.without_adapter(_embedded(model, part)) for part in _chunks(frames.flatten(0, 1), chunk)]
    return Stem(*(torch.cat(part) for part in zip(*parts, strict=True)))


def all_tokens(model: PreTrainedModel, frames: Tensor, chunk: int = 0, stem: Stem | None = None) -> Tensor:
    """Last states of all tokens, [B, T, N, d], for frames [B, T, 3, H, W]."""
    states = []
    for hidden in _after_first(model, frames, chunk, stem):
        for layer in _layers(model)[1:]:
            hidden = layer(hidden)
        states.append(model.vision_model.post_layernorm(hidden))
    return torch.cat(states).unflatten(0, frames.shape[:2])


def class_tokens(model: PreTrainedModel, frames: Tensor, chunk: int = 0, stem: Stem | None = None) -> Tensor:
    """Last states of the CLS tokens, [B, T, d], for frames [B, T, 3, H, W]; the last layer computes nothing else."""
    *_, last = layers = _layers(model)
    if len(layers) == 1:
        return all_tokens(model, frames, chunk, stem)[:, :, 0]
    states = []
    for hidden in _after_first(model, frames, chunk, stem):
        for layer in layers[1:-1]:
            hidden = layer(hidden)
        states.append(model.vision_model.post_layernorm(last.class_token(hidden)))
    return torch.cat(states).unflatten(0, frames.shape[:2])


def _after_first(model: PreTrainedModel, frames: Tensor, chunk: int, stem: Stem | None) -> Iterator[Tensor]:
    """Outputs of the first layer, [F, N, d], a chunk of F frames at a time."""
    first = _layers(model)[0]
    if stem is None:
        yield from (first(_embedded(model, part)) for part in _chunks(frames.flatten(0, 1), chunk))
        return
    for attended, out in zip(_chunks(stem.attended, chunk), _chunks(stem.out, chunk), strict=True):
        yield first.with_adapter(attended, out)


def _layers(model: PreTrainedModel) -> list[AdaptedVisionLayer]:
    adapter_store(model)
    return list(model.vision_model.encoder.layers)  # type: ignore[arg-type]


def _embedded(model: PreTrainedModel, frames: Tensor) -> Tensor:
    """Patch embeddings [F, N, d]; position embeddings are interpolated for other image sizes, as in BLIP."""
    size = model.config.vision_config.image_size
    return model.vision_model.embeddings(frames, interpolate_pos_encoding=frames.shape[-2:] != (size, size))


def _chunks(rows: Tensor, chunk: int) -> tuple[Tensor, ...]:
    if chunk < 0:
        raise ValueError(f"{chunk} frames at once: frame_chunk must be at least 1, or 0 for all")
    return rows.split(chunk) if chunk else (rows,)


def encode_visual(model: PreTrainedModel, frames: Tensor, chunk: int = 0, stem: Stem | None = None) -> Visuals:
    """See `encoding.encode_visual`; a video's feature is the projected, normalised mean of its frames' CLS states."""
    tokens = all_tokens(model, frames, chunk, stem)
    cls = tokens[:, :, 0]
    return Visuals(tokens, project(model, "vision_proj", cls.mean(1)), project(model, "vision_proj", cls))


def visual_feature(model: PreTrainedModel, frames: Tensor, chunk: int = 0, stem: Stem | None = None) -> Tensor:
    """See `encoding.visual_feature`; the last layer computes the CLS token alone."""
    return project(model, "vision_proj", class_tokens(model, frames, chunk, stem).mean(1))


def project(model: PreTrainedModel, head: str, states: Tensor) -> Tensor:
    """Unit-length features [..., e] of states [..., d], by the head of that name; e = 0 if the model has none."""
    linear = getattr(model, head, None)
    if linear is None:
        return states.new_zeros((*states.shape[:-1], 0))
    if not torch.is_autocast_enabled(states.device.type):
        states = states.to(head_dtype(linear, states.dtype))
    projected = linear(states)
    projected = projected if projected.dtype == torch.float64 else projected.float()
    return nn.functional.normalize(projected, dim=-1)
