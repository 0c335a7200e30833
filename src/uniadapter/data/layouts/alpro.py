"""ALPRO's `train.jsonl`, `val.jsonl` and `test.jsonl`, and BLIP's `msrvtt_test.jsonl`.

A line each of `{clip_name, caption}`; the video is `clip_name` with ".mp4", or with another suffix of a video that is
found on disk. ALPRO's files of DiDeMo are of this layout too, their paragraphs already joined.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from uniadapter.data.layouts.sources import Source, read_rows
from uniadapter.data.media.files import video_name
from uniadapter.data.media.records import DataError, ErrorPolicy, Record, caption_field, text_field


def is_alpro(source: Source) -> bool:
    """Whether a file is one, by its first row."""
    return "clip_name" in (source.first or {})


def read_alpro(path: str | Path, problems: ErrorPolicy) -> Iterator[Record]:
    """Stream a record for each caption, in file order; a video's id is its `clip_name`.

    Args:
        path: the annotation file.
        problems: what becomes of lines that cannot be used.

    Raises:
        DataError: as `read_rows`; with `on_error="raise"` also for the first bad line.
    """
    for origin, row in read_rows(path, problems, required=("clip_name", "caption")):
        try:
            clip = text_field(origin, row, "clip_name", "the name of a video")
            captions = caption_field(origin, row, problems)
        except DataError as error:
            problems.report(error)
            continue
        yield from (Record(video_name(clip), caption, clip, where, "video") for where, caption in captions)
