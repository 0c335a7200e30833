"""Pictures of different splits that look the same: by a perceptual hash, and then by their small grey copies."""

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
    """How a picture looks.

    Args:
        hash: 64 bits, each whether a pixel of 8 x 9 is darker than its right neighbour.
        small: 16 x 16 grey pixels.
        uniform: whether all of the picture has one colour, so that its hash says nothing.
    """

    hash: int
    small: NDArray[np.uint8]
    uniform: bool


def look_of(picture: Image.Image) -> Look:
    """How a picture looks."""
    grey = picture.convert("L")
    cells = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), dtype=np.int16)
    small = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.uint8)
    bits = np.packbits(cells[:, 1:] > cells[:, :-1])
    return Look(int.from_bytes(bits.tobytes(), "big"), small, int(small.max()) - int(small.min()) <= 2)


def look_alikes(ours: Sequence[Look | None], theirs: Sequence[Look | None]) -> Iterator[tuple[int, int]]:
    """Pairs of indices of pictures that look the same; pictures of one colour are left out.

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
    return float(np.abs(one.small.astype(np.int16) - other.small.astype(np.int16)).mean())
