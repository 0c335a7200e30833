"""Order of samples, resuming, several processes, workers, and pictures that cannot be read."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time
from collections.abc import Callable
from itertools import chain
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest
import torch
from data_pictures import picture
from torch.utils.data import dataloader

from uniadapter.config import ConfigError, DataConfig
from uniadapter.data import samples
from uniadapter.data.batches import Batch, EpochBatchSampler, SequentialBatchSampler
from uniadapter.data.captions import load_retrieval
from uniadapter.data.layouts.records import DataError
from uniadapter.data.loaders import TrainLoader, _worker_count, train_loader, visual_loader
from uniadapter.data.media.images import EvaluationTransform, Normalisation, TrainTransform, load_picture
from uniadapter.data.splits import RetrievalSplit
from uniadapter.errors import user_message

Write = Callable[[str, Any], Path]


def indices(batches: EpochBatchSampler) -> list[list[int]]:
    return [[row for load in batch for row in load.group[load.start : load.stop]] for batch in batches]


@pytest.mark.parametrize("count, size", [(10, 4), (12, 4), (13, 4), (3, 8), (100, 7)])
def test_an_epoch_covers_every_sample_once(count: int, size: int) -> None:
    batches = EpochBatchSampler(count, size, seed=1)
    found = indices(batches)
    assert sorted(chain.from_iterable(found)) == list(range(count))
    assert len(found) == len(batches) == batches.batches_per_epoch == -(-count // size)
    assert all(len(batch) == size for batch in found[:-1])


@pytest.mark.parametrize(
    "count, size, world", [(12, 4, 2), (13, 5, 2), (14, 6, 3), (20, 7, 3), (13, 4, 2), (14, 4, 3), (5, 4, 3)]
)
def test_processes_together_are_one_process(count: int, size: int, world: int) -> None:
    one = indices(EpochBatchSampler(count, size, seed=3, epoch=2))
    shares = [indices(EpochBatchSampler(count, size, seed=3, epoch=2, rank=rank, world=world)) for rank in range(world)]
    together = [list(chain.from_iterable(parts)) for parts in zip(*shares, strict=True)]
    joined = 0 < count % size < world  # the rest is too small to share, so it goes with the batch before it
    assert together == ([*one[:-2], one[-2] + one[-1]] if joined else one)
    assert sorted(chain.from_iterable(together)) == list(range(count))
    for parts in zip(*shares, strict=True):
        lengths = [len(part) for part in parts]
        assert min(lengths) >= 1
        assert max(lengths) - min(lengths) <= 1


def test_resuming_is_skipping_and_epochs_differ() -> None:
    batches = EpochBatchSampler(20, 3, seed=0, epoch=1)
    whole = list(batches)
    batches.set_epoch(1, start_batch=4)
    assert list(batches) == whole[4:]
    assert len(batches) == 3
    assert list(EpochBatchSampler(20, 3, seed=0, epoch=1, start_batch=4)) == whole[4:]
    batches.set_epoch(1, start_batch=7)
    assert list(batches) == []
    assert len(batches) == 0
    batches.set_epoch(2)
    assert [load.epoch for batch in batches for load in batch] == [2] * 20
    assert indices(batches) != [[load.group[0] for load in batch] for batch in whole]
    assert indices(EpochBatchSampler(20, 3, seed=9, epoch=2)) != indices(batches)


def test_impossible_shares_are_refused() -> None:
    for arguments in (
        {"count": 8, "batch_size": 2, "world": 3},
        {"count": 2, "batch_size": 4, "world": 3},
        {"count": 8, "batch_size": 4, "world": 2, "rank": 2},
    ):
        with pytest.raises(ConfigError):
            EpochBatchSampler(seed=0, **arguments)
    with pytest.raises(ConfigError):
        SequentialBatchSampler(3, 0)


def test_ordered_batches() -> None:
    assert list(SequentialBatchSampler(5, 2)) == [[0, 1], [2, 3], [4]]
    shares = [list(SequentialBatchSampler(7, 2, rank=rank, world=3)) for rank in range(3)]
    assert shares == [[[0, 1]], [[2, 3]], [[4, 5], [6]]]
    assert list(SequentialBatchSampler(1, 2, rank=0, world=2)) == []
    assert len(SequentialBatchSampler(1, 2, rank=0, world=2)) == 0


@pytest.fixture
def split(coco: Path) -> RetrievalSplit:
    return load_retrieval(coco / "coco_karpathy_train.json", DataConfig(), "train")


def loader(split: RetrievalSplit, workers: int = 0, on_error: Any = "raise", **settings: Any) -> TrainLoader:
    settings = {"size": 24, "batch_size": 5, "seed": 4, **settings}
    return train_loader(split, DataConfig(workers=workers, on_error=on_error), **settings)


def test_pictures_are_augmented_as_the_config_says(split: RetrievalSplit) -> None:
    config = DataConfig(scale=(0.2, 0.9), flip=False, augment=False, workers=0)
    shown = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "bilinear")
    made = train_loader(split, config, size=64, batch_size=2, seed=0, normalisation=shown)
    rows: Any = made._loader.dataset
    assert rows.transform == TrainTransform(64, (0.2, 0.9), False, False, shown)
    measured: Any = visual_loader(split, config, size=64, batch_size=2, normalisation=shown)._loader.dataset
    assert measured.transform == EvaluationTransform(64, shown.mean, shown.std, "bilinear")


def same(one: Batch, other: Batch) -> bool:
    return (
        torch.equal(one.frames, other.frames)
        and one.captions == other.captions
        and torch.equal(one.ids, other.ids)
        and torch.equal(one.sample_ids, other.sample_ids)
        and torch.equal(one.rows, other.rows)
    )


def test_a_training_batch(split: RetrievalSplit) -> None:
    batches = list(loader(split))
    assert [len(batch) for batch in batches] == [5, 5, 2]
    first = batches[0]
    assert first.frames.shape == (5, 1, 3, 24, 24)
    assert first.frames.dtype == torch.float32
    assert first.ids.dtype == first.sample_ids.dtype == torch.int64
    assert first.rows.tolist() == list(range(5))
    assert first.captions == [split.texts[row] for row in first.sample_ids]
    assert first.ids.tolist() == [split.text_visual[row] for row in first.sample_ids]
    assert first.to("cpu").captions == first.captions
    assert sorted(torch.cat([batch.sample_ids for batch in batches]).tolist()) == list(range(12))


def test_workers_do_not_change_the_augmentation_of_any_epoch(split: RetrievalSplit) -> None:
    alone, helped = loader(split), loader(split, workers=2)
    previous: list[Batch] = []
    for epoch, start in ((0, 0), (1, 0), (1, 2), (0, 0)):
        alone.set_epoch(epoch, start)
        helped.set_epoch(epoch, start)
        ours, theirs = list(alone), list(helped)
        assert len(ours) == len(alone) == 3 - start
        assert all(same(a, b) for a, b in zip(ours, theirs, strict=True))
        assert not any(same(a, b) for a in ours for b in previous) or (epoch, start) == (1, 2)
        previous = ours
    assert helped._loader.num_workers == _worker_count(2, 3)


def test_workers_can_be_started_afresh(split: RetrievalSplit) -> None:
    batches = loader(split)
    fetch = pickle.loads(pickle.dumps((batches._loader.dataset, batches._loader.collate_fn)))
    assert same(fetch[1]([fetch[0][key] for key in next(iter(batches.batches))]).batch, next(iter(batches)))


def test_two_processes_see_what_one_sees(split: RetrievalSplit) -> None:
    ranks = [list(loader(split, rank=rank, world=2)) for rank in range(2)]
    for whole, left, right in zip(loader(split), *ranks, strict=True):
        assert torch.equal(whole.frames, torch.cat([left.frames, right.frames]))
        assert whole.captions == left.captions + right.captions


def test_resuming_does_not_load_earlier_batches(split: RetrievalSplit) -> None:
    whole = list(loader(split))
    for image in {int(image) for batch in whole[:2] for image in batch.ids} - {int(image) for image in whole[2].ids}:
        split.visuals[image].unlink()  # type: ignore[union-attr]
    assert same(next(iter(loader(split, start_batch=2))), whole[2])


def test_loading_does_not_use_the_global_generator(split: RetrievalSplit) -> None:
    state = torch.get_rng_state()
    list(loader(split)), list(loader(split, workers=1))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_picture_is_named_in_one_line(split: RetrievalSplit, workers: int) -> None:
    Path(str(split.visuals[2])).write_bytes(b"broken")
    with pytest.raises(DataError) as error:
        list(loader(split, workers))
    # The middle of a long message is left out, by how long the path of the test's folder is.
    assert str(error.value).startswith(f"{split.origins[2]}: picture {split.visuals[2]}"[:220])
    assert str(error.value).endswith("e read (not a known picture format): replace it, or set data.on_error to skip")
    assert not active_children()  # no worker is left to be timed out
    assert "\n" not in str(error.value)


def test_a_broken_picture_is_replaced_by_the_next_sample_and_counted_once(split: RetrievalSplit) -> None:
    sound = {int(row): batch for batch in loader(split) for row in batch.sample_ids}
    Path(str(split.visuals[5])).write_bytes(b"broken")
    Path(str(split.visuals[0])).unlink()
    runs = []
    for workers in (0, 2):
        batches = loader(split, workers, on_error="skip")
        runs.append(list(batches))
        list(batches)
        assert batches.skipped == {"corrupt picture": 1, "missing picture": 1}
    assert all(same(a, b) for a, b in zip(*runs, strict=True))
    rows = torch.cat([batch.sample_ids for batch in runs[0]]).tolist()
    assert sorted(rows) == [2, 2, 2, 2, 2, 3, 4, 5, 6, 7, 8, 9]  # the rows of pictures 5 and 0 all lead to row 2
    for batch in runs[0]:
        assert batch.captions == [split.texts[row] for row in batch.sample_ids]
        for place, row in enumerate(batch.sample_ids.tolist()):
            before = sound[row]
            assert torch.equal(batch.frames[place], before.frames[before.sample_ids.tolist().index(row)])


@pytest.mark.parametrize("workers", [0, 1])
def test_no_readable_picture_at_all_is_an_error(split: RetrievalSplit, workers: int) -> None:
    for image in split.visuals:
        Path(str(image)).unlink()
    with pytest.raises(DataError, match=r"visuals cannot be read; the last: .* does not exist"):
        list(loader(split, workers, on_error="skip"))


@pytest.mark.parametrize("workers", [0, 2])
def test_evaluation_pictures(coco: Path, workers: int) -> None:
    split = load_retrieval(coco / "coco_karpathy_val.json", DataConfig(), "val")
    config = DataConfig(workers=workers)
    batches = list(visual_loader(split, config, size=16, batch_size=2))
    assert [batch.ids.tolist() for batch in batches] == [[0, 1], [2]]
    assert batches[0].captions == []
    assert [batch.rows.tolist() for batch in batches] == [[0, 1], [0]]
    expected = torch.stack([EvaluationTransform(16)(load_picture(image)) for image in split.visuals])
    assert torch.equal(torch.cat([batch.frames for batch in batches])[:, 0], expected)
    ranks = [list(visual_loader(split, config, size=16, batch_size=2, rank=rank, world=2)) for rank in range(2)]
    assert [[batch.ids.tolist() for batch in rank] for rank in ranks] == [[[0]], [[1, 2]]]
    Path(str(split.visuals[1])).write_bytes(b"")
    with pytest.raises(DataError, match=r"val\.json\[1\]\.caption\[0\]: picture .*t be read \(it is empty"):
        list(visual_loader(split, config, size=16, batch_size=2))


def test_own_pictures_of_any_size_train(write: Write) -> None:
    for index, (width, height) in enumerate([(1, 1), (200, 3), (3, 200), (64, 64)]):
        write(f"{index}.png", picture(index, width, height))
    file = write("own.jsonl", "".join(f'{{"image": "{n}.png", "caption": "number {n}"}}\n' for n in range(4)))
    (batch,) = loader(load_retrieval(file, DataConfig(), "train"), batch_size=4)
    assert batch.frames.shape == (4, 1, 3, 24, 24)
    assert batch.frames.isfinite().all()


@pytest.mark.parametrize("training", [True, False])
def test_a_killed_worker_is_one_line_and_no_hang(
    split: RetrievalSplit, monkeypatch: pytest.MonkeyPatch, training: bool
) -> None:
    def kill() -> None:
        os.kill(active_children()[0].pid or 0, signal.SIGKILL)

    monkeypatch.setattr(samples, "load_frames", lambda *_: time.sleep(3))
    config = DataConfig(workers=2)
    fetching = loader(split, 2) if training else visual_loader(split, config, size=16, batch_size=2)
    timer = threading.Timer(0.5, kill)
    timer.start()
    start = time.monotonic()
    try:
        with pytest.raises(DataError, match=r"a process that loads data .*; most likely the memory was full: set data"):
            list(fetching)
        assert time.monotonic() - start < 30
        assert not active_children()
    finally:
        timer.join()
        for child in active_children():
            child.kill()


@pytest.mark.parametrize("training", [True, False])
def test_a_worker_that_is_killed_while_others_start_leaves_none_behind(
    split: RetrievalSplit, monkeypatch: pytest.MonkeyPatch, training: bool
) -> None:
    def killed(self: Any, *_: Any, **__: Any) -> None:  # what torch calls when all have been started
        os.kill(self._workers[0].pid, signal.SIGKILL)
        time.sleep(20)

    monkeypatch.setattr(dataloader._MultiProcessingDataLoaderIter, "_reset", killed)
    config = DataConfig(workers=2)
    fetching = loader(split, 2) if training else visual_loader(split, config, size=16, batch_size=2)
    with pytest.raises(DataError, match=r"a process that loads data .* memory was full: set data") as raised:
        list(fetching)
    assert raised.tb  # the error, which keeps what its traceback refers to, is still there
    left = active_children()
    for child in left:
        child.kill()
    assert not left


def test_a_worker_lost_in_the_middle_of_a_step_is_one_line_too() -> None:
    """Torch's signal handler raises wherever the main process stands."""
    lost = RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. ")
    assert "set data.workers lower" in (user_message(lost) or "")
    small = RuntimeError("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that ...")
    assert "/dev/shm" in (user_message(small) or "")
    assert user_message(RuntimeError("something else")) is None


@pytest.mark.parametrize("frames, eval_frames", [(-1, 0), (0, 0), (1, 100_000), (100_000, 0)])
def test_numbers_of_frames_are_checked_before_anything_is_loaded(
    split: RetrievalSplit, frames: int, eval_frames: int
) -> None:
    config = DataConfig(workers=0)
    config.frames, config.eval_frames = frames, eval_frames  # past the config's own check
    with pytest.raises(ConfigError, match=r"data\.(eval_)?frames is -?\d+: a clip has at least 1 frame"):
        visual_loader(split, config, size=16, batch_size=2)


def test_clips_of_few_frames_are_counted_once_a_split(
    write: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Twice the same picture is shown to the model then, which costs as much as two."""
    rows = []
    for name, count in (("long", 8), ("short", 3), ("shorter", 2), ("still", 1)):
        moving = [picture(n, 32, 32) for n in range(count)]
        moving[0].save(tmp_path / f"{name}.webp", save_all=True, append_images=moving[1:], duration=40)
        rows.append({"video": f"{name}.webp", "caption": name})
    split = load_retrieval(write("own.json", rows), DataConfig(), "test")
    caplog.set_level("WARNING")
    for workers in (0, 2):
        for _ in range(2):
            list(visual_loader(split, DataConfig(frames=4, workers=workers), size=16, batch_size=2))
    said = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert said == ["test: 2 of 4 videos have fewer frames than data.frames, so frames are repeated"]
    caplog.clear()
    training = load_retrieval(write("own.json", rows), DataConfig(), "train")
    batches = train_loader(training, DataConfig(frames=8, workers=0), size=16, batch_size=2, seed=0)
    list(batches), list(batches)
    assert [record.getMessage()[:19] for record in caplog.records] == ["train: 2 of 4 video"]
    caplog.clear()
    one_frame = load_retrieval(write("own.json", rows), DataConfig(), "val")
    list(visual_loader(one_frame, DataConfig(), size=16, batch_size=2))
    assert not caplog.records
