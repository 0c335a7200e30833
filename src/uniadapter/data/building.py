"""How a split comes about: visuals looked for once, texts cleaned, faults counted, broken files left out."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from uniadapter.config import DataConfig
from uniadapter.data.layouts.msrvtt import training_split
from uniadapter.data.layouts.pairs import has_suffix
from uniadapter.data.media.files import find_visual, missing_visual, resolve_visual, shown_path
from uniadapter.data.media.images import Source
from uniadapter.data.media.kinds import is_video
from uniadapter.data.media.records import DataError, ErrorPolicy, Record, expanded, half_a_character, is_whole
from uniadapter.data.media.video import load_frames
from uniadapter.data.splits import RetrievalSplit

logger = logging.getLogger(__name__)

Split = TypeVar("Split", bound=RetrievalSplit)
_NAMED = 20  # visuals that were left out, in the log; metrics.json has them all
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

    def __init__(self, split: RetrievalSplit, problems: ErrorPolicy, clean: Clean, max_words: int, noun: str) -> None:
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
            self.split.lost[record.visual] = error.kind
            self.split.lost_texts += 1
            return
        path = self._found[asked]
        if path is not None:
            self.add(path, path, record.visual_id, record.caption, record.origin)
        else:
            self.split.lost_texts += 1

    def _place(self, asked: Path, root: Path, record: Record) -> Path:
        found = find_visual(asked, record.noun) if asked != root else None
        for name in _otherwise(record) if found is None and asked != root else ():
            found = find_visual(resolve_visual(root, name, record.origin, record.noun), record.noun)
            if found is not None:
                break
        if found is None and record.others:
            message = f"{record.origin}: {record.noun} {asked} does not exist, nor {record.others[0]} and the like"
            raise DataError(f"{message}: set data.root to the folder that they are in", f"missing {record.noun}")
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
        if not is_whole(caption) or not is_whole(str(visual_id)):
            self._problems.report(half_a_character(origin, self._noun if is_whole(str(visual_id)) else "id"))
            return
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
        text = " ".join(words[: self._max_words])
        self.split.texts.append(text)
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
        split.notes += [f"{count} {what}" for what, count in self._problems.changed.items() if count]
        repeated = len(split.texts) - len(set(zip(split.text_visual, split.texts, strict=True)))
        if repeated:
            split.notes.append(f"{repeated} {self._noun}s stand there twice for the same {split.noun[:-1]}")
        if self._cut:
            split.notes.append(f"{self._cut} {self._noun}s cut to {self._max_words} words")


def data_root(path: str | Path, config: DataConfig) -> Path:
    """The folder that relative paths of pictures and videos start from; `~` is the home folder."""
    if config.root:
        return expanded(config.root)
    return expanded(path) if os.path.isdir(expanded(path)) else expanded(path).parent


def _otherwise(record: Record) -> Iterator[str]:
    """Further paths at which a record's visual may be, likeliest first."""
    names = (record.visual, *record.others)
    yield from record.others
    for name in names:
        if "\\" in name:  # of a file that was written on Windows
            yield name.replace("\\", "/")
        if name != name.strip():
            yield name.strip()
    if record.noun == "picture" and not has_suffix(record.visual):
        yield from (name + suffix for name in names for suffix in (".jpg", ".png", ".jpeg", ".webp"))


def finish_split(split: Split, problems: ErrorPolicy, where: str, check: bool, workers: int) -> Split:
    """Leave out visuals that do not decode, if `check` says so, and say what there is.

    Raises:
        DataError: nothing usable is left.
    """
    if check:
        broken, texts = _broken(split, problems, workers), len(split.texts)
        split.lost |= {str(split.visuals[index]): kind for index, kind in broken.items()}
        split.drop_visuals(set(broken))
        split.lost_texts += texts - len(split.texts)
    if not split.texts:
        left_out = f" ({split.summary()})" if split.skipped else ""
        raise DataError(
            f"{where}: not one usable picture or video with a caption{left_out}: check the file", "empty split"
        )
    logger.info("%s", split.summary())
    if split.lost:
        names = [f"{shown_path(name)} ({kind})" for name, kind in split.lost.items()]
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        logger.warning("%s: only %s are there: left out %s%s", split.name, split.over, ", ".join(names[:_NAMED]), more)
    return split


def _broken(split: RetrievalSplit, problems: ErrorPolicy, workers: int) -> dict[int, str]:
    """Indices of the visuals that do not decode, with the kind of fault.

    Pillow and PyAV free the interpreter lock, so threads do.
    """

    def fault(index: int) -> DataError | None:
        try:
            load_frames(split.visuals[index], split.origins[index], count=1, at_least=1)
        except DataError as error:
            return error
        return None

    broken = dict[int, str]()
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for index, error in enumerate(pool.map(fault, range(len(split.visuals)))):
            if error is not None:
                broken[index] = error.kind
                problems.report(error)
    return broken
