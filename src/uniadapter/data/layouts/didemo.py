"""DiDeMo for paragraph-to-video retrieval: the sentences about a video are joined, in file order, to one text.

`{split}_data.json` is a list of `{video, description, times}`, one sentence per row; `{split}_list.txt` in the same
folder lists the videos of the split. Files of `{video, caption: [sentences]}`, as UMT's and VindLU's DiDeMo files, are
joined in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from uniadapter.data.layouts.annotation_file import AnnotationFile, read_rows
from uniadapter.data.layouts.field_names import VISUALS
from uniadapter.data.layouts.pairs import parse_visual
from uniadapter.data.layouts.records import DataError, ErrorPolicy, Record, Row, caption_field

_TEXT_FIELDS = ("description", "caption")


def is_didemo(source: AnnotationFile) -> bool:
    """Whether a file has this layout, by its first row.

    A list of captions is a paragraph only if the file's name contains "didemo"; the content does not tell a paragraph
    from several captions of one video.
    """
    row = source.first or {}
    if {"video", "description", "times"} <= row.keys():
        return True
    return isinstance(row.get("caption"), list) and "didemo" in source.name


@dataclass
class _Paragraph:
    """A video with its sentences; `origin` is the position of the first one."""

    visual_id: str | int
    origin: str
    sentences: list[str] = field(default_factory=list)


def read_didemo(path: str | Path, policy: ErrorPolicy) -> Iterator[Record]:
    """Stream a record for each video, in the order of their first sentences.

    If the list file exists, only its videos are used. The number of listed videos is stored in `policy.listed`.

    Args:
        path: `{split}_data.json`, or another file of videos and sentences.
        policy: handles rows that cannot be used, and listed videos without a sentence.

    Raises:
        DataError: as `read_rows`, or the list is empty; with `on_error="raise"` also for the first bad row.
    """
    file = Path(path)
    listed = _listed(file)
    paragraphs: dict[str, _Paragraph] = {}
    for origin, row in read_rows(file, policy, required=(VISUALS, _TEXT_FIELDS)):
        try:
            visual, visual_id, *_ = parse_visual(origin, row)
            if listed is None or visual in listed:
                sentences = _sentences(origin, row, policy)
                paragraphs.setdefault(visual, _Paragraph(visual_id, origin)).sentences.extend(sentences)
        except DataError as error:
            policy.report(error)
    policy.listed = len(paragraphs if listed is None else listed)
    policy.notes.append("all sentences about a video are one text")
    for visual, one in paragraphs.items():
        if one.sentences:  # else all of them were reported
            yield Record(visual, " ".join(one.sentences), one.visual_id, one.origin, "video")
    for visual, origin in (listed or {}).items():
        if visual not in paragraphs:
            message = f"{origin}: {file} has no sentence about video {visual}: add one, or remove it from the list"
            policy.report(DataError(message, "video without a caption"))


def _listed(file: Path) -> dict[str, str] | None:
    """The videos of the list file, each with its line; None if there is no list file."""
    if not file.stem.endswith("_data"):
        return None
    list_file = file.with_name(f"{file.stem.removesuffix('_data')}_list.txt")
    if not list_file.is_file():
        return None
    try:
        lines = list_file.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{list_file} is not text in UTF-8 ({error}): save it as such", "not text") from None
    videos = {line.strip(): f"{list_file}:{number}" for number, line in enumerate(lines, start=1) if line.strip()}
    if not videos:
        raise DataError(f"{list_file} lists no video: fill it, or remove it to use all of {file.name}", "empty list")
    return videos


def _sentences(origin: str, row: Row, policy: ErrorPolicy) -> list[str]:
    """The sentences of one row, stripped; empty ones are reported."""
    name = next(name for name in _TEXT_FIELDS if row.get(name) is not None)
    found = []
    for where, text in caption_field(origin, row, policy, name):
        if text.strip():
            found.append(text.strip())
        else:
            policy.report(DataError(f"{where}: the {name} is empty: write one, or remove it", "empty caption"))
    return found
