"""Conversion of decoded frames to pictures: upright, RGB, scaled down within a limit on pixels."""

from __future__ import annotations

import math

import av
from av.video.reformatter import VideoReformatter
from PIL import Image

from uniadapter.data.media.display_matrix import display_matrix, upright
from uniadapter.data.media.limits import MAX_CLIP_PIXELS
from uniadapter.data.media.pyav_reader import BROKEN


class FrameConverter:
    """Converts decoded frames to pictures.

    Args:
        min_side: as in `decode_clip`.
        count: frames of the clip, which share the limit on pixels.
    """

    def __init__(self, min_side: int, count: int = 1) -> None:
        self._at_least, self._most, self._reformatter = min_side, MAX_CLIP_PIXELS // count, VideoReformatter()

    def __call__(self, frame: av.VideoFrame) -> Image.Image | None:
        """Upright RGB, transparent parts white; None if the pixels cannot be converted."""
        width, height = reduced_size(frame.width, frame.height, self._at_least, self._most)
        transparent = any(component.is_alpha for component in frame.format.components)
        try:
            converted = self._reformatter.reformat(
                frame, width, height, "rgba" if transparent else "rgb24",
                interpolation="BILINEAR" if width == frame.width else "BICUBIC", threads=1,
            )  # fmt: skip
            picture = flatten_alpha(Image.fromarray(converted.to_ndarray())) if transparent else converted.to_image()
            return upright(picture, display_matrix(frame))
        except BROKEN:
            return None


def reduced_size(width: int, height: int, min_side: int, most: int = MAX_CLIP_PIXELS) -> tuple[int, int]:
    """The size to which a frame is scaled down, with the same aspect ratio; never larger than the frame.

    Args:
        width: in pixels.
        height: in pixels.
        min_side: of the result; if 0, the largest size of at most `most` pixels is taken.
        most: pixels.
    """
    scale = min_side / max(min(width, height), 1) if min_side else math.sqrt(most / max(width * height, 1))
    return (width, height) if scale >= 1 else (max(round(width * scale), 1), max(round(height * scale), 1))


def flatten_alpha(picture: Image.Image) -> Image.Image:
    """A transparent picture composed on white, as RGB."""
    layers = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", layers.size, (255, 255, 255, 255)), layers).convert("RGB")
