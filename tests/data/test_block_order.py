"""The order of an epoch over tar shards: every sample once, on any number of processes, after any resume."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pytest
from shard_files import SIZES, fake_index

from uniadapter.data.block_order import ShardBatchSampler, epoch_blocks, most_shards


def rows(batches: ShardBatchSampler) -> list[list[int]]:
    return [[row for load in batch for row in load.group[load.start : load.stop]] for batch in batches]


@pytest.mark.parametrize("buffer", [1, 10, 1000])
@pytest.mark.parametrize("size, texts", [(4, 1), (7, 3), (50, 2)])
def test_an_epoch_has_every_sample_once_on_any_number_of_processes(buffer: int, size: int, texts: int) -> None:
    index = fake_index(texts=texts)
    count = int(index.first_samples[-1])
    one = rows(ShardBatchSampler(index, size, 3, buffer=buffer, epoch=2))
    assert sorted(chain.from_iterable(one)) == list(range(count))
    assert rows(ShardBatchSampler(index, size, 3, buffer=buffer, epoch=2)) == one
    assert rows(ShardBatchSampler(index, size, 3, buffer=buffer, epoch=3)) != one
    for world in (2, 3):
        several = [ShardBatchSampler(index, size, 3, buffer=buffer, epoch=2, rank=k, world=world) for k in range(world)]
        for sampler in several:
            sampler.keep_batches(len(one)) if len(one[-1]) >= world else None
        together = [list(chain.from_iterable(parts)) for parts in zip(*map(rows, several), strict=True)]
        assert list(chain.from_iterable(together)) == list(chain.from_iterable(one))


@pytest.mark.parametrize("together", [1, 2])
def test_hard_negatives_of_a_block_share_its_batches(together: int) -> None:
    sizes = (12, 12, 12, 12, 12, 12)
    shards = [replace(one, groups=np.arange(12) // 2 + 1) for one in fake_index(sizes, texts=2).shards]
    shards = [replace(one, groups=one.groups + 100 * n) for n, one in enumerate(shards)]  # type: ignore[operator]
    index = replace(fake_index(), shards=tuple(shards))
    record = [int(index.first_records[n] + one) for n in range(6) for one in index.shards[n].record_numbers()]
    group = [one for n in range(6) for one in index.shards[n].groups.tolist()]  # type: ignore[union-attr]

    def met(share: float, **place: Any) -> tuple[float, list[list[int]]]:
        more = {"buffer": 30, "together": together, "hard_negatives": share, **place}
        found = rows(ShardBatchSampler(index, 7, 0, **more))
        beside = [
            any(group[record[a]] == group[record[b]] and record[a] != record[b] for b in batch)
            for batch in found for a in batch
        ]  # fmt: skip
        return sum(beside) / len(beside), found

    (few, _), (many, whole) = met(0.0), met(1.0)
    assert few + 0.2 < many
    assert sorted(chain.from_iterable(whole)) == list(range(len(record)))
    for start in (1, 5, 9):
        assert met(1.0, start_batch=start)[1] == whole[start:]


@pytest.mark.parametrize("together", [1, 2])
def test_a_resumed_epoch_goes_on_where_it_was(together: int) -> None:
    index = fake_index(texts=3)
    whole = rows(ShardBatchSampler(index, 6, 1, buffer=10, together=together))
    for start in range(len(whole) + 1):
        assert rows(ShardBatchSampler(index, 6, 1, buffer=10, together=together, start_batch=start)) == whole[start:]


def test_texts_of_a_record_follow_one_another_where_they_share_it() -> None:
    index = fake_index(texts=4)
    record = [
        int(index.first_records[shard] + one)
        for shard in range(len(SIZES)) for one in index.shards[shard].record_numbers()
    ]  # fmt: skip
    batches = list(ShardBatchSampler(index, 8, 0, buffer=20, together=2))
    groups = [load.group for batch in batches for load in batch]
    assert all(len({record[row] for row in group}) == 1 for group in groups)
    assert max(map(len, groups)) == 2
    assert sorted(row for load in set(chain.from_iterable(batches)) for row in load.group[load.start : load.stop]) == (
        list(range(len(record)))
    )


def test_blocks_mix_shards_and_hold_few() -> None:
    index = fake_index((100,) * 50)
    blocks = epoch_blocks(index, 350, seed=0, epoch=0)
    assert {len(one) for one in blocks.shards[:-1]} == {4}
    assert most_shards(index, 350) == 4
    assert sorted(chain.from_iterable(blocks.shards)) == list(range(50))
    order = list(chain.from_iterable(rows(ShardBatchSampler(index, 16, 0, buffer=350))))
    first = [row // 100 for row in order[:400]]
    assert len(set(first)) == 4
    assert all(first[:100].count(shard) > 10 for shard in set(first))  # mixed, not one after the other
