"""What waits is one batch; a full queue is refused; an error is one job's."""

from __future__ import annotations

import threading
from collections.abc import Sequence

import pytest

from uniadapter.serve.batching import Batcher, BusyError


def test_what_waits_is_one_batch() -> None:
    begin, batches = threading.Event(), list[list[int]]()

    def run(jobs: Sequence[int]) -> list[object]:
        begin.wait(10)
        batches.append(list(jobs))
        return [ValueError("seven") if job == 7 else 10 * job for job in jobs]

    batcher = Batcher(run, most=4, waiting=6)
    first = batcher.submit(0)
    while batcher.waiting:
        pass
    futures = [batcher.submit(job) for job in (1, 2, 7, 3, 4, 5)]
    with pytest.raises(BusyError, match=r"6 requests wait already"):
        batcher.submit(6)
    assert futures[1].cancel()
    begin.set()
    assert first.result(10) == 0
    assert [future.result(10) for future in (futures[0], *futures[3:])] == [10, 30, 40, 50]
    with pytest.raises(ValueError, match="seven"):
        futures[2].result(10)
    assert batches == [[0], [1, 7, 3], [4, 5]]
    assert batcher.sizes == [1, 3, 2]
    batcher.close()
    with pytest.raises(BusyError):
        batcher.submit(8)


def test_a_fault_of_the_whole_batch_is_told_to_all_and_the_thread_goes_on() -> None:
    def run(jobs: Sequence[int]) -> list[object]:
        if 1 in jobs:
            raise MemoryError("full")
        return list(jobs)

    batcher = Batcher(run)
    with pytest.raises(MemoryError):
        batcher.submit(1).result(10)
    assert batcher.submit(2).result(10) == 2
    batcher.close()
