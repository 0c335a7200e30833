"""Counting of shards that have no index: one pass over the headers and texts of each, pictures are skipped."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from uniadapter.data.layouts.records import ErrorPolicy
from uniadapter.data.media.file_kinds import HEAD, has_video_suffix, open_file
from uniadapter.data.shard_texts import TextReader, group_of, record_row, visual_suffix
from uniadapter.data.shards.copies import LocalCopies
from uniadapter.data.shards.index import INDEX, MOST_TEXTS, Nouns, Shard, ShardIndex, hash_group, parse_index
from uniadapter.data.shards.places import connect, is_address, join, read_file, reason_of, retried
from uniadapter.data.shards.shelf import broken_shard, file_reader
from uniadapter.data.shards.tars import BrokenTar, RecordFiles, list_records
from uniadapter.errors import DataError
from uniadapter.files.messages import shortened
from uniadapter.files.writing import file_hash

_MAX_TEXT = 1 << 26  # bytes of a record's texts
_TEXTS = ("json", "txt", "caption", "question", "answer")


class CollectingPolicy(ErrorPolicy):
    """Keeps the errors, to be handled in the order of the shards."""

    def __init__(self) -> None:
        super().__init__("skip", quiet=True)
        self.kept: list[DataError] = []

    def report(self, error: DataError) -> None:
        """Keep an error."""
        self.kept.append(error)


@dataclass
class _Counted:
    """What the pass over a shard found."""

    texts: list[int] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    videos: int = 0
    pictures: int = 0
    size: int = 0
    sha256: str = ""
    errors: list[DataError] = field(default_factory=list)


def read_index(base: str) -> ShardIndex | None:
    """The index beside a set of shards; None if there is none.

    Raises:
        DataError: it is broken or cannot be read.
    """
    where = join(base, INDEX)
    try:
        content = read_file(where)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise DataError(f"{shortened(where, 160)}: {reason_of(error)}", "broken index") from None
    return parse_index(base, content)


def count_shards(
    base: str,
    names: Sequence[str],
    texts: TextReader,
    policy: ErrorPolicy,
    copies: LocalCopies | None,
    workers: int = 1,
    checksums: bool = False,
) -> ShardIndex:
    """The index of shards that have none, by reading them.

    Args:
        base: folder or address of the set.
        names: of the shards in it.
        texts: reads their texts.
        policy: handles records and shards that cannot be used; a record that is left out has no sample.
        copies: of the shards, if they are elsewhere.
        workers: threads that read.
        checksums: whether to hash the shards, which reads all of them.

    Raises:
        DataError: nothing is usable; with `on_error="raise"` also for the first bad record or shard.
    """

    def count(name: str) -> _Counted:
        address = join(base, name)
        try:
            file = Path(address) if copies is None else copies.get(address, _size(address), "")
            return retried(lambda: _count(file, address, texts, checksums), address)
        except (DataError, OSError) as error:
            known = error if isinstance(error, DataError) else None
            message = f"{shortened(address, 160)}: {reason_of(error)}: check the name"
            return _Counted(errors=[known or DataError(message, "lost shard")])

    shards: list[Shard] = []
    pictures = videos = 0
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for name, found in zip(names, pool.map(count, names), strict=True):
            try:
                for error in found.errors:
                    policy.report(error)
            except DataError:
                pool.shutdown(wait=False, cancel_futures=True)  # the others need not be read
                raise
            pictures, videos = pictures + found.pictures, videos + found.videos
            shards.append(made_shard(name, found.texts, found.groups, found.size, found.sha256))
    shards = [one for one in shards if one.samples]
    if not shards:
        left_out = ", ".join(f"{count} {kind}" for kind, count in policy.skipped.items())
        raise DataError(f"{shortened(base, 160)}: no usable record in {len(names)} shards ({left_out})", "no records")
    noun: Nouns = "visuals" if pictures and videos else "videos" if videos else "pictures"
    return ShardIndex(base, texts.holds, noun, tuple(shards), dict(policy.skipped))


def made_shard(name: str, texts: Sequence[int], groups: Sequence[int], size: int, sha256: str) -> Shard:
    """What the index says of a shard, given the number of texts and the group of each record."""
    each = None if all(one == 1 for one in texts) else np.array(texts, dtype=np.uint16)
    grouped = np.array(groups, dtype=np.int64) if any(groups) else None
    return Shard(name, len(texts), sum(texts), size, sha256, each, grouped)


def _count(file: Path, address: str, texts: TextReader, checksums: bool) -> _Counted:
    policy = CollectingPolicy()
    found = _Counted(sha256=file_hash(file) if checksums else "", errors=policy.kept)
    keys: set[str] = set()
    with open_file(file) as stream:
        found.size = os.fstat(stream.fileno()).st_size
        read = file_reader(stream)
        try:
            for number, record in enumerate(list_records(read, found.size)):
                origin = f"{address}[{number}] ({shortened(record.key, 40)})"
                found.texts.append(0)
                found.groups.append(0)
                try:
                    _check_keys(origin, record, keys)
                    suffix = visual_suffix(origin, record.members)
                    files = {
                        name: read(one.start, min(one.size, _MAX_TEXT))
                        for name, one in record.members.items() if name in _TEXTS
                    }  # fmt: skip
                    row = record_row(origin, files)
                    found.texts[-1] = min(len(texts.read(origin, row, policy)), MOST_TEXTS)
                    found.groups[-1] = hash_group(group_of(row, texts.fields))
                except DataError as error:
                    found.errors.append(error)
                    continue
                found.videos += has_video_suffix(f"a.{suffix}")
                found.pictures += not has_video_suffix(f"a.{suffix}")
        except BrokenTar as error:
            found.errors.append(broken_shard(address, error, read(0, min(found.size, HEAD))))
    return found


def _check_keys(origin: str, record: RecordFiles, keys: set[str]) -> None:
    if record.key in keys or record.repeated:
        raise DataError(
            f"{origin}: the name is there before: give each record its own, and put its files next to each other",
            "repeated key",
        )
    keys.add(record.key)


def _size(address: str) -> int:
    """The size of a shard elsewhere; 0 if the store does not tell."""
    if not is_address(address):
        return 0
    system, path = connect(address)
    try:
        return int(retried(lambda: system.size(path), address) or 0)
    except (FileNotFoundError, TypeError):
        return 0
