"""Builds a split from records: finds each visual once, cleans texts, counts errors, drops undecodable files."""

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
from uniadapter.data.layouts.records import (
    DataError,
    ErrorPolicy,
    Record,
    expand_home,
    is_valid_unicode,
    lone_surrogate_error,
)
from uniadapter.data.media.file_kinds import is_video
from uniadapter.data.media.images import VisualSource
from uniadapter.data.media.paths import find_visual, missing_visual_error, printable_path, resolve_visual
from uniadapter.data.media.video import load_frames
from uniadapter.data.splits import RetrievalSplit

logger = logging.getLogger(__name__)

Split = TypeVar("Split", bound=RetrievalSplit)
_MAX_LISTED = 20  # dropped visuals that the log names; metrics.json has all of them
CleanText = Callable[[str, int], str]  # (text, maximum number of words) to text


class SplitBuilder:
    """Adds records to a split: one entry per distinct visual and one per usable text.

    Args:
        split: the split to fill.
        policy: handles records that cannot be used.
        clean: cleans a text.
        max_words: longer texts are truncated and counted.
        noun: what a text is called in messages: "caption" or "question".
    """

    def __init__(self, split: RetrievalSplit, policy: ErrorPolicy, clean: CleanText, max_words: int, noun: str) -> None:
        self.split, self._clean, self._noun = split, clean, noun
        self._problems = policy
        self._max_words = max_words
        self._cut = 0
        self._nouns: set[str] = set()
        self._index: dict[object, int] = {}
        self._owner: dict[str | int, object] = {}
        self._found: dict[Path, Path | None] = {}  # path in the annotations to path on disk
        self._asked: dict[Path, Path] = {}  # the inverse

    def add_file(self, record: Record, root: Path) -> None:
        """Add a caption of a visual in a file or folder; the file is searched for once per visual."""
        try:
            asked = resolve_visual(root, record.visual, record.origin, record.noun)
            if asked not in self._found:
                self._found[asked] = None
                self._found[asked] = self._locate(asked, root, record)
        except DataError as error:
            self._problems.report(error)
            self.split.lost[record.visual] = error.kind
            self.split.lost_texts += 1
            return
        path = self._found[asked]
        if path is not None:
            self.add(path, path, record.visual_id, record.caption, record.origin, record.group)
        else:
            self.split.lost_texts += 1

    def _locate(self, asked: Path, root: Path, record: Record) -> Path:
        found = find_visual(asked, record.noun) if asked != root else None
        for name in _alternative_paths(record) if found is None and asked != root else ():
            found = find_visual(resolve_visual(root, name, record.origin, record.noun), record.noun)
            if found is not None:
                break
        if found is None and record.others:
            message = f"{record.origin}: {record.noun} {asked} does not exist, nor {record.others[0]} and similar paths"
            raise DataError(f"{message}: set data.root to the folder with the files", f"missing {record.noun}")
        if found is None:
            raise missing_visual_error(record.origin, asked, record.noun)
        other = self._asked.setdefault(found, asked)
        if other != asked:
            message = f"{record.origin}: {found} would be used for both {other} and {asked}: add the missing file"
            raise DataError(message, "file of two videos")
        self._nouns.add("video" if is_video(found) else record.noun)
        return found

    def add(
        self,
        key: object,
        source: VisualSource,
        visual_id: str | int,
        caption: str,
        origin: str,
        group: str | int | None = None,
    ) -> None:
        """Add a caption of a visual.

        Args:
            key: identifies the visual among those of the split.
            source: where to read it.
            visual_id: the file's id of it.
            caption: the text, not cleaned.
            origin: the record, for errors.
            group: shared by visuals that are each other's hard negatives.
        """
        if not is_valid_unicode(caption) or not is_valid_unicode(str(visual_id)):
            self._problems.report(
                lone_surrogate_error(origin, self._noun if is_valid_unicode(str(visual_id)) else "id")
            )
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
                "give each visual a unique id"
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
        self.split.text_group.append(group)

    def describe(self, file_name: str = "") -> None:
        """Set the split's noun and notes, after the last record."""
        split, listed = self.split, self._problems.listed
        if all(group is None for group in split.text_group):
            split.text_group = []
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
            split.notes.append(f"{repeated} repeated {self._noun}s of the same {split.noun[:-1]}")
        if self._cut:
            split.notes.append(f"{self._cut} {self._noun}s cut to {self._max_words} words")


def data_root(path: str | Path, config: DataConfig) -> Path:
    """The folder to which paths of pictures and videos are relative, `~` expanded."""
    if config.root:
        return expand_home(config.root)
    return expand_home(path) if os.path.isdir(expand_home(path)) else expand_home(path).parent


def _alternative_paths(record: Record) -> Iterator[str]:
    """Alternative paths of a record's visual, likeliest first."""
    names = (record.visual, *record.others)
    yield from record.others
    for name in names:
        if "\\" in name:  # written on Windows
            yield name.replace("\\", "/")
        if name != name.strip():
            yield name.strip()
    if record.noun == "picture" and not has_suffix(record.visual):
        yield from (name + suffix for name in names for suffix in (".jpg", ".png", ".jpeg", ".webp"))


def finish_split(split: Split, policy: ErrorPolicy, where: str, check: bool, workers: int) -> Split:
    """Drop visuals that cannot be decoded, if `check` is set, and log a summary.

    Args:
        split: after `SplitBuilder.describe`.
        policy: handles visuals that cannot be decoded.
        where: the file, for errors.
        check: whether to decode every visual (of a video one frame).
        workers: threads that decode.

    Raises:
        DataError: no usable sample is left.
    """
    if check:
        broken, texts = _undecodable(split, policy, workers), len(split.texts)
        split.lost |= {str(split.visuals[index]): kind for index, kind in broken.items()}
        split.drop_visuals(set(broken))
        split.lost_texts += texts - len(split.texts)
    if not split.texts:
        left_out = f" ({split.summary()})" if split.skipped else ""
        raise DataError(f"{where}: no usable picture or video with a caption{left_out}: check the file", "empty split")
    logger.info("%s", split.summary())
    if split.lost:
        names = [f"{printable_path(name)} ({kind})" for name, kind in split.lost.items()]
        more = f" and {len(names) - _MAX_LISTED} more" if len(names) > _MAX_LISTED else ""
        logger.warning(
            "%s: only %s are there: left out %s%s",
            split.name,
            split.coverage_text,
            ", ".join(names[:_MAX_LISTED]),
            more,
        )
    return split


def _undecodable(split: RetrievalSplit, policy: ErrorPolicy, workers: int) -> dict[int, str]:
    """Indices of the visuals that cannot be decoded, with the kind of error.

    Threads suffice, since Pillow and PyAV release the global interpreter lock.
    """

    def decode(index: int) -> DataError | None:
        try:
            load_frames(split.visuals[index], split.origins[index], count=1, min_side=1)
        except DataError as error:
            return error
        return None

    broken = dict[int, str]()
    with ThreadPoolExecutor(max(workers, 1)) as pool:
        for index, error in enumerate(pool.map(decode, range(len(split.visuals)))):
            if error is not None:
                broken[index] = error.kind
                policy.report(error)
    return broken
