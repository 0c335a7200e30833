"""ALPRO's `train.jsonl`, `val.jsonl` and `test.jsonl`, and BLIP's `msrvtt_test.jsonl`.

JSONL of `{clip_name, caption}`; the video file is `clip_name` with ".mp4" or another video suffix. ALPRO's DiDeMo
files, whose sentences are already joined to paragraphs, have this layout too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from uniadapter.data.layouts.annotation_file import AnnotationFile, read_rows
from uniadapter.data.layouts.records import DataError, ErrorPolicy, Record, caption_field, text_field
from uniadapter.data.media.paths import video_name


def is_alpro(source: AnnotationFile) -> bool:
    """Whether a file has this layout, by its first row."""
    return "clip_name" in (source.first or {})


def read_alpro(path: str | Path, policy: ErrorPolicy) -> Iterator[Record]:
    """Stream a record for each caption, in file order; a video's id is its `clip_name`.

    Args:
        path: the annotation file.
        policy: handles lines that cannot be used.

    Raises:
        DataError: as `read_rows`; with `on_error="raise"` also for the first bad line.
    """
    for origin, row in read_rows(path, policy, required=("clip_name", "caption")):
        try:
            clip = text_field(origin, row, "clip_name", "the name of a video")
            captions = caption_field(origin, row, policy)
        except DataError as error:
            policy.report(error)
            continue
        yield from (Record(video_name(clip), caption, clip, where, "video") for where, caption in captions)
