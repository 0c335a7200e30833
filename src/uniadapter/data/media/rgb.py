"""From any Pillow picture to upright RGB of 8 bits: the same pixels whether it came from a file or from memory."""

from __future__ import annotations

import functools
import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

# Transparent parts become this: what most viewers and web pages show behind them.
GROUND = (255, 255, 255, 255)

_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
OVERSHOOT = 0.1  # how far shares may leave 0..1, as after a bicubic resize of floats; they are clipped
_DEEP = ("I", "F")  # and all that start with I;
# Larger pictures are converted in strips of so many pixels, which bounds the memory.
_STRIP = 2**20
# Of pictures of more pixels than this, sides of so many are enough for any model.
_LARGE, ENOUGH = 2**24, 2048


def to_rgb(picture: Image.Image, at_least: int = 0) -> Image.Image:
    """A picture as people see it: upright by its EXIF tag, on white where it is transparent, RGB of 8 bits.

    Of 16 bits the upper 8 are taken; 32 bits and floats are scaled as `eight_bits` says; of an animation the frame
    that Pillow stands at is taken. What comes out carries no tags, so a second call changes nothing.

    Args:
        picture: of any mode; it stays as it is.
        at_least: sides in pixels that are enough, 0 for 2,048: pictures of more than 16 million pixels are reduced by
            a whole number while they are converted, and both sides stay at least this long.
    """
    picture.load()  # before the metadata: some formats have theirs after the pixels
    factor = max(min(picture.size) // (at_least or ENOUGH), 1) if math.prod(picture.size) > _LARGE else 1
    rgb = _converted(picture, factor)
    turn = _turn(picture)
    return rgb if turn is None else rgb.transpose(turn)


def eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Values of any type as brightness from 0 to 255; bytes stay as they are, of 16 unsigned bits the upper 8 count.

    What other integers and floats mean shows in their range: floats up to 1, give or take what an interpolation
    overshoots, are shares, then come 8 and 16 bits; beyond, or with negative values, the range itself is spread over
    0 to 255. NaN is black.
    """
    return _eight_bits(values, *_extrema(values))


def _eight_bits(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return (values >> 8).astype(np.uint8)
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    if values.dtype.kind == "f" and low >= -OVERSHOOT and high <= 1 + OVERSHOOT:
        low, high = 0.0, 1.0
    if low >= 0 and (high > 1 or values.dtype.kind in "iu") and high <= 65535:
        scaled = values // 256 if high > 255 else values
    else:
        low, high = (0.0, 1.0) if low >= 0 and high <= 1 else (min(low, 0.0), high)
        scaled = (values.astype(np.float64) - low) * (255 / ((high - low) or 1))
    return np.nan_to_num(np.rint(scaled), nan=0, posinf=255, neginf=0).clip(0, 255).astype(np.uint8)


def _extrema(values: NDArray[Any]) -> tuple[float, float]:
    """The smallest and largest finite value; 0 and 0 where there is none."""
    finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
    return (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    try:
        return _UPRIGHT.get(picture.getexif().get(_ORIENTATION_TAG, 1))
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error):
        return None  # broken metadata beside sound pixels


def _converted(picture: Image.Image, factor: int) -> Image.Image:
    """A new RGB picture without tags, reduced by a whole number."""
    span = _extrema(np.asarray(picture)) if picture.mode in _DEEP else (0.0, 0.0)
    width, height = picture.size
    rows = max(_STRIP // max(width, 1) // factor, 1) * factor
    if rows >= height and factor == 1:
        rgb = _plain(picture, span)
        rgb.info = {}
        return rgb
    rgb = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    for top in range(0, height, rows):
        strip = _plain(picture.crop((0, top, width, min(top + rows, height))), span)
        rgb.paste(strip.reduce(factor), (0, top // factor))
    return rgb


def _plain(picture: Image.Image, span: tuple[float, float]) -> Image.Image:
    """A new RGB picture; deep ones are scaled from this span of values, transparent parts lie on the ground."""
    if picture.mode in _DEEP or picture.mode.startswith("I;"):
        return _shallow(picture, span).convert("RGB")
    if picture.mode == "LAB":
        return _from_lab(picture)
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layers = (picture.convert("LA") if picture.mode == "La" else picture).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layers.size, GROUND), layers).convert("RGB")


def _shallow(picture: Image.Image, span: tuple[float, float]) -> Image.Image:
    """One channel of more than 8 bits as 8; one value of it may stand for transparent."""
    values = np.asarray(picture)
    pixels = _eight_bits(values, *span)
    key = picture.info.get("transparency")
    if isinstance(key, int):
        pixels = np.where(values == key, np.uint8(GROUND[0]), pixels)
    return Image.fromarray(pixels)


def _from_lab(picture: Image.Image) -> Image.Image:
    converted = ImageCms.applyTransform(picture, _lab())
    assert converted is not None  # only in place is nothing given back
    return converted


@functools.cache
def _lab() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
