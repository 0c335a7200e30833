"""DiDeMo, as paragraph-to-video retrieval: all sentences about a video, joined in file order, are its one text.

`{split}_data.json` is a list of `{video, description, times}`, a row a sentence, and beside it stands
`{split}_list.txt` with the videos of the split, a name a line. Files of `{video, caption: [the sentences]}`, as UMT's
and VindLU's of DiDeMo, are joined likewise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from uniadapter.data.layouts.fields import VISUALS
from uniadapter.data.layouts.pairs import visual_of
from uniadapter.data.layouts.sources import Source, read_rows
from uniadapter.data.media.records import DataError, ErrorPolicy, Record, Row, caption_field

_TEXT_FIELDS = ("description", "caption")


def is_didemo(source: Source) -> bool:
    """Whether a file is one, by its first row.

    Lists of captions are the sentences of one paragraph if the file's name says DiDeMo: nothing in such a file tells
    them from several captions of a video.
    """
    row = source.first or {}
    if {"video", "description", "times"} <= row.keys():
        return True
    return isinstance(row.get("caption"), list) and "didemo" in source.name


@dataclass
class _Paragraph:
    """A video with its sentences; `origin` is where the first of them stands."""

    visual_id: str | int
    origin: str
    sentences: list[str] = field(default_factory=list)


def read_didemo(path: str | Path, problems: ErrorPolicy) -> Iterator[Record]:
    """Stream a record for each video, in the order of their first sentences.

    Where the list stands beside the file only its videos are used. How many videos there should be becomes
    `problems.listed`.

    Args:
        path: `{split}_data.json`, or another file of videos and sentences.
        problems: what becomes of rows that cannot be used, and of listed videos without a sentence.

    Raises:
        DataError: as `read_rows`, or the list is empty; with `on_error="raise"` also for the first bad row.
    """
    file = Path(path)
    listed = _listed(file)
    paragraphs: dict[str, _Paragraph] = {}
    for origin, row in read_rows(file, problems, required=(VISUALS, _TEXT_FIELDS)):
        try:
            visual, visual_id, *_ = visual_of(origin, row)
            if listed is None or visual in listed:
                sentences = _sentences(origin, row, problems)
                paragraphs.setdefault(visual, _Paragraph(visual_id, origin)).sentences.extend(sentences)
        except DataError as error:
            problems.report(error)
    problems.listed = len(paragraphs if listed is None else listed)
    problems.notes.append("all sentences about a video are one text")
    for visual, one in paragraphs.items():
        if one.sentences:  # else all of them were reported
            yield Record(visual, " ".join(one.sentences), one.visual_id, one.origin, "video")
    for visual, origin in (listed or {}).items():
        if visual not in paragraphs:
            message = f"{origin}: {file} has no sentence about video {visual}: add one, or remove it from the list"
            problems.report(DataError(message, "video without a caption"))


def _listed(file: Path) -> dict[str, str] | None:
    """The videos of the list beside the file, with their lines; None if there is no list."""
    if not file.stem.endswith("_data"):
        return None
    beside = file.with_name(f"{file.stem.removesuffix('_data')}_list.txt")
    if not beside.is_file():
        return None
    try:
        lines = beside.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{beside} is not text in UTF-8 ({error}): save it as such", "not text") from None
    videos = {line.strip(): f"{beside}:{number}" for number, line in enumerate(lines, start=1) if line.strip()}
    if not videos:
        raise DataError(f"{beside} lists no video: fill it, or remove it to use all of {file.name}", "empty list")
    return videos


def _sentences(origin: str, row: Row, problems: ErrorPolicy) -> list[str]:
    """The sentences of one row, without white space around them; empty ones are reported."""
    name = next(name for name in _TEXT_FIELDS if row.get(name) is not None)
    found = []
    for where, text in caption_field(origin, row, problems, name):
        if text.strip():
            found.append(text.strip())
        else:
            problems.report(DataError(f"{where}: the {name} is empty: write one, or remove it", "empty caption"))
    return found
