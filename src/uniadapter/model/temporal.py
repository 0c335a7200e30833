"""The temporal embedding: a learned vector for each frame of a video, added to its visual tokens before they are fused.

An adapter set has one with `temporal_frames`. In full fine-tuning the model owns it, and its files hold it: without, a
fused encoder sees the frames of a video as a bag, and no training can teach it which of them comes first.

The released code starts from zeros. `left_to_right` starts where the base can already tell frames apart: it knows what
is left of what in a picture, so frame after frame is placed one picture's width further to the right. The direction is
the base's own: the slope of its visual tokens over the columns of a grey picture.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from uniadapter.config import TemporalInit
from uniadapter.errors import CheckpointError
from uniadapter.model.adapter_set import resized
from uniadapter.model.dispatch import adapter_store, backbone
from uniadapter.model.shape import check_reads_frames
from uniadapter.model.store import store_of, unwrapped

# Of a picture, between the middles of two frames; one, at which frames touch, was read less well (docs/log.md).
_WIDTHS = 2
OWN = "temporal_embedding"  # a fully fine-tuned model's parameter, [1, T, d]


def temporal_embedding(model: PreTrainedModel, frames: int) -> Tensor | None:
    """The model's own temporal embedding plus the active set's.

    One that was trained on another number of frames is interpolated.

    Args:
        model: with or without adapters.
        frames: T.

    Returns:
        [1, T, d], or [V, T, d] where V visuals use different sets; None if there is neither.
    """
    store = store_of(model)
    active = store.active if store is not None else None
    own = getattr(unwrapped(model), OWN, None)
    found = [None if own is None else resized(own, frames), None if active is None else active.temporal(frames)]
    some = [one for one in found if one is not None]
    return sum(some[1:], some[0]) if some else None


def own_embedding(model: PreTrainedModel, start: Tensor) -> None:
    """Give the model a temporal embedding of its own, a parameter that `save_pretrained` saves.

    Args:
        model: of a family that fuses.
        start: first values, [1, T, d].

    Raises:
        CheckpointError: they are of another shape, NaN or infinite.
    """
    width = backbone(model).layout.vision_width
    if start.ndim != 3 or start.shape[0] != 1 or start.shape[2] != width or not start.shape[1]:
        raise CheckpointError(f"{OWN} has the shape {list(start.shape)}, not [1, frames, {width}]")
    if not torch.isfinite(start).all():
        raise CheckpointError(f"{OWN} has values that are NaN or infinite: training diverged, or the file is broken")
    some = next(parameter for parameter in model.parameters() if parameter.is_floating_point())
    model.register_parameter(OWN, nn.Parameter(start.detach().clone().to(some.device, some.dtype)))


def first_values(model: PreTrainedModel, frames: int, init: TemporalInit) -> Tensor:
    """What a temporal embedding begins with.

    Args:
        model: with or without adapters, which have no effect.
        frames: T.
        init: "zeros" or "left_to_right".

    Returns:
        [1, T, d].

    Raises:
        ConfigError: nothing in this base would read it.
    """
    check_reads_frames(frames, backbone(model).shape)
    if init == "zeros":
        return torch.zeros(1, frames, backbone(model).layout.vision_width)
    step = _slope(model)
    places = torch.arange(frames, device=step.device) - (frames - 1) / 2
    return places[None, :, None] * step


@torch.no_grad()
def _slope(model: PreTrainedModel) -> Tensor:
    """How the base's visual tokens change over the width of a picture, [d]: a least-squares line over its columns."""
    layout = backbone(model).layout
    columns = layout.image_size // layout.patch_size
    some = next(parameter for parameter in model.parameters() if parameter.is_floating_point())
    grey = torch.zeros(1, 1, 3, layout.image_size, layout.image_size, device=some.device, dtype=some.dtype)
    training = model.training
    with adapter_store(model).using(None):
        tokens = backbone(model.eval()).encode_visual(grey).tokens[0, 0].float()
    model.train(training)
    grid = tokens[len(tokens) - columns * columns :].unflatten(0, (columns, columns)).mean(0)  # no class token
    places = torch.arange(columns, device=grid.device) - (columns - 1) / 2
    return _WIDTHS * columns * (places[:, None] * grid).sum(0) / (places**2).sum()
