"""The index of a set of shards, `shards.json`: how many records and samples each has, its size and its checksum."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from uniadapter.data.shards.places import is_address, join
from uniadapter.errors import DataError
from uniadapter.files.messages import shortened

INDEX = "shards.json"
MOST_TEXTS = 65_535  # of a record
Holds = Literal["captions", "questions"]
Nouns = Literal["pictures", "videos", "visuals"]
_Number = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class Shard:
    """A tar file of records.

    Args:
        name: in the folder of the set.
        records: number of records.
        samples: number of texts.
        bytes: size of the file; 0 if it is not known.
        sha256: of the file; "" if it is not known.
        texts: uint16 [records], number of texts of each record; None if each has one.
        groups: int64 [records], a hash of each record's `group`, 0 without one; None if none has.
    """

    name: str
    records: int
    samples: int
    bytes: int = 0
    sha256: str = ""
    texts: NDArray[np.uint16] | None = field(default=None, compare=False, repr=False)
    groups: NDArray[np.int64] | None = field(default=None, compare=False, repr=False)

    @cached_property
    def ends(self) -> NDArray[np.int64] | None:
        """int64 [records], the number of texts up to each record; None if each has one."""
        return None if self.texts is None else np.cumsum(self.texts, dtype=np.int64)

    def record_of(self, sample: int) -> tuple[int, int]:
        """The record of a sample, and which of its texts it is."""
        if self.ends is None or self.texts is None:
            return sample, 0
        record = int(np.searchsorted(self.ends, sample, "right"))
        return record, sample - int(self.ends[record]) + int(self.texts[record])

    def record_numbers(self) -> NDArray[np.int64]:
        """int64 [samples], the record of each sample."""
        return np.arange(self.records) if self.texts is None else np.repeat(np.arange(self.records), self.texts)

    def first_records(self, count: int) -> Shard:
        """The shard as if it had only its first so many records."""
        if count >= self.records:
            return self
        texts = None if self.texts is None else self.texts[:count]
        groups = None if self.groups is None else self.groups[:count]
        samples = count if texts is None else int(texts.sum())
        return replace(self, records=count, samples=samples, texts=texts, groups=groups)


@dataclass(frozen=True)
class ShardIndex:
    """A set of shards.

    Args:
        base: its folder or address.
        holds: what texts its records have.
        noun: what they are of.
        shards: in order.
        skipped: kind of error to the number of records that are left out, or were when the shards were written.
        split: whose records these are; "" if it is not known.
        job: a hash of what the shards were written from; "" if that was elsewhere.
    """

    base: str
    holds: Holds
    noun: Nouns
    shards: tuple[Shard, ...]
    skipped: dict[str, int] = field(default_factory=dict)
    split: str = ""
    job: str = ""

    def describe(self) -> str:
        """What there is, in a line."""
        size = sum(shard.bytes for shard in self.shards) / 1e6
        left = "".join(f", {count} left out ({kind})" for kind, count in sorted(self.skipped.items()))
        return (
            f"{shortened(self.base, 120)}: {int(self.first_records[-1]):,} {self.noun} with "
            f"{int(self.first_samples[-1]):,} {self.holds} in {len(self.shards):,} shards, {size:,.1f} MB{left}"
        )

    @property
    def is_remote(self) -> bool:
        """Whether the shards are at an address elsewhere."""
        return is_address(self.base)

    def address(self, number: int) -> str:
        """The path or address of a shard."""
        return join(self.base, self.shards[number].name)

    @cached_property
    def first_samples(self) -> NDArray[np.int64]:
        """int64 [shards + 1], index of the first sample of each shard; the last is the number of samples."""
        return np.cumsum([0, *(shard.samples for shard in self.shards)], dtype=np.int64)

    @cached_property
    def first_records(self) -> NDArray[np.int64]:
        """int64 [shards + 1], the same of records."""
        return np.cumsum([0, *(shard.records for shard in self.shards)], dtype=np.int64)

    @cached_property
    def digest(self) -> str:
        """A hash of the shards' content, as far as the index knows it, wherever they are."""
        known = [(one.records, one.samples, one.bytes, one.sha256) for one in self.shards]
        each = [array for one in self.shards for array in (one.texts, one.groups)]
        texts = [b"" if array is None else array.tobytes() for array in each]
        parts = [json.dumps([self.holds, known]).encode(), *texts]
        return hashlib.sha256(b"".join(parts)).hexdigest()

    def chosen(self, names: list[str]) -> ShardIndex:
        """The index of some of the shards.

        Raises:
            DataError: it does not list one of them.
        """
        known = {shard.name: shard for shard in self.shards}
        absent = [name for name in names if name not in known]
        if absent:
            raise DataError(
                f"{join(self.base, INDEX)} does not list {shortened(absent[0], 80)}, which data.train names (it lists "
                f"{len(known)} shards): write it anew with `uniadapter shard --index_only`",
                "index of other shards",
            )
        return replace(self, shards=tuple(known[name] for name in names))

    def first(self, records: int) -> ShardIndex:
        """The index of the first so many records alone."""
        kept: list[Shard] = []
        for shard in self.shards:
            if records <= 0:
                break
            kept.append(shard.first_records(records))
            records -= shard.records
        return replace(self, shards=tuple(kept))

    def to_json(self) -> bytes:
        """The content of `shards.json`."""
        listed = [
            {
                "name": one.name, "records": one.records, "samples": one.samples, "bytes": one.bytes,
                "sha256": one.sha256,
                **({} if one.texts is None else {"texts": _shortest(one.texts.tolist())}),
                **({} if one.groups is None else {"groups": one.groups.tolist()}),
            }
            for one in self.shards
        ]  # fmt: skip
        head = {
            "version": 1, "split": self.split, "holds": self.holds, "visuals": self.noun,
            "records": sum(one.records for one in self.shards), "samples": sum(one.samples for one in self.shards),
            "left_out": self.skipped, "job": self.job,
        }  # fmt: skip
        lines = ",\n".join(f"  {json.dumps(one)}" for one in listed)
        return f'{json.dumps(head)[:-1]}, "shards": [\n{lines}\n]}}\n'.encode()


_Texts = Annotated[int, Field(ge=0, le=MOST_TEXTS)]


def hash_group(group: str | int | None) -> int:
    """A hash of a record's group, 53 bits; 0 without one."""
    if group is None:
        return 0
    return int.from_bytes(hashlib.sha256(repr(group).encode()).digest()[:8], "big") >> 11 or 1


class _ListedShard(BaseModel):
    model_config = ConfigDict(extra="ignore")
    name: str = Field(min_length=1, max_length=500)
    records: _Number
    samples: _Number
    bytes: _Number = 0
    sha256: str = Field("", pattern="^([0-9a-f]{64})?$")
    texts: _Texts | list[_Texts] | None = None  # of each record; one number if that of all is the same
    groups: list[Annotated[int, Field(ge=0, lt=1 << 53)]] | None = None


class _IndexFile(BaseModel):
    model_config = ConfigDict(extra="ignore")
    version: Literal[1]
    holds: Holds
    visuals: Nouns = "visuals"
    split: str = ""
    job: str = ""
    left_out: dict[str, int] = Field(default_factory=dict)
    shards: list[_ListedShard]


def _shortest(texts: list[int]) -> int | list[int]:
    return texts[0] if len(set(texts)) == 1 else texts


def parse_index(base: str, content: bytes) -> ShardIndex:
    """An index from the content of its file.

    Raises:
        DataError: it is none, or names a file outside its folder, or its numbers contradict each other.
    """
    where = shortened(join(base, INDEX), 160)
    try:
        read = _IndexFile.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "its JSON"
        message = f"{where} is not an index of shards ({place}: {shortened(first['msg'], 80)}): write it anew with "
        raise DataError(f"{message}`uniadapter shard --index_only`", "broken index") from None
    shards = []
    for one in read.shards:
        if "/" in one.name or "\\" in one.name or not one.name.endswith(".tar"):
            raise DataError(f"{where} names {one.name[:80]!r}: shards are .tar files beside it", "broken index")
        each = [one.texts] * one.records if isinstance(one.texts, int) else one.texts
        texts = None if each is None else np.array(each, dtype=np.uint16)
        wanted = (one.records, one.records) if texts is None else (len(texts), int(texts.sum()))
        if (one.records, one.samples) != wanted:
            raise DataError(
                f"{where}: the numbers of {shortened(one.name, 60)} contradict each other ({one.records} records and "
                f"{one.samples} samples, but {wanted[0]} and {wanted[1]} by its texts): write it anew",
                "broken index",
            )
        groups = None if one.groups is None else np.array(one.groups, dtype=np.int64)
        if groups is not None and len(groups) != one.records:
            raise DataError(f"{where}: {shortened(one.name, 60)} has {len(groups)} groups of records", "broken index")
        shards.append(Shard(one.name, one.records, one.samples, one.bytes, one.sha256, texts, groups))
    return ShardIndex(base, read.holds, read.visuals, tuple(shards), read.left_out, read.split, read.job)
