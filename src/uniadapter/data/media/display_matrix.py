"""Frames turned and mirrored as their display matrix says, exactly as ffmpeg does by itself."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from typing import cast

import av
from av.buffer import Buffer
from PIL import Image

Matrix = Sequence[int]  # nine numbers: a b u, c d v, x y w, of which a, b, c and d turn and mirror


def display_matrix(frame: av.VideoFrame) -> Matrix | None:
    """The matrix that goes with a frame; None without one."""
    data = cast(Buffer | None, frame.side_data.get("DISPLAYMATRIX"))
    return None if data is None else struct.unpack_from("=9i", memoryview(data))


def upright(picture: Image.Image, matrix: Matrix | None) -> Image.Image:
    """A picture as it is to be shown.

    Phones write matrices of quarter turns, front cameras mirrored ones. Other angles turn within the picture's size,
    on black.
    """
    if matrix is None:
        return picture
    across, down = math.hypot(matrix[0], matrix[3]), math.hypot(matrix[1], matrix[4])
    if not across or not down:  # flattens the picture
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
