"""A video's feature from its frames': their mean, or a mean that each text weighs for itself."""

from __future__ import annotations

import torch
from torch import Tensor, nn

FRAME_TEMPERATURE = 0.1  # of the softmax over frames, on cosines; not published: our choice
_TEXTS = 256  # texts whose weights are in memory at once


def unit(states: Tensor) -> Tensor:
    """Unit-length features [..., e], in float32 (float64 stays)."""
    return nn.functional.normalize(states if states.dtype == torch.float64 else states.float(), dim=-1)


def pooled(frames: Tensor) -> Tensor:
    """The normalised mean [V, e] of unit frame features [V, T, e]; of one frame that frame's."""
    return frames[:, 0] if frames.shape[1] == 1 else nn.functional.normalize(frames.mean(1), dim=-1)


def weighted_similarity(text: Tensor, frames: Tensor, temperature: float = FRAME_TEMPERATURE) -> Tensor:
    """Cosines of texts and videos whose frames each text weighs by how well they fit it.

    The weights are softmax over frames of <text, frame> / temperature, without gradient and without parameters. This
    is UniAdapter's frame-aware attention (arXiv 2302.06605, section 3.4) carried over to a model without fusion: what
    is weighed are the frames' features, as in "A CLIP-Hitchhiker's Guide to Long Video Retrieval" (arXiv 2205.08508).

    Args:
        text: unit features [S, e].
        frames: unit features [V, T, e].
        temperature: 0 < temperature; the greater, the nearer to the plain mean.

    Returns:
        [S, V].
    """
    alike = torch.einsum("vte,vue->vtu", frames, frames)
    parts = []
    for some in text.split(_TEXTS):
        cosines = torch.einsum("se,vte->svt", some, frames)
        weights = torch.softmax(cosines.detach() / temperature, dim=-1)
        # The weighted mean's length, from products of frames alone: no feature of each pair is ever made.
        length = torch.einsum("svt,vtu,svu->sv", weights, alike, weights).clamp_min(1e-12).sqrt()
        parts.append((weights * cosines).sum(-1) / length)
    return torch.cat(parts) if parts else text.new_zeros((0, len(frames)))
