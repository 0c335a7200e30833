"""Frames through the visual encoder, layer by layer: all tokens, or the class token that contrast reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from uniadapter.model.blip.inject import adopt
from uniadapter.model.blip.layers import AdaptedVisionLayer


@dataclass(frozen=True)
class Stem:
    """What every adapter set of a frozen base begins with: the first layer, without its adapter.

    Args:
        attended: states of F frames after the first layer's attention, [F, N, d].
        out: the first layer's output but for its adapter, [F, N, d].
    """

    attended: Tensor
    out: Tensor


def visual_stem(model: PreTrainedModel, frames: Tensor, chunk: int = 0) -> Stem:
    """Compute a stem once for the online set and its momentum; the base must be frozen.

    Args:
        model: a BLIP of transformers.
        frames: normalised pixels [B, T, 3, H, W].
        chunk: frames that go through at once; 0 means all.
    """
    first = _layers(model)[0]
    with torch.no_grad():
        parts = [first.base(_embedded(model, part)) for part in _chunks(frames.flatten(0, 1), chunk)]
    return Stem(*(torch.cat(part) for part in zip(*parts, strict=True)))


def all_tokens(model: PreTrainedModel, frames: Tensor, chunk: int = 0, stem: Stem | None = None) -> Tensor:
    """States of all tokens of frames [B, T, 3, H, W], [B, T, N, d]."""
    states = []
    for hidden in _after_first(model, frames, chunk, stem):
        for layer in _layers(model)[1:]:
            hidden = layer(hidden)
        states.append(model.vision_model.post_layernorm(hidden))
    return torch.cat(states).unflatten(0, frames.shape[:2])


def class_tokens(model: PreTrainedModel, frames: Tensor, chunk: int = 0, stem: Stem | None = None) -> Tensor:
    """States of the class tokens alone, [B, T, d]: the last layer computes nothing else."""
    *_, last = layers = _layers(model)
    if len(layers) == 1:
        return all_tokens(model, frames, chunk, stem)[:, :, 0]
    states = []
    for hidden in _after_first(model, frames, chunk, stem):
        for layer in layers[1:-1]:
            hidden = layer(hidden)
        states.append(model.vision_model.post_layernorm(last.first(hidden)))
    return torch.cat(states).unflatten(0, frames.shape[:2])


def _after_first(model: PreTrainedModel, frames: Tensor, chunk: int, stem: Stem | None) -> Iterator[Tensor]:
    """The first layer's output, a chunk of frames at a time."""
    first = _layers(model)[0]
    if stem is None:
        yield from (first(_embedded(model, part)) for part in _chunks(frames.flatten(0, 1), chunk))
        return
    for attended, out in zip(_chunks(stem.attended, chunk), _chunks(stem.out, chunk), strict=True):
        yield first.adapt(attended, out)


def _layers(model: PreTrainedModel) -> list[AdaptedVisionLayer]:
    adopt(model)
    return list(model.vision_model.encoder.layers)  # type: ignore[arg-type]


def _embedded(model: PreTrainedModel, frames: Tensor) -> Tensor:
    """Frames of a size other than the model's interpolate its position embeddings, as BLIP does."""
    size = model.config.vision_config.image_size
    return model.vision_model.embeddings(frames, interpolate_pos_encoding=frames.shape[-2:] != (size, size))


def _chunks(rows: Tensor, chunk: int) -> tuple[Tensor, ...]:
    if chunk < 0:
        raise ValueError(f"{chunk} frames at once: frame_chunk must be at least 1, or 0 for all")
    return rows.split(chunk) if chunk else (rows,)
