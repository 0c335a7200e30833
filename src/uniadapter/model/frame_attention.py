"""Parameter-free frame-aware attention: a text weighs a video's frames, and the weights go onto its scores."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from uniadapter.model.kernels.attention import by_parts

FRAME_TEMPERATURE = 4.0  # of the softmax over frames, as released


def frame_weights(text_feature: Tensor, frames: Tensor, temperature: float = FRAME_TEMPERATURE) -> Tensor:
    """Parameter-free frame-aware attention: softmax over frames of <text, frame> / 4, times T; no gradient.

    Args:
        text_feature: unit features [P, e] of the texts alone.
        frames: unit frame features [P, T, e] of the videos they meet; of several a frame, [P, T, q, e], the most
            similar counts.
        temperature: of the softmax, 4 as released.

    Returns:
        The weight of each frame's patch keys, [P, T], mean 1.
    """
    similarity = torch.einsum("pe,pt...e->pt...", text_feature, frames).detach()
    similarity = similarity.flatten(2).amax(-1) if frames.ndim == 4 else similarity
    return torch.softmax(similarity / temperature, dim=-1) * frames.shape[1]


def by_token(weights: Tensor, patches: int) -> Tensor:
    """Weights of frames [..., T] as those of their tokens' keys, [..., T * N]; CLS has 1."""
    weights = weights[..., None].repeat(*[1] * weights.ndim, patches)
    weights[..., 0] = 1
    return weights.flatten(-2)


def frame_weighted_attention(
    query: Tensor, key: Tensor, value: Tensor, weights: Tensor, patches: int, dropout: float = 0.0
) -> Tensor:
    """Attention whose scores on a frame's patches are multiplied by the text's weight for that frame.

    q (w k) = w (q k), so the weights go onto the scores and keys stay shared between texts. CLS keys and all values
    are left alone.

    Args:
        query: [R, H, Q, d_h], tokens of texts behind one another.
        key: [R, H, T * N, d_h].
        value: [R, H, T * N, d_h].
        weights: of each query's text, [R, Q, T].
        patches: N, tokens a frame with its CLS.
        dropout: probability on the attention's weights.

    Returns:
        The context, [R, H, Q, d_h].
    """
    if query.is_cuda and not dropout and query.dtype != torch.float64:
        return _by_kernel(_compiled_kernel(), query, key, value, weights, patches)
    return _by_parts(query, key, value, weights, patches, dropout)


def _by_parts(query: Tensor, key: Tensor, value: Tensor, weights: Tensor, patches: int, dropout: float) -> Tensor:
    """A few queries of a row at a time."""

    def weighed(scores: Tensor, row: int, part: slice) -> Tensor:
        factor = (by_token(weights[row, part], patches) * query.shape[-1] ** -0.5).to(query.dtype)
        return scores * factor if scores.requires_grad else scores.mul_(factor)

    return by_parts(query, key, value, weighed, dropout)


@functools.cache
def _compiled_kernel() -> Callable[..., Tensor]:
    """FlexAttention as one kernel; it is compiled when it is first called, once for all shapes."""
    return torch.compile(flex_attention, dynamic=True)


def _by_kernel(
    attention: Callable[..., Any], query: Tensor, key: Tensor, value: Tensor, weights: Tensor, patches: int
) -> Tensor:
    """All at once where a kernel multiplies scores as it computes them and holds none."""
    weights = weights.to(query.dtype)
    frame = torch.tensor(patches, device=query.device)  # a number would be compiled in

    def weigh(score: Tensor, row: Tensor, head: Tensor, place: Tensor, seen: Tensor) -> Tensor:
        weight = weights[row, place, seen // frame]
        return torch.where(seen % frame == 0, score, score * weight)  # CLS as it is

    return attention(query, key, value, score_mod=weigh)
