"""What a step is given, and which samples go into which step on which process."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.data import Sampler

from uniadapter.config import ConfigError
from uniadapter.draws import ORDER, permutation


@dataclass
class Batch:
    """One process's share of a step.

    Args:
        frames: float32 [B, T, 3, H, W], normalised; a picture has T = 1.
        captions: B cleaned captions; empty where only visuals were asked for.
        ids: int64 [B]; index of the visual in its split, so equal ids are the same visual.
        sample_ids: int64 [B]; index of the sample (the caption; of the visual where only visuals were asked
            for).
    """

    frames: Tensor
    captions: list[str]
    ids: Tensor
    sample_ids: Tensor

    def __len__(self) -> int:
        """B."""
        return len(self.frames)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch with its tensors on a device."""
        return Batch(
            self.frames.to(device, non_blocking=non_blocking),
            self.captions,
            self.ids.to(device, non_blocking=non_blocking),
            self.sample_ids.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory, for copies that do not block."""
        return Batch(self.frames.pin_memory(), self.captions, self.ids.pin_memory(), self.sample_ids.pin_memory())


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """One process's slices of the global batches of an epoch, as lists of (epoch, sample).

    The order is a function of (seed, epoch) alone. Every global batch is cut into contiguous slices, one for
    each process, whose sizes differ by one at most; so the processes' slices, put together, are what a single
    process sees. The last batch is short where the batch size does not divide the count; it is left out on
    all processes if it is too short to give each of them a sample. The epoch goes with every index, so that
    workers which outlive an epoch never draw with a stale one.

    Args:
        count: samples of the training set.
        batch_size: samples of a step over all processes.
        seed: of the order.
        epoch: the first epoch; later ones by `set_epoch`.
        rank: this process.
        world: number of processes.
        start_batch: global batches of the epoch that were done before, by a run that is resumed.

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
    ) -> None:
        if batch_size < world:
            raise ConfigError(f"train.batch_size is {batch_size}: {world} processes need at least one sample each")
        if count < world:
            raise ConfigError(f"the training set has {count} samples: {world} processes need at least one each")
        if not 0 <= rank < world:
            raise ConfigError(f"rank {rank} is not one of {world} processes")
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.rank, self.world = rank, world
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

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """This process's slices, in order."""
        epoch, first = self.epoch, self.start_batch
        order = permutation(self.count, self.seed, ORDER, epoch)
        for batch in range(first, self.batches_per_epoch):
            indices = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            low, high = share(len(indices), self.rank, self.world)
            yield [(epoch, index) for index in indices[low:high]]


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
