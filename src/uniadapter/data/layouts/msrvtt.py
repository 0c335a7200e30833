"""MSR-VTT: a list of videos per split, and one file with all captions.

MSRVTT_data.json           {videos: [{video_id, ...}], sentences: [{video_id, caption, ...}]}, of all splits
MSRVTT_train.9k.csv        column video_id: the 9,000 videos outside the 1k-A test split
MSRVTT_train.7k.csv        column video_id: 7,010 of them, from the original training and validation splits
MSRVTT_JSFUSION_test.csv   columns key, vid_key, video_id, sentence: the 1k-A test split, one caption per video
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from uniadapter.data.layouts.annotation_file import AnnotationFile, first_row, read_json, read_rows
from uniadapter.data.layouts.field_names import match_fields
from uniadapter.data.layouts.records import (
    DataError,
    ErrorPolicy,
    Record,
    Row,
    caption_field,
    text_field,
    usable_rows,
)
from uniadapter.data.media.paths import video_name

_VARIANTS = {"9k": 9000, "7k": 7010}  # training splits and their numbers of videos
_VIDEO = re.compile(r"video\d+(\.\w+)?")


def is_msrvtt(source: AnnotationFile) -> bool:
    """Whether a file is one of these lists, by its first row."""
    row = source.first or {}
    if {"videos", "sentences"} <= row.keys():
        return True
    others = match_fields(row, {}).keys() & {"image", "video", "question"}
    return "video_id" in row and not others and ("sentence" in row or "caption" not in match_fields(row, {}))


def read_msrvtt(path: str | Path, policy: ErrorPolicy, captions: str | Path | None = None) -> Iterator[Record]:
    """Stream a record for each caption of the listed videos, in the list's order.

    Args:
        path: a list of videos; if it has captions (column `sentence`), these are used.
        policy: handles rows that cannot be used, and listed videos without a caption.
        captions: `MSRVTT_data.json`, for a list without captions.

    Raises:
        DataError: a file cannot be read, the list is empty or needs `captions`; with `on_error="raise"` also for the
            first bad row.
    """
    file = Path(path)
    first = first_row(file) or {}
    if "videos" in first and "sentences" in first:
        raise DataError(
            f"{file} holds the captions of all splits: set data.captions to it, and data.train to a list such as "
            "MSRVTT_train.9k.csv",
            "captions of every split",
        )
    if "sentence" in first:
        yield from _own_sentences(file, policy)
    else:
        yield from _listed(file, policy, captions)


def training_split(file_name: str, visual_ids: Iterable[str | int], listed: int) -> str | None:
    """Which of MSR-VTT's training splits a list is, by its number of videos, with a note if its name disagrees.

    Args:
        file_name: of the list.
        visual_ids: of the split.
        listed: number of videos in the list.

    Returns:
        A note for the split's summary; None if it is not a training split of MSR-VTT.
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


def _own_sentences(file: Path, policy: ErrorPolicy) -> Iterator[Record]:
    videos = set()
    for origin, row in read_rows(file, policy, required=("video_id", "sentence")):
        try:
            video = _video_id(origin, row)
            found = list(caption_field(origin, row, policy, "sentence"))
        except DataError as error:
            policy.report(error)
            continue
        videos.add(video)
        yield from (_record(video, text, where) for where, text in found)
    policy.listed = len(videos)


def _listed(file: Path, policy: ErrorPolicy, captions: str | Path | None) -> Iterator[Record]:
    if captions is None:
        message = f"{file} lists videos without captions: set data.captions to the file with the captions, "
        raise DataError(message + "MSRVTT_data.json", "no captions")
    videos: dict[str, str] = {}
    for origin, row in read_rows(file, policy, required=("video_id",)):
        try:
            videos.setdefault(_video_id(origin, row), origin)
        except DataError as error:
            policy.report(error)
    if not videos:
        raise DataError(f"{file} lists no video: check the file", "empty list")
    policy.listed = len(videos)
    sentences = _sentences(Path(captions), policy)
    for video, origin in videos.items():
        if video not in sentences:
            message = f"{origin}: {captions} has no caption of video {video}: use two files of the same release"
            policy.report(DataError(message, "video without a caption"))
        yield from (_record(video, text, where) for where, text in sentences.get(video, []))


def _sentences(file: Path, policy: ErrorPolicy) -> dict[str, list[tuple[str, str]]]:
    """(origin, text) of each caption, by `video_id`."""
    content = read_json(file)
    lists = [content.get(name) if isinstance(content, dict) else None for name in ("videos", "sentences")]
    if not all(isinstance(one, list) for one in lists):
        message = f"{file} has no lists 'videos' and 'sentences': data.captions should be MSRVTT_data.json"
        raise DataError(message, "missing field")
    videos, sentences = (
        usable_rows(((f"{file}.{name}[{i}]", row) for i, row in enumerate(rows or [])), policy, required)
        for name, rows, required in zip(
            ("videos", "sentences"), lists, (("video_id",), ("video_id", "caption")), strict=True
        )
    )
    known = set()
    for origin, row in videos:
        try:
            known.add(_video_id(origin, row))
        except DataError as error:
            policy.report(error)
    found: dict[str, list[tuple[str, str]]] = {}
    for origin, row in sentences:
        try:
            video = _video_id(origin, row)
            if video not in known:
                message = f"{origin}: video_id {video!r} is not in 'videos': add it there, or remove the sentence"
                raise DataError(message, "unknown video_id")
            found.setdefault(video, []).extend(caption_field(origin, row, policy))
        except DataError as error:
            policy.report(error)
    return found


def _video_id(origin: str, row: Row) -> str:
    return text_field(origin, row, "video_id", "the id of a video")


def _record(video: str, caption: str, origin: str) -> Record:
    return Record(video_name(video), caption, video, origin, "video")
