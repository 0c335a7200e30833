"""Consecutive samples that share a visual: their order, their pixels, and visuals that cannot be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from data_pictures import picture
from torch import Tensor

from uniadapter.config import ConfigError, DataConfig, RunConfig
from uniadapter.data.batches import Batch, EpochBatchSampler, LoadRequest, shard_bounds
from uniadapter.data.captions import load_retrieval
from uniadapter.data.loaders import TrainLoader, train_loader
from uniadapter.data.splits import RetrievalSplit
from uniadapter.processes.seeds import permutation

OWNERS = [n % 7 if n % 3 else 7 + n % 2 for n in range(53)]  # nine visuals of two to nine samples, all mixed
Write = Callable[[str, Any], Path]


def loads(**settings: Any) -> list[list[LoadRequest]]:
    return list(
        EpochBatchSampler(53, **{"batch_size": 10, "seed": 3, "sample_visuals": OWNERS, "together": 4, **settings})
    )


def rows(batches: list[list[LoadRequest]]) -> list[list[int]]:
    return [[row for load in batch for row in load.group[load.start : load.stop]] for batch in batches]


@pytest.mark.parametrize("rank, world", [(0, 1), (1, 3)])
@pytest.mark.parametrize("owners", [None, OWNERS])
def test_one_at_a_time_is_the_permutation_of_all_samples(owners: list[int] | None, rank: int, world: int) -> None:
    for epoch in (0, 5):
        order = permutation(53, 3, 0, epoch)
        expected = []
        for begin in range(0, 53, 10):
            indices = order[begin : begin + 10]
            low, high = shard_bounds(len(indices), rank, world)
            expected.append([LoadRequest(epoch, (index,), 0, 1) for index in indices[low:high]])
        assert loads(together=1, sample_visuals=owners, epoch=epoch, rank=rank, world=world) == expected


def test_groups_are_of_one_visual_and_cover_every_sample_once() -> None:
    found = loads()
    assert [len(batch) for batch in rows(found)] == [10, 10, 10, 10, 10, 3]
    assert sorted(chain.from_iterable(rows(found))) == list(range(53))
    groups = list(dict.fromkeys(load.group for load in chain.from_iterable(found)))
    assert list(chain.from_iterable(groups)) == list(chain.from_iterable(rows(found)))  # each group in one place
    assert all(len({OWNERS[row] for row in group}) == 1 for group in groups)
    sizes = Counter(OWNERS)
    for visual, size in sizes.items():  # no more groups than must be
        own = sorted(len(group) for group in groups if OWNERS[group[0]] == visual)
        assert own == sorted([4] * (size // 4) + [size % 4] * (size % 4 > 0))
    assert rows(loads()) == rows(found)
    others = [rows(loads(epoch=1)), rows(loads(seed=4)), rows(loads(together=3)), rows(loads(together=1))]
    assert all(other != rows(found) for other in others)
    again = {load.group for load in chain.from_iterable(loads(epoch=1))}
    assert {frozenset(group) for group in again} != {frozenset(group) for group in groups}  # dealt out anew


def test_groups_are_shuffled() -> None:
    owners = [n // 5 for n in range(500)] + [100 + n for n in range(100)]  # groups of four, of one, and visuals of one
    batches = EpochBatchSampler(600, 600, seed=0, sample_visuals=owners, together=4)
    places: list[list[float]] = [[], [], []]
    neighbours = 0
    for epoch in range(20):
        batches.set_epoch(epoch)
        (batch,) = batches
        shown = [owners[load.group[0]] for load in batch]
        neighbours += sum(one == other for one, other in pairwise(shown))
        for place, (load, owner) in enumerate(zip(batch, shown, strict=True)):
            places[2 if owner >= 100 else len(load.group) == 4].append(place / 300)
    assert [sum(one) / len(one) for one in places] == pytest.approx([0.5] * 3, abs=0.03)
    assert neighbours < 60  # of 2000 visuals with two groups


@pytest.mark.parametrize("size, world", [(10, 2), (9, 2), (13, 3), (53, 4), (1, 1), (3, 3)])
def test_processes_share_out_the_samples_of_one(size: int, world: int) -> None:
    one = rows(loads(batch_size=size))
    shares = [rows(loads(batch_size=size, rank=rank, world=world)) for rank in range(world)]
    joined = [list(chain.from_iterable(parts)) for parts in zip(*shares, strict=True)]
    assert joined == ([*one[:-2], one[-2] + one[-1]] if 0 < 53 % size < world else one)
    for parts in zip(*shares, strict=True):
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert loads(batch_size=size, start_batch=2) == loads(batch_size=size)[2:]


@pytest.fixture
def split(write: Write) -> RetrievalSplit:
    """Six pictures; three captions of each stand behind one another, two more of each further below."""
    names = [f"{index}.png" for index in range(6)]
    for index, name in enumerate(names):
        write(name, picture(index, 64, 48))
    said = [(name, n) for name in names for n in range(3)] + [(name, n) for n in (3, 4) for name in names]
    file = write("train.json", [{"image": name, "caption": f"{name[0]} take {n}"} for name, n in said])
    return load_retrieval(file, DataConfig(), "train")


def loader(split: RetrievalSplit, together: int = 4, on_error: Any = "raise", **settings: Any) -> TrainLoader:
    config = DataConfig(workers=settings.pop("workers", 0), on_error=on_error, together=together)
    return train_loader(split, config, **{"size": 24, "batch_size": 8, "seed": 4, **settings})


def pixels(batch: Batch) -> Tensor:
    """[B, T, 3, H, W]: each sample's own."""
    return batch.frames[batch.rows]


def same(one: Batch, other: Batch) -> bool:
    fields = ("frames", "ids", "sample_ids", "rows")
    return one.captions == other.captions and all(torch.equal(getattr(one, f), getattr(other, f)) for f in fields)


def test_a_batch_holds_a_shared_visual_once(split: RetrievalSplit) -> None:
    batches = list(loader(split))
    assert [len(batch) for batch in batches] == [8, 8, 8, 6]
    assert sum(len(batch.frames) for batch in batches) < 20
    assert sorted(torch.cat([batch.sample_ids for batch in batches]).tolist()) == list(range(30))
    for batch in batches:
        assert batch.rows.dtype == torch.int64
        assert batch.rows.unique_consecutive().tolist() == list(range(len(batch.frames)))
        assert batch.captions == [split.texts[row] for row in batch.sample_ids]
        assert batch.ids.tolist() == [split.text_visual[row] for row in batch.sample_ids]
        moved = batch.to("cpu")
        assert same(moved, batch)
    assert all(same(a, b) for a, b in zip(batches, loader(split, workers=2), strict=True))


def test_the_augmentation_depends_on_the_first_sample_of_a_group(split: RetrievalSplit) -> None:
    alone = {}
    for batch in loader(split, together=1):
        assert batch.rows.tolist() == list(range(len(batch)))
        alone |= dict(zip(batch.sample_ids.tolist(), batch.frames, strict=True))
    shared = loader(split)
    for batch, asked in zip(shared, shared.batches, strict=True):
        for frames, load in zip(batch.frames, asked, strict=True):
            assert torch.equal(frames, alone[load.group[0]])


@pytest.mark.parametrize("world", [2, 3])
def test_processes_see_the_pixels_of_one(split: RetrievalSplit, world: int) -> None:
    ranks = [loader(split, rank=rank, world=world) for rank in range(world)]
    cut = [load for rank in ranks for batch in rank.batches for load in batch if load.start]
    assert cut  # or nothing is tested
    for whole, *parts in zip(loader(split), *ranks, strict=True):
        assert torch.equal(pixels(whole), torch.cat([pixels(part) for part in parts]))
        assert whole.sample_ids.tolist() == torch.cat([part.sample_ids for part in parts]).tolist()
        assert whole.captions == [caption for part in parts for caption in part.captions]


def test_batches_of_any_size_show_the_same(split: RetrievalSplit) -> None:
    found = [torch.cat([pixels(batch) for batch in loader(split, batch_size=size)]) for size in (30, 7, 1)]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_resuming_gives_the_batches_that_were_left(split: RetrievalSplit) -> None:
    for epoch in (0, 1):
        whole = list(loader(split, epoch=epoch))
        rest = list(loader(split, epoch=epoch, start_batch=2))
        assert len(rest) == 2
        assert all(same(a, b) for a, b in zip(rest, whole[2:], strict=True))


def test_a_lost_visual_gives_its_places_to_the_samples_that_follow(split: RetrievalSplit) -> None:
    sound, alone = list(loader(split)), {}
    for batch in loader(split, together=1):
        alone |= dict(zip(batch.sample_ids.tolist(), batch.frames, strict=True))
    Path(str(split.visuals[2])).write_bytes(b"broken")
    Path(str(split.visuals[3])).unlink()
    batches = loader(split, on_error="skip")
    found = list(batches)
    assert batches.skipped == {"corrupt picture": 1, "missing picture": 1}
    assert all(same(a, b) for a, b in zip(found, loader(split, on_error="skip", workers=2), strict=True))
    expected: dict[int, int] = {}  # what takes the place of each lost sample
    for group in {
        load.group for batch in batches.batches for load in batch if split.text_visual[load.group[0]] in (2, 3)
    }:
        after = [(group[0] + step) % 30 for step in range(1, 30)]
        expected |= dict(zip(group, [row for row in after if split.text_visual[row] not in (2, 3)], strict=False))
    assert len(expected) == 10
    for before, now in zip(sound, found, strict=True):
        ids = [expected.get(row, row) for row in before.sample_ids.tolist()]
        assert now.sample_ids.tolist() == ids
        assert now.ids.tolist() == [split.text_visual[row] for row in ids]
        assert now.captions == [split.texts[row] for row in ids]
        for place, (old, new) in enumerate(zip(before.sample_ids.tolist(), ids, strict=True)):
            assert torch.equal(pixels(now)[place], pixels(before)[place] if old == new else alone[new])
    for world in (2, 3):
        ranks = [loader(split, on_error="skip", rank=rank, world=world) for rank in range(world)]
        for whole, *parts in zip(found, *ranks, strict=True):
            assert torch.equal(pixels(whole), torch.cat([pixels(part) for part in parts]))
            assert whole.sample_ids.tolist() == torch.cat([part.sample_ids for part in parts]).tolist()


def test_too_few_readable_samples_are_repeated(write: Write) -> None:
    for index in range(2):
        write(f"{index}.png", picture(index))
    rows = [{"image": "0.png", "caption": "here"}] + [{"image": "1.png", "caption": f"gone {n}"} for n in range(4)]
    split = load_retrieval(write("train.json", rows), DataConfig(), "train")
    Path(str(split.visuals[1])).unlink()
    (batch,) = loader(split, on_error="skip")
    assert batch.captions == ["here"] * 5
    assert batch.sample_ids.tolist() == [0] * 5


def test_shared_visuals_are_refused_for_retrieval() -> None:
    with pytest.raises(ConfigError, match=r"^data.together is 4: a retrieval batch needs distinct visuals"):
        RunConfig(data=DataConfig(together=4))
    RunConfig(task="vqa", data=DataConfig(together=4))
    RunConfig(task="caption", data=DataConfig(together=4))
