"""Conversion of the arguments of the prediction functions: pictures and videos of any type, and texts.

A file, a Pillow image, a numpy array and a torch tensor of the same picture give the same pixels: orientation,
transparency and bit depth are handled by the same code.
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

from uniadapter.data.media.arrays import from_array
from uniadapter.data.media.frame_times import frame_indices, frame_indices_by_time, sample_positions
from uniadapter.data.media.images import DatasetPicture, load_picture
from uniadapter.data.media.limits import check_frames
from uniadapter.data.media.video import load_frames
from uniadapter.errors import DataError
from uniadapter.files.messages import shortened
from uniadapter.files.schema import as_int

Picture = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor | Mapping[str, Any]
Pictures = Picture | Sequence[Picture | Sequence[Picture]]


@dataclass(frozen=True)
class Clip:
    """A picture or a video as passed by the caller.

    Args:
        frames: one picture or file, or the frames of a video.
        name: for errors: `images[3]`.
        sampled: the caller passed the frames of a video one by one.
    """

    frames: tuple[Any, ...]
    name: str
    sampled: bool = False

    def read(self, count: int) -> list[Image.Image]:
        """Read RGB frames.

        Args:
            count: number of frames: the middles of as many equal segments of a video; a picture is repeated.

        Raises:
            DataError: a file is missing or corrupt.
            ValueError: an array has an invalid shape or range of values.
        """
        if self.sampled:
            chosen = frame_indices(len(self.frames), sample_positions(count, None))
            read = {number: _read(self.frames[number], f"{self.name}[{number}]", 1)[0] for number in set(chosen)}
            return [read[number] for number in chosen]
        return _read(self.frames[0], self.name, count)


def as_clips(images: object, name: str = "images") -> list[Clip]:
    """One or several pictures and videos as a list of clips.

    Args:
        images: one picture (file name, Pillow image, array or tensor of two or three dimensions), or a sequence of
            pictures and videos, or an array [B, ...] of pictures. Inside a sequence, another sequence or an array of
            four dimensions is a video, given by its frames.
        name: of the argument, for errors.

    Raises:
        TypeError: a value is not a picture.
    """
    if _is_one_picture(images):
        return [Clip((images,), name)]
    return [_clip(one, f"{name}[{row}]") for row, one in enumerate(_items(images, name, "a picture or a list of them"))]


def clip_length(clips: Sequence[Clip], frames: int | None, default: int = 1) -> int:
    """The number of frames T of each clip.

    Args:
        clips: from `as_clips`.
        frames: as requested by the caller; None takes the length of videos given by their frames.
        default: if there are no such videos.

    Raises:
        ConfigError: `frames` is out of range.
        ValueError: videos given by their frames differ in length, and `frames` is None.
    """
    if frames is not None:
        frames = as_int("frames", frames)
        check_frames(frames)
        return frames
    lengths = sorted({len(clip.frames) for clip in clips if clip.sampled})
    if len(lengths) > 1:
        raise ValueError(
            f"the videos have {lengths[0]} to {lengths[-1]} frames: pass frames=, the number to take of each"
        )
    return lengths[0] if lengths else default


def as_texts(texts: object, name: str = "texts") -> list[str]:
    """One or several texts as a list.

    Raises:
        TypeError: a value is not a string.
        ValueError: a text has a lone surrogate, which UTF-8 cannot encode.
    """
    if isinstance(texts, str):
        texts = [texts]
    given = _items(texts, name, "a string or a list of strings")
    for row, text in enumerate(given):
        if not isinstance(text, str):
            raise TypeError(f"{name}[{row}] is {_shown_value(text)}: it must be a string")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            half = f"{text[error.start]!r} at character {error.start}"
            raise ValueError(f"{name}[{row}] has a lone surrogate ({half}): repair or remove it") from None
    return [str(text) for text in given]


def _is_one_picture(value: Any) -> bool:
    """Whether this is one picture, rather than several or none."""
    if isinstance(value, (str, bytes, os.PathLike, Image.Image, Mapping)):
        return True
    return _is_array(value) and len(np.shape(value)) in (2, 3)


def _is_array(value: object) -> bool:
    return isinstance(value, (Tensor, np.ndarray)) or hasattr(value, "__array__")


def _clip(value: object, name: str) -> Clip:
    if _is_one_picture(value):
        return Clip((value,), name)
    frames = tuple(_items(value, name, "a picture or a video's frames"))
    if not frames:
        raise ValueError(f"{name} is a video without frames")
    for number, frame in enumerate(frames):
        if not _is_one_picture(frame):
            raise TypeError(f"{name}[{number}] is {_shown_value(frame)}: a video's frame must be a picture")
    return Clip(frames, name, sampled=True)


def _items(values: Any, name: str, wanted: str) -> list[Any]:
    odd = isinstance(values, (str, bytes, Mapping)) or (_is_array(values) and not np.shape(values))
    if odd or not isinstance(values, Iterable):
        raise TypeError(f"{name} is {_shown_value(values)}: it must be {wanted}")
    return list(values)


def _shown_value(value: object) -> str:
    """A value with its type, for errors."""
    return "None" if value is None else f"{shortened(reprlib.repr(value), 80)} ({type(value).__name__})"


def _read(value: Any, name: str, count: int) -> list[Image.Image]:
    if isinstance(value, (str, os.PathLike)):
        path = os.fspath(value)
        if "://" in str(path):
            raise DataError(f"{name}: {path} is a URL, not a file: download it first", "missing picture")
        return load_frames(Path(path).expanduser(), "", count, min_side=0)
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
    """Frames of an open GIF, WebP or PNG, selected by display time, as from its file."""
    before, starts, end = picture.tell(), [], 0.0
    total = int(getattr(picture, "n_frames", 1))
    try:
        for number in range(total):
            picture.seek(number)
            picture.load()  # only then WebP has a duration
            starts.append(end)
            end += float(picture.info.get("duration", 0))
        positions = sample_positions(count, None)
        chosen = frame_indices_by_time(starts, end, positions) if end else frame_indices(total, positions)  # type: ignore[arg-type]
        read: dict[int, Image.Image] = {}
        for number in sorted(set(chosen)):
            picture.seek(number)
            read[number] = _from_value(picture.copy(), name)
        return [read[number] for number in chosen]
    finally:
        picture.seek(before)
