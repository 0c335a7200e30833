"""Limits on the size of pictures, frames, clips and files.

A decoder allocates the size in the header, which may be anything, so the limits are checked before decoding. All are
far above a model's input size.
"""

from __future__ import annotations

import os

from uniadapter.errors import ConfigError

# Of a decoded picture: 16,384 x 8,192, half a gigabyte.
MAX_PIXELS = 2**27
# Of a video frame, of which a decoder keeps several: 8,192 x 8,192.
MAX_FRAME_PIXELS = 2**26
# Environment variable that sets both.
PIXELS_SETTING = "UNIADAPTER_MOST_PIXELS"
# Of all frames of a clip together, if read in full size; larger frames are scaled down.
MAX_CLIP_PIXELS = 2**26
# Of a side, as in JPEG: even a strip of one pixel's height takes gigabytes to resize if it is long enough.
MAX_SIDE = 65_535
# Of a clip.
MAX_FRAMES = 1024
# Of a picture's file, and of an animated WebP, which is read completely.
MAX_BYTES = 2**29


class TooLarge(ValueError):
    """A limit is exceeded; the message, which names it, is to follow "picture X"."""


def check_frames(count: int, name: str = "frames") -> None:
    """Check a number of frames per clip.

    Args:
        count: the number.
        name: of the setting, for the error.

    Raises:
        ConfigError: it is below 1 or above `MAX_FRAMES`.
    """
    if not 1 <= count <= MAX_FRAMES:
        raise ConfigError(f"{name} is {count}: a clip has at least 1 frame and at most {MAX_FRAMES}")


def check_pixels(width: int, height: int, most: int) -> None:
    """Check a picture's size before it is decoded.

    Args:
        width: in pixels.
        height: in pixels.
        most: `MAX_PIXELS` or `MAX_FRAME_PIXELS`; the environment variable overrides it.

    Raises:
        TooLarge: it has more pixels, or a side above `MAX_SIDE`.
    """
    most = allowed_pixels(most)
    if width * height > most:
        raise TooLarge(
            f"is {width} x {height} pixels, more than {most} in all: save it smaller, or set {PIXELS_SETTING}"
        )
    if max(width, height) > MAX_SIDE:
        raise TooLarge(f"is {width} x {height} pixels, and a side may have {MAX_SIDE}: cut it into parts")


def check_bytes(size: int) -> None:
    """Check the size of a picture's file.

    Raises:
        TooLarge: it has more than `MAX_BYTES`.
    """
    if size > MAX_BYTES:
        raise TooLarge(f"has {size} bytes, more than the {MAX_BYTES} that a picture may have: save it smaller")


def allowed_pixels(most: int) -> int:
    """A limit on pixels, or the environment variable's value if it is set."""
    chosen = os.environ.get(PIXELS_SETTING, "")
    if not chosen:
        return most
    if not chosen.isdecimal() or int(chosen) < 1:
        raise ConfigError(f"{PIXELS_SETTING} is {chosen[:40]!r}: it must be a number of pixels, such as {most}")
    return int(chosen)
