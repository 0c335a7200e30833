"""Batches with hard negatives: samples of different visuals of one group, placed in one batch.

A contrastive batch teaches little about pictures that differ only in who is where unless two of them meet in it;
Yuksekgonul et al., "When and why vision-language models behave like bags-of-words" (ICLR 2023), put neighbours of each
picture into its batch for that. Here the annotation rows say which visuals are hard negatives of each other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from uniadapter.processes.seeds import PAIRS, permutation

Unit: TypeAlias = Sequence[int]  # samples that share a visual and stay together
Group: TypeAlias = str | int | None


def pair_units(
    units: Sequence[Unit], visuals: Sequence[int] | Mapping[int, int], groups: Sequence[Group] | Mapping[int, Group]
) -> list[tuple[int, int]]:
    """Pairs of units of different visuals with the same group; each unit is in one pair at most.

    Args:
        units: in the order in which they meet their partner: each takes the first that is still alone.
        visuals: of each sample.
        groups: of each sample; None is nobody's hard negative.

    Returns:
        Indices of the units, the first of a pair before the second.
    """
    alone: dict[Group, deque[int]] = {}  # units of one visual: another visual's would have been paired with them
    pairs = []
    for index, unit in enumerate(units):
        group = groups[unit[0]]
        if group is None:
            continue
        waiting = alone.setdefault(group, deque())
        if waiting and visuals[units[waiting[0]][0]] != visuals[unit[0]]:
            pairs.append((waiting.popleft(), index))
        else:
            waiting.append(index)
    return pairs


def place_hard_negatives(
    units: Sequence[Unit],
    visuals: Sequence[int] | Mapping[int, int],
    groups: Sequence[Group] | Mapping[int, Group],
    *,
    share: float,
    batch_size: int,
    seed: int,
    epoch: int,
    part: tuple[int, ...] = (),
    begun: int = 0,
) -> list[Unit]:
    """The units in an order in which hard negatives follow one another within a batch.

    Args:
        units: shuffled.
        visuals: of each sample.
        groups: of each sample.
        share: of the samples that get a partner; fewer if fewer have one.
        batch_size: samples per batch, over all processes.
        seed: of the order.
        epoch: of the order.
        part: of the epoch, if these are not all of its units.
        begun: samples that are in the first batch already.

    Returns:
        All units. A pair that does not fit into what is left of a batch waits for the next one, if there are unpaired
        units to fill the batch with; else it is torn.
    """
    pairs = pair_units(units, visuals, groups)
    wanted, placed = share * sum(map(len, units)), 0
    chosen: list[tuple[int, ...]] = []
    for number in permutation(len(pairs), seed, PAIRS, epoch, 0, *part):
        if placed >= wanted:
            break
        chosen.append(pairs[number])
        placed += sum(len(units[index]) for index in pairs[number])
    taken = {index for pair in chosen for index in pair}
    blocks = chosen + [(index,) for index in range(len(units)) if index not in taken]
    shuffled = [blocks[number] for number in permutation(len(blocks), seed, PAIRS, epoch, 1, *part)]
    return [units[index] for block in _fill_batches(shuffled, units, batch_size, begun) for index in block]


def _fill_batches(
    blocks: list[tuple[int, ...]], units: Sequence[Unit], size: int, filled: int
) -> list[tuple[int, ...]]:
    """The blocks in order, except that pairs step back behind unpaired units where a batch would end inside them."""
    pairs = deque(place for place, block in enumerate(blocks) if len(block) == 2)
    single = deque(place for place, block in enumerate(blocks) if len(block) == 1)
    order = list[tuple[int, ...]]()
    while pairs or single:
        pair_first = bool(pairs) and (not single or pairs[0] < single[0])
        if pair_first and single:
            left = size - filled % size
            length = sum(len(units[index]) for index in blocks[pairs[0]])
            pair_first = length <= left or left == size
        order.append(blocks[(pairs if pair_first else single).popleft()])
        filled += sum(len(units[index]) for index in order[-1])
    return order
