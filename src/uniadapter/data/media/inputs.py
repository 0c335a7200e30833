"""What a user hands to the predictions, made plain: pictures and videos of any kind, and texts.

Whatever holds a picture gives the same pixels: a file, a Pillow image, a numpy array or a torch tensor is turned
upright, put on white where it is transparent, and brought to 8 bits by the same code.
"""

from __future__ import annotations

import os
import reprlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from uniadapter.data.media.images import DatasetPicture, load_picture
from uniadapter.data.media.limits import check_frames
from uniadapter.data.media.pixels import from_array
from uniadapter.data.media.records import DataError
from uniadapter.data.media.timeline import draw_positions, places, shown_at
from uniadapter.data.media.video import load_frames
from uniadapter.files.messages import shortened
from uniadapter.files.schema import whole_number

Picture = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor | Mapping[str, Any]
Pictures = Picture | Sequence[Picture | Sequence[Picture]]


@dataclass(frozen=True)
class Clip:
    """A picture or a video, as it was given.

    Args:
        frames: a picture or a file of any kind alone, or the frames of a video.
        name: how errors call it, `images[3]` say.
        sampled: the frames were handed over one by one, so whoever did so has chosen them.
    """

    frames: tuple[Any, ...]
    name: str
    sampled: bool = False

    def read(self, count: int) -> list[Image.Image]:
        """So many RGB frames: of a video the middles of as many equal parts; a picture stands still.

        Raises:
            DataError: a file is missing or broken.
            ValueError: an array has no picture's shape or range of values.
        """
        if self.sampled:
            chosen = places(len(self.frames), draw_positions(count, None))
            read = {number: _read(self.frames[number], f"{self.name}[{number}]", 1)[0] for number in set(chosen)}
            return [read[number] for number in chosen]
        return _read(self.frames[0], self.name, count)


def as_clips(images: object, name: str = "images") -> list[Clip]:
    """Pictures and videos as a list, whether one was given or many.

    Args:
        images: one picture (file name, Pillow image, array or tensor of two or three dimensions), or many: a sequence
            of pictures and of videos, or an array [B, ...] of pictures. Within a sequence a sequence, or an array of
            four dimensions, is a video by its frames.
        name: of the argument, for errors.

    Raises:
        TypeError: something is no picture.
    """
    if _is_one(images):
        return [Clip((images,), name)]
    return [_clip(one, f"{name}[{row}]") for row, one in enumerate(_items(images, name, "a picture or a list of them"))]


def clip_length(clips: Sequence[Clip], frames: int | None, default: int = 1) -> int:
    """Frames of each clip, T: as many as asked for, else as the videos given by their frames have, else the default.

    Raises:
        ValueError: it is less than 1, or videos given by their frames differ in length and nothing says how many.
    """
    if frames is not None:
        frames = whole_number("frames", frames)
        check_frames(frames)
        return frames
    lengths = sorted({len(clip.frames) for clip in clips if clip.sampled})
    if len(lengths) > 1:
        raise ValueError(
            f"the videos have {lengths[0]} to {lengths[-1]} frames: say by frames= how many of each to take"
        )
    return lengths[0] if lengths else default


def as_texts(texts: object, name: str = "texts") -> list[str]:
    """Texts as a list; a single string is one text.

    Raises:
        TypeError: something is no text.
        ValueError: a text holds half of a surrogate pair, which no encoding knows.
    """
    if isinstance(texts, str):
        texts = [texts]
    given = _items(texts, name, "a text or a list of texts")
    for row, text in enumerate(given):
        if not isinstance(text, str):
            raise TypeError(f"{name}[{row}] is {_told(text)}: it must be a text")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            half = f"{text[error.start]!r} at character {error.start}"
            raise ValueError(f"{name}[{row}] holds half of a surrogate pair ({half}): repair or remove it") from None
    return [str(text) for text in given]


def _is_one(value: Any) -> bool:
    """Whether this is one picture, rather than several or none."""
    if isinstance(value, (str, bytes, os.PathLike, Image.Image, Mapping)):
        return True
    return _is_array(value) and len(np.shape(value)) in (2, 3)


def _is_array(value: object) -> bool:
    return isinstance(value, (Tensor, np.ndarray)) or hasattr(value, "__array__")


def _clip(value: object, name: str) -> Clip:
    if _is_one(value):
        return Clip((value,), name)
    frames = tuple(_items(value, name, "a picture or a video's frames"))
    if not frames:
        raise ValueError(f"{name} is a video without frames")
    for number, frame in enumerate(frames):
        if not _is_one(frame):
            raise TypeError(f"{name}[{number}] is {_told(frame)}: a video's frame must be a picture")
    return Clip(frames, name, sampled=True)


def _items(values: Any, name: str, wanted: str) -> list[Any]:
    odd = isinstance(values, (str, bytes, Mapping)) or (_is_array(values) and not np.shape(values))
    if odd or not isinstance(values, Iterable):
        raise TypeError(f"{name} is {_told(values)}: it must be {wanted}")
    return list(values)


def _told(value: object) -> str:
    """A value as an error shows it."""
    return "None" if value is None else f"{shortened(reprlib.repr(value), 80)} ({type(value).__name__})"


def _read(value: Any, name: str, count: int) -> list[Image.Image]:
    if isinstance(value, (str, os.PathLike)):
        path = os.fspath(value)
        if "://" in str(path):
            raise DataError(f"{name}: {path} is an address, not a file: download it first", "missing picture")
        return load_frames(Path(path).expanduser(), "", count, at_least=0)
    if isinstance(value, Image.Image) and count > 1 and getattr(value, "is_animated", False):
        return _from_animation(value, name, count)
    if isinstance(value, bytes):
        value = {"bytes": value}
    elif not isinstance(value, (Image.Image, Mapping)):
        value = from_array(value, name)
    return [_from_value(value, name)] * count


def _from_value(value: object, name: str) -> Image.Image:
    return load_picture(DatasetPicture(({"picture": value},), 0, "picture"), name)


def _from_animation(picture: Image.Image, name: str, count: int) -> list[Image.Image]:
    """Frames of an open GIF, WebP or PNG, chosen by the time that they are shown, as from its file."""
    before, starts, end = picture.tell(), [], 0.0
    total = int(getattr(picture, "n_frames", 1))
    try:
        for number in range(total):
            picture.seek(number)
            picture.load()  # WebP says for how long only then
            starts.append(end)
            end += float(picture.info.get("duration", 0))
        positions = draw_positions(count, None)
        chosen = shown_at(starts, end, positions) if end else places(total, positions)  # type: ignore[arg-type]
        read: dict[int, Image.Image] = {}
        for number in sorted(set(chosen)):
            picture.seek(number)
            read[number] = _from_value(picture.copy(), name)
        return [read[number] for number in chosen]
    finally:
        picture.seek(before)
