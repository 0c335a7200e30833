"""How pairs are laid out: nothing lost, nothing doubled, everything back in its place."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from uniadapter.grouping import Groups, group_pairs


def random_pairs(seed: int) -> Tensor:
    """Between 1 and 80 pairs, unordered, with repeats, of few or many visuals; the extremes are among them."""
    generator = torch.Generator().manual_seed(seed)
    count = int(torch.randint(1, 81, (), generator=generator))
    texts, visuals = (int(torch.randint(1, high, (), generator=generator)) for high in (20, (2, 6, 40)[seed % 3]))
    return torch.stack([torch.randint(0, n, (count,), generator=generator) for n in (texts, visuals)], dim=1)


CASES = [random_pairs(seed) for seed in range(30)] + [
    torch.tensor([[0, 0]]),
    torch.tensor([[3, 5]] * 7),  # one pair many times
    torch.stack([torch.arange(130), torch.zeros(130, dtype=torch.int64)], dim=1),  # more texts than the widest row
    torch.stack([torch.zeros(40, dtype=torch.int64), torch.arange(40)], dim=1).flip(0),  # one text, many visuals
    torch.tensor([[0, 1]] + [[t, 0] for t in range(33)]),  # one lone pair beside a crowd
]


def grouped(pairs: Tensor, length: int = 9) -> Groups:
    """The layout of pairs whose texts have 9 tokens."""
    return group_pairs(pairs, length)


@pytest.mark.parametrize("pairs", CASES)
def test_every_pair_has_exactly_one_place_in_a_row_of_its_visual(pairs: Tensor) -> None:
    groups = grouped(pairs)
    places, slots = groups.places, groups.slots
    assert len(set(places.tolist())) == len(pairs)
    assert set(places.tolist()) <= set(range(slots.numel()))
    assert torch.equal(slots.flatten()[places], torch.arange(len(pairs)))
    row_of_pair = places // slots.shape[1]
    assert torch.equal(groups.visuals[groups.rows[row_of_pair]], groups.pair_visuals)
    assert set(row_of_pair.tolist()) == set(range(len(groups.rows))), "a row without a pair"


@pytest.mark.parametrize("pairs", CASES)
def test_empty_slots_repeat_a_pair_of_the_same_visual(pairs: Tensor) -> None:
    groups = grouped(pairs)
    row_visuals = groups.visuals[groups.rows][:, None].expand_as(groups.slots)
    assert torch.equal(groups.pair_visuals[groups.slots], row_visuals)


@pytest.mark.parametrize("pairs", CASES)
def test_order_is_a_permutation_and_restore_its_inverse(pairs: Tensor) -> None:
    groups = grouped(pairs)
    assert torch.equal(torch.stack([groups.texts, groups.pair_visuals], dim=1), pairs[groups.order])
    assert torch.equal(groups.order.sort().values, torch.arange(len(pairs)))
    assert torch.equal(groups.restore(pairs[groups.order]), pairs)
    assert torch.equal(groups.visuals, pairs[:, 1].unique())


@pytest.mark.parametrize("pairs", CASES)
def test_unpack_undoes_pack(pairs: Tensor) -> None:
    groups = grouped(pairs, 3)
    states = torch.arange(len(pairs) * 3 * 2.0).view(len(pairs), 3, 2)
    packed = groups.pack(states)
    assert packed.shape == (len(groups.rows), groups.slots.shape[1] * 3, 2)
    assert torch.equal(groups.unpack(packed, 3), states)
    place = int(groups.places[-1])
    row, slot = divmod(place, groups.slots.shape[1])
    assert torch.equal(packed[row, slot * 3 : slot * 3 + 3], states[-1]), "the texts of a row stand behind one another"


@pytest.mark.parametrize("pairs", CASES)
def test_spread_and_repeat_follow_the_rows(pairs: Tensor) -> None:
    groups = grouped(pairs)
    values = torch.arange(len(pairs)) * 10
    assert torch.equal(groups.spread(values), groups.slots * 10)
    assert torch.equal(groups.repeat(groups.visuals), groups.visuals[groups.rows])


def test_no_copies_where_every_visual_has_one_row() -> None:
    groups = grouped(torch.cartesian_prod(torch.arange(8), torch.arange(4)))
    states = torch.randn(4, 2)
    assert groups.repeat(states) is states
    assert groups.slots.numel() == 32, "8 texts for each of 4 visuals need no empty slot"


def test_a_lone_pair_beside_a_crowd_does_not_pay_for_it() -> None:
    crowd = [[t, 0] for t in range(64)]
    groups = grouped(torch.tensor([*crowd, *([t, v] for t, v in enumerate(range(1, 41)))]), 30)
    assert groups.slots.numel() <= 1.5 * 104, "one row a visual would be 41 * 64 slots for 104 pairs"


def test_to_moves_every_tensor() -> None:
    moved = grouped(CASES[0]).to(torch.device("meta"))
    assert all(tensor.device.type == "meta" for tensor in vars(moved).values())
