"""Parameter-free frame-aware attention (arXiv 2302.06605, section 3): a text weighs the frames of a video."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from uniadapter.model.kernels.attention import attention_in_chunks

FRAME_TEMPERATURE = 4.0  # of the softmax over frames, as released


def frame_weights(text_feature: Tensor, frames: Tensor, temperature: float = FRAME_TEMPERATURE) -> Tensor:
    """Parameter-free frame-aware attention: softmax over frames of <text, frame> / 4, times T; no gradient.

    Args:
        text_feature: unit features [P, e] of the texts alone.
        frames: unit frame features [P, T, e] of the videos in the pairs; of several for a frame, [P, T, q, e], the
            most similar one counts.
        temperature: of the softmax, 4 as released.

    Returns:
        The weight of each frame's patch keys, [P, T], mean 1.
    """
    similarity = torch.einsum("pe,pt...e->pt...", text_feature, frames).detach()
    similarity = similarity.flatten(2).amax(-1) if frames.ndim == 4 else similarity
    return torch.softmax(similarity / temperature, dim=-1) * frames.shape[1]


def weights_of_tokens(weights: Tensor, patches: int) -> Tensor:
    """Repeat weights of frames [..., T] for the N tokens of each frame, [..., T * N]; that of CLS is 1."""
    weights = weights[..., None].repeat(*[1] * weights.ndim, patches)
    weights[..., 0] = 1
    return weights.flatten(-2)


def frame_weighted_attention(
    query: Tensor, key: Tensor, value: Tensor, weights: Tensor, patches: int, dropout: float = 0.0
) -> Tensor:
    """Attention in which the keys of a frame's patches are multiplied by the text's weight for that frame.

    Since q (w k) = w (q k), the scores are multiplied instead, so that texts can share keys. CLS keys and all values
    are not weighted.

    Args:
        query: [R, H, Q, d_h], the tokens of one or several texts.
        key: [R, H, T * N, d_h].
        value: [R, H, T * N, d_h].
        weights: of the frames, for each query's text, [R, Q, T].
        patches: N, tokens of a frame, CLS included.
        dropout: probability of dropping an attention weight.

    Returns:
        The context, [R, H, Q, d_h].
    """
    if query.is_cuda and not dropout and query.dtype != torch.float64:
        return _in_flex_attention(_compiled_kernel(), query, key, value, weights, patches)
    return _in_chunks(query, key, value, weights, patches, dropout)


def _in_chunks(query: Tensor, key: Tensor, value: Tensor, weights: Tensor, patches: int, dropout: float) -> Tensor:
    """A few queries at a time, so that few scores are held."""

    def weighted(scores: Tensor, row: int, part: slice) -> Tensor:
        factor = (weights_of_tokens(weights[row, part], patches) * query.shape[-1] ** -0.5).to(query.dtype)
        return scores * factor if scores.requires_grad else scores.mul_(factor)

    return attention_in_chunks(query, key, value, weighted, dropout)


@functools.cache
def _compiled_kernel() -> Callable[..., Tensor]:
    """FlexAttention, compiled at its first call for all shapes."""
    return torch.compile(flex_attention, dynamic=True)


def _in_flex_attention(
    attention: Callable[..., Any], query: Tensor, key: Tensor, value: Tensor, weights: Tensor, patches: int
) -> Tensor:
    """By FlexAttention, whose kernel weights the scores without storing them."""
    weights = weights.to(query.dtype)
    frame = torch.tensor(patches, device=query.device)  # a Python number would be compiled into the kernel

    def weigh(score: Tensor, row: Tensor, head: Tensor, place: Tensor, seen: Tensor) -> Tensor:
        weight = weights[row, place, seen // frame]
        return torch.where(seen % frame == 0, score, score * weight)  # CLS as it is

    return attention(query, key, value, score_mod=weigh)
