"""Packing of texts without padding, and of the texts of one visual into one long query."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor

_WIDTHS = tuple(2**power for power in range(20))
_COPY_TOKENS = 64  # cost of copying one visual's keys and values, in query tokens; a heuristic, outputs do not change

MovableT = TypeVar("MovableT", bound="_Movable")


class _Movable:
    """A dataclass of tensors that are moved together."""

    def to(self: MovableT, device: torch.device) -> MovableT:
        """The same on another device."""
        found = {n: v.to(device) for n, v in vars(self).items() if isinstance(v, (Tensor, _Movable))}
        return replace(self, **found)  # type: ignore[type-var]


def left_aligned(ids: Tensor, mask: Tensor, positions: int) -> tuple[Tensor, Tensor]:
    """Move padding on the left of texts to the right, and check the mask.

    Args:
        ids: token ids [S, L].
        mask: [S, L], 1 for tokens, 0 for padding.
        positions: most tokens that the model takes.

    Returns:
        Ids and mask [S, L], padded on the right.

    Raises:
        ValueError: ids and mask differ in shape, the mask has holes or other values than 0 and 1, or a text has no
            token or too many.
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


def check_right_padded(mask: Tensor) -> None:
    """Raise `ValueError` if a mask [S, L] has padding on the left."""
    if mask.shape[1] > 1 and bool((mask[:, 1:] > mask[:, :-1]).any()):
        raise ValueError("texts must be padded on the right: encode_text gives such, whatever the tokenizer's side")


@dataclass(frozen=True)
class Packing(_Movable):
    """Index tensors between S padded texts of L tokens and their N tokens without padding, concatenated.

    Only self-attention pads its inputs; everything else is computed on [N, d].

    Args:
        lengths: number of tokens of each text, [S].
        places: position of each token among the S * L padded ones, [N].
        tokens: token at each padded position, [S, L]; padding repeats the text's first token, so that it is finite.
    """

    lengths: Tensor
    places: Tensor
    tokens: Tensor

    @classmethod
    def of(cls, lengths: Tensor, longest: int = 0) -> Packing:
        """The packing of texts of these lengths, [S]; padded to `longest` tokens, or to the longest text if it is 0."""
        longest = longest or int(lengths.max())
        position = torch.arange(longest, device=lengths.device)
        real = position < lengths[:, None]
        starts = torch.cumsum(lengths, 0) - lengths
        tokens = starts[:, None] + torch.where(real, position, 0)
        return cls(lengths, torch.nonzero(real.flatten())[:, 0], tokens)

    @property
    def firsts(self) -> Tensor:
        """Index of each text's first token, [S]."""
        return self.tokens[:, 0]

    @property
    def text_of_token(self) -> Tensor:
        """Text of each token, [N]."""
        return self.places // self.tokens.shape[1]

    @property
    def padded(self) -> bool:
        """Whether there is any padding."""
        return len(self.places) < self.tokens.numel()

    def pad(self, packed: Tensor) -> Tensor:
        """Packed states [N, d] to padded ones, [S, L, d]."""
        if not self.padded:
            return packed.unflatten(0, self.tokens.shape)
        return packed.index_select(0, self.tokens.flatten()).unflatten(0, self.tokens.shape)

    def pack(self, padded: Tensor) -> Tensor:
        """Padded states [S, L, d] to packed ones, [N, d]."""
        flat = padded.flatten(0, 1)
        return flat.index_select(0, self.places) if self.padded else flat

    def mask(self, dtype: torch.dtype) -> Tensor | None:
        """The additive attention mask of padding, [S, 1, 1, L]; None if nothing is padded."""
        if not self.padded:
            return None
        seen = torch.arange(self.tokens.shape[1], device=self.lengths.device) < self.lengths[:, None]
        return (1.0 - seen[:, None, None].to(dtype)) * torch.finfo(dtype).min


@dataclass(frozen=True)
class Queries(_Movable):
    """Index tensors that arrange N query tokens, sorted by visual, as R rows of W for cross-attention.

    All tokens of a row attend to the same visual, so a visual's keys and values are used by all its texts at once.

    Args:
        rows: visual that each row attends to, [R].
        slots: token in each slot, [R, W]; an empty slot repeats the row's first token, so that it is finite.
        places: slot of each token among the R * W, [N].
        shared: whether every visual has exactly one row, in order.
    """

    rows: Tensor
    slots: Tensor
    places: Tensor
    shared: bool

    @classmethod
    def of(cls, counts: Tensor) -> Queries:
        """Arrange the query tokens of V' visuals.

        W is chosen for the least cost: empty slots cost attention, and a visual with several rows needs copies of its
        keys and values.

        Args:
            counts: number of query tokens of each visual, [V'].
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
        """Visuals' states [V', ...] to rows, [R, ...]; copies nothing if every visual has one row."""
        return states if self.shared else states[self.rows]

    def pack(self, states: Tensor) -> Tensor:
        """Tokens' states [N, ...] to slots, [R, W, ...]."""
        if self.slots.numel() == len(self.places):
            return states.unflatten(0, self.slots.shape)
        return states.index_select(0, self.slots.flatten()).unflatten(0, self.slots.shape)

    def unpack(self, packed: Tensor) -> Tensor:
        """Slots [R, W, ...] back to tokens, [N, ...]."""
        flat = packed.flatten(0, 1)
        return flat if self.slots.numel() == len(self.places) else flat.index_select(0, self.places)


@dataclass(frozen=True)
class PackedPairs(_Movable):
    """P pairs of a text and a visual, sorted by visual, with their texts packed.

    Args:
        order: position of each sorted pair among the given pairs, [P].
        texts: text row of each sorted pair, [P].
        pair_visuals: visual row of each sorted pair, [P].
        visuals: the distinct visual rows that occur, ascending, [V'].
        packing: of the sorted pairs' texts.
        pair_of_token: sorted pair of each of the N tokens, [N].
        position_in_text: position of each token in its text, [N].
        tokens: all N tokens arranged as queries.
        firsts: the first tokens of the sorted pairs arranged as queries.
    """

    order: Tensor
    texts: Tensor
    pair_visuals: Tensor
    visuals: Tensor
    packing: Packing
    pair_of_token: Tensor
    position_in_text: Tensor
    tokens: Queries
    firsts: Queries

    def restore(self, states: Tensor) -> Tensor:
        """States of sorted pairs, [P, ...], in the order in which the pairs were given."""
        return states[torch.argsort(self.order)]


def pack_pairs(pairs: Tensor, lengths: Tensor, longest: int = 0) -> PackedPairs:
    """Sort pairs by visual and pack their texts.

    Args:
        pairs: [P, 2] of (text row, visual row), at least one.
        lengths: number of tokens of each text, [S].
        longest: number of tokens that texts are padded to for self-attention; 0 means the longest text's.

    Returns:
        Index tensors on the CPU.
    """
    pairs, lengths = pairs.detach().cpu(), lengths.detach().cpu()
    order = torch.argsort(pairs[:, 1], stable=True)
    texts, pair_visuals = pairs[order].unbind(1)
    visuals, inverse, counts = torch.unique_consecutive(pair_visuals, return_inverse=True, return_counts=True)
    own = lengths[texts]
    packing = Packing.of(own, longest)
    tokens = torch.zeros_like(counts).index_add_(0, inverse, own)
    return PackedPairs(
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
