"""Conversion of any Pillow picture to upright 8-bit RGB, the same for files and pictures in memory."""

from __future__ import annotations

import functools
import math
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

# Colour behind transparent parts, as in most viewers.
BACKGROUND = (255, 255, 255, 255)

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
OVERSHOOT = 0.1  # floats may leave 0..1 by this much, as after a bicubic resize, and are clipped
_DEEP_MODES = ("I", "F")  # with more than 8 bits; also all modes that start with "I;"
# Larger pictures are converted in strips of this many pixels, to limit memory.
_STRIP = 2**20
# Pictures of more pixels than the first number are reduced to sides of at least the second, enough for any model.
_LARGE, REDUCED_SIDE = 2**24, 2048


def to_rgb(picture: Image.Image, min_side: int = 0) -> Image.Image:
    """Convert a picture to 8-bit RGB, upright by its EXIF tag, on white where it is transparent.

    Of 16 bits the upper 8 are taken; 32 bits and floats are scaled by `eight_bits`; of an animation the current frame
    is taken. The result has no tags, so a second call changes nothing.

    Args:
        picture: of any mode; not modified.
        min_side: pictures of more than 16 million pixels are reduced by an integer factor so that both sides keep at
            least this many pixels; 0 stands for 2,048.
    """
    picture.load()  # before the metadata: some formats have theirs after the pixels
    factor = max(min(picture.size) // (min_side or REDUCED_SIDE), 1) if math.prod(picture.size) > _LARGE else 1
    rgb = _convert(picture, factor)
    turn = _exif_transpose(picture)
    return rgb if turn is None else rgb.transpose(turn)


def eight_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Convert values of any dtype to 0..255; uint8 is unchanged, of uint16 the upper 8 bits are taken.

    For other dtypes the range decides: floats in 0..1 (with some tolerance for interpolation) are scaled by 255, values
    up to 255 are taken as 8 bits, up to 65535 as 16 bits; larger or negative values are scaled linearly from their own
    range. NaN becomes 0.
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


def _exif_transpose(picture: Image.Image) -> Image.Transpose | None:
    try:
        return _UPRIGHT.get(picture.getexif().get(_ORIENTATION_TAG, 1))
    except (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, struct.error):
        return None  # corrupt metadata of a valid picture


def _convert(picture: Image.Image, factor: int) -> Image.Image:
    """A new RGB picture without tags, reduced by an integer factor."""
    span = _extrema(np.asarray(picture)) if picture.mode in _DEEP_MODES else (0.0, 0.0)
    width, height = picture.size
    rows = max(_STRIP // max(width, 1) // factor, 1) * factor
    if rows >= height and factor == 1:
        rgb = _convert_strip(picture, span)
        rgb.info = {}
        return rgb
    rgb = Image.new("RGB", (-(-width // factor), -(-height // factor)))
    for top in range(0, height, rows):
        strip = _convert_strip(picture.crop((0, top, width, min(top + rows, height))), span)
        rgb.paste(strip.reduce(factor), (0, top // factor))
    return rgb


def _convert_strip(picture: Image.Image, span: tuple[float, float]) -> Image.Image:
    """A new RGB picture; more than 8 bits are scaled from this range of values, transparent parts become white."""
    if picture.mode in _DEEP_MODES or picture.mode.startswith("I;"):
        return _to_eight_bits(picture, span).convert("RGB")
    if picture.mode == "LAB":
        return _from_lab(picture)
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    layers = (picture.convert("LA") if picture.mode == "La" else picture).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layers.size, BACKGROUND), layers).convert("RGB")


def _to_eight_bits(picture: Image.Image, span: tuple[float, float]) -> Image.Image:
    """One channel of more than 8 bits as 8 bits; a value in `info` may mean transparent."""
    values = np.asarray(picture)
    pixels = _eight_bits(values, *span)
    key = picture.info.get("transparency")
    if isinstance(key, int):
        pixels = np.where(values == key, np.uint8(BACKGROUND[0]), pixels)
    return Image.fromarray(pixels)


def _from_lab(picture: Image.Image) -> Image.Image:
    converted = ImageCms.applyTransform(picture, _lab())
    assert converted is not None  # None is returned only by in-place conversion
    return converted


@functools.cache
def _lab() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
