"""DataLoaders of pictures and videos; a picture is a video of one frame."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import chain
from typing import Any, cast

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from uniadapter.config import ConfigError, DataConfig
from uniadapter.data.batches import Batch, EpochBatchSampler, SequentialBatchSampler
from uniadapter.data.block_order import ShardBatchSampler
from uniadapter.data.fetching import TrainLoader, VisualLoader, WorkerResult
from uniadapter.data.media.images import CLIP, EvaluationTransform, Normalisation, TrainTransform
from uniadapter.data.media.limits import check_frames
from uniadapter.data.samples import LoadedVisual, TrainDataset, VisualDataset
from uniadapter.data.sharded import ShardedSplit
from uniadapter.data.splits import RetrievalSplit, TrainingSet
from uniadapter.data.streamed import StreamBatchSampler, StreamedSplit
from uniadapter.data.worker import init_worker

__all__ = ["TrainLoader", "VisualLoader", "train_loader", "visual_loader"]


def train_loader(
    split: TrainingSet,
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
    """Training batches of a split, already sharded over the processes; do not shard them again.

    Args:
        split: the visuals and captions.
        config: `frames`, `scale`, `flip`, `augment`, `blank`, `on_error`, `workers`, `timeout`, `together`,
            `hard_negatives`, `shuffle_buffer` and `most_lost_shards` are used.
        size: side of the frames in pixels.
        batch_size: samples per batch, over all processes.
        seed: of order and augmentation.
        rank: of this process.
        world: number of processes.
        epoch: the first epoch.
        start_batch: its first batch.
        pin_memory: return batches in page-locked memory.
        normalisation: pixel mean and standard deviation of the base model.

    Raises:
        ConfigError: hard negatives are asked for, and the split names none.
    """
    batches = _sampler(split, config, batch_size, seed)(
        epoch=epoch, rank=rank, world=world, start_batch=start_batch, together=config.together
    )
    scale = (config.scale[0], config.scale[1])
    transform = TrainTransform(size, scale, config.flip, config.augment, normalisation)
    check_frames(config.frames, "data.frames")
    rows = TrainDataset(split, transform, seed, config.on_error, config.frames, config.blank)
    workers = _worker_count(config.workers, batches.batches_per_epoch)
    fills = config.on_error == "skip" and isinstance(split, StreamedSplit)
    loader = _loader(rows, batches, _filled_batch if fills else _training_batch, workers, pin_memory)
    return TrainLoader(
        loader, batches, config.on_error == "skip", split, config.timeout, config.most_lost_shards
    )  # fmt: skip


def _sampler(split: TrainingSet, config: DataConfig, batch_size: int, seed: int) -> Callable[..., EpochBatchSampler]:
    """Makes the sampler of a training set, given the place in the run and in the processes."""
    if isinstance(split, ShardedSplit):
        return partial(
            ShardBatchSampler, split.index, batch_size, seed, buffer=config.shuffle_buffer, ahead=split.ahead,
            hard_negatives=config.hard_negatives,
        )  # fmt: skip
    if isinstance(split, StreamedSplit):
        return partial(StreamBatchSampler, split, batch_size, seed)
    assert isinstance(split, RetrievalSplit)
    if config.hard_negatives:
        _check_groups(split, config)
    return partial(
        EpochBatchSampler, len(split.texts), batch_size, seed, sample_visuals=split.text_visual,
        sample_groups=split.text_group or None, hard_negatives=config.hard_negatives,
    )  # fmt: skip


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
    """The visuals of a split in order, each once; every process gets a contiguous shard.

    Args:
        split: the visuals.
        config: `frames`, `eval_frames`, `blank`, `workers` and `timeout` are used.
        size: side of the frames in pixels.
        batch_size: visuals per batch of this process.
        rank: of this process.
        world: number of processes.
        pin_memory: return batches in page-locked memory.
        normalisation: pixel mean and standard deviation of the base model.
    """
    batches = SequentialBatchSampler(len(split.visuals), batch_size, rank=rank, world=world)
    frames = config.evaluation_frames
    check_frames(frames, "data.eval_frames" if config.eval_frames else "data.frames")
    pixels = normalisation
    transform = EvaluationTransform(size, pixels.mean, pixels.std, pixels.resampling, pixels.crop)
    visuals = VisualDataset(split, transform, frames, config.blank)
    workers = _worker_count(config.workers, len(batches))
    return VisualLoader(_loader(visuals, batches, _collate, workers, pin_memory), False, split, config.timeout)


def _check_groups(split: RetrievalSplit, config: DataConfig) -> None:
    """Raise `ConfigError` if no two visuals of a split are hard negatives of each other."""
    pairs = set(zip(split.text_group, split.text_visual, strict=True)) if split.text_group else set()
    shared = Counter(group for group, _ in pairs if group is not None)
    if not shared or max(shared.values()) < 2:
        field = config.fields.get("group", "group")
        lack = f"no two {split.noun} of the same {field!r}" if shared else f"no field {field!r}"
        raise ConfigError(
            f"data.hard_negatives is {config.hard_negatives:g}, but {config.train or split.name} has {lack}: give "
            f"{split.noun} that are hard negatives of each other the same one, or set data.hard_negatives to 0"
        )


def _loader(
    dataset: Dataset[Any],
    batches: EpochBatchSampler | SequentialBatchSampler,
    collate: Callable[[list[Any]], WorkerResult],
    workers: int,
    pin_memory: bool,
) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        batch_sampler=cast(Sampler[list[int]], batches),  # torch's types allow only integer indices
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=init_worker,
        pin_memory=pin_memory,
        persistent_workers=workers > 0 and isinstance(batches, EpochBatchSampler),
        # Else each epoch would take a number from the global generator, and dropout would depend on the loader.
        generator=torch.Generator(),
    )


def _training_batch(loads: list[list[LoadedVisual]]) -> WorkerResult:
    return _collate(list(chain.from_iterable(loads)))


def _filled_batch(loads: list[list[LoadedVisual]]) -> WorkerResult:
    """As `_training_batch`, of a stream, which has no others: what cannot be read is another of the batch once more."""
    visuals = list(chain.from_iterable(loads))
    errors = [error for one in visuals for error in one.errors]
    good = [one for one in visuals if one.pixels is not None]
    if not good:
        return WorkerResult(None, errors, [])
    found = _collate([one if one.pixels is not None else good[n % len(good)] for n, one in enumerate(visuals)])
    return WorkerResult(found.batch, errors, found.short)


def _collate(visuals: list[LoadedVisual]) -> WorkerResult:
    """Stack V visuals to frames [V, T, 3, H, W], and concatenate their B samples."""
    errors = [error for visual in visuals for error in visual.errors]
    pixels = [visual.pixels for visual in visuals if visual.pixels is not None]
    short = [visual.visual for visual in visuals if visual.short]
    if len(pixels) < len(visuals):
        return WorkerResult(None, errors, short)
    captions = [caption for visual in visuals for caption in visual.captions]
    samples = [(visual.visual, row, place) for place, visual in enumerate(visuals) for row in visual.rows]
    answers = [one for visual in visuals for one in visual.answers]
    ids, sample_ids, rows = torch.tensor(samples).unbind(1)
    return WorkerResult(Batch(torch.stack(pixels), captions, ids, sample_ids, rows, answers), errors, short)


def _worker_count(workers: int, batches: int) -> int:
    """The number of workers, limited by the CPU cores available to this process and by the batches."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(min(workers, processors, batches), 0)
