"""Batches whose rows use different adapter sets: one forward pass through the frozen base, each row with its own set.

`MixedSets` answers the questions that layers ask the active `AdapterSet`. Every layer computes on rows: visuals, their
frames, texts, pairs, beams, or tokens without padding. Where a function arranges rows anew it says so by
`AdapterStore.rows`, so that a row keeps its set.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from uniadapter.model.adapter import QueryKeyValue, SelfAttentionAdapter, UniAdapter, Use, to_dtype_of
from uniadapter.model.adapter_set import AdapterSet, Role, TextRole

Part = Callable[..., Tensor]


class MixedSets:
    """What the rows of a batch use.

    Args:
        sets: distinct sets; None is the base alone.
        names: of the sets, for errors.
        owner: for each of R rows the position of its set in `sets`, [R].
    """

    def __init__(self, sets: Sequence[AdapterSet | None], names: Sequence[str | None], owner: Tensor) -> None:
        self.sets, self.names, self.owner = tuple(sets), tuple(names), owner
        self._found: dict[tuple[int, torch.device], list[Tensor]] = {}

    @classmethod
    def of(cls, sets: Sequence[AdapterSet | None], names: Sequence[str | None]) -> MixedSets:
        """What rows use, from the set of each and its name, both [R]."""
        known = list({id(one): one for one in sets}.values())
        owner = [next(number for number, found in enumerate(known) if found is one) for one in sets]
        titles = [names[owner.index(number)] for number in range(len(known))]
        return cls(known, titles, torch.tensor(owner, dtype=torch.long))

    def __len__(self) -> int:
        return len(self.owner)

    @property
    def row_names(self) -> list[str | None]:
        """The name of each row's set, [R]."""
        return [self.names[one] for one in self.owner.tolist()]

    def at(self, index: Tensor | slice) -> MixedSets:
        """The same for rows arranged anew: row i is what row `index[i]` was."""
        index = index if isinstance(index, slice) else index.to(self.owner.device)
        return MixedSets(self.sets, self.names, self.owner[index])

    def rows(self, count: int, device: torch.device) -> list[Tensor]:
        """The rows of each set in a batch of `count`: R, or k R where each has k in a row (frames, beams).

        Raises:
            ValueError: `count` is no multiple of R.
        """
        if count % len(self) if len(self) else count:
            raise ValueError(f"{len(self)} adapters are named for a batch of {count}: name one for each row")
        times = count // max(1, len(self))
        if (times, device) not in self._found:
            owner = self.owner.repeat_interleave(times)
            found = [torch.nonzero(owner == number)[:, 0].to(device) for number in range(len(self.sets))]
            self._found[times, device] = found
        return self._found[times, device]

    def adapter(self, role: Role, index: int, use: Use, residual: bool = False) -> Part | None:
        """See `AdapterSet.adapter`: a function of states [rows, ..., d]; None where no set has an adapter."""
        own = [None if one is None else one.adapter(role, index, use, residual) for one in self.sets]
        if all(one is None for one in own):
            return None

        def delta(x: Tensor, use: Use) -> Tensor:
            return self._each(x, [None if one is None else _of_use(one, use) for one in own], torch.zeros_like(x))

        return delta

    def key_value(self, role: TextRole, states: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """See `AdapterSet.key_value`; zeros in the rows of sets without."""
        pairs = [(None, None) if one is None else one.key_value_adapters(role) for one in self.sets]
        width = next((key.up.out_features for key, _ in pairs if key is not None), None)
        if width is None:
            return None, None
        keys, values = zip(*pairs, strict=True)
        zeros = states.new_zeros((*states.shape[:-1], width))
        return self._each(states, keys, zeros), self._each(states, values, zeros.clone())

    def self_deltas(self, role: TextRole, index: int, states: Tensor) -> QueryKeyValue:
        """See `AdapterSet.self_deltas`; zeros in the rows of sets without."""
        own = [None if one is None else one.self_adapter(role, index) for one in self.sets]
        if all(one is None for one in own):
            return None, None, None
        width = 3 * states.shape[-1]
        parts = [None if one is None else _joined(one) for one in own]
        query, key, value = self._each(states, parts, states.new_zeros((*states.shape[:-1], width))).chunk(3, dim=-1)
        return query, key, value

    def head(self, name: str) -> list[nn.Linear | None]:
        """Each set's copy of a head."""
        return [None if one is None else one.head(name) for one in self.sets]

    def apply_heads(self, copies: Sequence[nn.Linear | None], x: Tensor, base: Part) -> Tensor:
        """A head of states [rows, ..., d]: each row by its set's copy, or by the base's own."""
        parts = [base if copied is None else partial(apply_head, copied) for copied in copies]
        out = None
        for rows, part in zip(self.rows(len(x), x.device), parts, strict=True):
            if len(rows):
                own = part(x.index_select(0, rows))
                out = own.new_empty((len(x), *own.shape[1:])) if out is None else out
                out[rows] = own
        return base(x) if out is None else out  # a batch of no rows

    def temporal(self, frames: int) -> Tensor | None:
        """See `AdapterSet.temporal`: [R, frames, d], zeros in the rows of sets without."""
        own = [None if one is None else one.temporal(frames) for one in self.sets]
        some = next((one for one in own if one is not None), None)
        if some is None:
            return None
        return torch.cat([torch.zeros_like(some) if one is None else one for one in own])[self.owner.to(some.device)]

    def frame_weights(self, texts: Tensor, frames: Tensor, default: float) -> Tensor | None:
        """See `AdapterSet.frame_weights`: [R, T], ones in the rows of sets without."""
        out = None
        for rows, one in zip(self.rows(len(texts), texts.device), self.sets, strict=True):
            own = None if one is None or not len(rows) else one.frame_weights(texts[rows], frames[rows], default)
            if own is not None:
                out = own.new_ones((len(texts), own.shape[1])) if out is None else out
                out[rows] = own
        return out

    def owners_of(self, rows: Tensor, noun: str) -> Tensor:
        """The pair, the first one, from which each item that occurs in pairs has its set, in ascending order of items.

        Args:
            rows: the item of each pair, [R].
            noun: what the items are, for the error.

        Raises:
            ValueError: an item stands in pairs of different sets, by one of which it was encoded.
        """
        first = first_pairs(rows.tolist(), self.row_names, noun)
        return torch.tensor([first[item] for item in sorted(first)], dtype=torch.long)

    def _each(self, x: Tensor, parts: Sequence[Part | None], out: Tensor) -> Tensor:
        for rows, part in zip(self.rows(len(x), x.device), parts, strict=True):
            if part is not None and len(rows):
                own = part(x.index_select(0, rows))
                # Under autocast, parts are in its dtype: as an adapter's own output would be.
                out = out if out.dtype == own.dtype else out.to(own.dtype)
                out = out.index_copy(0, rows, own) if torch.is_grad_enabled() else out.index_copy_(0, rows, own)
        return out


def _of_use(adapter: UniAdapter, use: Use) -> Part:
    return lambda x: adapter(x, use)


def _joined(adapter: SelfAttentionAdapter) -> Part:
    return lambda x: torch.cat([one for one in adapter(x) if one is not None], dim=-1)


def apply_head(head: nn.Linear, x: Tensor) -> Tensor:
    """A trained head of states [..., d]: in the dtype of its weights, and back to that of its input."""
    inner = to_dtype_of(x, head.weight)
    out: Tensor = head(inner)
    return out if inner is x else out.to(x.dtype)


def first_pairs(items: Sequence[int], names: Sequence[str | None], noun: str) -> dict[int, int]:
    """The first pair of each item that occurs in pairs; it was encoded by one set, and all its pairs have that.

    Args:
        items: the item of each pair.
        names: of the pairs' sets.
        noun: what the items are, for the error.

    Raises:
        ValueError: an item is in pairs of different sets.
    """
    first: dict[int, int] = {}
    for pair, (item, name) in enumerate(zip(items, names, strict=True)):
        before = names[first.setdefault(item, pair)]
        if before != name:
            one, two = (given or "the base" for given in (before, name))
            raise ValueError(f"{noun} {item} is in pairs of {one} and of {two}: give it once for each of them")
    return first
