"""Retrieval splits: visuals, captions and which belong together, from a file or a dataset in memory.

A visual is a picture or a video; from here on nothing asks which, since a picture is a video of one frame.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from uniadapter.config import DataConfig
from uniadapter.data.files import find_visual, has_video_suffix, is_video, missing_visual, resolve_visual
from uniadapter.data.images import DatasetPicture, Rows, Source
from uniadapter.data.layouts import read_records
from uniadapter.data.msrvtt import training_split
from uniadapter.data.records import DataError, Problems, Record
from uniadapter.data.text import clean_caption
from uniadapter.data.video import load_frames

logger = logging.getLogger(__name__)


@dataclass
class RetrievalSplit:
    """Visuals and captions of one split.

    Args:
        name: "train", "val", "test" or the name of a further test set.
        visuals: the distinct pictures or videos, in the order of their first record: files, folders of frames,
            or rows of a dataset.
        visual_ids: the file's id for each visual.
        origins: the first record of each visual, for errors.
        texts: the cleaned captions, in file order; a training sample is a caption, and its id is its index
            here.
        text_visual: for each caption the index of its visual.
        skipped: what was left out, kind to count: captions and records one by one, visuals once each.
        noun: "pictures" or "videos"; "visuals" where there are both.
        notes: what else is to be known of the split: how many videos its list has, what was cut.
    """

    name: str
    visuals: list[Source] = field(default_factory=list)
    visual_ids: list[str | int] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    text_visual: list[int] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    noun: str = "pictures"
    notes: list[str] = field(default_factory=list)

    @property
    def visual_kind(self) -> Literal["image", "video"]:
        """What the field calls its visuals in metrics: "text_to_image", "video_to_text"."""
        return "video" if self.noun == "videos" else "image"

    def visual_texts(self) -> list[list[int]]:
        """For each visual the indices of its captions."""
        owned: list[list[int]] = [[] for _ in self.visuals]
        for text, visual in enumerate(self.text_visual):
            owned[visual].append(text)
        return owned

    def summary(self) -> str:
        """One line: how much there is, what is to be known of it, and what was left out."""
        parts = [f"{self.name}: {len(self.visuals)} {self.noun}, {len(self.texts)} captions", *self.notes]
        if self.skipped:
            parts.append("left out: " + ", ".join(f"{count} {kind}" for kind, count in sorted(self.skipped.items())))
        return "; ".join(parts)


def load_retrieval(path: str | Path, config: DataConfig, name: str, check: bool | None = None) -> RetrievalSplit:
    """Read a split from an annotation file.

    Args:
        path: Karpathy JSON of COCO or Flickr30K; MSR-VTT's or DiDeMo's lists and sentences, or ALPRO's, BLIP's,
            LAVIS's, UMT's and VindLU's files of them; or JSONL or CSV of `image, caption` or `video, caption`.
        config: `root`, `layout`, `captions`, `max_words`, `on_error` and `workers` are used.
        name: of the split.
        check: decode every visual now; those that fail are errors or left out, by `on_error`. None means:
            only where broken pictures are to be skipped and the split is not "train", since an evaluation
            must know its gallery beforehand, and training replaces such a visual when it meets it. Of a video
            one frame is decoded.

    Raises:
        DataError: the file cannot be read or nothing in it is usable; with `on_error="raise"` also at the
            first record that cannot be used.
    """
    problems = Problems(config.on_error)
    root = Path(config.root) if config.root else Path(path).parent
    builder = _Builder(name, problems, config.max_words)
    for record in read_records(path, problems, config.layout, config.captions):
        builder.add_file(record, root)
    builder.describe(Path(path).name)
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
        config: as for `load_retrieval`; `root` defaults to the working directory.
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
                noun = "video" if has_video_suffix(image) else "picture"
                record = Record(str(image), one, ids[0] if ids else str(image), origin, noun)
                builder.add_file(record, Path(config.root or ""))
            else:
                key = ids[0] if ids else row
                builder.add((image_column, key), DatasetPicture(dataset, row, image_column), key, one, origin)
    builder.describe()
    if check is None:
        check = config.on_error == "skip" and name != "train"
    return _finish(builder.split, problems, name, check, config.workers)


class _Builder:
    """Collects records into a split: one entry for each distinct visual and for each usable caption."""

    def __init__(self, name: str, problems: Problems, max_words: int) -> None:
        self.split = RetrievalSplit(name, skipped=problems.skipped)
        self._problems = problems
        self._max_words = max_words
        self._cut = 0
        self._nouns: set[str] = set()
        self._index: dict[object, int] = {}
        self._owner: dict[str | int, object] = {}
        self._found: dict[Path, Path | None] = {}  # path asked for to path found
        self._asked: dict[Path, Path] = {}  # path found to path asked for

    def add_file(self, record: Record, root: Path) -> None:
        """Add a caption of a visual in a file or folder, which is looked for at its first record."""
        try:
            asked = resolve_visual(root, record.visual, record.origin, record.noun)
            if asked not in self._found:
                self._found[asked] = None
                self._found[asked] = self._place(asked, root, record)
        except DataError as error:
            self._problems.report(error)
            return
        path = self._found[asked]
        if path is not None:
            self.add(path, path, record.visual_id, record.caption, record.origin)

    def _place(self, asked: Path, root: Path, record: Record) -> Path:
        found = find_visual(asked, record.noun) if asked != root else None
        if found is None:
            raise missing_visual(record.origin, asked, record.noun)
        other = self._asked.setdefault(found, asked)
        if other != asked:
            message = f"{record.origin}: {found} would stand for both {other} and {asked}: add the file that is missing"
            raise DataError(message, "file of two videos")
        self._nouns.add("video" if is_video(found) else record.noun)
        return found

    def add(self, key: object, source: Source, visual_id: str | int, caption: str, origin: str) -> None:
        """Add a caption of the visual that `key` stands for."""
        words = clean_caption(caption, sys.maxsize).split()
        if not words:
            message = f"{origin}: the caption {caption!r} is empty once cleaned: write one, or remove the record"
            self._problems.report(DataError(message, "empty caption"))
            return
        if self._owner.setdefault(visual_id, key) != key:
            message = (
                f"{origin}: id {visual_id!r} already names {self._owner[visual_id]}, not {key}: "
                "give each visual an id of its own"
            )
            self._problems.report(DataError(message, "id of two visuals"))
            return
        if key not in self._index:
            self._index[key] = len(self.split.visuals)
            self.split.visuals.append(source)
            self.split.visual_ids.append(visual_id)
            self.split.origins.append(origin)
        self._cut += len(words) > self._max_words
        self.split.texts.append(" ".join(words[: self._max_words]))
        self.split.text_visual.append(self._index[key])

    def describe(self, file_name: str = "") -> None:
        """Say in the split, when all records are in, what it consists of."""
        split, listed = self.split, self._problems.listed
        if self._nouns:
            split.noun = f"{self._nouns.pop()}s" if len(self._nouns) == 1 else "visuals"
        variant = training_split(file_name, split.visual_ids, listed or len(self._found))
        split.notes += [variant] if variant else []
        if listed is not None:
            split.notes.append(f"{listed} listed, {len(self._asked)} found")
        split.notes += self._problems.notes
        if self._cut:
            split.notes.append(f"{self._cut} captions cut to {self._max_words} words")


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
        raise DataError(
            f"{where}: not one usable picture or video with a caption{left_out}: check the file", "empty split"
        )
    logger.info("%s", split.summary())
    return split


def _broken(split: RetrievalSplit, problems: Problems, workers: int) -> set[int]:
    """Indices of the visuals that do not decode; Pillow and PyAV free the interpreter lock, so threads do."""

    def fault(index: int) -> DataError | None:
        try:
            load_frames(split.visuals[index], split.origins[index], count=1, at_least=1)
        except DataError as error:
            return error
        return None

    broken = set()
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for index, error in enumerate(pool.map(fault, range(len(split.visuals)))):
            if error is not None:
                broken.add(index)
                problems.report(error)
    return broken


def _without(split: RetrievalSplit, broken: set[int]) -> RetrievalSplit:
    if not broken:
        return split
    kept = [index for index in range(len(split.visuals)) if index not in broken]
    moved = {old: new for new, old in enumerate(kept)}
    texts = [text for text, visual in enumerate(split.text_visual) if visual in moved]
    return RetrievalSplit(
        name=split.name,
        visuals=[split.visuals[index] for index in kept],
        visual_ids=[split.visual_ids[index] for index in kept],
        origins=[split.origins[index] for index in kept],
        texts=[split.texts[text] for text in texts],
        text_visual=[moved[split.text_visual[text]] for text in texts],
        skipped=split.skipped,
        noun=split.noun,
        notes=split.notes,
    )
