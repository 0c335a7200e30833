"""One thread that computes: it takes all requests that wait, whatever their adapters, as one batch."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

JobT = TypeVar("JobT")


class BusyError(RuntimeError):
    """Too many requests wait already."""


class Batcher(Generic[JobT]):
    """Runs jobs in batches, in the order in which they came.

    A batch is what waits when the last one is done: nothing is waited for, and the busier the server, the larger.

    Args:
        run: of a batch; gives a result for each job, or an error that is that job's alone.
        most: jobs of a batch.
        waiting: jobs that may wait; another is refused.
    """

    def __init__(self, run: Callable[[Sequence[JobT]], Sequence[object]], most: int = 16, waiting: int = 64) -> None:
        self._run, self._most, self._limit = run, most, waiting
        self._jobs: deque[tuple[JobT, Future[Any]]] = deque()
        self._there = threading.Condition()
        self._closed = False
        self.sizes: list[int] = []  # of the batches, the last thousand
        self._thread = threading.Thread(target=self._work, name="uniadapter-batches", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Jobs that no batch has taken yet."""
        return len(self._jobs)

    def submit(self, job: JobT) -> Future[Any]:
        """Add a job; cancelling the future before its batch begins drops it.

        Raises:
            BusyError: too many wait.
        """
        done: Future[Any] = Future()
        with self._there:
            if self._closed or len(self._jobs) >= self._limit:
                raise BusyError(f"{len(self._jobs)} requests wait already")
            self._jobs.append((job, done))
            self._there.notify()
        return done

    def close(self) -> None:
        """End the thread after its batch; jobs that wait are cancelled."""
        with self._there:
            self._closed = True
            self._there.notify()
        self._thread.join()
        for _, done in self._jobs:
            done.cancel()

    def _work(self) -> None:
        while True:
            with self._there:
                self._there.wait_for(lambda: self._jobs or self._closed)
                if self._closed:
                    return
                taken = [self._jobs.popleft() for _ in range(min(self._most, len(self._jobs)))]
            running = [(job, done) for job, done in taken if done.set_running_or_notify_cancel()]
            if running:
                self._finish(running)

    def _finish(self, running: list[tuple[JobT, Future[Any]]]) -> None:
        self.sizes = [*self.sizes[-999:], len(running)]
        try:
            results = self._run([job for job, _ in running])
        except BaseException as error:
            results = [error] * len(running)
        for (_, done), result in zip(running, results, strict=True):
            if isinstance(result, BaseException):
                done.set_exception(result)
            else:
                done.set_result(result)
