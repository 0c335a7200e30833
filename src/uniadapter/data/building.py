"""How a split comes about: visuals looked for once, texts cleaned, faults counted, broken files left out."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from uniadapter.data.files import find_visual, is_video, missing_visual, resolve_visual
from uniadapter.data.images import Source
from uniadapter.data.msrvtt import training_split
from uniadapter.data.records import DataError, Problems, Record
from uniadapter.data.splits import RetrievalSplit
from uniadapter.data.video import load_frames

logger = logging.getLogger(__name__)

Split = TypeVar("Split", bound=RetrievalSplit)
Clean = Callable[[str, int], str]  # text and largest number of words to text


class SplitBuilder:
    """Collects records into a split: one entry for each distinct visual and for each usable text.

    Args:
        split: what is filled.
        problems: what becomes of records that cannot be used.
        clean: what is done to texts.
        max_words: longer texts are cut, and counted.
        noun: of a text, for messages.
    """

    def __init__(self, split: RetrievalSplit, problems: Problems, clean: Clean, max_words: int, noun: str) -> None:
        self.split, self._clean, self._noun = split, clean, noun
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
        words = self._clean(caption, sys.maxsize).split()
        if not words:
            message = (
                f"{origin}: the {self._noun} {caption[:80]!r} is empty once cleaned: write one, or remove the record"
            )
            self._problems.report(DataError(message, f"empty {self._noun}"))
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
            split.notes.append(f"{self._cut} {self._noun}s cut to {self._max_words} words")


def finish_split(split: Split, problems: Problems, where: str, check: bool, workers: int) -> Split:
    """Leave out visuals that do not decode, if `check` says so, and say what there is.

    Raises:
        DataError: nothing usable is left.
    """
    if check:
        split.drop_visuals(_broken(split, problems, workers))
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
