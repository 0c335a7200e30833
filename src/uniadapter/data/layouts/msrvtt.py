"""MSR-VTT as lists of videos and one file of sentences.

MSRVTT_data.json           {videos: [{video_id, ...}], sentences: [{video_id, caption, ...}]}, of every split
MSRVTT_train.9k.csv        column video_id: the 9,000 videos that are not in the 1k-A test
MSRVTT_train.7k.csv        column video_id: the 7,010 of the original training and validation splits among them
MSRVTT_JSFUSION_test.csv   columns key, vid_key, video_id, sentence: the 1k-A test, one caption each
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from uniadapter.data.layouts.fields import names_of
from uniadapter.data.layouts.sources import Source, first_row, read_json, read_rows
from uniadapter.data.media.files import video_name
from uniadapter.data.media.records import (
    DataError,
    ErrorPolicy,
    Record,
    Row,
    caption_field,
    checked_rows,
    text_field,
)

_VARIANTS = {"9k": 9000, "7k": 7010}  # training lists by name, and their numbers of videos
_VIDEO = re.compile(r"video\d+(\.\w+)?")


def is_msrvtt(source: Source) -> bool:
    """Whether a file is one of these, by its first row."""
    row = source.first or {}
    if {"videos", "sentences"} <= row.keys():
        return True
    others = names_of(row, {}).keys() & {"image", "video", "question"}
    return "video_id" in row and not others and ("sentence" in row or "caption" not in names_of(row, {}))


def read_msrvtt(path: str | Path, problems: ErrorPolicy, captions: str | Path | None = None) -> Iterator[Record]:
    """Stream a record for each caption of the listed videos, in the list's order.

    Args:
        path: a list of videos; captions of its own (column `sentence`) are the ones that are used.
        problems: what becomes of rows that cannot be used, and of listed videos without a caption.
        captions: `MSRVTT_data.json`, for a list without captions.

    Raises:
        DataError: a file cannot be read, the list is empty or needs `captions`; with `on_error="raise"` also for the
            first bad row.
    """
    file = Path(path)
    first = first_row(file) or {}
    if "videos" in first and "sentences" in first:
        raise DataError(
            f"{file} holds the captions of every split: name it as data.captions, and a list such as "
            "MSRVTT_train.9k.csv as data.train",
            "captions of every split",
        )
    if "sentence" in first:
        yield from _own_sentences(file, problems)
    else:
        yield from _listed(file, problems, captions)


def training_split(file_name: str, visual_ids: Iterable[str | int], listed: int) -> str | None:
    """What to call a training list of MSR-VTT: by its number of videos, and by its name where that says another.

    Args:
        file_name: of the list.
        visual_ids: of the split.
        listed: number of videos in the list.

    Returns:
        A line for the split's summary; None if neither name nor number is one of a training list, or these are not
        MSR-VTT's videos.
    """
    if not all(_VIDEO.fullmatch(str(visual_id)) for visual_id in visual_ids):
        return None
    counted = next((name for name, count in _VARIANTS.items() if count == listed), None)
    named = next((name for name in _VARIANTS if name in file_name.lower()), None)
    if counted and named in (None, counted):
        return f"the {counted} training split of MSR-VTT ({listed:,} videos in {file_name})"
    if named:
        return f"{file_name} lists {listed:,} videos, not the {_VARIANTS[named]:,} of MSR-VTT's {named} training split"
    return None


def _own_sentences(file: Path, problems: ErrorPolicy) -> Iterator[Record]:
    videos = set()
    for origin, row in read_rows(file, problems, required=("video_id", "sentence")):
        try:
            video = _video_id(origin, row)
            found = list(caption_field(origin, row, problems, "sentence"))
        except DataError as error:
            problems.report(error)
            continue
        videos.add(video)
        yield from (_record(video, text, where) for where, text in found)
    problems.listed = len(videos)


def _listed(file: Path, problems: ErrorPolicy, captions: str | Path | None) -> Iterator[Record]:
    if captions is None:
        message = f"{file} lists videos without captions: set data.captions to the file that has them, "
        raise DataError(message + "MSRVTT_data.json", "no captions")
    videos: dict[str, str] = {}
    for origin, row in read_rows(file, problems, required=("video_id",)):
        try:
            videos.setdefault(_video_id(origin, row), origin)
        except DataError as error:
            problems.report(error)
    if not videos:
        raise DataError(f"{file} lists no video: check the file", "empty list")
    problems.listed = len(videos)
    sentences = _sentences(Path(captions), problems)
    for video, origin in videos.items():
        if video not in sentences:
            message = f"{origin}: {captions} has no caption of video {video}: take the two from one release"
            problems.report(DataError(message, "video without a caption"))
        yield from (_record(video, text, where) for where, text in sentences.get(video, []))


def _sentences(file: Path, problems: ErrorPolicy) -> dict[str, list[tuple[str, str]]]:
    """Where each caption of a video stands, and the text, by `video_id`."""
    content = read_json(file)
    lists = [content.get(name) if isinstance(content, dict) else None for name in ("videos", "sentences")]
    if not all(isinstance(one, list) for one in lists):
        message = f"{file} has no lists 'videos' and 'sentences': data.captions should name MSRVTT_data.json"
        raise DataError(message, "missing field")
    videos, sentences = (
        checked_rows(((f"{file}.{name}[{i}]", row) for i, row in enumerate(rows or [])), problems, required)
        for name, rows, required in zip(
            ("videos", "sentences"), lists, (("video_id",), ("video_id", "caption")), strict=True
        )
    )
    known = set()
    for origin, row in videos:
        try:
            known.add(_video_id(origin, row))
        except DataError as error:
            problems.report(error)
    found: dict[str, list[tuple[str, str]]] = {}
    for origin, row in sentences:
        try:
            video = _video_id(origin, row)
            if video not in known:
                message = f"{origin}: video_id {video!r} is not among 'videos': add it there, or remove the sentence"
                raise DataError(message, "unknown video_id")
            found.setdefault(video, []).extend(caption_field(origin, row, problems))
        except DataError as error:
            problems.report(error)
    return found


def _video_id(origin: str, row: Row) -> str:
    return text_field(origin, row, "video_id", "the id of a video")


def _record(video: str, caption: str, origin: str) -> Record:
    return Record(video_name(video), caption, video, origin, "video")
