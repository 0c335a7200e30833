"""The order of an epoch over shards: some shards at a time are shuffled together, by (seed, epoch) alone.

The shards are permuted, and as many consecutive ones as hold `buffer` samples are a block, whose samples are permuted
together. Whatever the number of processes and of workers, the sequence is the same and any position of it can be
computed without what comes before, so that a run resumes, and goes on with more or fewer processes, as with files.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from uniadapter.data.batches import EpochBatchSampler, LoadRequest, Requests, load_requests, share_visuals
from uniadapter.data.hard_negatives import place_hard_negatives
from uniadapter.data.shards.index import ShardIndex
from uniadapter.processes.seeds import ORDER, SHARDS, permutation


@dataclass(frozen=True)
class Blocks:
    """The blocks of an epoch.

    Args:
        shards: of each block, by their index.
        starts: position of the first sample of each block; the last is the number of samples.
    """

    shards: list[list[int]]
    starts: list[int]

    def at(self, position: int) -> int:
        """The block with a position of the epoch."""
        return bisect_right(self.starts, position) - 1


def epoch_blocks(index: ShardIndex, buffer: int, seed: int, epoch: int) -> Blocks:
    """The blocks of an epoch; the last may be smaller."""
    shards: list[list[int]] = []
    starts, held = [0], 0
    for shard in permutation(len(index.shards), seed, SHARDS, epoch):
        samples = index.shards[shard].samples
        if not samples:
            continue
        if not shards or held >= buffer:
            shards.append([])
            starts.append(starts[-1])
            held = 0
        shards[-1].append(shard)
        held += samples
        starts[-1] += samples
    return Blocks(shards, starts)


def most_shards(index: ShardIndex, buffer: int) -> int:
    """How many shards a block has at most."""
    smallest = np.cumsum(sorted(shard.samples for shard in index.shards))
    return min(int(np.searchsorted(smallest, buffer)) + 1, len(index.shards))


class ShardBatchSampler(EpochBatchSampler):
    """`EpochBatchSampler` of shards: what it holds is one block, never an epoch.

    Args:
        index: of the set.
        batch_size: samples per batch, over all processes.
        seed: of the order.
        buffer: samples that are shuffled together, at least.
        together: most consecutive samples of a record.
        hard_negatives: share of the samples that are placed beside a hard negative of their block.
        ahead: called with the shards of the next block when one begins.
        rank: of this process.
        world: number of processes.
    """

    def __init__(
        self,
        index: ShardIndex,
        batch_size: int,
        seed: int,
        *,
        buffer: int,
        together: int = 1,
        hard_negatives: float = 0.0,
        ahead: Callable[[Sequence[int]], None] | None = None,
        rank: int = 0,
        world: int = 1,
        epoch: int = 0,
        start_batch: int = 0,
    ) -> None:
        self.index, self.buffer, self.ahead = index, buffer, ahead
        super().__init__(
            int(index.first_samples[-1]), batch_size, seed, epoch=epoch, start_batch=start_batch, rank=rank,
            world=world, together=together, hard_negatives=hard_negatives,
        )  # fmt: skip

    def _requests(self, epoch: int) -> Requests:
        blocks = epoch_blocks(self.index, self.buffer, self.seed, epoch)
        held: tuple[int, list[int], Sequence[int]] = (-1, [], [])

        def requests(low: int, high: int) -> list[LoadRequest]:
            nonlocal held
            found: list[LoadRequest] = []
            while low < high:
                block = blocks.at(low)
                if held[0] != block:
                    held = (block, *self._block(epoch, blocks, block))
                begin, end = blocks.starts[block], blocks.starts[block + 1]
                found += load_requests(epoch, held[1], held[2], low - begin, min(high, end) - begin)
                low = min(high, end)
            return found

        return requests

    def _block(self, epoch: int, blocks: Blocks, block: int) -> tuple[list[int], Sequence[int]]:
        """The samples of a block in order, and the offset at which each group of one record starts."""
        if self.ahead is not None and block + 1 < len(blocks.shards):
            self.ahead(blocks.shards[block + 1])
        rows = self._rows(blocks.shards[block])
        order = [int(one) for one in rows[permutation(len(rows), self.seed, ORDER, epoch, block)]]
        if self.together == 1 and not self.hard_negatives:
            return order, range(len(order) + 1)
        records = dict(zip(rows.tolist(), self._records(blocks.shards[block]).tolist(), strict=True))
        units: Sequence[Sequence[int]] = [(row,) for row in order]
        if self.together > 1:
            units = share_visuals(order, records, self.together, self.seed, epoch, block)
        if self.hard_negatives:
            kin = dict(zip(rows.tolist(), self._kin(blocks.shards[block]), strict=True))
            units = place_hard_negatives(
                units, records, kin, share=self.hard_negatives, batch_size=self.batch_size, seed=self.seed,
                epoch=epoch, part=(block,), begun=blocks.starts[block] % self.batch_size,
            )  # fmt: skip
        starts = np.cumsum([0, *map(len, units)])
        return [row for unit in units for row in unit], starts.tolist()

    def _rows(self, shards: Sequence[int]) -> NDArray[np.int64]:
        """The samples of some shards, by their index in the set."""
        first = self.index.first_samples
        return np.concatenate([np.arange(first[one], first[one + 1]) for one in shards])

    def _kin(self, shards: Sequence[int]) -> list[int | None]:
        """The group of each of these samples; None without one."""
        found: list[int | None] = []
        for one in (self.index.shards[shard] for shard in shards):
            groups = [None] * one.records if one.groups is None else one.groups.tolist()
            found += [groups[record] or None for record in one.record_numbers().tolist()]
        return found

    def _records(self, shards: Sequence[int]) -> NDArray[np.int64]:
        """The record of each of these samples, by its index in the set."""
        first = self.index.first_records
        return np.concatenate([first[one] + self.index.shards[one].record_numbers() for one in shards])
