"""How large a picture, a frame, a clip and a file may be.

Memory is taken for what a header claims, and a header of a few bytes may claim anything; so all of it is checked
before anything is decoded. Each limit is far above what is shown to a model.
"""

from __future__ import annotations

import os

from uniadapter.errors import ConfigError

# Of a picture, as decoded: 16,384 x 8,192, half a gigabyte.
MOST_PIXELS = 2**27
# Of a frame of a video, of which a decoder holds several: 8,192 x 8,192.
MOST_FRAME_PIXELS = 2**26
# Sets both.
PIXELS_SETTING = "UNIADAPTER_MOST_PIXELS"
# Of all frames of a clip together, where they are wanted in full size; beyond, they are scaled down.
MOST_CLIP_PIXELS = 2**26
# A side of a picture, JPEG's own limit: scaling a strip of millions of pixels takes gigabytes too.
MOST_SIDE = 65_535
# Of a clip; each goes through the visual encoder.
MOST_FRAMES = 1024
# Of a picture's file, and of an animated WebP's, which is read as a whole.
MOST_BYTES = 2**29


class TooLarge(ValueError):
    """More than a limit allows; the message is for the end of "picture X" and names the limit."""


def check_frames(count: int, name: str = "frames") -> None:
    """Refuse a number of frames that no clip can have.

    Args:
        count: frames wanted.
        name: what the number is called, for the error.

    Raises:
        ConfigError: it is below 1 or above `MOST_FRAMES`.
    """
    if not 1 <= count <= MOST_FRAMES:
        raise ConfigError(f"{name} is {count}: a clip has at least 1 frame and at most {MOST_FRAMES}")


def check_pixels(width: int, height: int, most: int) -> None:
    """Refuse a size before memory is taken for it.

    Args:
        width: in pixels.
        height: in pixels.
        most: pixels allowed, `MOST_PIXELS` or `MOST_FRAME_PIXELS`, where the environment doesn't say another number.

    Raises:
        TooLarge: it has more pixels, or a side above `MOST_SIDE`.
    """
    most = allowed_pixels(most)
    if width * height > most:
        raise TooLarge(
            f"is {width} x {height} pixels, more than {most} in all: save it smaller, or set {PIXELS_SETTING}"
        )
    if max(width, height) > MOST_SIDE:
        raise TooLarge(f"is {width} x {height} pixels, and a side may have {MOST_SIDE}: cut it into parts")


def check_bytes(size: int) -> None:
    """Refuse a picture's file that would be read into memory for no end.

    Raises:
        TooLarge: it has more than `MOST_BYTES`.
    """
    if size > MOST_BYTES:
        raise TooLarge(f"has {size} bytes, more than the {MOST_BYTES} that a picture may have: save it smaller")


def allowed_pixels(most: int) -> int:
    """A limit on pixels, or what the environment says in its place."""
    chosen = os.environ.get(PIXELS_SETTING, "")
    if not chosen:
        return most
    if not chosen.isdecimal() or int(chosen) < 1:
        raise ConfigError(f"{PIXELS_SETTING} is {chosen[:40]!r}: it must be a number of pixels, {most} say")
    return int(chosen)
