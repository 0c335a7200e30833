"""Conversion of numpy arrays and torch tensors to pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from uniadapter.data.media.rgb import OVERSHOOT, eight_bits

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


def from_array(values: Any, name: str) -> Image.Image:
    """An array or tensor as a Pillow image with 8 bits per channel.

    Args:
        values: [H, W], [H, W, C] or [C, H, W] with C = 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA); if both are
            possible, channels are last for numpy and first for torch. `rgb.eight_bits` gives the ranges of values.
        name: for errors.

    Raises:
        ValueError: another shape, or values outside the ranges.
    """
    if isinstance(values, Tensor) and (values.is_meta or values.layout != torch.strided):
        raise ValueError(f"{name} is a tensor without values of its own ({values.device}, {values.layout})")
    array, first = _numpy(values), isinstance(values, Tensor)
    if not array.size:
        raise ValueError(f"{name} is an empty array {list(array.shape)}: a picture has at least one pixel")
    array = _channels_last(array, first, name)
    pixels = np.ascontiguousarray(_to_bytes(array, name))
    return Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels, _MODES[pixels.shape[2]])


def _numpy(values: Any) -> NDArray[Any]:
    if isinstance(values, Tensor):
        values = values.detach().cpu()
        values = (values.float() if values.is_floating_point() else values).numpy()
    return np.asarray(values)


def _channels_last(array: NDArray[Any], first: bool, name: str) -> NDArray[Any]:
    if array.ndim == 2:
        return array[..., None]
    if array.ndim != 3:
        raise ValueError(f"{name} is an array {list(array.shape)}: a picture is [H, W], [H, W, C] or [C, H, W]")
    # Two channels are tried last, since an axis of length two is more likely a side.
    for counts in ((1, 3, 4), (2,)):
        for axis in (0, 2) if first else (2, 0):
            if array.shape[axis] in counts:
                return array if axis == 2 else array.transpose(1, 2, 0)
    raise ValueError(f"{name} is an array {list(array.shape)}: its channels, first or last, must be 1, 2, 3 or 4")


def _to_bytes(array: NDArray[Any], name: str) -> NDArray[np.uint8]:
    """Values of any dtype as uint8."""
    kind = array.dtype.kind
    if kind not in "biuf":
        raise ValueError(f"{name} is an array of {array.dtype}: a picture's values are whole numbers or floats")
    if kind == "f" and not np.isfinite(array).all():
        raise ValueError(f"{name} has values that are NaN or infinite")
    low, high = float(array.min()), float(array.max())
    # One channel may be anything, a depth map for example, and is scaled by its range; colours have known ranges.
    if array.shape[2] > 1 and (low < -OVERSHOOT or high > 65535):
        raise ValueError(
            f"{name} has values from {low:.5g} to {high:.5g}: colours must be 0..1, 0..255 or 0..65535; "
            "pass normalised pixels to encode_visual"
        )
    return eight_bits(array)
