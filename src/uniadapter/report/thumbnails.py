"""Thumbnails of pictures and strips of video frames, as `data:` URLs inside the page."""

from __future__ import annotations

import base64
import io
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence, features

from uniadapter.data.media.picture_files import open_picture
from uniadapter.data.media.rgb import to_rgb
from uniadapter.data.media.video import load_clip, looks_like_video

Picture = Path | str | bytes  # a file, or its bytes
Lighting = Callable[[Sequence[Image.Image], np.ndarray], list[Image.Image]]  # T frames and maps [T, rows, columns]

SIDE = 160  # pixels: twice the size shown, for dense screens
STRIP_HEIGHT, STRIP_GAP = 96, 4  # pixels of a strip of frames
STRIP_FRAMES, MOST_FRAMES = 8, 12
QUALITY = 78

logger = logging.getLogger(__name__)


class Thumbnails:
    """Creates and caches thumbnails and strips; a picture may appear in the results of several queries.

    Args:
        side: longest side of a thumbnail in pixels.
    """

    def __init__(self, side: int = SIDE) -> None:
        self.side = side
        self.made: dict[tuple[Path | bytes, int], str | None] = {}
        self.moving: dict[Path | bytes, bool] = {}
        self.read: tuple[object, list[Image.Image]] = (None, [])  # the picture or clip that was lit last
        self.lights: dict[tuple[Path | bytes, bytes], str | None] = {}

    def source(self, picture: Picture) -> str | None:
        """The thumbnail as a `data:` URL, of a clip its middle frame; None if it cannot be read."""
        return self._once(picture, 0, self._still)

    def strip(self, picture: Picture, count: int = 0) -> str | None:
        """Frames of a clip side by side as a `data:` URL; None if it cannot be read.

        Args:
            picture: the clip.
            count: frames per clip of the model, which are shown if there are at most `MAX_FRAMES`; 0 if unknown.
        """
        shown = count if 1 < count <= MOST_FRAMES else STRIP_FRAMES
        return self._once(picture, shown, lambda key: _side_by_side(_frames(key, shown)))

    def lit(self, picture: Picture, maps: np.ndarray, light: Lighting) -> str | None:
        """A picture, or the frames of a clip side by side, with light on some of it, as a `data:` URL.

        Args:
            picture: file or bytes.
            maps: [T, rows, columns]; of more than twelve frames, eight are shown.
            light: from T frames and their maps to as many pictures.

        Returns:
            None if the picture cannot be read.
        """
        key = Path(picture) if isinstance(picture, str) else picture
        known = (key, maps.tobytes())
        if known not in self.lights:
            try:
                self.lights[known] = self._lit(key, maps, light)
            except Exception as error:  # as for thumbnails
                logger.warning("%s: no picture of attention (%s)", file_stem(key) or "a picture", error)
                self.lights[known] = None
        return self.lights[known]

    def _lit(self, picture: Path | bytes, maps: np.ndarray, light: Lighting) -> str:
        if self.read[0] != (picture, len(maps)):
            self.read = (picture, len(maps)), self._shown(picture, len(maps))
        pictures = light(self.read[1], maps)
        if len(pictures) > MOST_FRAMES:
            pictures = [pictures[int((part + 0.5) * len(pictures) / STRIP_FRAMES)] for part in range(STRIP_FRAMES)]
        return _address(pictures[0] if len(pictures) == 1 else _side_by_side(pictures))

    def _shown(self, picture: Path | bytes, count: int) -> list[Image.Image]:
        if count == 1 and not self.moves(picture):
            return [self._still(picture)]
        return [_small(frame, 2 * STRIP_HEIGHT, STRIP_HEIGHT) for frame in _frames(picture, count)]

    def moves(self, picture: Picture) -> bool:
        """Whether it is a clip: a video, a folder of frames, or an animated picture."""
        key = Path(picture) if isinstance(picture, str) else picture
        if key not in self.moving:
            self.moving[key] = looks_like_video(key) if isinstance(key, Path) else _is_animated(key)
        return self.moving[key]

    def _once(self, picture: Picture, count: int, make: Callable[[Path | bytes], Image.Image]) -> str | None:
        key = Path(picture) if isinstance(picture, str) else picture
        if (key, count) not in self.made:
            try:
                self.made[key, count] = _address(make(key))
            except Exception as error:  # after a long run, a page without one picture is better than no page
                logger.warning("%s: no thumbnail (%s)", file_stem(key) or "a picture", error)
                self.made[key, count] = None
        return self.made[key, count]

    def _still(self, picture: Path | bytes) -> Image.Image:
        if isinstance(picture, Path) and self.moves(picture):
            return _small(load_clip(picture, "", 1)[0], self.side, self.side)
        with open_picture(io.BytesIO(picture) if isinstance(picture, bytes) else picture, self.side) as image:
            return _small(image, self.side, self.side)


def file_stem(picture: Picture) -> str:
    """A file's name without suffix; "" for bytes."""
    return "" if isinstance(picture, bytes) else Path(picture).stem


def _is_animated(content: bytes) -> bool:
    try:
        with Image.open(io.BytesIO(content)) as image:
            return bool(getattr(image, "n_frames", 1) > 1)
    except (OSError, ValueError):
        return False


def _frames(picture: Path | bytes, count: int) -> list[Image.Image]:
    """The middle frames of `count` equal segments of a clip, as in evaluation."""
    if isinstance(picture, Path):
        return load_clip(picture, "", count)
    with Image.open(io.BytesIO(picture)) as image:
        frames = [frame.copy() for frame in ImageSequence.Iterator(image)]
    return [frames[int((part + 0.5) * len(frames) / count)] for part in range(count)]


def _side_by_side(frames: list[Image.Image]) -> Image.Image:
    small = [_small(frame, 2 * STRIP_HEIGHT, STRIP_HEIGHT) for frame in frames]
    width = sum(frame.width + STRIP_GAP for frame in small) - STRIP_GAP
    strip = Image.new("RGB", (width, max(frame.height for frame in small)), "white")
    left = 0
    for frame in small:
        strip.paste(frame, (left, 0))
        left += frame.width + STRIP_GAP
    return strip


def _small(image: Image.Image, width: int, height: int) -> Image.Image:
    """The picture as upright RGB, no larger than this."""
    image = to_rgb(image, min_side=max(width, height))
    image.thumbnail((width, height), Image.Resampling.LANCZOS)
    return image


def _address(image: Image.Image) -> str:
    kind = "webp" if features.check("webp") else "jpeg"
    buffer = io.BytesIO()
    image.save(buffer, kind.upper(), quality=QUALITY)
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
