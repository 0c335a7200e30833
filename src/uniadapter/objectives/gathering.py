"""Visuals and texts of all processes, for a loss that pairs them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from uniadapter.model.features import Texts, Visuals
from uniadapter.processes.distributed import RowCounts, gather_rows
from uniadapter.processes.fetching_rows import fetch_rows


def fetch_visuals(visuals: Visuals, feature: Tensor, wanted: Tensor, rows: RowCounts) -> Visuals:
    """Some visuals of all processes, their tokens with gradients.

    Tokens are large, 1.8 MB for a picture of 384 px at BLIP-base's size: each process gets those that it needs alone.

    Args:
        visuals: of this process.
        feature: of the visuals of all processes, [V, e], in rank order.
        wanted: [W] int64 among those of all processes, in rank order.
        rows: how many each process has.
    """
    frames = gather_rows(visuals.frames)
    return Visuals(fetch_rows(visuals.tokens, wanted, rows), feature[wanted], frames[wanted])


def gather_texts(texts: Texts) -> Texts:
    """Texts of all processes for `fuse`, which does not use their states; these are left empty."""
    longest = int(gather_rows(torch.tensor([texts.ids.shape[1]], device=texts.ids.device)).max())
    pad = (0, longest - texts.ids.shape[1])
    ids, mask = (gather_rows(nn.functional.pad(one, pad)) for one in (texts.ids, texts.mask))
    return Texts(ids, mask, texts.states.new_empty((*ids.shape, 0)), gather_rows(texts.feature))
