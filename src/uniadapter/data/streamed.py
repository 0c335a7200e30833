"""Training on a streaming data set of Hugging Face's `datasets`: `data.train: hf://NAME`, or the object from Python.

A stream has one order and no positions. Every process reads all of it and decodes its own share, so that the samples of
a run depend neither on the number of processes nor on that of workers; a run that goes on reads, without decoding, what
was read before. Of a large set that several processes train on, `uniadapter shard` makes what is read once.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from inspect import signature
from typing import Any

from uniadapter.config import ConfigError, DataConfig
from uniadapter.data.batches import EpochBatchSampler, LoadRequest, Requests
from uniadapter.data.large_splits import LargeSplit, as_sample, text_reader
from uniadapter.data.layouts.field_names import VISUALS
from uniadapter.data.layouts.records import DataError, ErrorPolicy, field_names
from uniadapter.data.media.images import DatasetPicture, FileContent, VisualSource
from uniadapter.data.shard_texts import matched
from uniadapter.data.shards.names import HUB
from uniadapter.data.shards.places import reason_of
from uniadapter.data.splits import Sample
from uniadapter.files.messages import shortened
from uniadapter.processes.seeds import CAPTION, ORDER, SHARDS, derive_seed, permutation, uniform

logger = logging.getLogger(__name__)

_MOST_BYTES = 1 << 28  # of the pictures that are shuffled together, which are in memory


@dataclass(frozen=True)
class _Held:
    """Content of a file, which can be sent to another process."""

    content: bytes

    def __call__(self) -> bytes:
        return self.content


class StreamedSplit(LargeSplit):
    """Rows of a stream; a sample is a row, its index the row's place in the epoch's stream.

    Args:
        name: "train".
        called: what the stream is called, for messages.
        rows: an `IterableDataset`.
        task: what is trained.
        config: `samples`, `fields`, `max_words`, `on_error` and `shuffle_buffer` are used.

    Raises:
        ConfigError: its length is not known.
    """

    def __init__(self, name: str, called: str, rows: Any, task: str, config: DataConfig) -> None:
        if config.hard_negatives:
            raise ConfigError(
                f"data.hard_negatives is {config.hard_negatives:g}, but which rows of a stream are of one group is not "
                "known before they are read: set it to 0, or train on shards"
            )
        if config.max_train_visuals:
            raise ConfigError("data.max_train_visuals is for files and shards: give a stream data.samples instead")
        texts = text_reader(task, config)
        count = config.samples or _length(rows, name)
        if not count:
            raise ConfigError(
                f"{shortened(called, 120)}: the stream does not say how many rows it has: set data.samples to the "
                "number of an epoch"
            )
        said = f"{called} {count} {texts.holds} {getattr(rows, 'num_shards', 1)}"
        super().__init__(name, texts.holds, "pictures", hashlib.sha256(said.encode()).hexdigest())
        self.called, self.count, self._texts, self._config = called, count, texts, config
        self._rows = _undecoded(rows)
        self.policy = ErrorPolicy(config.on_error)
        self.skipped = self.policy.skipped

    @property
    def samples(self) -> int:
        """Rows of an epoch."""
        return self.count

    @property
    def visual_count(self) -> int:
        """Rows of an epoch."""
        return self.count

    def sample(self, row: int) -> Sample:
        """Not of a stream, whose samples come with the requests for them."""
        raise DataError(f"{self.called}[{row}]: a stream is read in its order alone", "no such sample")

    def substitutes(self, row: int) -> Iterator[int]:
        """None: what cannot be decoded is replaced by another sample of its batch."""
        return iter(())

    def visual_name(self, visual: int) -> tuple[str | int, str]:
        """The row's place in the stream of its epoch."""
        place = f"{self.called}[{visual % self.count}]"
        return place, place

    def first_samples(self) -> Iterator[Sample]:
        """The samples from the beginning of the stream on."""
        quiet = ErrorPolicy("skip", quiet=True)
        for place, row in enumerate(self._read(self._rows)):
            found = self._sample(place, row, 0, 0, quiet)
            if found is not None:
                yield found

    def blocks(self, seed: int, epoch: int) -> Iterator[list[Sample]]:
        """The samples of an epoch, those that are shuffled together in one list.

        A row without a usable text has another one of its block in its place, if `on_error` is "skip".

        Raises:
            DataError: the stream breaks, or ends before `data.samples`; or a row cannot be used.
        """
        rows = self._rows
        if getattr(rows, "num_shards", 1) > 1:  # which are read one after the other, in an order of the epoch's own
            alone = "max_buffer_input_shards"  # since version 5, which else reads ten in turn and ends 5 s late
            more = {alone: 1} if alone in signature(rows.shuffle).parameters else {}
            rows = rows.shuffle(seed=derive_seed(seed, SHARDS, epoch) >> 1, buffer_size=1, **more)
        held: list[Sample | None] = []
        size = done = 0
        for place, row in enumerate(self._read(rows)):
            if place >= self.count:
                break
            held.append(self._sample(place, row, seed, epoch, self.policy))
            size += _size_of(held[-1])
            if len(held) >= self._config.shuffle_buffer or size >= _MOST_BYTES:
                yield self._shuffled(held, seed, epoch, done)
                held, size, done = [], 0, done + 1
        if held:
            yield self._shuffled(held, seed, epoch, done)

    def _shuffled(self, held: list[Sample | None], seed: int, epoch: int, block: int) -> list[Sample]:
        good = [one for one in held if one is not None]
        if not good:
            raise DataError(f"{self.called}: none of {len(held)} rows can be used: look at data.fields", "lost data")
        whole = [one if one is not None else good[place % len(good)] for place, one in enumerate(held)]
        return [whole[place] for place in permutation(len(whole), seed, ORDER, epoch, block)]

    def _read(self, rows: Any) -> Iterator[Mapping[str, Any]]:
        place = 0
        try:
            for row in rows:
                yield row
                place += 1
        except (DataError, ConfigError):
            raise
        except Exception as error:  # the library's, its file system's, its readers'
            message = f"{self.called}[{place}]: the stream broke ({reason_of(error)}); go on with --resume"
            raise DataError(message, "broken stream") from error
        if place < self.count:
            raise DataError(
                f"{self.called}: the stream ended after {place:,} rows, and an epoch should have {self.count:,}: set "
                "data.samples to what there is",
                "short stream",
            )

    def _sample(self, place: int, row: Mapping[str, Any], seed: int, epoch: int, policy: ErrorPolicy) -> Sample | None:
        """The sample of a row; None, if it cannot be used. Of several texts one is drawn."""
        origin = f"{self.called}[{place}]"
        number = epoch * self.count + place  # of this epoch alone, in which the same place is another row
        try:
            source = _source(origin, row, tuple(self._config.fields.items()))
            texts = self._texts.read(origin, row)
        except DataError as error:
            policy.report(error)
            return None
        drawn = texts[int(uniform(seed, CAPTION, epoch, place) * len(texts))]
        return as_sample(number, source, origin, drawn, self.holds)


class StreamBatchSampler(EpochBatchSampler):
    """`EpochBatchSampler` of a stream: its requests carry the samples; the next block is read in the background.

    Args:
        split: the stream.
        batch_size: samples per batch, over all processes.
        seed: of the order.
        **place: epoch, start_batch, rank and world.
    """

    def __init__(self, split: StreamedSplit, batch_size: int, seed: int, **place: Any) -> None:
        self._split = split
        super().__init__(split.samples, batch_size, seed, **place)

    def _requests(self, epoch: int) -> Requests:
        blocks = _read_ahead(self._split.blocks(self.seed, epoch))
        held: list[Sample] = []
        begin = 0

        def requests(low: int, high: int) -> Iterator[LoadRequest]:
            nonlocal held, begin
            while low < high:
                while low >= begin + len(held):
                    begin, held = begin + len(held), next(blocks)
                one = held[low - begin]
                yield LoadRequest(epoch, (one.visual,), 0, 1, one)
                low += 1

        return requests


def open_stream(name: str, config: DataConfig, task: str, split: str = "train") -> StreamedSplit:
    """A training set that is streamed.

    Args:
        name: `hf://NAME`, `hf://NAME@REVISION`, or `hf:///FOLDER` of Parquet, JSON, or other files of `datasets`.
        config: of the data.
        task: what is trained on it.
        split: its name there.

    Raises:
        DataError: there is no such data set, or no such split.
        ConfigError: its length is not known, or a setting needs all rows at once.
    """
    try:
        import datasets
    except ImportError:
        raise ConfigError(f"{name[:120]} needs Hugging Face's datasets: pip install 'uniadapter[stream]'") from None
    path, _, revision = name.removeprefix(HUB).partition("@")
    try:
        rows = datasets.load_dataset(path, split=split, streaming=True, revision=revision or None)
    except Exception as error:  # of the library, its hub and its file systems
        raise DataError(f"{shortened(name, 120)}: {reason_of(error)}: check the name and the split {split!r}") from None
    result = StreamedSplit(split, name, rows, task, config)
    logger.info("%s", result.summary())
    return result


def _length(rows: Any, split: str) -> int:
    splits = getattr(getattr(rows, "info", None), "splits", None) or {}
    return int(splits[split].num_examples or 0) if split in splits else 0


def _undecoded(rows: Any) -> Any:
    """The stream with the bytes of pictures and videos instead of what they decode to."""
    features = getattr(rows, "features", None) or {}
    for name, kind in features.items():
        if getattr(kind, "decode", False):
            rows = rows.cast_column(name, type(kind)(decode=False))
    return rows


def _source(origin: str, row: Mapping[str, Any], fields: tuple[tuple[str, str], ...]) -> VisualSource:
    names = matched(tuple(row), fields)
    name = next((names[one] for one in VISUALS if names.get(one) and row[names[one]] is not None), None)
    value = None if name is None else row[name]
    if value is None or name is None:
        message = f"{origin}: no picture or video (it has {field_names(row)}): map it with data.fields"
        raise DataError(message, "record without a picture")
    content = value if isinstance(value, bytes) else value.get("bytes") if isinstance(value, Mapping) else None
    if content is None:
        return DatasetPicture(({name: value},), 0, name)
    path = str(value.get("path") or "") if isinstance(value, Mapping) else ""
    return FileContent(path.rpartition("/")[2].rpartition(".")[2].lower() if "." in path else "", _Held(content))


def _size_of(sample: Sample | None) -> int:
    source = None if sample is None else sample.source
    return len(source.read.content) if isinstance(source, FileContent) and isinstance(source.read, _Held) else 0


def _read_ahead(blocks: Iterator[list[Sample]]) -> Iterator[list[Sample]]:
    """The blocks, of which the next one is read while one is used."""
    read: Callable[[], list[Sample] | None] = lambda: next(blocks, None)  # noqa: E731
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(read)
        while (block := waiting.result()) is not None:
            waiting = pool.submit(read)
            yield block
