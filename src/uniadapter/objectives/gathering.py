"""Visuals and texts of all processes, for a loss that pairs them."""

from __future__ import annotations

import torch
from torch import nn

from uniadapter.model.features import Texts, Visuals
from uniadapter.processes.distributed import gather_rows


def gather_visuals(visuals: Visuals) -> Visuals:
    """The visuals of all processes in rank order, their tokens with gradients."""
    return Visuals(gather_rows(visuals.tokens, True), gather_rows(visuals.feature), gather_rows(visuals.frames))


def gather_texts(texts: Texts) -> Texts:
    """Texts of all processes for `fuse`, which does not use their states; these are left empty."""
    longest = int(gather_rows(torch.tensor([texts.ids.shape[1]], device=texts.ids.device)).max())
    pad = (0, longest - texts.ids.shape[1])
    ids, mask = (gather_rows(nn.functional.pad(one, pad)) for one in (texts.ids, texts.mask))
    return Texts(ids, mask, texts.states.new_empty((*ids.shape, 0)), gather_rows(texts.feature))
