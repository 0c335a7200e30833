"""Pictures and videos from a split to batches, in worker processes; a picture is a video of one frame.

A visual that cannot be read never kills a worker: the fault travels to the main process with the batch and
is raised there in one line, or, where faults are skipped, counted there while the next readable sample takes
the place.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from uniadapter.config import DataConfig
from uniadapter.data.batches import Batch, EpochBatches, OrderedBatches
from uniadapter.data.media.images import CLIP, EvaluationTransform, Normalisation, TrainTransform
from uniadapter.data.media.limits import check_frames
from uniadapter.data.media.records import DataError, ErrorPolicy
from uniadapter.data.samples import EvaluationVisuals, LoadedVisual, TrainRows
from uniadapter.data.splits import RetrievalSplit
from uniadapter.data.worker import begin
from uniadapter.errors import lost_worker, lost_worker_line

logger = logging.getLogger(__name__)


@dataclass
class Fetched:
    """What a worker hands over: a batch, or None if a sample of it could not be had, and what was met on the way.

    Args:
        batch: of all the visuals.
        faults: of visuals that could not be had.
        short: visuals, by index, that have fewer frames than were wanted.
    """

    batch: Batch | None
    faults: list[DataError]
    short: list[int]

    def pin_memory(self) -> Fetched:
        """The same, the batch in page-locked memory."""
        return Fetched(self.batch.pin_memory() if self.batch else None, self.faults, self.short)


class VisualLoader:
    """Batches in an order that is known beforehand; faults surface here, in the main process.

    Args:
        loader: what fetches.
        skip: count faults instead of raising them; a batch that could not be filled is raised all the same.
        split: what is loaded, for the log.

    Attributes:
        skipped: kind of fault to the number of distinct visuals that had it, as met by this process so far.
    """

    def __init__(self, loader: DataLoader[Any], skip: bool = False, split: RetrievalSplit | None = None) -> None:
        self._loader, self._split = loader, split
        self._short: set[int] = set()
        self._problems = ErrorPolicy("skip" if skip else "raise")
        self._known: set[str] = set()

    @property
    def skipped(self) -> Counter[str]:
        """Kind of fault to the number of distinct visuals left out so far."""
        return self._problems.skipped

    def __len__(self) -> int:
        """Batches that the next iteration yields."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        """The batches.

        Raises:
            DataError: a visual that cannot be read, or a worker that was killed.
        """
        fetches: Iterator[Fetched] | None = iter(self._loader)
        try:
            for fetched in cast(Iterator[Fetched], fetches):
                self._settle(fetched)
                yield cast(Batch, fetched.batch)
        except (DataError, RuntimeError, ConnectionError, EOFError) as error:
            # The traceback would keep the workers alive, and the garbage collector ends them only by a timeout.
            fetches = None
            self.close()
            lost = lost_worker(error)
            if lost is None and isinstance(error, (ConnectionError, EOFError)):  # torch had not yet seen that it ended
                lost = lost_worker_line("is killed or exited unexpectedly")
            if lost is None:
                raise
            raise DataError(lost, "lost worker") from None
        if self._short and self._split is not None and self._split.once("clips of few frames"):
            message = "%s: %d of %d %s have fewer frames than are taken, so frames come twice: see data.frames"
            logger.warning(message, self._split.name, len(self._short), len(self._split.visuals), self._split.noun)

    def close(self) -> None:
        """End the workers, if there are any; the next iteration starts new ones."""
        self._loader._iterator = None

    def _settle(self, fetched: Fetched) -> None:
        """Raise or count the faults of a batch, each visual once."""
        for fault in fetched.faults:
            if str(fault) not in self._known:
                self._problems.report(fault)
                self._known.add(str(fault))
        self._short.update(fetched.short)
        if fetched.batch is None:
            count, last = len(fetched.faults), fetched.faults[-1]
            raise DataError(f"{count} visuals cannot be read; the last: {last}", "lost data")


class TrainLoader(VisualLoader):
    """Training batches, epoch by epoch; its workers live as long as it does.

    Args:
        loader: what fetches.
        batches: the order.
        skip: as for `VisualLoader`.
        split: as for `VisualLoader`.
    """

    def __init__(self, loader: DataLoader[Any], batches: EpochBatches, skip: bool, split: RetrievalSplit) -> None:
        super().__init__(loader, skip, split)
        self.batches = batches

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Choose the next iteration's epoch and first global batch; what comes before is not loaded."""
        self.batches.set_epoch(epoch, start_batch)


def train_loader(
    split: RetrievalSplit,
    config: DataConfig,
    *,
    size: int,
    batch_size: int,
    seed: int,
    rank: int = 0,
    world: int = 1,
    epoch: int = 0,
    start_batch: int = 0,
    pin_memory: bool = False,
    normalisation: Normalisation = CLIP,
) -> TrainLoader:
    """Training batches of a split. It already deals out the samples to the processes: do not shard it again.

    Args:
        split: the visuals and captions.
        config: `frames`, `scale`, `flip`, `augment`, `blank`, `on_error`, `workers` and `together` are used.
        size: side of the frames in pixels.
        batch_size: samples of a step over all processes.
        seed: of order and augmentation.
        rank: this process.
        world: number of processes.
        epoch: the first epoch.
        start_batch: its first global batch.
        pin_memory: hand over batches in page-locked memory.
        normalisation: of the base.
    """
    batches = EpochBatches(
        len(split.texts), batch_size, seed, epoch=epoch, rank=rank, world=world, start_batch=start_batch,
        owners=split.text_visual, together=config.together,
    )  # fmt: skip
    scale = (config.scale[0], config.scale[1])
    transform = TrainTransform(size, scale, config.flip, config.augment, normalisation)
    check_frames(config.frames, "data.frames")
    rows = TrainRows(split, transform, seed, config.on_error, config.frames, config.blank)
    workers = _bounded(config.workers, batches.batches_per_epoch)
    loader = _loader(rows, batches, _training_batch, workers, pin_memory)
    return TrainLoader(loader, batches, config.on_error == "skip", split)


def visual_loader(
    split: RetrievalSplit,
    config: DataConfig,
    *,
    size: int,
    batch_size: int,
    rank: int = 0,
    world: int = 1,
    pin_memory: bool = False,
    normalisation: Normalisation = CLIP,
) -> VisualLoader:
    """The visuals of a split in order, once each; of several processes each gets a contiguous share.

    Args:
        split: the visuals.
        config: `frames`, `eval_frames`, `blank` and `workers` are used.
        size: side of the frames in pixels.
        batch_size: visuals of a batch, on this process.
        rank: this process.
        world: number of processes.
        pin_memory: hand over batches in page-locked memory.
        normalisation: of the base.
    """
    batches = OrderedBatches(len(split.visuals), batch_size, rank=rank, world=world)
    frames = config.eval_frames or config.frames
    check_frames(frames, "data.eval_frames" if config.eval_frames else "data.frames")
    shown = normalisation
    transform = EvaluationTransform(size, shown.mean, shown.std, shown.resampling, shown.crop)
    visuals = EvaluationVisuals(split, transform, frames, config.blank)
    workers = _bounded(config.workers, len(batches))
    return VisualLoader(_loader(visuals, batches, _collate, workers, pin_memory), split=split)


def _loader(
    dataset: Dataset[Any],
    batches: EpochBatches | OrderedBatches,
    collate: Callable[[list[Any]], Fetched],
    workers: int,
    pin_memory: bool,
) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        batch_sampler=cast(Sampler[list[int]], batches),  # torch's types know no index but a number
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=begin,
        pin_memory=pin_memory,
        persistent_workers=workers > 0 and isinstance(batches, EpochBatches),
        # Else each epoch would draw from the global generator, and dropout would depend on the loader.
        generator=torch.Generator(),
    )


def _training_batch(loads: list[list[LoadedVisual]]) -> Fetched:
    return _collate(list(chain.from_iterable(loads)))


def _collate(visuals: list[LoadedVisual]) -> Fetched:
    """V visuals to frames [V, T, 3, H, W], and their B samples behind one another."""
    faults = [fault for shown in visuals for fault in shown.faults]
    pixels = [shown.pixels for shown in visuals if shown.pixels is not None]
    short = [shown.visual for shown in visuals if shown.short]
    if len(pixels) < len(visuals):
        return Fetched(None, faults, short)
    captions = [caption for shown in visuals for caption in shown.captions]
    samples = [(shown.visual, row, place) for place, shown in enumerate(visuals) for row in shown.rows]
    ids, sample_ids, rows = torch.tensor(samples).unbind(1)
    return Fetched(Batch(torch.stack(pixels), captions, ids, sample_ids, rows), faults, short)


def _bounded(workers: int, batches: int) -> int:
    """No more workers than there are processors for this process, or batches."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min(workers, processors, batches), 0)
