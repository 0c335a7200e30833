"""What a step is given, and which samples go into which step on which process."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Sampler

from uniadapter.config import ConfigError
from uniadapter.processes.random_draws import GROUPS, ORDER, permutation


@dataclass
class Batch:
    """One process's share of a step: B samples and the V visuals that they are about.

    Args:
        frames: float32 [V, T, 3, H, W], normalised, each visual once that several samples share; a picture has T = 1.
        captions: B cleaned captions; empty where only visuals were asked for.
        ids: int64 [B]; index of the visual in its split, so equal ids are the same visual.
        sample_ids: int64 [B]; index of the sample (the caption; of the visual where only visuals were asked
            for).
        rows: int64 [B]; which of the V visuals of `frames` each sample is about; 0 to B - 1 where none is shared.
    """

    frames: Tensor
    captions: list[str]
    ids: Tensor
    sample_ids: Tensor
    rows: Tensor

    def __len__(self) -> int:
        """B."""
        return len(self.sample_ids)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch with its tensors on a device."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, for copies that do not block."""
        return self._each(Tensor.pin_memory)

    def _each(self, move: Callable[[Tensor], Tensor]) -> Batch:
        return Batch(move(self.frames), self.captions, move(self.ids), move(self.sample_ids), move(self.rows))


class Load(NamedTuple):
    """One visual to load, and the samples that are about it.

    A group that the end of a batch or of a process's share cuts in two is loaded on both sides, and looks the same.

    Args:
        epoch: of the draws.
        group: samples of the visual, of which the first decides what is drawn.
        start: of the group's samples, the first that is wanted here.
        stop: the one behind the last.
    """

    epoch: int
    group: tuple[int, ...]
    start: int
    stop: int


class EpochBatches(Sampler[list[Load]]):
    """One process's slices of the global batches of an epoch, as lists of visuals with their samples.

    The order is a function of (seed, epoch) alone: a permutation of the samples or, where samples of one visual go
    together, a permutation of groups of them, which are dealt out anew each epoch. Every global batch is cut into
    contiguous slices, one for each process, whose sizes differ by one at most; so the processes' slices, put
    together, are what a single process sees. The last batch is short where the batch size does not divide the count;
    what is too short to give each process a sample goes with the batch before it, so that nothing is left out. The
    epoch goes with every load, so that workers which outlive an epoch never draw with a stale one.

    Args:
        count: samples of the training set.
        batch_size: samples of a step over all processes.
        seed: of the order.
        epoch: the first epoch; later ones by `set_epoch`.
        rank: this process.
        world: number of processes.
        start_batch: global batches of the epoch that were done before, by a run that is resumed.
        owners: visual of each sample; None where every sample has its own.
        together: samples of a group, at most; 1 mixes all samples.

    Raises:
        ConfigError: not every process would get a sample.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int,
        *,
        epoch: int = 0,
        rank: int = 0,
        world: int = 1,
        start_batch: int = 0,
        owners: Sequence[int] | None = None,
        together: int = 1,
    ) -> None:
        if batch_size < world:
            raise ConfigError(f"train.batch_size is {batch_size}: {world} processes need at least one sample each")
        if count < world:
            raise ConfigError(f"the training set has {count} samples: {world} processes need at least one each")
        if not 0 <= rank < world:
            raise ConfigError(f"rank {rank} is not one of {world} processes")
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.rank, self.world = rank, world
        self.owners, self.together = owners, together
        self.set_epoch(epoch, start_batch)

    @property
    def batches_per_epoch(self) -> int:
        """Global batches of a whole epoch."""
        whole, rest = divmod(self.count, self.batch_size)
        return whole + (rest >= self.world)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Choose the epoch that the next iteration runs through, and the batch that it starts at."""
        self.epoch, self.start_batch = epoch, start_batch

    def __len__(self) -> int:
        """Batches that the next iteration yields."""
        return max(self.batches_per_epoch - self.start_batch, 0)

    def __iter__(self) -> Iterator[list[Load]]:
        """This process's slices, in order."""
        epoch, first = self.epoch, self.start_batch
        order, starts = self._order(epoch)
        for batch in range(first, self.batches_per_epoch):
            begin = batch * self.batch_size
            end = begin + self.batch_size if batch + 1 < self.batches_per_epoch else self.count
            low, high = share(end - begin, self.rank, self.world)
            yield list(_loads(epoch, order, starts, begin + low, begin + high))

    def _order(self, epoch: int) -> tuple[list[int], Sequence[int]]:
        """All samples, a group behind the other, and where each group starts; the last start is the end."""
        order = permutation(self.count, self.seed, ORDER, epoch)
        if self.together == 1 or self.owners is None:
            return order, range(self.count + 1)
        owned: dict[int, list[int]] = {}
        for row in order:
            owned.setdefault(self.owners[row], []).append(row)
        step = self.together
        groups = [rows[low : low + step] for rows in owned.values() for low in range(0, len(rows), step)]
        groups = [groups[index] for index in permutation(len(groups), self.seed, GROUPS, epoch)]
        return list(chain.from_iterable(groups)), list(accumulate(map(len, groups), initial=0))


def _loads(epoch: int, order: list[int], starts: Sequence[int], low: int, high: int) -> Iterator[Load]:
    """What is to be loaded for the samples from place `low` of the order to `high`."""
    group = bisect_right(starts, low) - 1
    while starts[group] < high:
        start, stop = starts[group], starts[group + 1]
        yield Load(epoch, tuple(order[start:stop]), max(low - start, 0), min(high, stop) - start)
        group += 1


class OrderedBatches(Sampler[list[int]]):
    """One process's contiguous share of range(count), in order, in batches.

    Args:
        count: number of items, over all processes.
        batch_size: items of a batch, on this process.
        rank: this process.
        world: number of processes.
    """

    def __init__(self, count: int, batch_size: int, *, rank: int = 0, world: int = 1) -> None:
        if batch_size < 1:
            raise ConfigError(f"evaluate.batch_size is {batch_size}: it must be at least 1")
        self.first, self.last = share(count, rank, world)
        self.batch_size = batch_size

    def __len__(self) -> int:
        """Number of batches."""
        return -(-(self.last - self.first) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """The batches."""
        for low in range(self.first, self.last, self.batch_size):
            yield list(range(low, min(low + self.batch_size, self.last)))


def share(count: int, rank: int, world: int) -> tuple[int, int]:
    """Bounds of one process's contiguous share of `count` items; sizes differ by one at most."""
    return rank * count // world, (rank + 1) * count // world
