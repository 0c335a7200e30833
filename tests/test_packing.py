"""Packing without padding: no token is lost or doubled, and unpacking restores the order."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from uniadapter.model.kernels.packing import PackedPairs, Packing, Queries, pack_pairs


def drawn(seed: int) -> tuple[Tensor, Tensor]:
    """Between 1 and 80 pairs, unordered, with repeats, of few or many visuals, and the lengths of their texts."""
    generator = torch.Generator().manual_seed(seed)
    count = int(torch.randint(1, 81, (), generator=generator))
    texts, visuals = (int(torch.randint(1, high, (), generator=generator)) for high in (20, (2, 6, 40)[seed % 3]))
    pairs = torch.stack([torch.randint(0, n, (count,), generator=generator) for n in (texts, visuals)], dim=1)
    lengths = torch.randint(1, 10, (texts,), generator=generator) if seed % 4 else torch.full((texts,), 5)
    return pairs, lengths


CASES = [drawn(seed) for seed in range(30)] + [
    (torch.tensor([[0, 0]]), torch.tensor([1])),
    (torch.tensor([[3, 5]] * 7), torch.arange(2, 9)),  # one pair many times
    (torch.stack([torch.arange(130), torch.zeros(130, dtype=torch.int64)], dim=1), torch.arange(130) % 7 + 1),
    (torch.stack([torch.zeros(40, dtype=torch.int64), torch.arange(40)], dim=1).flip(0), torch.tensor([6])),
    (torch.tensor([[0, 1]] + [[t, 0] for t in range(33)]), torch.arange(33) + 3),  # one lone pair beside a crowd
]


def naive_tokens(packed: PackedPairs, lengths: Tensor) -> list[tuple[int, int]]:
    """The specification: (sorted pair, place in its text) of every token, one text after the other."""
    return [(p, place) for p, text in enumerate(packed.texts.tolist()) for place in range(int(lengths[text]))]


@pytest.mark.parametrize("case", CASES)
def test_tokens_are_packed_text_by_text(case: tuple[Tensor, Tensor]) -> None:
    packed = pack_pairs(*case)
    found = list(zip(packed.pair_of_token.tolist(), packed.position_in_text.tolist(), strict=True))
    assert found == naive_tokens(packed, case[1])


@pytest.mark.parametrize("case", CASES)
def test_packing_undoes_padding_which_repeats_a_texts_first_token(case: tuple[Tensor, Tensor]) -> None:
    packing = pack_pairs(*case).packing
    packed = torch.arange(int(packing.lengths.sum()) * 2.0).view(-1, 2)
    padded = packing.pad(packed)
    assert torch.equal(packing.pack(padded), packed)
    start = 0
    for row, length in zip(padded, packing.lengths.tolist(), strict=True):
        assert torch.equal(row[:length], packed[start : start + length])
        assert torch.equal(row[length:], packed[start].expand(len(row) - length, -1))
        start += length
    assert torch.equal(packed[packing.firsts], padded[:, 0])
    mask = packing.mask(torch.float32)
    seen = torch.arange(padded.shape[1]) < packing.lengths[:, None]
    assert (mask is None) == bool(seen.all())
    assert mask is None or torch.equal(mask[:, 0, 0] == 0, seen)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("which", ["tokens", "firsts"])
def test_every_query_has_exactly_one_place_in_a_row_of_its_visual(case: tuple[Tensor, Tensor], which: str) -> None:
    packed = pack_pairs(*case)
    queries: Queries = getattr(packed, which)
    visual_of = packed.pair_visuals if which == "firsts" else packed.pair_visuals[packed.pair_of_token]
    places, slots = queries.places, queries.slots
    assert len(set(places.tolist())) == len(visual_of)
    assert torch.equal(slots.flatten()[places], torch.arange(len(visual_of)))
    row_of = places // slots.shape[1]
    assert torch.equal(packed.visuals[queries.rows[row_of]], visual_of)
    assert set(row_of.tolist()) == set(range(len(queries.rows))), "a row without a query"
    row_visuals = packed.visuals[queries.rows][:, None].expand_as(slots)
    assert torch.equal(visual_of[slots], row_visuals), "an empty slot repeats a query of the same visual"
    states = torch.arange(len(visual_of) * 2.0).view(-1, 2)
    assert torch.equal(queries.pack(states), states[slots])
    assert torch.equal(queries.unpack(queries.pack(states)), states)
    assert torch.equal(queries.repeat(packed.visuals), packed.visuals[queries.rows])


@pytest.mark.parametrize("case", CASES)
def test_order_is_a_permutation_and_restore_its_inverse(case: tuple[Tensor, Tensor]) -> None:
    pairs, packed = case[0], pack_pairs(*case)
    assert torch.equal(torch.stack([packed.texts, packed.pair_visuals], dim=1), pairs[packed.order])
    assert torch.equal(packed.order.sort().values, torch.arange(len(pairs)))
    assert torch.equal(packed.restore(pairs[packed.order]), pairs)
    assert torch.equal(packed.visuals, pairs[:, 1].unique())


def test_no_copies_where_nothing_is_padded() -> None:
    packed = pack_pairs(torch.cartesian_prod(torch.arange(8), torch.arange(4)), torch.full((8,), 3))
    states, visuals = torch.randn(32 * 3, 2), torch.randn(4, 2)
    assert packed.tokens.repeat(visuals) is visuals
    assert packed.tokens.slots.shape == (4, 24), "the texts of a visual are one row"
    for laid in (packed.tokens.pack(states), packed.packing.pad(states), packed.packing.pack(states.view(32, 3, 2))):
        assert laid.data_ptr() == states.data_ptr()


def test_a_lone_query_beside_a_crowd_does_not_pay_for_it() -> None:
    queries = Queries.of(torch.tensor([2000, *[13] * 40]))
    assert queries.slots.numel() <= 2 * 2520, "one row a visual would be 41 * 2000 slots for 2,520 tokens"


def test_texts_can_be_padded_further_than_needed() -> None:
    packing = Packing.of(torch.tensor([2, 3]), 5)
    assert packing.pad(torch.randn(5, 1)).shape == (2, 5, 1)


def test_to_moves_every_tensor() -> None:
    moved = pack_pairs(*CASES[0]).to(torch.device("meta"))
    parts = [vars(moved), vars(moved.packing), vars(moved.tokens), vars(moved.firsts)]
    found = [value for part in parts for value in part.values() if isinstance(value, Tensor)]
    assert len(found) > 10
    assert all(tensor.device.type == "meta" for tensor in found)
