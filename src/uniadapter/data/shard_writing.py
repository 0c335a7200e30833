"""Writing of tar shards from a split of any layout: `uniadapter shard`.

The same split gives the same bytes. Each shard is whole or not there; a second run keeps those that the first one
finished, since which records stand in a shard depends on the split alone and not on what could be read.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import tarfile
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

from uniadapter.config import ConfigError, DataConfig
from uniadapter.data.captions import load_retrieval
from uniadapter.data.large_splits import text_reader
from uniadapter.data.layouts.records import DataError, ErrorPolicy
from uniadapter.data.media.images import VisualSource
from uniadapter.data.media.paths import printable_path
from uniadapter.data.media.video import load_frames
from uniadapter.data.questions import QuestionSplit, frequent_answers, load_questions
from uniadapter.data.shard_counting import made_shard
from uniadapter.data.shard_records import file_of, row_of
from uniadapter.data.shard_texts import TextReader
from uniadapter.data.sharded import ANSWERS
from uniadapter.data.shards.index import INDEX, Nouns, Shard, ShardIndex, hash_group, parse_index
from uniadapter.data.shards.places import join, list_names, move_file, read_file, remove_file, write_file
from uniadapter.data.splits import RetrievalSplit
from uniadapter.files.messages import shortened
from uniadapter.files.writing import file_hash

logger = logging.getLogger(__name__)

PARTIAL = "shards.partial.json"  # what a run has finished, until it has finished all
_WORDS = 100_000  # texts are written whole; training cuts them
_AT_ONCE = 32  # files that are read together
_LISTED = 20  # files left out that the log names
Done = Callable[[int, int], None]


@dataclass(frozen=True)
class ShardSize:
    """How large shards are; what is reached first ends one.

    Args:
        records: most records of a shard.
        bytes: most bytes of their pictures or videos, unless a single one has more; 0 for any.
    """

    records: int = 1000
    bytes: int = 0


@dataclass
class _Progress:
    """What was written so far."""

    job: str
    shards: dict[int, Shard] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)


def load_whole(path: str | Path, config: DataConfig, task: str, name: str) -> RetrievalSplit:
    """A split whose texts are as they were written, neither cleaned nor cut; arguments as for `load_retrieval`."""
    config = replace(config, max_words=_WORDS)
    if task == "vqa":
        return load_questions(path, config, name, clean=_as_written)
    return load_retrieval(path, config, name, check=False, clean=_as_written)


def write_shards(
    split: RetrievalSplit,
    output: str,
    task: str,
    config: DataConfig,
    size: ShardSize | None = None,
    overwrite: bool = False,
    done: Done | None = None,
) -> ShardIndex:
    """Write a split as tar shards with an index.

    Args:
        split: with its pictures or videos; from `load_whole`, if the texts are to stay as they are.
        output: folder or address to write to.
        task: "retrieval", "vqa" or "caption".
        config: `on_error` and `workers` are used: a file that cannot be decoded ends it, or is left out and named.
        size: of the shards.
        overwrite: replace shards of other data that are there.
        done: called with the number of shards written and of all.

    Returns:
        The index, which is written too.

    Raises:
        DataError: a file cannot be decoded, or nothing is left.
        ConfigError: there are other shards.
    """
    pieces = list(_deal(split, size or ShardSize()))
    progress = _begun(output, _fingerprint(split, pieces), overwrite)
    texts = replace(text_reader(task, config), max_words=_WORDS)
    policy = ErrorPolicy(config.on_error)
    owned = split.visual_texts()
    with ThreadPoolExecutor(max(config.workers, 1)) as pool:
        for number, visuals in enumerate(pieces):
            if number not in progress.shards:
                name = f"{split.name}-{number:06d}.tar"
                rows = ((visual, row_of(split, visual, owned[visual])) for visual in visuals)
                progress.shards[number] = _write_shard(split, rows, name, output, texts, policy, pool, progress)
                write_file(join(output, PARTIAL), _to_json(progress))
            if done is not None:
                done(number + 1, len(pieces))
    kept = tuple(one for _, one in sorted(progress.shards.items()) if one.records)
    if not kept:
        raise DataError(f"{split.name}: no picture or video could be read: look at data.root", "empty split")
    noun = cast(Nouns, split.noun)
    index = ShardIndex(output, texts.holds, noun, kept, dict(progress.kinds), split.name, progress.job)
    if isinstance(split, QuestionSplit):
        listed = json.dumps(frequent_answers(split), ensure_ascii=False, indent=0)
        write_file(join(output, ANSWERS), listed.encode())
    write_file(join(output, INDEX), index.to_json())
    remove_file(join(output, PARTIAL))
    _tell(split, progress)
    return index


def _deal(split: RetrievalSplit, size: ShardSize) -> Iterator[list[int]]:
    """The visuals of each shard, by their number in the split."""
    held, total = list[int](), 0
    for visual, source in enumerate(split.visuals):
        own = _bytes_of(source) if size.bytes else 0
        if held and (len(held) >= size.records or (size.bytes and total + own > size.bytes)):
            yield held
            held, total = [], 0
        held.append(visual)
        total += own
    if held:
        yield held


def _bytes_of(source: VisualSource) -> int:
    with suppress(OSError):
        return source.stat().st_size if isinstance(source, Path) else 0
    return 0


def _fingerprint(split: RetrievalSplit, pieces: Sequence[Sequence[int]]) -> str:
    """A hash of what is to be written, by names and sizes of files."""
    files = [(str(one), _bytes_of(source)) for one, source in zip(split.visual_ids, split.visuals, strict=True)]
    sizes = [len(one) for one in pieces]
    said: list[Any] = [split.name, split.texts, split.text_visual, split.text_group, files, sizes]
    if isinstance(split, QuestionSplit):
        said += [split.annotators, split.question_ids, split.answers]
    return hashlib.sha256(json.dumps(said, default=str).encode()).hexdigest()


def _begun(output: str, job: str, overwrite: bool) -> _Progress:
    """What an earlier run with the same split has written; else nothing, if nothing else is there."""
    found: dict[str, _Progress] = {}
    for name in (INDEX, PARTIAL):
        with suppress(FileNotFoundError, NotADirectoryError, DataError):
            found[name] = _from_json(output, read_file(join(output, name)))
    there = next((one for one in found.values() if one.job == job), None)
    if there is not None:
        with suppress(DataError):
            names = set(list_names(output))
            there.shards = {key: one for key, one in there.shards.items() if not one.records or one.name in names}
        if there.shards:
            logger.info("%s: %d shards are there already and kept", shortened(output, 120), len(there.shards))
        return there
    if found and not overwrite:
        raise ConfigError(
            f"{shortened(output, 160)} holds shards of other data, or of another --size: choose another --output, or "
            "--overwrite"
        )
    return _Progress(job)


def _from_json(output: str, content: bytes) -> _Progress:
    index = parse_index(output, content)
    numbers = {int(one.name.rpartition("-")[2].removesuffix(".tar")): one for one in index.shards}
    more = json.loads(content)
    empty = {int(one): Shard("", 0, 0) for one in more.get("empty", [])}
    return _Progress(index.job, numbers | empty, more.get("files", {}), dict(index.skipped))


def _to_json(progress: _Progress) -> bytes:
    kept = tuple(one for _, one in sorted(progress.shards.items()) if one.records)
    index = ShardIndex("", "captions", "visuals", kept, progress.kinds, "", progress.job)
    more = {
        "empty": [number for number, one in progress.shards.items() if not one.records], "files": progress.left_out,
    }  # fmt: skip
    return index.to_json().rstrip()[:-1] + b", " + json.dumps(more)[1:].encode() + b"\n"


def _write_shard(
    split: RetrievalSplit,
    rows: Iterator[tuple[int, dict[str, Any]]],
    name: str,
    output: str,
    texts: TextReader,
    policy: ErrorPolicy,
    pool: ThreadPoolExecutor,
    progress: _Progress,
) -> Shard:
    """Write one shard; returns what the index says of it."""
    said: list[int] = []
    groups: list[int] = []
    with tempfile.TemporaryDirectory(prefix="uniadapter-") as folder:
        file = Path(folder, name)
        with tarfile.open(file, "w", format=tarfile.USTAR_FORMAT) as archive:
            for visual, row, found in _read_files(split, rows, pool):
                origin = split.origins[visual]
                try:
                    if isinstance(found, DataError):
                        raise found
                    count = len(texts.read(origin, row))
                except DataError as error:
                    policy.report(error)
                    progress.left_out[str(split.visual_ids[visual])] = error.kind
                    progress.kinds[error.kind] = progress.kinds.get(error.kind, 0) + 1
                    continue
                said.append(count)
                groups.append(hash_group(row.get("group")))
                suffix, content = found
                row_bytes = json.dumps(row, ensure_ascii=False, sort_keys=True).encode("utf-8", "backslashreplace")
                for ending, part in ((suffix, content), ("json", row_bytes)):
                    member = tarfile.TarInfo(f"{visual:09d}.{ending}")
                    member.size = len(part)
                    archive.addfile(member, io.BytesIO(part))
        if not said:
            return Shard(name, 0, 0)
        bytes_, digest = file.stat().st_size, file_hash(file)
        move_file(file, join(output, name))
    return made_shard(name, said, groups, bytes_, digest)


def _read_files(
    split: RetrievalSplit, rows: Iterator[tuple[int, dict[str, Any]]], pool: ThreadPoolExecutor
) -> Iterator[tuple[int, dict[str, Any], tuple[str, bytes] | DataError]]:
    """The files of some visuals, each decoded once to see that it can be; few are held at a time."""

    def read(visual: int) -> tuple[str, bytes] | DataError:
        source, origin = split.visuals[visual], split.origins[visual]
        try:
            load_frames(source, origin, count=1, min_side=1)
            return file_of(source, origin)
        except DataError as error:
            return error

    while part := list(islice(rows, _AT_ONCE)):
        for (visual, row), found in zip(part, pool.map(read, [visual for visual, _ in part]), strict=True):
            yield visual, row, found


def _as_written(text: str, most: int) -> str:
    return " ".join(text.split()[:most])


def _tell(split: RetrievalSplit, progress: _Progress) -> None:
    """Name the files that were left out."""
    left = {printable_path(name): kind for name, kind in (split.lost | progress.left_out).items()}
    if left:
        shown = ", ".join(f"{name} ({kind})" for name, kind in list(left.items())[:_LISTED])
        more = f" and {len(left) - _LISTED} more" if len(left) > _LISTED else ""
        logger.warning("left out %s%s", shown, more)
