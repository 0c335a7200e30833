"""Pictures and videos that look the same: by a perceptual hash, and then by small grey copies of all their frames."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_BITS = 3  # that the hashes of two look-alikes differ in at most
_GREY = 6.0  # levels of 255 that their small copies differ by on average, at most
_SIDE = 16


@dataclass(frozen=True)
class Look:
    """How a picture looks, or some frames of a video.

    Args:
        hash: 64 bits, each whether a pixel of 8 x 9 is darker than its right neighbour; of a video, in the frame
            nearest to its middle that has more than one colour.
        small: 16 x 16 grey pixels of each frame, (frames, 16, 16).
        uniform: whether each frame has one colour, so that the hash says nothing.
    """

    hash: int
    small: NDArray[np.uint8]
    uniform: bool


def look_of(*frames: Image.Image) -> Look:
    """How a picture looks, or some frames of a video, in order."""
    greys = [frame.convert("L") for frame in frames]
    small = np.stack([np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.uint8) for grey in greys])
    shown = np.ptp(small.reshape(len(greys), -1), axis=1) > 2
    nearest = min(np.flatnonzero(shown), key=lambda frame: abs(int(frame) - len(greys) // 2), default=0)
    cells = np.asarray(greys[nearest].resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    bits = np.packbits(cells[:, 1:] > cells[:, :-1])
    return Look(int.from_bytes(bits.tobytes(), "big"), small, not shown.any())


def look_alikes(ours: Sequence[Look | None], theirs: Sequence[Look | None]) -> Iterator[tuple[int, int]]:
    """Pairs of indices of pictures, or of videos, that look the same; those of one colour are left out.

    Two hashes that differ in at most three of 64 bits agree in at least one of four parts of 16 bits.
    """
    parts: dict[tuple[int, int], list[int]] = defaultdict(list)
    for index, look in enumerate(theirs):
        if look is not None and not look.uniform:
            for part in range(4):
                parts[part, look.hash >> 16 * part & 0xFFFF].append(index)
    for index, look in enumerate(ours):
        if look is None or look.uniform:
            continue
        near = {other for part in range(4) for other in parts[part, look.hash >> 16 * part & 0xFFFF]}
        for other in sorted(near):
            found = theirs[other]
            assert found is not None
            if (look.hash ^ found.hash).bit_count() <= _BITS and _apart(look, found) <= _GREY:
                yield index, other


def _apart(one: Look, other: Look) -> float:
    """Levels that the frames differ by, of the pair that differs most; infinite between a picture and a video."""
    if one.small.shape != other.small.shape:
        return float("inf")
    apart = np.abs(one.small.astype(np.int16) - other.small.astype(np.int16))
    return float(apart.mean(axis=(1, 2)).max())
