"""Rows that hold a visual and its caption, a text or a list of texts: most files in circulation, and one's own.

    Karpathy's of COCO, Flickr30K   {image, caption, image_id}
    LAVIS's of videos               {video, caption}
    UMT's and VindLU's              {image or video: path of the video, caption}
    one's own JSONL or CSV          image, caption or video, caption

Several captions of a visual stay apart, each a text to be found and to find by; where they are the sentences of one
paragraph, the file is read by `didemo.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from uniadapter.data.files import has_video_suffix
from uniadapter.data.records import (
    DataError,
    Problems,
    Record,
    Row,
    caption_field,
    read_rows,
    text_field,
    wrong_type,
)

VISUAL_FIELDS = ("image", "video")


def read_pairs(path: str | Path, problems: Problems) -> Iterator[Record]:
    """Stream the (visual, caption) pairs of an annotation file, a record for each caption, in file order.

    Args:
        path: the annotation file.
        problems: what becomes of records that cannot be used.

    Raises:
        DataError: as `read_rows`; with `on_error="raise"` also for the first bad record.
    """
    for origin, row in read_rows(path, problems, required=(VISUAL_FIELDS, "caption")):
        try:
            visual, visual_id, noun = visual_fields(origin, row)
            captions = caption_field(origin, row, problems)
        except DataError as error:
            problems.report(error)
            continue
        yield from (Record(visual, caption, visual_id, where, noun) for where, caption in captions)


def visual_fields(origin: str, row: Row) -> tuple[str, str | int, str]:
    """Path, id and noun of a row's visual: `image` or `video`, and `image_id` or `video_id`, else the path.

    Raises:
        DataError: a field is empty or of the wrong type, or a row has both.
    """
    named = [name for name in VISUAL_FIELDS if row.get(name) is not None]
    if len(named) > 1:
        raise DataError(f"{origin}: has both 'image' and 'video': remove the one that is not meant", "image and video")
    name = named[0]
    visual = text_field(origin, row, name, f"the path of a {'video' if name == 'video' else 'picture or video'}")
    noun = "video" if name == "video" or has_video_suffix(visual) else "picture"
    visual_id = row.get(f"{name}_id")
    if visual_id is None or visual_id == "":
        return visual, visual, noun
    if not isinstance(visual_id, (str, int)):
        raise wrong_type(origin, f"{name}_id", visual_id, "a text or a whole number")
    return visual, visual_id, noun
