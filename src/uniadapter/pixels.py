"""Arrays and tensors of numbers as pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

_SLACK = 0.1  # how far floats may leave 0..1, as after a bicubic resize; they are clipped
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def from_array(values: Any, name: str) -> Image.Image:
    """An array or tensor as a Pillow image of 8 bits a channel.

    Args:
        values: [H, W], or with 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA) channels, which stand last or first;
            where both could be, as numpy has them last and torch first. Whole numbers are read as 0..255, unsigned
            ones of 16 bits and any beyond 255 as 0..65535, whose lower byte is dropped as a file's is. Floats are read
            as 0..1, beyond that as 0..255. Booleans are black and white.
        name: for errors.

    Raises:
        ValueError: another shape, or values outside these ranges.
    """
    array, first = _numpy(values), isinstance(values, Tensor)
    if not array.size:
        raise ValueError(f"{name} is an empty array {list(array.shape)}: a picture has at least one pixel")
    array = _channels_last(array, first, name)
    pixels = np.ascontiguousarray(_to_bytes(array, name))
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels, _MODES[pixels.shape[2]])


def _numpy(values: Any) -> np.ndarray:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() else values).numpy()
    return np.asarray(values)


def _channels_last(array: np.ndarray, first: bool, name: str) -> np.ndarray:
    if array.ndim == 2:
        return array[..., None]
    if array.ndim != 3:
        raise ValueError(f"{name} is an array {list(array.shape)}: a picture is [H, W], [H, W, C] or [C, H, W]")
    # Two channels last: an image that is two pixels wide is the likelier reading only where nothing else fits.
    for counts in ((1, 3, 4), (2,)):
        for axis in (0, 2) if first else (2, 0):
            if array.shape[axis] in counts:
                return array if axis == 2 else array.transpose(1, 2, 0)
    raise ValueError(f"{name} is an array {list(array.shape)}: its channels, first or last, must be 1, 2, 3 or 4")


def _to_bytes(array: np.ndarray, name: str) -> np.ndarray:
    """Values of any kind as uint8."""
    kind = array.dtype.kind
    if array.dtype == np.uint8:
        return array
    if kind == "b":
        return array.astype(np.uint8) * 255
    if kind not in "iuf":
        raise ValueError(f"{name} is an array of {array.dtype}: a picture's values are whole numbers or floats")
    low, high = float(array.min()), float(array.max())
    if kind == "f":
        return _floats_to_bytes(array, low, high, name)
    if low < 0 or high > 65535:
        raise ValueError(f"{name} has values from {low:g} to {high:g}: whole numbers must be 0..255 or 0..65535")
    wide = array.dtype == np.uint16 or high > 255
    return (array >> 8 if wide else array).astype(np.uint8)


def _floats_to_bytes(array: np.ndarray, low: float, high: float, name: str) -> np.ndarray:
    if not np.isfinite((low, high)).all():
        raise ValueError(f"{name} has values that are NaN or infinite")
    if low >= -_SLACK and high <= 1 + _SLACK:
        array = array.astype(np.float64) * 255
    elif low < -_SLACK or not 2 <= high <= 255.5:
        raise ValueError(
            f"{name} has floats from {low:.3g} to {high:.3g}: they must be 0..1 or 0..255; "
            "pixels that are normalised already go to encode_visual"
        )
    return np.clip(np.rint(array), 0, 255).astype(np.uint8)
