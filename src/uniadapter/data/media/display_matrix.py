"""Rotation and mirroring of frames by their display matrix, exactly as ffmpeg does."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import cast

import av
from av.buffer import Buffer
from PIL import Image

Matrix = Sequence[int]  # nine numbers: a b u, c d v, x y w; a, b, c and d rotate and mirror


def display_matrix(frame: av.VideoFrame) -> Matrix | None:
    """The display matrix of a frame; None if it has none."""
    data = cast(Buffer | None, frame.side_data.get("DISPLAYMATRIX"))
    return None if data is None else struct.unpack_from("=9i", memoryview(data))


def upright(picture: Image.Image, matrix: Matrix | None) -> Image.Image:
    """A picture in its display orientation.

    Phones write rotations by quarter turns, front cameras mirrored ones. For other angles the size is kept and corners
    are black.
    """
    if matrix is None:
        return picture
    across, down = math.hypot(matrix[0], matrix[3]), math.hypot(matrix[1], matrix[4])
    if not across or not down:  # a singular matrix
        return picture
    turn = round(math.degrees(math.atan2(matrix[1] / down, matrix[0] / across)))
    degrees = turn % 360  # clockwise
    if degrees == 90:
        return picture.transpose(Image.Transpose.TRANSPOSE if matrix[3] > 0 else Image.Transpose.ROTATE_270)
    if degrees == 270:
        return picture.transpose(Image.Transpose.TRANSVERSE if matrix[3] < 0 else Image.Transpose.ROTATE_90)
    if degrees == 180:
        picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if matrix[0] < 0 else picture
        return picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if matrix[4] < 0 else picture
    if not degrees:
        return picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM) if matrix[4] < 0 else picture
    return picture.rotate(-degrees, Image.Resampling.BILINEAR)
