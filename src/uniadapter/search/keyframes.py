"""The frames of a file that are indexed: a picture, or several moments of a video, each with its time."""

from __future__ import annotations

import io
import math
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from uniadapter.data.media.images import load_picture
from uniadapter.data.media.video import load_clip, looks_like_video
from uniadapter.data.media.video_decoding import clip_seconds
from uniadapter.errors import DataError

SECONDS_A_FRAME = 2.0
MOST_FRAMES = 32  # of a video
UNTIMED_FRAMES = 8  # of a video whose header does not say how long it is
LONGEST = 6 * 3600.0  # seconds of a video
THUMBNAIL = 192  # longer side in pixels
RULE = f"{SECONDS_A_FRAME:g} s, {MOST_FRAMES} frames, plain ones left out"  # part of the fingerprint
_PLAIN = 3.0  # standard deviation of brightness, of 255, up to which a frame shows nothing
_DATE_TAGS = (0x9003, 0x0132)  # DateTimeOriginal (in the Exif part), DateTime
_EXIF_PART = 0x8769


@dataclass(frozen=True)
class Keyframe:
    """A moment.

    Args:
        time: in seconds from the beginning; 0 for a picture.
        picture: RGB.
    """

    time: float
    picture: Image.Image

    @property
    def thumbnail(self) -> bytes:
        """As JPEG."""
        small = self.picture.copy()
        small.thumbnail((THUMBNAIL, THUMBNAIL))
        stream = io.BytesIO()
        small.save(stream, "JPEG", quality=80)
        return stream.getvalue()


@dataclass(frozen=True)
class Keyframes:
    """What is indexed of a file.

    Args:
        kind: "picture" or "video".
        seconds: of a video; 0 for a picture, and where it isn't known.
        frames: without those of one colour.
    """

    kind: str
    seconds: float
    frames: list[Keyframe]


def read_keyframes(path: str, min_side: int) -> Keyframes:
    """Read a file.

    Args:
        path: of a picture or video.
        min_side: frames keep at least so many pixels a side.

    Raises:
        DataError: it cannot be read, is too large or too long, or shows nothing but one colour.
    """
    side = max(min_side, THUMBNAIL)
    if not looks_like_video(Path(path)):
        picture = load_picture(Path(path), "", side)
        if _is_plain(picture):
            raise DataError(f"{path}: a picture of one colour", "nothing to see")
        return Keyframes("picture", 0.0, [Keyframe(0.0, picture)])
    seconds = clip_seconds(Path(path)) or 0.0
    if seconds > LONGEST:
        raise DataError(f"{path}: a video of {seconds / 3600:.1f} hours; the limit is {LONGEST / 3600:.0f}", "too long")
    count = min(MOST_FRAMES, max(1, math.ceil(seconds / SECONDS_A_FRAME))) if seconds else UNTIMED_FRAMES
    pictures = load_clip(Path(path), "", count, min_side=side)
    frames = [Keyframe((number + 0.5) * seconds / count, one) for number, one in enumerate(pictures)]
    shown = [frame for frame in frames if not _is_plain(frame.picture)]
    if not shown:
        raise DataError(f"{path}: all frames are of one colour", "nothing to see")
    return Keyframes("video", seconds, shown)


def _is_plain(picture: Image.Image) -> bool:
    return float(np.asarray(picture.convert("L").resize((32, 32))).std()) < _PLAIN


def taken_at(path: str, kind: str) -> float:
    """When a picture was taken, by its Exif data, else when the file was changed; seconds since 1970."""
    if kind == "picture":
        try:
            with Image.open(path) as picture:
                exif = picture.getexif()
            values = (exif.get_ifd(_EXIF_PART).get(_DATE_TAGS[0]), exif.get(_DATE_TAGS[1]))
            for value in values:
                if value:
                    return datetime.strptime(str(value)[:19], "%Y:%m:%d %H:%M:%S").timestamp()
        except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError):
            pass
    return os.stat(path).st_mtime
