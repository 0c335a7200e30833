"""The animated pictures of the clips: each concept once, as a short H.264 file on a ground of its own.

A longer clip is a list of concepts, whose packets are put behind one another on first use, without encoding anything
anew. A thing is about as large as on the scenes, not as large as the picture, and stands anywhere on it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageSequence

from uniadapter.embedded.emoji_scenes import SIZE, gradient
from world.pictures.emoji import plain_hexcode
from world.pictures.rendering import square
from world.pictures.sources import ANIMATED, fetch
from world.tasks.scene import ground

FRAMES, RATE = 24, 8  # of an animation, however long it was: three seconds
# Without assembly x264 writes the same bytes each time, and on any CPU; with it, it did not.
SETTINGS = {
    "preset": "veryslow", "crf": "30", "tune": "animation", "g": "24", "threads": "1", "x264-params": "asm=0",
}  # fmt: skip
SIDES = (40, 48)  # of an animation on its picture, in pixels
SHOWN = 16  # alpha from which a pixel counts as drawn


def animation_files() -> dict[str, Path]:
    """Code to file, of all emoji of the packages; they are fetched where they are missing."""
    files: dict[str, Path] = {}
    for package in ANIMATED:
        for path in sorted((fetch(package) / "assets").glob("*.webp")):
            files.setdefault(plain_hexcode(path.stem), path)
    return files


def frames_of(path: Path) -> list[Image.Image]:
    """`FRAMES` pictures of an animation, the middles of equal segments, cut to the box of all; none of a still one."""
    with Image.open(path) as image:
        total = getattr(image, "n_frames", 1)
        if total < 8:
            return []
        wanted = [(2 * i + 1) * total // (2 * FRAMES) for i in range(FRAMES)]
        shown = {i: f.convert("RGBA") for i, f in enumerate(ImageSequence.Iterator(image)) if i in wanted}
    boxes = [frame.getchannel("A").point(lambda a: 255 * (a > SHOWN)).getbbox() for frame in shown.values()]
    found = [box for box in boxes if box]
    left, top = min(b[0] for b in found), min(b[1] for b in found)
    right, bottom = max(b[2] for b in found), max(b[3] for b in found)
    return [shown[i].crop((left, top, right, bottom)) for i in wanted]


def encode(pictures: Iterable[np.ndarray], path: Path) -> None:
    """Write an H.264 clip whose one keyframe is the first, so that clips can be joined without encoding."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options=SETTINGS)
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def write_animation(frames: list[Image.Image], path: Path, rng: random.Random) -> None:
    """Encode an animation; side, place and ground are drawn."""
    side = rng.randint(*SIDES)
    left, top = (rng.randint(2, SIZE - side - 2) for _ in range(2))
    (first, second, angle), _ = ground(rng)
    base = gradient(str(first), str(second), float(angle))

    def drawn(frame: Image.Image) -> np.ndarray:
        sprite = np.asarray(Image.fromarray(square(frame, side)).convert("RGBa"), dtype=np.float64)
        canvas = base.copy()
        window = canvas[top : top + side, left : left + side]
        window *= 1 - sprite[..., 3:] / 255
        window += sprite[..., :3]
        return np.clip(canvas + 0.5, 0, 255).astype(np.uint8)

    encode(map(drawn, frames), path)
