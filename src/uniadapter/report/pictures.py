"""Pictures as `data:` addresses: small, and inside the page."""

from __future__ import annotations

import base64
import io
import logging
from pathlib import Path

from PIL import Image, ImageOps, ImageSequence, features

from uniadapter.data.kinds import is_video
from uniadapter.data.video import load_clip

Picture = Path | str | bytes  # a file, or the bytes of one

SIDE = 160  # pixels: twice the size shown, for dense screens
QUALITY = 78
MAX_FRAMES = 24
CLIP_FRAMES, CLIP_FRAME_MS = 8, 250  # of a video's thumbnail

logger = logging.getLogger(__name__)


class Thumbnails:
    """Makes thumbnails and remembers them, since a picture shows up under several queries.

    Args:
        side: longest side in pixels.
    """

    def __init__(self, side: int = SIDE) -> None:
        self.side = side
        self.made: dict[Path | bytes, str | None] = {}

    def source(self, picture: Picture) -> str | None:
        """The thumbnail as a `data:` address; None for a picture that cannot be read.

        A moving picture (an animated WebP or GIF) goes on moving.
        """
        key = Path(picture) if isinstance(picture, str) else picture
        if key not in self.made:
            try:
                self.made[key] = self._make(key)
            except Exception as error:  # a page without one picture is better than no page after a long run
                logger.warning("%s: no thumbnail (%s)", name_of(key) or "a picture", error)
                self.made[key] = None
        return self.made[key]

    def _make(self, picture: Path | bytes) -> str:
        if isinstance(picture, Path) and is_video(picture):
            return _moving([self._small(frame) for frame in load_clip(picture, "", CLIP_FRAMES)], CLIP_FRAME_MS)
        with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as image:
            count = getattr(image, "n_frames", 1)
            if count > 1 and features.check("webp"):
                return self._animation(image, count)
            return _address(_save(self._small(image)))

    def _animation(self, image: Image.Image, count: int) -> str:
        every = -(-count // MAX_FRAMES)
        frames, duration = [], 0
        for number, frame in enumerate(ImageSequence.Iterator(image)):
            duration += int(frame.info.get("duration") or 42)
            if number % every == 0:
                frames.append(self._small(frame))
        return _moving(frames, max(20, duration // len(frames)))

    def _small(self, image: Image.Image) -> Image.Image:
        """RGB on white, turned as the camera was held, no side above `side`."""
        image = ImageOps.exif_transpose(image) or image
        if image.has_transparency_data:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
        image = image.convert("RGB")
        image.thumbnail((self.side, self.side), Image.Resampling.LANCZOS)
        return image


def name_of(picture: Picture) -> str:
    """A file's name without its ending; "" for bytes."""
    return "" if isinstance(picture, bytes) else Path(picture).stem


def _moving(frames: list[Image.Image], duration: int) -> str:
    """Frames as an animated WebP, each shown for `duration` milliseconds; without WebP the first frame alone."""
    if not features.check("webp"):
        return _address(_save(frames[0]))
    buffer = io.BytesIO()
    frames[0].save(
        buffer, "WEBP", save_all=True, append_images=frames[1:], loop=0, quality=QUALITY - 18, duration=duration
    )
    return _address(("webp", buffer.getvalue()))


def _save(image: Image.Image) -> tuple[str, bytes]:
    kind = "webp" if features.check("webp") else "jpeg"
    buffer = io.BytesIO()
    image.save(buffer, kind.upper(), quality=QUALITY)
    return kind, buffer.getvalue()


def _address(saved: tuple[str, bytes]) -> str:
    kind, content = saved
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
