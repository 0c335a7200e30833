"""Rows with a visual and its caption or captions, the most common layout; most others are converted to it.

    BLIP's COCO and Flickr30K        {image, caption, image_id}
    LAVIS's video files              {video, caption}
    UMT and VindLU                   {image or video: path of the video, caption}
    your own JSONL, CSV, Parquet     image, caption or video, caption, or their aliases in `field_names.py`

Several captions of a visual are separate texts for retrieval; sentences of one paragraph are joined by `didemo.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from uniadapter.data.layouts.field_names import VISUAL_IDS, VISUALS, is_url, split_name
from uniadapter.data.layouts.records import (
    DataError,
    ErrorPolicy,
    Record,
    Required,
    Row,
    caption_field,
    group_field,
    id_field,
    wrong_type_error,
)
from uniadapter.data.media.file_kinds import has_video_suffix
from uniadapter.data.media.paths import video_name

REQUIRED: Required = ((*VISUALS, *VISUAL_IDS), "caption")
_PICTURES = (".jpg", ".png", ".jpeg", ".webp")


class VisualRef(NamedTuple):
    """A row's visual: path, id, noun ("picture" or "video"), and alternative paths."""

    path: str
    visual_id: str | int
    noun: str
    others: tuple[str, ...] = ()


def pair_records(rows: Iterable[tuple[str, Row]], policy: ErrorPolicy) -> Iterator[Record]:
    """Stream a record per caption of each (origin, row), in order; invalid rows are reported."""
    for origin, row in rows:
        try:
            visual = parse_visual(origin, row)
            captions = caption_field(origin, row, policy)
        except DataError as error:
            policy.report(error)
            continue
        for where, caption in captions:
            group = group_field(row)
            yield Record(visual.path, caption, visual.visual_id, where, visual.noun, visual.others, group)


def parse_visual(origin: str, row: Row) -> VisualRef:
    """A row's visual, from its `image` or `video`, or from its `image_id` or `video_id` by the usual file names.

    `video_id` is a number in MSRVTT-QA and a name in ALPRO. Layouts may give a tuple of paths, likeliest first.

    Raises:
        DataError: a field is empty or of the wrong type, or the row has both an image and a video.
    """
    if row.get("image") is not None or row.get("video") is not None:
        return _parse_path(origin, row)
    if row.get("video_id") is not None:
        value = id_field(origin, "video_id", row["video_id"])
        numbered = isinstance(value, int) or value.isdigit()
        return VisualRef(video_name(f"video{value}" if numbered else str(value)), value, "video")
    if row.get("image_id") in (None, ""):
        raise wrong_type_error(origin, "image", row.get("image"), "the path of a picture")
    value = id_field(origin, "image_id", row["image_id"])
    split = split_name(row.get("split"))  # A-OKVQA's pictures are those of COCO's split
    first, *others = picture_paths(value, [f"{split}{year}" for year in (2017, 2014)] if split else ())
    return VisualRef(first, value, "picture", tuple(others))


def picture_paths(picture: str | int, folders: Iterable[str] = ()) -> tuple[str, ...]:
    """Candidate paths of the picture with an id, likeliest first; COCO's names have twelve digits.

    Args:
        picture: number or name.
        folders: that may contain it, such as "train2014".
    """
    text = str(picture)
    names = [text] if has_suffix(text) else [text + suffix for suffix in _PICTURES]
    if text.isdecimal() and len(text) <= 12:
        number = f"{int(text):012d}.jpg"  # COCO 2014 and 2015 have the folder in the name as well
        coco = [f"COCO_{folder}_{number}" for folder in folders if not folder.endswith("2017")]
        names = [*coco, number, *names, *(f"{int(text):0{width}d}.jpg" for width in range(1, 12))]
    inside = [f"{folder}/{name}" for folder in folders for name in names if _fits(folder, name)]
    common = [f"{folder}/{name}" for folder in ("images", "train_images") for name in names]
    return tuple(dict.fromkeys([*inside, *names, *common]))


def has_suffix(name: str) -> bool:
    """Whether a name has a suffix: a dot and up to five letters or digits."""
    stem, dot, suffix = name.rpartition(".")
    return bool(stem and dot) and suffix.isalnum() and len(suffix) <= 5


def _fits(folder: str, name: str) -> bool:
    return not name.startswith("COCO_") or name.startswith(f"COCO_{folder}_")


def _parse_path(origin: str, row: Row) -> VisualRef:
    named = [name for name in VISUALS if row.get(name) is not None]
    if len(named) > 1:
        raise DataError(f"{origin}: has both 'image' and 'video': remove one of them", "image and video")
    name = named[0]
    value = row[name]
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    others: tuple[str, ...] = ()
    if isinstance(value, tuple):
        value, *rest = value
        others = tuple(rest)
    visual = value
    if not isinstance(visual, str) or not visual.strip():
        raise wrong_type_error(
            origin, name, value, f"the path of a {'video' if name == 'video' else 'picture or video'}"
        )
    if "://" in visual:
        visual = visual.removeprefix("file://")
    if "://" in visual and is_url(visual):
        message = f"{origin}: {visual[:80]} is a URL, not a file: download it first, and name the file"
        raise DataError(message, "address instead of a file")
    noun = "video" if name == "video" or has_video_suffix(visual) else "picture"
    visual_id = row.get(f"{name}_id")
    if visual_id is None or visual_id == "":
        return VisualRef(visual, visual, noun, others)
    return VisualRef(visual, id_field(origin, f"{name}_id", visual_id), noun, others)
