"""Retrieval splits: pictures, captions and which belong together, from a file or a dataset in memory."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from uniadapter.config import DataConfig
from uniadapter.data.images import DatasetPicture, Rows, Source, load_picture, missing_picture
from uniadapter.data.records import DataError, Problems, Record, read_records, resolve_picture
from uniadapter.data.text import clean_caption

logger = logging.getLogger(__name__)


@dataclass
class RetrievalSplit:
    """Pictures and captions of one split.

    Args:
        name: "train", "val", "test" or the name of a further test set.
        images: the distinct pictures, in the order of their first record: files, or rows of a dataset.
        image_ids: the file's id for each picture.
        origins: the first record of each picture, for errors.
        texts: the cleaned captions, in file order; a training sample is a caption, and its id is its index
            here.
        text_image: for each caption the index of its picture.
        skipped: what was left out, kind to count: captions and records one by one, pictures once each.
    """

    name: str
    images: list[Source] = field(default_factory=list)
    image_ids: list[str | int] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    text_image: list[int] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def image_texts(self) -> list[list[int]]:
        """For each picture the indices of its captions."""
        owned: list[list[int]] = [[] for _ in self.images]
        for text, image in enumerate(self.text_image):
            owned[image].append(text)
        return owned

    def summary(self) -> str:
        """One line: how much there is, and what was left out."""
        line = f"{self.name}: {len(self.images)} pictures, {len(self.texts)} captions"
        if self.skipped:
            line += "; left out: " + ", ".join(f"{count} {kind}" for kind, count in sorted(self.skipped.items()))
        return line


def load_retrieval(path: str | Path, config: DataConfig, name: str, check: bool | None = None) -> RetrievalSplit:
    """Read a split from an annotation file.

    Args:
        path: Karpathy JSON of COCO or Flickr30K, or JSONL or CSV of `image, caption`.
        config: `image_root`, `max_words`, `on_error` and `workers` are used.
        name: of the split.
        check: decode every picture now; those that fail are errors or left out, by `on_error`. None means:
            only where broken pictures are to be skipped and the split is not "train", since an evaluation
            must know its gallery beforehand, and training replaces such a picture when it meets it.

    Raises:
        DataError: the file cannot be read or nothing in it is usable; with `on_error="raise"` also at the
            first record that cannot be used.
    """
    problems = Problems(config.on_error)
    root = Path(config.image_root) if config.image_root else Path(path).parent
    builder = _Builder(name, problems, config.max_words)
    for record in read_records(path, problems):
        builder.add_file(record, root)
    if check is None:
        check = config.on_error == "skip" and name != "train"
    return _finish(builder.split, problems, str(path), check, config.workers)


def from_dataset(
    dataset: Rows,
    image_column: str = "image",
    caption_column: str = "caption",
    *,
    id_column: str | None = None,
    config: DataConfig | None = None,
    name: str = "dataset",
    check: bool | None = None,
) -> RetrievalSplit:
    """Take a split from a Hugging Face dataset, or any sequence of mappings.

    Args:
        dataset: its rows hold a picture (Pillow image, path, or `{"bytes": ..., "path": ...}`) and a caption
            or a list of captions. Pictures are not kept in memory but read from the dataset when they are
            needed.
        image_column: the picture's column.
        caption_column: the caption's column.
        id_column: column of an id that rows of one picture share; without it rows share a picture only where
            they have the same path.
        config: as for `load_retrieval`; `image_root` defaults to the working directory.
        name: of the split.
        check: as for `load_retrieval`.

    Raises:
        DataError: as `load_retrieval`.
    """
    config = config or DataConfig()
    problems = Problems(config.on_error)
    builder = _Builder(name, problems, config.max_words)
    columns = (image_column, caption_column) + ((id_column,) if id_column else ())
    for row, (image, caption, *ids) in _columns(dataset, columns, name, problems):
        origin = f"{name}[{row}]"
        for one in _captions(caption, caption_column, origin, problems):
            if isinstance(image, (str, Path)):
                record = Record(str(image), one, ids[0] if ids else str(image), origin)
                builder.add_file(record, Path(config.image_root or ""))
            else:
                key = ids[0] if ids else row
                builder.add((image_column, key), DatasetPicture(dataset, row, image_column), key, one, origin)
    if check is None:
        check = config.on_error == "skip" and name != "train"
    return _finish(builder.split, problems, name, check, config.workers)


class _Builder:
    """Collects records into a split: one entry for each distinct picture and for each usable caption."""

    def __init__(self, name: str, problems: Problems, max_words: int) -> None:
        self.split = RetrievalSplit(name, skipped=problems.skipped)
        self._problems = problems
        self._max_words = max_words
        self._index: dict[object, int] = {}
        self._owner: dict[str | int, object] = {}
        self._unusable: set[object] = set()

    def add_file(self, record: Record, root: Path) -> None:
        """Add a caption of a picture in a file, which is looked for at its first record."""
        try:
            path = resolve_picture(root, record.image, record.origin)
        except DataError as error:
            self._problems.report(error)
            return
        if path not in self._index and path not in self._unusable and not os.path.isfile(path):
            self._unusable.add(path)
            self._problems.report(missing_picture(record.origin, path))
        if path not in self._unusable:
            self.add(path, path, record.image_id, record.caption, record.origin)

    def add(self, key: object, source: Source, image_id: str | int, caption: str, origin: str) -> None:
        """Add a caption of the picture that `key` stands for."""
        text = clean_caption(caption, self._max_words)
        if not text:
            message = f"{origin}: the caption {caption!r} is empty once cleaned: write one, or remove the record"
            self._problems.report(DataError(message, "empty caption"))
            return
        if self._owner.setdefault(image_id, key) != key:
            message = (
                f"{origin}: image_id {image_id!r} already names {self._owner[image_id]}, not {key}: "
                "give each picture an id of its own"
            )
            self._problems.report(DataError(message, "image id of two pictures"))
            return
        if key not in self._index:
            self._index[key] = len(self.split.images)
            self.split.images.append(source)
            self.split.image_ids.append(image_id)
            self.split.origins.append(origin)
        self.split.texts.append(text)
        self.split.text_image.append(self._index[key])


def _columns(
    dataset: Rows, names: tuple[str, ...], where: str, problems: Problems
) -> Iterator[tuple[int, tuple[Any, ...]]]:
    """Row numbers and the values of these columns, without decoding the pictures of a Hugging Face dataset."""
    known = getattr(dataset, "column_names", None)
    if known is None:
        for row in range(len(dataset)):
            values = dataset[row]
            absent = [name for name in names if values.get(name) is None]
            if absent:
                problems.report(_no_column(f"{where}[{row}]", absent[0], list(values)))
            else:
                yield row, tuple(values[name] for name in names)
        return
    for name in names:
        if name not in known:
            raise _no_column(where, name, known)
    lazy = len(dataset) > 0 and isinstance(dataset[0][names[0]], (Image.Image, dict))
    table: Any = dataset  # such a dataset gives a column for its name
    images = [None] * len(dataset) if lazy else table[names[0]]
    yield from enumerate(zip(images, *(table[name] for name in names[1:]), strict=True))


def _captions(value: object, column: str, origin: str, problems: Problems) -> list[str]:
    """The texts of one row; what is none is reported."""
    found = list(value) if isinstance(value, (list, tuple)) else [value]
    texts = [one for one in found if isinstance(one, str)]
    if not texts or len(texts) < len(found):
        message = f"{origin}: column {column!r} should hold a text, or a list of texts: pass another caption_column"
        problems.report(DataError(message, "unusable caption"))
    return texts


def _no_column(where: str, name: str, known: list[str]) -> DataError:
    return DataError(f"{where}: no column {name!r} (it has {', '.join(known)}): pass its name", "missing field")


def _finish(split: RetrievalSplit, problems: Problems, where: str, check: bool, workers: int) -> RetrievalSplit:
    if check:
        split = _without(split, _broken(split, problems, workers))
    if not split.texts:
        left_out = f" ({split.summary()})" if split.skipped else ""
        raise DataError(f"{where}: not one usable picture with a caption{left_out}: check the file", "empty split")
    logger.info("%s", split.summary())
    return split


def _broken(split: RetrievalSplit, problems: Problems, workers: int) -> set[int]:
    """Indices of the pictures that do not decode; Pillow frees the interpreter lock, so threads do."""

    def fault(index: int) -> DataError | None:
        try:
            load_picture(split.images[index], split.origins[index], at_least=1)
        except DataError as error:
            return error
        return None

    broken = set()
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for index, error in enumerate(pool.map(fault, range(len(split.images)))):
            if error is not None:
                broken.add(index)
                problems.report(error)
    return broken


def _without(split: RetrievalSplit, broken: set[int]) -> RetrievalSplit:
    if not broken:
        return split
    kept = [index for index in range(len(split.images)) if index not in broken]
    moved = {old: new for new, old in enumerate(kept)}
    texts = [text for text, image in enumerate(split.text_image) if image in moved]
    return RetrievalSplit(
        name=split.name,
        images=[split.images[index] for index in kept],
        image_ids=[split.image_ids[index] for index in kept],
        origins=[split.origins[index] for index in kept],
        texts=[split.texts[text] for text in texts],
        text_image=[moved[split.text_image[text]] for text in texts],
        skipped=split.skipped,
    )
