"""Rows that hold a visual and its caption, a text or a list of texts: what most files are, or are turned into.

    BLIP's of COCO, Flickr30K       {image, caption, image_id}
    LAVIS's of videos               {video, caption}
    UMT's and VindLU's              {image or video: path of the video, caption}
    one's own JSONL, CSV, Parquet   image, caption or video, caption, or names that `fields.py` knows

Several captions of a visual stay apart, each a text to be found and to find by; where they are the sentences of one
paragraph, the file is read by `didemo.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from uniadapter.data.layouts.fields import VISUAL_IDS, VISUALS, is_address, split_of
from uniadapter.data.media.files import video_name
from uniadapter.data.media.kinds import has_video_suffix
from uniadapter.data.media.records import (
    DataError,
    ErrorPolicy,
    Record,
    Required,
    Row,
    caption_field,
    id_field,
    wrong_type,
)

REQUIRED: Required = ((*VISUALS, *VISUAL_IDS), "caption")
_PICTURES = (".jpg", ".png", ".jpeg", ".webp")


class Visual(NamedTuple):
    """What a row is about: path, id, noun, and further paths at which it may be."""

    path: str
    visual_id: str | int
    noun: str
    others: tuple[str, ...] = ()


def pair_records(rows: Iterable[tuple[str, Row]], problems: ErrorPolicy) -> Iterator[Record]:
    """Stream a record for each caption of (origin, row), in their order; bad ones are reported."""
    for origin, row in rows:
        try:
            visual = visual_of(origin, row)
            captions = caption_field(origin, row, problems)
        except DataError as error:
            problems.report(error)
            continue
        for where, caption in captions:
            yield Record(visual.path, caption, visual.visual_id, where, visual.noun, visual.others)


def visual_of(origin: str, row: Row) -> Visual:
    """A row's visual: its `image` or `video`; of a row that has only an id, where such pictures and videos are kept.

    MSRVTT-QA's `video_id` is a number, ALPRO's a name. A tuple, which layouts may give, has the likeliest path first.

    Raises:
        DataError: a field is empty or of the wrong type, or a row has both.
    """
    if row.get("image") is not None or row.get("video") is not None:
        return _named(origin, row)
    if row.get("video_id") is not None:
        value = id_field(origin, "video_id", row["video_id"])
        numbered = isinstance(value, int) or value.isdigit()
        return Visual(video_name(f"video{value}" if numbered else str(value)), value, "video")
    if row.get("image_id") in (None, ""):
        raise wrong_type(origin, "image", row.get("image"), "the path of a picture")
    value = id_field(origin, "image_id", row["image_id"])
    split = split_of(row.get("split"))  # A-OKVQA's pictures are those of COCO's split
    first, *others = pictures_of(value, [f"{split}{year}" for year in (2017, 2014)] if split else ())
    return Visual(first, value, "picture", tuple(others))


def pictures_of(picture: str | int, folders: Iterable[str] = ()) -> tuple[str, ...]:
    """The paths at which the picture of an id may be, likeliest first: COCO's numbers have twelve digits.

    Args:
        picture: number or name.
        folders: that it may be in, such as "train2014".
    """
    text = str(picture)
    names = [text] if has_suffix(text) else [text + suffix for suffix in _PICTURES]
    if text.isdecimal() and len(text) <= 12:
        number = f"{int(text):012d}.jpg"  # COCO's of 2014 and 2015 have their folder in the name
        coco = [f"COCO_{folder}_{number}" for folder in folders if not folder.endswith("2017")]
        names = [*coco, number, *names, *(f"{int(text):0{width}d}.jpg" for width in range(1, 12))]
    inside = [f"{folder}/{name}" for folder in folders for name in names if _fits(folder, name)]
    common = [f"{folder}/{name}" for folder in ("images", "train_images") for name in names]
    return tuple(dict.fromkeys([*inside, *names, *common]))


def has_suffix(name: str) -> bool:
    """Whether a name ends as files do: with a dot and up to five letters or digits."""
    stem, dot, suffix = name.rpartition(".")
    return bool(stem and dot) and suffix.isalnum() and len(suffix) <= 5


def _fits(folder: str, name: str) -> bool:
    return not name.startswith("COCO_") or name.startswith(f"COCO_{folder}_")


def _named(origin: str, row: Row) -> Visual:
    named = [name for name in VISUALS if row.get(name) is not None]
    if len(named) > 1:
        raise DataError(f"{origin}: has both 'image' and 'video': remove the one that is not meant", "image and video")
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
        raise wrong_type(origin, name, value, f"the path of a {'video' if name == 'video' else 'picture or video'}")
    if "://" in visual:
        visual = visual.removeprefix("file://")
    if "://" in visual and is_address(visual):
        message = f"{origin}: {visual[:80]} is an address, not a file: download it first, and name the file"
        raise DataError(message, "address instead of a file")
    noun = "video" if name == "video" or has_video_suffix(visual) else "picture"
    visual_id = row.get(f"{name}_id")
    if visual_id is None or visual_id == "":
        return Visual(visual, visual, noun, others)
    return Visual(visual, id_field(origin, f"{name}_id", visual_id), noun, others)
