"""How pairs are laid out so that the texts of one visual become one long query."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

_WIDTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_TEXT_WORK, _VISUAL_WORK = 14, 2  # products of d x d a layer for a text token; for a visual token (its key and value)
_PART_TOKENS = 128  # what a further part costs in calls, in text tokens
_COPY_TOKENS = 12  # what copying one visual's keys and values costs, in query tokens; only shifts a choice of layout


@dataclass(frozen=True)
class Groups:
    """P pairs, sorted by visual, as R rows of G slots.

    Args:
        order: position of each sorted pair among the pairs given, [P].
        texts: text row of each sorted pair, [P].
        pair_visuals: visual row of each sorted pair, [P].
        visuals: the different visual rows that occur, [V'].
        rows: for each of the R rows, which of `visuals` it attends to, [R].
        slots: sorted pair in each slot, [R, G]; an empty slot repeats the row's first pair, so padding stays finite.
        places: where each sorted pair stands among the R * G slots, [P].
    """

    order: Tensor
    texts: Tensor
    pair_visuals: Tensor
    visuals: Tensor
    rows: Tensor
    slots: Tensor
    places: Tensor

    def to(self, device: torch.device) -> Groups:
        """The same on another device."""
        return replace(self, **{name: tensor.to(device) for name, tensor in vars(self).items()})

    def repeat(self, states: Tensor) -> Tensor:
        """[V', ...] to [R, ...]; nothing is copied where every visual has one row."""
        return states if len(self.rows) == len(self.visuals) else states[self.rows]

    def spread(self, values: Tensor) -> Tensor:
        """[P, ...] of sorted pairs to [R, G, ...]."""
        return values[self.slots]

    def pack(self, states: Tensor) -> Tensor:
        """[P, L, d] of sorted pairs to [R, G * L, d]: the texts of a row behind one another."""
        if self.slots.numel() == len(states):
            return states.reshape(len(self.rows), -1, states.shape[-1])
        return states[self.slots].flatten(1, 2)

    def unpack(self, packed: Tensor, length: int) -> Tensor:
        """[R, G * L, d] back to [P, L, d]."""
        flat = packed.reshape(-1, length, packed.shape[-1])
        return flat if self.slots.numel() == len(self.places) else flat[self.places]

    def restore(self, states: Tensor) -> Tensor:
        """[P, ...] of sorted pairs to the order in which they were given."""
        out = torch.empty_like(self.order)
        out[self.order] = torch.arange(len(out), device=out.device)
        return states[out]


def group_pairs(pairs: Tensor, length: int) -> Groups:
    """Lay out pairs [P, 2] of (text row, visual row) for texts of `length` tokens.

    The number of slots a row is the one that wastes least: empty slots cost queries, a visual that needs several
    rows costs a copy of its keys and values.
    """
    pairs = pairs.detach().cpu()
    order = torch.argsort(pairs[:, 1], stable=True)
    texts, pair_visuals = pairs[order].unbind(1)
    visuals, inverse, counts = torch.unique_consecutive(pair_visuals, return_inverse=True, return_counts=True)

    def cost(width: int) -> int:
        rows = int(((counts + width - 1) // width).sum())
        return rows * (width * length + (_COPY_TOKENS if rows > len(counts) else 0))

    largest = int(counts.max())
    width = min({w for w in _WIDTHS if w < largest} | {largest}, key=cost)
    rows_of = (counts + width - 1) // width
    rows = torch.repeat_interleave(torch.arange(len(counts)), rows_of)
    starts = torch.cumsum(counts, 0) - counts  # first sorted pair of each visual
    within = torch.arange(len(order)) - starts[inverse]
    first_row = torch.cumsum(rows_of, 0) - rows_of
    places = (first_row[inverse] + within // width) * width + within % width
    slots = starts[rows][:, None].repeat(1, width).flatten()
    slots[places] = torch.arange(len(order))
    return Groups(order, texts, pair_visuals, visuals, rows, slots.view(-1, width), places)


def length_parts(lengths: Tensor, visuals: Tensor | None = None, visual_tokens: int = 0) -> list[Tensor]:
    """Split texts or pairs by text length where that saves more padding than it costs.

    Args:
        lengths: tokens of each text, or of each pair's text, [P].
        visuals: visual row of each pair, [P]; a visual whose pairs are split has its keys and values projected twice.
        visual_tokens: tokens of a visual.

    Returns:
        Positions of the texts or pairs of each part; together every position once.
    """
    lengths = lengths.detach().cpu()
    visuals = torch.zeros_like(lengths) if visuals is None else visuals.detach().cpu()

    def cost(part: Tensor) -> int:
        text = int(lengths[part].max()) * len(part) * _TEXT_WORK
        return text + len(torch.unique(visuals[part])) * visual_tokens * _VISUAL_WORK

    def split(part: Tensor) -> list[Tensor]:
        best, chosen = cost(part), None
        for limit in torch.unique(lengths[part])[:-1]:
            short = lengths[part] <= limit
            total = cost(part[short]) + cost(part[~short])
            if total + _PART_TOKENS * _TEXT_WORK < best:
                best, chosen = total, short
        return [part] if chosen is None else split(part[chosen]) + split(part[~chosen])

    return split(torch.arange(len(lengths)))
