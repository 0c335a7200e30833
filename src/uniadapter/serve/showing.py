"""Pictures and videos as a browser shows them: pictures as JPEG, videos as they are where browsers play them."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from uniadapter.data.media.user_inputs import as_clips
from uniadapter.errors import DataError
from uniadapter.serve.items import Item

THUMBNAIL, LARGE = 384, 1600  # longer sides in pixels
# Known by their suffixes; nothing else is ever sent as it is, so that no file is taken for a page.
_PLAYED = {
    ".mp4": "video/mp4", ".m4v": "video/mp4", ".webm": "video/webm", ".mov": "video/quicktime", ".ogv": "video/ogg",
    ".gif": "image/gif", ".webp": "image/webp", ".png": "image/png", ".apng": "image/apng",
}  # fmt: skip


def media_type(item: Item) -> str | None:
    """The type under which a browser plays a video; None for a picture, or where it does not."""
    return _PLAYED.get(Path(item.path).suffix.lower()) if item.video else None


def picture_jpeg(item: Item) -> bytes:
    """A picture, or a video's middle frame.

    Raises:
        DataError: it cannot be read.
    """
    return _jpeg(_frames(item, 1)[0], LARGE)


def thumbnail_jpeg(item: Item) -> bytes:
    """The same, small."""
    return _jpeg(_frames(item, 1)[0], THUMBNAIL)


def frame_jpeg(item: Item, number: int, of: int) -> bytes:
    """A frame of those that a model sees.

    Args:
        item: picture or video.
        number: of the frame, from 0.
        of: how many the model sees.

    Raises:
        DataError: it cannot be read, or has no such frame.
    """
    if not 0 <= number < of:
        raise DataError(f"{item.name} has no frame {number} of {of}", "no frame")
    return _jpeg(_frames(item, of)[number], THUMBNAIL)


def _frames(item: Item, count: int) -> list[Image.Image]:
    try:
        return as_clips(item.path)[0].read(count)
    except DataError as error:
        raise DataError(str(error).replace(item.path, item.name), error.kind) from None


def _jpeg(picture: Image.Image, side: int) -> bytes:
    small = picture.convert("RGB")
    small.thumbnail((side, side))
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=85)
    return stream.getvalue()
