"""Batches, and the samplers that assign samples to steps and processes."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Sampler

from uniadapter.config import ConfigError
from uniadapter.data.hard_negatives import place_hard_negatives
from uniadapter.data.splits import Sample
from uniadapter.processes.seeds import GROUPS, ORDER, permutation


@dataclass
class Batch:
    """One process's part of a global batch: B samples and their V visuals (pictures or videos), V <= B.

    Args:
        frames: float32 [V, T, 3, H, W], normalised; a visual that several samples share is in it once; pictures have
            T = 1.
        captions: B cleaned captions; empty if only visuals are loaded.
        ids: int64 [B], index of each sample's visual in the split; equal ids are the same visual.
        sample_ids: int64 [B], index of each sample (caption) in the split; of the visual if only visuals are loaded.
        rows: int64 [B], index into `frames` of each sample's visual; 0 to B - 1 if none is shared.
        answers: to each of B questions, with their weights; empty if the texts are captions.
    """

    frames: Tensor
    captions: list[str]
    ids: Tensor
    sample_ids: Tensor
    rows: Tensor
    answers: Sequence[Mapping[str, float]] = ()

    def __len__(self) -> int:
        """B."""
        return len(self.sample_ids)

    def parts(self, most: int) -> list[Batch]:
        """The batch in parts of at most so many consecutive samples, each with the visuals that it needs; 0: whole."""
        if not 0 < most < len(self):
            return [self]
        found = []
        for low in range(0, len(self), most):
            own = slice(low, low + most)
            visuals, rows = torch.unique(self.rows[own], return_inverse=True)
            texts, answers = self.captions[own], self.answers[own]
            found.append(Batch(self.frames[visuals], texts, self.ids[own], self.sample_ids[own], rows, answers))
        return found

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """A copy with its tensors on a device."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """A copy in page-locked memory, for asynchronous copies to the GPU."""
        return self._map(Tensor.pin_memory)

    def _map(self, move: Callable[[Tensor], Tensor]) -> Batch:
        ids, sample_ids, rows = move(self.ids), move(self.sample_ids), move(self.rows)
        return Batch(move(self.frames), self.captions, ids, sample_ids, rows, self.answers)


class LoadRequest(NamedTuple):
    """A visual to load, with consecutive samples that share it.

    A group may be split over two batches or processes; both then load the visual with the same augmentation.

    Args:
        epoch: part of the seed of the augmentation.
        group: indices of the samples; the first is part of the seed.
        start: first position in `group` that belongs to this batch.
        stop: one past the last position.
        sample: the only one of the group, where it cannot be found by its index.
    """

    epoch: int
    group: tuple[int, ...]
    start: int
    stop: int
    sample: Sample | None = None


Requests = Callable[[int, int], Iterable[LoadRequest]]


class EpochBatchSampler(Sampler[list[LoadRequest]]):
    """Sampler of one process's part of each global training batch.

    The order is a function of (seed, epoch) only: a permutation of the samples or, with `together` > 1, of groups of
    samples that share a visual, formed anew each epoch. With `hard_negatives`, for which the batch size counts too,
    samples of different visuals with the same `sample_groups` follow one another in a batch. Each global batch is split
    into contiguous parts, one per process, whose sizes differ by at most one, so all parts together are the batch of a
    single process. The last batch of an epoch may be smaller; if it has fewer samples than processes, they join the
    batch before. Every request holds its epoch, so persistent workers never use an old one.

    Args:
        count: samples of the training set.
        batch_size: samples per batch, over all processes.
        seed: of the order.
        epoch: the first epoch; see `set_epoch`.
        rank: of this process.
        world: number of processes.
        start_batch: global batches of the first epoch to skip, for a resumed run.
        sample_visuals: index of each sample's visual; None if all differ.
        together: maximum samples of a group; 1 shuffles all samples.
        sample_groups: for each sample what its visual has in common with its hard negatives; None for none.
        hard_negatives: share of the samples that are placed beside a hard negative.

    Raises:
        ConfigError: some process would get no sample.
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
        sample_visuals: Sequence[int] | None = None,
        together: int = 1,
        sample_groups: Sequence[str | int | None] | None = None,
        hard_negatives: float = 0.0,
    ) -> None:
        if batch_size < world:
            raise ConfigError(f"train.batch_size is {batch_size}: {world} processes need at least one sample each")
        if count < world:
            raise ConfigError(f"the training set has {count} samples: {world} processes need at least one each")
        if not 0 <= rank < world:
            raise ConfigError(f"rank {rank} is not one of {world} processes")
        self.count, self.batch_size, self.seed = count, batch_size, seed
        self.rank, self.world = rank, world
        self.sample_visuals, self.together = sample_visuals, together
        self.sample_groups, self.hard_negatives = sample_groups, hard_negatives
        whole, rest = divmod(count, batch_size)
        self.batches_per_epoch = whole + (rest >= world)  # of a complete epoch
        self.set_epoch(epoch, start_batch)

    def keep_batches(self, batches: int) -> None:
        """Divide an epoch into as many batches as another number of processes did, for a run that goes on.

        Raises:
            ConfigError: these samples cannot be divided so, or not among these processes.
        """
        whole, rest = divmod(self.count, self.batch_size)
        if batches not in {max(whole, 1), whole + (rest > 0)}:
            raise ConfigError(
                f"the run has had {batches} batches per epoch, but {self.count} samples in batches of "
                f"{self.batch_size} are {whole + (rest > 0)}: go on with the same data and train.batch_size"
            )
        last = self.count - (batches - 1) * self.batch_size
        if last < self.world:
            raise ConfigError(
                f"the last batch of an epoch has {last} sample{'s' * (last > 1)}, which {self.world} processes cannot "
                f"share: go on with {last} process{'es' * (last > 1)} at most"
            )
        self.batches_per_epoch = batches

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Set the epoch of the next iteration, and the batch at which it starts."""
        self.epoch, self.start_batch = epoch, start_batch

    def __len__(self) -> int:
        """Batches of the next iteration."""
        return max(self.batches_per_epoch - self.start_batch, 0)

    def __iter__(self) -> Iterator[list[LoadRequest]]:
        """This process's part of each batch."""
        first, requests = self.start_batch, self._requests(self.epoch)
        for batch in range(first, self.batches_per_epoch):
            begin = batch * self.batch_size
            end = begin + self.batch_size if batch + 1 < self.batches_per_epoch else self.count
            low, high = shard_bounds(end - begin, self.rank, self.world)
            yield list(requests(begin + low, begin + high))

    def _requests(self, epoch: int) -> Requests:
        """Gives the requests for the samples at positions [low, high) of an epoch's order."""
        order, starts = self._order(epoch)
        return lambda low, high: load_requests(epoch, order, starts, low, high)

    def _order(self, epoch: int) -> tuple[list[int], Sequence[int]]:
        """All samples in order of their groups, and the offset at which each group starts; the last is the end."""
        order = permutation(self.count, self.seed, ORDER, epoch)
        visuals, kin = self.sample_visuals, self.sample_groups if self.hard_negatives else None
        if visuals is None or (self.together == 1 and kin is None):
            return order, range(self.count + 1)
        groups: Sequence[Sequence[int]] = [(row,) for row in order]
        if self.together > 1:
            groups = share_visuals(order, visuals, self.together, self.seed, epoch)
        if kin is not None:
            groups = place_hard_negatives(
                groups, visuals, kin,
                share=self.hard_negatives, batch_size=self.batch_size, seed=self.seed, epoch=epoch,
            )  # fmt: skip
        return list(chain.from_iterable(groups)), list(accumulate(map(len, groups), initial=0))


def share_visuals(
    order: Sequence[int], visuals: Sequence[int] | Mapping[int, int], together: int, seed: int, *place: int
) -> list[list[int]]:
    """Groups of at most `together` samples of one visual, shuffled.

    Args:
        order: of the samples.
        visuals: of each sample, by its index.
        together: most samples of a group.
        seed: of the order.
        *place: epoch and, of several parts of an epoch, the part.
    """
    owned: dict[int, list[int]] = {}
    for row in order:
        owned.setdefault(visuals[row], []).append(row)
    groups = [rows[low : low + together] for rows in owned.values() for low in range(0, len(rows), together)]
    return [groups[index] for index in permutation(len(groups), seed, GROUPS, *place)]


def load_requests(epoch: int, order: list[int], starts: Sequence[int], low: int, high: int) -> Iterator[LoadRequest]:
    """The requests for the samples at positions [low, high) of the order."""
    group = bisect_right(starts, low) - 1
    while starts[group] < high:
        start, stop = starts[group], starts[group + 1]
        yield LoadRequest(epoch, tuple(order[start:stop]), max(low - start, 0), min(high, stop) - start)
        group += 1


class SequentialBatchSampler(Sampler[list[int]]):
    """Sampler of one process's contiguous shard of range(count), in order.

    Args:
        count: number of items, over all processes.
        batch_size: items per batch of this process.
        rank: of this process.
        world: number of processes.
    """

    def __init__(self, count: int, batch_size: int, *, rank: int = 0, world: int = 1) -> None:
        if batch_size < 1:
            raise ConfigError(f"evaluate.batch_size is {batch_size}: it must be at least 1")
        self.first, self.last = shard_bounds(count, rank, world)
        self.batch_size = batch_size

    def __len__(self) -> int:
        """Number of batches."""
        return -(-(self.last - self.first) // self.batch_size)

    def __iter__(self) -> Iterator[list[int]]:
        """The batches."""
        for low in range(self.first, self.last, self.batch_size):
            yield list(range(low, min(low + self.batch_size, self.last)))


def shard_bounds(count: int, rank: int, world: int) -> tuple[int, int]:
    """Bounds [first, last) of one process's contiguous shard of `count` items; sizes differ by at most one."""
    return rank * count // world, (rank + 1) * count // world
