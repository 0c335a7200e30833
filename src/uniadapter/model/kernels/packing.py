"""How tokens are laid out: texts behind one another without padding, and the texts of one visual as one long query."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

_WIDTHS = tuple(2**power for power in range(20))
_COPY_TOKENS = 64  # what copying one visual's keys and values costs, in query tokens; only shifts a choice of layout

Movable = TypeVar("Movable", bound="_OnDevice")


class _OnDevice:
    """Tensors that move together."""

    def to(self: Movable, device: torch.device) -> Movable:
        """The same on another device."""
        found = {n: v.to(device) for n, v in vars(self).items() if isinstance(v, (Tensor, _OnDevice))}
        return replace(self, **found)  # type: ignore[type-var]


def left_aligned(ids: Tensor, mask: Tensor, positions: int) -> tuple[Tensor, Tensor]:
    """Texts whose tokens stand at the left, as everything below reads them; padding on the left is moved to the right.

    Args:
        ids: token ids [S, L].
        mask: [S, L], 1 for tokens, 0 for padding.
        positions: tokens that the model takes.

    Returns:
        Ids and mask [S, L].

    Raises:
        ValueError: the mask is no mask of these ids, has holes, or a text has no token or too many.
    """
    if ids.ndim != 2 or ids.shape != mask.shape:
        raise ValueError(f"ids and mask must both be [S, L], not {list(ids.shape)} and {list(mask.shape)}")
    if not len(ids):
        return ids, mask.long()
    if not ids.shape[1]:
        raise ValueError("a text mask leaves a text without any token")
    real = mask.bool()
    lengths = real.sum(1)
    starts = real.long().argmax(1)
    place = torch.arange(ids.shape[1], device=ids.device)
    whole = (place >= starts[:, None]) & (place < (starts + lengths)[:, None])
    checks = (mask == real).all(), (whole == real).all(), lengths.min() > 0, lengths.max() <= positions
    binary, filled, some, fitting, aligned = torch.stack([*checks, (starts == 0).all()]).tolist()
    if not binary:
        raise ValueError("a text mask must be 1 for tokens and 0 for padding")
    if not some:
        raise ValueError("a text mask leaves a text without any token")
    if not filled:
        raise ValueError("a text mask has holes: padding must stand at one end, not between tokens")
    if not fitting:
        raise ValueError(f"a text has {int(lengths.max())} tokens: the model takes {positions}; cut it")
    if not aligned:
        order = (place + starts[:, None]) % ids.shape[1]
        ids, real = ids.gather(1, order), real.gather(1, order)
    return ids, real.long()


def refuse_padding_before(mask: Tensor) -> None:
    """Raise `ValueError` where a mask [S, L] has padding before a token."""
    if mask.shape[1] > 1 and bool((mask[:, 1:] > mask[:, :-1]).any()):
        raise ValueError("texts must be padded on the right: encode_text gives such, whatever the tokenizer's side")


@dataclass(frozen=True)
class Packing(_OnDevice):
    """S texts of up to L tokens, their N tokens behind one another: only attention among them sees padding.

    Args:
        lengths: tokens of each text, [S].
        places: where each token stands among the S * L padded places, [N].
        tokens: which token stands in each place, [S, L]; padding repeats the text's first, so that it stays finite.
    """

    lengths: Tensor
    places: Tensor
    tokens: Tensor

    @classmethod
    def of(cls, lengths: Tensor, longest: int = 0) -> Packing:
        """Of texts with these lengths, [S], padded to `longest`, or as far as needed."""
        longest = longest or int(lengths.max())
        position = torch.arange(longest, device=lengths.device)
        real = position < lengths[:, None]
        starts = torch.cumsum(lengths, 0) - lengths
        tokens = starts[:, None] + torch.where(real, position, 0)
        return cls(lengths, torch.nonzero(real.flatten())[:, 0], tokens)

    @property
    def firsts(self) -> Tensor:
        """Each text's first token, [S]."""
        return self.tokens[:, 0]

    @property
    def padded(self) -> bool:
        """Whether there is any padding."""
        return len(self.places) < self.tokens.numel()

    def pad(self, packed: Tensor) -> Tensor:
        """[N, d] to [S, L, d]."""
        if not self.padded:
            return packed.unflatten(0, self.tokens.shape)
        return packed.index_select(0, self.tokens.flatten()).unflatten(0, self.tokens.shape)

    def pack(self, padded: Tensor) -> Tensor:
        """[S, L, d] to [N, d]."""
        flat = padded.flatten(0, 1)
        return flat.index_select(0, self.places) if self.padded else flat

    def mask(self, dtype: torch.dtype) -> Tensor | None:
        """What is added to scores so that padding is not attended to, [S, 1, 1, L]; None where there is none."""
        if not self.padded:
            return None
        seen = torch.arange(self.tokens.shape[1], device=self.lengths.device) < self.lengths[:, None]
        return (1.0 - seen[:, None, None].to(dtype)) * torch.finfo(dtype).min


@dataclass(frozen=True)
class Queries(_OnDevice):
    """N query tokens, sorted by what they attend to, as R rows of W slots.

    Args:
        rows: which visual each row attends to, [R].
        slots: token in each slot, [R, W]; an empty slot repeats the row's first, so that padding stays finite.
        places: where each token stands among the R * W slots, [N].
        shared: every visual has one row, in order.
    """

    rows: Tensor
    slots: Tensor
    places: Tensor
    shared: bool

    @classmethod
    def of(cls, counts: Tensor) -> Queries:
        """Of so many tokens for each visual, [V'].

        The width is the one that wastes least: empty slots cost attention, a visual that needs several rows costs a
        copy of its keys and values.
        """

        def cost(width: int) -> int:
            rows = int(((counts + width - 1) // width).sum())
            return rows * (width + (_COPY_TOKENS if rows > len(counts) else 0))

        largest = int(counts.max())
        width = min({w for w in _WIDTHS if w < largest} | {largest}, key=cost)
        rows_of = (counts + width - 1) // width
        rows = torch.repeat_interleave(torch.arange(len(counts)), rows_of)
        starts = torch.cumsum(counts, 0) - counts  # first token of each visual
        visual = torch.repeat_interleave(torch.arange(len(counts)), counts)
        within = torch.arange(len(visual)) - starts[visual]
        first_row = torch.cumsum(rows_of, 0) - rows_of
        places = (first_row[visual] + within // width) * width + within % width
        slots = starts[rows][:, None].repeat(1, width).flatten()
        slots[places] = torch.arange(len(visual))
        return cls(rows, slots.view(-1, width), places, len(rows) == len(counts))

    def repeat(self, states: Tensor) -> Tensor:
        """[V', ...] to [R, ...]; nothing is copied where every visual has one row."""
        return states if self.shared else states[self.rows]

    def pack(self, states: Tensor) -> Tensor:
        """[N, ...] to [R, W, ...]."""
        if self.slots.numel() == len(self.places):
            return states.unflatten(0, self.slots.shape)
        return states.index_select(0, self.slots.flatten()).unflatten(0, self.slots.shape)

    def unpack(self, packed: Tensor) -> Tensor:
        """[R, W, ...] back to [N, ...]."""
        flat = packed.flatten(0, 1)
        return flat if self.slots.numel() == len(self.places) else flat.index_select(0, self.places)


@dataclass(frozen=True)
class Groups(_OnDevice):
    """P pairs, sorted by visual.

    Args:
        order: position of each sorted pair among the pairs given, [P].
        texts: text row of each sorted pair, [P].
        pair_visuals: visual row of each sorted pair, [P].
        visuals: the different visual rows that occur, [V'].
        packing: of the sorted pairs' texts.
        pair_of_token: sorted pair that each of the N tokens belongs to, [N].
        place_in_text: where in its text it stands, [N].
        tokens: all N tokens as queries.
        firsts: the first token of each sorted pair as queries.
    """

    order: Tensor
    texts: Tensor
    pair_visuals: Tensor
    visuals: Tensor
    packing: Packing
    pair_of_token: Tensor
    place_in_text: Tensor
    tokens: Queries
    firsts: Queries

    def restore(self, states: Tensor) -> Tensor:
        """[P, ...] of sorted pairs to the order in which they were given."""
        return states[torch.argsort(self.order)]


def group_pairs(pairs: Tensor, lengths: Tensor, longest: int = 0) -> Groups:
    """Lay out pairs.

    Args:
        pairs: [P, 2] of (text row, visual row), at least one.
        lengths: tokens of each text, [S].
        longest: what texts are padded to; 0 is as far as needed.

    Returns:
        The layout, on the CPU.
    """
    pairs, lengths = pairs.detach().cpu(), lengths.detach().cpu()
    order = torch.argsort(pairs[:, 1], stable=True)
    texts, pair_visuals = pairs[order].unbind(1)
    visuals, inverse, counts = torch.unique_consecutive(pair_visuals, return_inverse=True, return_counts=True)
    own = lengths[texts]
    packing = Packing.of(own, longest)
    tokens = torch.zeros_like(counts).index_add_(0, inverse, own)
    return Groups(
        order,
        texts,
        pair_visuals,
        visuals,
        packing,
        torch.repeat_interleave(torch.arange(len(own)), own),
        packing.places % packing.tokens.shape[1],
        Queries.of(tokens),
        Queries.of(counts),
    )
