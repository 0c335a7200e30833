"""Batches as the main process receives them from a DataLoader: errors raised or counted, workers that hang replaced.

A visual that cannot be read does not raise in the worker: the error is returned with the batch, and the main process
raises it in one line or, with `on_error: skip`, counts it; the next readable sample then takes its place.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch.utils.data import DataLoader

from uniadapter.data.batches import Batch, EpochBatchSampler
from uniadapter.data.layouts.records import DataError, ErrorPolicy
from uniadapter.data.shards.places import LostShard, lost_shards
from uniadapter.data.splits import TrainingSet
from uniadapter.data.worker import HungWorkers, Watchdog, begun_iterator, end_workers
from uniadapter.errors import worker_failure, worker_failure_message

logger = logging.getLogger(__name__)


@dataclass
class WorkerResult:
    """A worker's result for one batch.

    Args:
        batch: None if a visual could not be loaded nor replaced.
        errors: of the visuals that could not be loaded.
        short: indices of the videos with fewer frames than requested.
    """

    batch: Batch | None
    errors: list[DataError]
    short: list[int]

    def pin_memory(self) -> WorkerResult:
        """A copy with the batch in page-locked memory."""
        return WorkerResult(self.batch.pin_memory() if self.batch else None, self.errors, self.short)


class VisualLoader:
    """Batches of a DataLoader; the workers' errors are raised or counted here, in the main process.

    Args:
        loader: yields `WorkerResult`.
        skip: count errors instead of raising them; a batch that could not be filled raises nevertheless.
        split: what is loaded, for the log.
        timeout: seconds to wait for a batch; 0 means forever.
        most_lost: shards that may be left out.

    Attributes:
        left_out: what was left out on this process so far, as errors say, with the kinds of these.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        skip: bool = False,
        split: TrainingSet | None = None,
        timeout: float = 0,
        most_lost: int = 0,
    ) -> None:
        self._loader, self._split, self._timeout = loader, split, timeout
        self._short: set[int] = set()
        self._policy = ErrorPolicy("skip" if skip else "raise")
        self.left_out: dict[str, str] = {}
        self._most_lost = most_lost

    @property
    def skipped(self) -> Counter[str]:
        """Kind of error to the number of distinct visuals and shards left out so far."""
        return Counter(self.left_out.values())

    @property
    def lost(self) -> list[str]:
        """The shards that were left out, as their errors say."""
        return lost_shards(self.left_out)

    def __len__(self) -> int:
        """Batches of the next iteration."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        """The batches.

        Raises:
            DataError: a visual cannot be read, or a worker was killed or hangs.
        """
        fetches: Any = None
        dog = Watchdog(self._timeout)
        try:
            with dog.watching(self._loader._iterator):  # workers that have been there before answer first
                fetches = iter(self._loader)
            while (fetched := _next(fetches, dog)) is not None:
                self._handle_errors(fetched)
                yield cast(Batch, fetched.batch)
        except Exception as error:
            # Now: the traceback keeps a reference to the workers, which would end after a timeout, or never.
            end_workers(begun_iterator(error) if fetches is None else fetches)
            fetches = None
            self.close()
            if not dog.fired:
                lost = worker_failure(error)
                if lost is None and isinstance(error, (ConnectionError, EOFError)):  # before torch noticed its end
                    lost = worker_failure_message("is killed or exited unexpectedly")
                if lost is None:
                    raise
                raise DataError(lost, "lost worker") from None
        if dog.fired:  # outside of the block, so that the error does not carry that of the killed worker
            raise HungWorkers(self._timeout)
        if self._short and self._split is not None and self._split.first_time("clips of few frames"):
            message = "%s: %d of %d %s have fewer frames than data.frames, so frames are repeated"
            logger.warning(message, self._split.name, len(self._short), self._split.visual_count, self._split.noun)

    def remember(self, left_out: Mapping[str, str]) -> None:
        """Count what was left out before a run was resumed."""
        self.left_out |= left_out

    def close(self) -> None:
        """End the workers, if there are any, even if they hang; the next iteration starts new ones."""
        end_workers(self._loader._iterator)
        self._loader._iterator = None

    def _handle_errors(self, fetched: WorkerResult) -> None:
        """Raise or count the errors of a batch, each visual once."""
        for error in fetched.errors:
            if str(error) not in self.left_out:
                self._policy.report(error)
                self.left_out[str(error)] = error.kind
                if isinstance(error, LostShard):
                    self._leave_out(error)
        self._short.update(fetched.short)
        if fetched.batch is None:
            count, last = len(fetched.errors), fetched.errors[-1]
            raise DataError(f"{count} visuals cannot be read; the last: {last}", "lost data")

    def _leave_out(self, error: LostShard) -> None:
        """Count a shard, of which there may be so many."""
        if len(self.lost) > self._most_lost:
            raise LostShard(
                f"{len(self.lost)} shards cannot be read, and data.most_lost_shards is {self._most_lost}; the last: "
                f"{error}"
            )
        logger.warning("shard %d of at most %d is left out: %s", len(self.lost), self._most_lost, error)


def _next(fetches: Iterator[WorkerResult], dog: Watchdog) -> WorkerResult | None:
    """The next result; None at the end."""
    with dog.watching(fetches):
        fetched = next(fetches, None)
    if dog.fired:  # and the batch has come after all: its workers are gone
        raise ConnectionError
    return fetched


class TrainLoader(VisualLoader):
    """Training batches, one epoch per iteration; its workers are persistent.

    Args:
        loader: yields `WorkerResult`.
        batches: its sampler.
        skip: as for `VisualLoader`.
        split: as for `VisualLoader`.
        timeout: as for `VisualLoader`.
        most_lost: as for `VisualLoader`.
    """

    def __init__(
        self,
        loader: DataLoader[Any],
        batches: EpochBatchSampler,
        skip: bool,
        split: TrainingSet,
        timeout: float,
        most_lost: int = 0,
    ) -> None:
        super().__init__(loader, skip, split, timeout, most_lost)
        self.batches, self.split = batches, split

    def __iter__(self) -> Iterator[Batch]:
        """The batches; if the workers hang, new ones go on with the same batch, once for a batch."""
        first, loaded, again = self.batches.start_batch, 0, -1
        while True:
            try:
                for batch in super().__iter__():
                    loaded += 1
                    yield batch
                return
            except HungWorkers as error:
                if again == loaded:
                    raise
                again = loaded
                logger.warning("%s; new processes load this batch once more", error)
                self.batches.set_epoch(self.batches.epoch, first + loaded)

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None:
        """Set the next iteration's epoch and first batch; earlier batches are not loaded."""
        self.batches.set_epoch(epoch, start_batch)

    def visual_id(self, visual: int) -> str:
        """The id of a visual of the split, by its index."""
        return str(self.split.visual_name(visual)[0])

    def keep_batches(self, batches: int) -> None:
        """Divide every epoch into so many batches, see `EpochBatchSampler.keep_batches`."""
        self.batches.keep_batches(batches)
