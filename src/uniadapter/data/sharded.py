"""Training on tar shards: `data.train: shards/train-{000000..000099}.tar`, a folder of them, or an address."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np

from uniadapter.config import ConfigError, DataConfig
from uniadapter.data.block_order import most_shards
from uniadapter.data.large_splits import LargeSplit, as_sample, text_reader
from uniadapter.data.layouts.records import ErrorPolicy
from uniadapter.data.media.images import FileContent
from uniadapter.data.shard_counting import count_shards, read_index
from uniadapter.data.shard_texts import record_row, visual_suffix
from uniadapter.data.shards.copies import LocalCopies
from uniadapter.data.shards.index import INDEX, ShardIndex
from uniadapter.data.shards.names import find_shards, list_shards, names_shards
from uniadapter.data.shards.places import is_address, join, read_file
from uniadapter.data.shards.shelf import Shelf
from uniadapter.data.splits import Sample
from uniadapter.errors import DataError
from uniadapter.files.messages import shortened
from uniadapter.processes.distributed import check_on_rank0, gather_list

logger = logging.getLogger(__name__)
ANSWERS = "answers.json"  # beside shards of questions: all answers, the most frequent first
_COPIES = 3  # blocks of shards that are kept on this disk: the last, this one, the next


class ShardedSplit(LargeSplit):
    """Records in tar shards; a sample is a text, its index its place in the order of the shards.

    Args:
        name: "train".
        index: of the shards.
        task: what is trained.
        config: `fields`, `max_words`, `shuffle_buffer` and `cache` are used.
    """

    def __init__(self, name: str, index: ShardIndex, task: str, config: DataConfig) -> None:
        super().__init__(name, index.holds, index.noun, index.digest)
        self.index, self.skipped = index, index.skipped
        self._texts = text_reader(task, config)
        block = most_shards(index, config.shuffle_buffer)
        self._copies = LocalCopies(config.cache, _COPIES * block, index.digest) if index.is_remote else None
        self._shelf = Shelf(index, self._copies, 2 * block + 1)
        self._fetching: threading.Thread | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_fetching": None}

    @property
    def samples(self) -> int:
        """Number of texts."""
        return int(self.index.first_samples[-1])

    @property
    def visual_count(self) -> int:
        """Number of records."""
        return int(self.index.first_records[-1])

    def sample(self, row: int) -> Sample:
        """The sample of a text.

        Raises:
            LostShard: its shard cannot be read.
            DataError: its record is not what the index says.
        """
        shard = self._shard_of(row)
        record, place = self.index.shards[shard].record_of(row - int(self.index.first_samples[shard]))
        origin = self._shelf.origin(shard, record)
        files = self._shelf.read(shard, record)
        suffix = visual_suffix(origin, files)
        texts = self._texts.read(origin, record_row(origin, files))
        each = self.index.shards[shard].texts
        said = 1 if each is None else int(each[record])
        if len(texts) != said:
            raise DataError(
                f"{origin} has {len(texts)} {self.holds}, and the index says {said}: write the index anew with "
                "`uniadapter shard --index_only`",
                "shard unlike its index",
            )
        source = FileContent(suffix, lambda: self._shelf.read(shard, record)[suffix])
        visual = int(self.index.first_records[shard]) + record
        return as_sample(visual, source, origin, texts[place], self.holds)

    def substitutes(self, row: int) -> Iterator[int]:
        """The samples after one, starting over at the end; from a shard that is lost at the same place of the next."""
        first, count = self.index.first_samples, len(self.index.shards)
        begun = self._shard_of(row)
        place = row - int(first[begun])
        for step in range(count):
            shard = (begun + step) % count
            size = int(first[shard + 1] - first[shard])
            for inside in range(size):
                if self._shelf.is_lost(shard):
                    break
                if step or inside:
                    yield int(first[shard]) + (place + inside) % size

    def visual_name(self, visual: int) -> tuple[str | int, str]:
        """The record of a visual, which is its id too."""
        shard = int(np.searchsorted(self.index.first_records, visual, "right")) - 1
        origin = self._shelf.origin(shard, visual - int(self.index.first_records[shard]))
        return origin.rpartition("/")[2], origin

    def first_samples(self) -> Iterator[Sample]:
        """The samples from the beginning on; those that cannot be read are left out."""
        for row in range(self.samples):
            with suppress(DataError):
                yield self.sample(row)

    def ahead(self, shards: Sequence[int]) -> None:
        """Fetch shards that will be needed soon, in the background."""
        if self._copies is None or (self._fetching is not None and self._fetching.is_alive()):
            return
        self._fetching = threading.Thread(target=self._fetch, args=(tuple(shards),), daemon=True)
        self._fetching.start()

    def _fetch(self, shards: Sequence[int]) -> None:
        for one in shards:
            self._shelf.prefetch(one)

    def close(self) -> None:
        """Remove the copies of shards that are elsewhere, unless the user has named a folder for them."""
        if self._copies is not None:
            self._copies.close()

    def _shard_of(self, row: int) -> int:
        return int(np.searchsorted(self.index.first_samples, row, "right")) - 1

    def _where(self) -> str:
        return f" in {len(self.index.shards):,} shards"


def load_shards(name: str, config: DataConfig, task: str, split: str = "train") -> ShardedSplit:
    """A training set in tar shards.

    Args:
        name: a pattern, a folder or a tar file, see `names_shards`.
        config: of the data.
        task: what is trained on it.
        split: its name.

    Raises:
        DataError: there are no shards, or none that can be used; with `on_error="raise"` also for the first bad record
            of shards without an index.
        ConfigError: a setting needs all rows at once.
    """
    found: list[ShardIndex] = []
    # One process reads, so that several do not read the same, and all have the same.
    check_on_rank0(lambda: found.append(open_index(name, config, task)))
    index = gather_list(found)[0]
    _check_groups(index, config)
    if config.max_train_visuals:
        index = index.first(config.max_train_visuals)
    result = ShardedSplit(split, index, task, config)
    logger.info("%s", result.summary())
    return result


def _check_groups(index: ShardIndex, config: DataConfig) -> None:
    """Raise `ConfigError` if hard negatives are asked for, and no record names a group."""
    if config.hard_negatives and all(shard.groups is None for shard in index.shards):
        field = config.fields.get("group", "group")
        raise ConfigError(
            f"data.hard_negatives is {config.hard_negatives:g}, but no record of {index.base[-120:]} has a field "
            f"{field!r}: give records that are hard negatives of each other the same one, or set it to 0"
        )


def listed_answers(name: str) -> list[str] | None:
    """The answers in the list beside a set of shards, the most frequent first; None if there is none.

    Raises:
        DataError: it is broken.
    """
    if not names_shards(name):
        return None
    where = join(find_shards(name)[0], ANSWERS)
    try:
        found = json.loads(read_file(where))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        found = None
    if not isinstance(found, list) or not found or not all(isinstance(one, str) for one in found):
        raise DataError(f"{shortened(where, 160)} is not a list of answers: write it anew", "not a list of answers")
    return found


def count_named(
    name: str,
    config: DataConfig,
    task: str,
    policy: ErrorPolicy,
    checksums: bool = False,
    listed: list[str] | None = None,
) -> ShardIndex:
    """The index of a set of shards by a pass over them, whatever index is beside them.

    Args:
        name: as for `load_shards`.
        config: `fields`, `max_words`, `cache` and `workers` are used.
        task: what will be trained on it.
        policy: handles records and shards that cannot be used.
        checksums: whether to hash the shards too.
        listed: the shards of a folder; None takes those that are there.

    Raises:
        DataError: as `load_shards`.
    """
    base, names = find_shards(name)
    names = names or listed or list_shards(base)
    workers = max(config.workers, 1)
    copies = LocalCopies(config.cache, 2 * workers, f"count-{os.getpid()}") if is_address(base) else None
    try:
        return count_shards(base, names, text_reader(task, config), policy, copies, workers, checksums)
    finally:
        if copies is not None:
            copies.close()


def open_index(name: str, config: DataConfig, task: str, split: str = "train") -> ShardIndex:
    """The index of a set of shards: the one beside them, or made by a pass over them.

    Raises:
        DataError: as `load_shards`; or the index is of another task or split.
    """
    base, names = find_shards(name)
    texts = text_reader(task, config)
    index = read_index(base)
    if index is None:
        begun = time.perf_counter()
        index = replace(count_named(name, config, task, ErrorPolicy(config.on_error)), split=split)
        logger.info(
            "%s has no %s: %d shards were counted in %.1f s; `uniadapter shard --index_only` writes one",
            shortened(base, 120), INDEX, len(index.shards), time.perf_counter() - begun,
        )  # fmt: skip
        return index
    where = shortened(join(base, INDEX), 160)
    if index.holds != texts.holds:
        raise DataError(
            f"{where}: the shards hold {index.holds}, and the task is {task}, which is trained on {texts.holds}: name "
            "other shards or another task",
            "another task",
        )
    if index.split and index.split != split:
        raise DataError(f"{where}: the shards are of the split {index.split}, not {split}: name others", "other split")
    chosen = index if names is None else index.chosen(names)
    if not sum(shard.samples for shard in chosen.shards):
        raise DataError(f"{where}: no shard has a record: write the shards anew", "no records")
    return chosen
