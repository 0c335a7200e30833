"""Records of a set of shards, read by number: one read for a record, wherever it stands in its shard."""

from __future__ import annotations

import logging
import os
import time
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from uniadapter.data.media.file_kinds import HEAD, explain_unreadable, open_file
from uniadapter.data.shards.copies import LOST_FOR, LocalCopies, check_shard
from uniadapter.data.shards.index import ShardIndex
from uniadapter.data.shards.places import LostShard, join, reason_of, retried
from uniadapter.data.shards.tars import BrokenTar, Member, Read, list_members, list_records
from uniadapter.errors import DataError
from uniadapter.files.messages import shortened

logger = logging.getLogger(__name__)

MAX_RECORD = 1 << 30  # bytes of a record, which is read as a whole
MOST_OPEN = 64  # files


class Shelf:
    """Reads records; of each open shard it holds 16 bytes a record.

    Args:
        index: of the set.
        copies: of its shards, if they are elsewhere.
        most: shards whose records are known at a time.
    """

    def __init__(self, index: ShardIndex, copies: LocalCopies | None, most: int) -> None:
        self.index, self.copies, self.most = index, copies, most
        self._spans: OrderedDict[int, NDArray[np.int64]] = OrderedDict()
        self._streams: OrderedDict[int, BinaryIO] = OrderedDict()
        self._lost: dict[int, tuple[float, str]] = {}
        self._last: tuple[tuple[int, int], dict[str, bytes]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_streams": OrderedDict()}

    def origin(self, shard: int, record: int) -> str:
        """Where a record is, for messages."""
        return f"{join(self.index.base, self.index.shards[shard].name)}[{record}]"

    def is_lost(self, shard: int) -> bool:
        """Whether a shard could not be read a short while ago."""
        lost = self._lost.get(shard)
        return lost is not None and time.monotonic() - lost[0] < LOST_FOR

    def read(self, shard: int, record: int) -> dict[str, bytes]:
        """The files of a record, by suffix.

        Raises:
            LostShard: its shard cannot be read.
            DataError: the record is too large.
        """
        if self._last is not None and self._last[0] == (shard, record):
            return self._last[1]
        if self.is_lost(shard):
            raise LostShard(self._lost[shard][1])
        try:
            content = self._content(shard, record)
        except LostShard as error:
            self._lost[shard] = (time.monotonic(), str(error))
            raise
        files: dict[str, bytes] = {}
        for one in _members(content):
            files.setdefault(one.parts[1], content[one.start : one.start + one.size])
        self._last = ((shard, record), files)
        return files

    def prefetch(self, shard: int) -> None:
        """Have a shard here that is elsewhere; what fails is left to who reads it."""
        if self.copies is not None:
            about = self.index.shards[shard]
            try:
                self.copies.get(self.index.address(shard), about.bytes, about.sha256)
            except (DataError, OSError) as error:
                logger.debug("%s", error)

    def _content(self, shard: int, record: int) -> bytes:
        spans = self._spans.get(shard)
        if spans is None:
            spans = self._spans[shard] = self._list(shard)
            while len(self._spans) > self.most:
                self._spans.popitem(last=False)
        else:
            self._spans.move_to_end(shard)
        begin, end = (int(one) for one in spans[record])
        if end - begin > MAX_RECORD:
            raise DataError(
                f"{self.origin(shard, record)} has {end - begin:,} bytes, and a record may have {MAX_RECORD:,}",
                "record too large",
            )
        return self._bytes(shard, begin, end)

    def _bytes(self, shard: int, begin: int, end: int) -> bytes:
        def once() -> bytes:
            try:
                found = read_at(self._stream(shard), begin, end - begin)
            except OSError:
                self._close(shard)  # a handle that has become stale, on a network share, stays so
                raise
            if len(found) < end - begin:
                raise DataError(f"{self.index.address(shard)} has become shorter: copy it again", "lost shard")
            return found

        try:
            return retried(once, self.index.address(shard))
        except LostShard:
            raise
        except (DataError, OSError) as error:
            raise self._lost_shard(shard, error) from error

    def _stream(self, shard: int) -> BinaryIO:
        """The file of a shard, which stays open while it is one of the last that were read."""
        if shard not in self._streams:
            try:
                self._streams[shard] = open_file(self._file(shard))
            except FileNotFoundError:  # a copy that was removed just before: the next try fetches it again
                self._streams[shard] = open_file(self._file(shard))
            while len(self._streams) > MOST_OPEN:
                self._close(next(iter(self._streams)))
        return self._streams[shard]

    def _close(self, shard: int) -> None:
        if shard in self._streams:
            self._streams.pop(shard).close()

    def _list(self, shard: int) -> NDArray[np.int64]:
        """int64 [records, 2], begin and end of each record."""
        about = self.index.shards[shard]
        try:
            file = self._file(shard)
            if self.copies is None:
                check_shard(str(file), file, about.bytes, "")
            spans, fault = retried(lambda: record_spans(file), self.index.address(shard))
        except LostShard:
            raise
        except (DataError, OSError) as error:
            raise self._lost_shard(shard, error) from error
        if len(spans) < about.records:
            raise LostShard(
                str(fault)
                if fault
                else f"{shortened(self.index.address(shard), 160)} has {len(spans):,} records, and the index says "
                f"{about.records:,}: copy it again, or write the index anew with `uniadapter shard --index_only`"
            )
        return spans

    def _file(self, shard: int) -> Path:
        about, address = self.index.shards[shard], self.index.address(shard)
        return Path(address) if self.copies is None else self.copies.get(address, about.bytes, about.sha256)

    def _lost_shard(self, shard: int, error: Exception) -> LostShard:
        if isinstance(error, DataError):
            return LostShard(str(error))
        return LostShard(f"{shortened(self.index.address(shard), 160)}: {reason_of(error)}: restore it")


def record_spans(file: Path) -> tuple[NDArray[np.int64], DataError | None]:
    """Where the records of a local shard are, and what is wrong with it.

    Returns:
        int64 [records, 2], offsets of the first byte and after the last one; an error if it is cut or no tar archive,
        after whole records perhaps.

    Raises:
        OSError: it cannot be read.
    """
    spans: list[tuple[int, int]] = []
    fault = None
    with open_file(file) as stream:
        size = os.fstat(stream.fileno()).st_size
        read = file_reader(stream)
        try:
            spans.extend((one.begin, one.end) for one in list_records(read, size))
        except BrokenTar as error:
            fault = broken_shard(str(file), error, read(0, min(size, HEAD)))
    return np.array(spans, np.int64).reshape(-1, 2), fault


def read_at(stream: BinaryIO, offset: int, count: int) -> bytes:
    """A part of an open file; processes that were forked with it share its position, and do not use it."""
    if hasattr(os, "pread"):
        return os.pread(stream.fileno(), count, offset)
    stream.seek(offset)  # Windows, which does not fork
    return stream.read(count)


def file_reader(stream: BinaryIO) -> Read:
    """Reads parts of an open file, for `tars`."""
    return lambda offset, count: read_at(stream, offset, count)


def broken_shard(name: str, error: BrokenTar, head: bytes) -> DataError:
    """The error for an archive that is cut, or none."""
    if str(error) == "is not a tar archive":
        words, remedy = explain_unreadable(head)
        known = not words.startswith("not a known")
        what = f"is not a tar archive{f' ({words})' if known else ''}"
        return DataError(f"{shortened(name, 160)} {what}: {remedy if known else 'get it again'}", "broken shard")
    return DataError(f"{shortened(name, 160)} {error}: copy it again", "cut shard")


def _members(content: bytes) -> Iterator[Member]:
    """The files in the bytes of one record, which lack the archive's end."""
    try:
        yield from list_members(lambda offset, count: content[offset : offset + count], len(content))
    except BrokenTar:
        return
