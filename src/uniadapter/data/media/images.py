"""Pictures: from a file to RGB, and from RGB to the visual encoder's input tensor.

EXIF orientation is applied, transparent parts become white, and of an animation the first frame is taken.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from uniadapter.data.media.augment import rand_augment, random_flip, random_resized_crop
from uniadapter.data.media.limits import MAX_PIXELS, TooLarge, check_pixels
from uniadapter.data.media.paths import error_text, missing_visual_error, printable_path
from uniadapter.data.media.picture_files import BROKEN, UnsupportedPicture, open_picture
from uniadapter.data.media.rgb import to_rgb
from uniadapter.errors import DataError


@dataclass(frozen=True)
class Normalisation:
    """Pixel normalisation of a base model; the defaults are CLIP's and BLIP's.

    Args:
        mean: per channel, subtracted from pixels in [0, 1].
        std: per channel, the divisor afterwards.
        resampling: filter for resizing, by Pillow's name.
        crop: the base was trained on centre crops instead of whole pictures resized to a square.
    """

    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    resampling: str = "bicubic"
    crop: bool = False


CLIP = Normalisation()
MEAN, STD = CLIP.mean, CLIP.std

_SKIP = ", or set data.on_error to skip"


class Rows(Protocol):
    """Any sequence of mappings, such as a Hugging Face dataset."""

    def __len__(self) -> int:
        """Number of rows."""

    def __getitem__(self, row: int, /) -> Mapping[str, Any]:
        """One row."""


@dataclass(frozen=True, eq=False)
class DatasetPicture:
    """A picture in a dataset, read when it is needed.

    Args:
        rows: the dataset.
        row: index of the picture's row.
        column: of the picture; the value is a Pillow image, a path, or `{"bytes": ..., "path": ...}`.
    """

    rows: Rows
    row: int
    column: str


@dataclass(frozen=True, eq=False)
class FileContent:
    """The content of a picture's or video's file that has no path of its own, in an archive say.

    Args:
        suffix: of its name, without the dot.
        read: gives the content.
    """

    suffix: str
    read: Callable[[], bytes]


VisualSource = Path | DatasetPicture | FileContent


def load_picture(source: VisualSource, origin: str = "", min_side: int = 0) -> Image.Image:
    """Read a picture as upright RGB.

    Args:
        source: a file, or a dataset's value.
        origin: the record, for the error.
        min_side: sides of the result have at least this many pixels: a JPEG is decoded at the smallest such scale of
            1/1, 1/2, 1/4 and 1/8, which is several times faster for large photographs. 0 decodes at full size, but
            pictures of more than 16 million pixels with sides of about 2,048.

    Raises:
        DataError: kind "missing picture" or "corrupt picture"; names the record and the file.
    """
    where = f"{origin}: " if origin else ""
    name = _name_of(source)
    try:
        return _decode(_value_of(source), min_side)
    except FileNotFoundError:
        raise missing_visual_error(origin, source if isinstance(source, Path) else name) from None
    except TooLarge as error:
        raise DataError(f"{where}picture {name} {error}{_SKIP}", "picture too large") from None
    except BROKEN as error:
        remedy = error.remedy if isinstance(error, UnsupportedPicture) else "replace it"
        message = f"{where}picture {name} cannot be read ({error_text(error)}): {remedy}{_SKIP}"
        raise DataError(message, "corrupt picture") from None


def to_tensor(picture: Image.Image, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> Tensor:
    """An RGB picture as float32 [3, H, W], normalised by mean and standard deviation per channel (default CLIP's)."""
    pixels = torch.from_numpy(np.array(picture, dtype=np.uint8)).permute(2, 0, 1)
    shift, scale = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
    return pixels.float().div_(255).sub_(shift).div_(scale).contiguous()


@dataclass(frozen=True)
class EvaluationTransform:
    """Resize a picture to a square, as a whole or with a centre crop, and normalise it.

    Args:
        size: side of the square in pixels.
        mean: per channel.
        std: per channel.
        resampling: name of Pillow's filter.
        crop: resize the shorter side to `size` and take the centre crop, as CLIP's own processor does.
    """

    size: int
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    resampling: str = "bicubic"
    crop: bool = False

    @property
    def min_side(self) -> int:
        """Minimum sides of the decoded picture: twice the result's, so that the filter still has enough pixels."""
        return 2 * self.size

    def __call__(self, picture: Image.Image) -> Tensor:
        """RGB to float32 [3, size, size], normalised."""
        sides = (self.size, self.size)
        if self.crop:
            shorter = min(picture.size)
            sides = tuple(self.size * side // shorter for side in picture.size)  # type: ignore[assignment]
        shown = picture.resize(sides, Image.Resampling[self.resampling.upper()])
        left, top = ((side - self.size) // 2 for side in sides)
        shown = shown.crop((left, top, left + self.size, top + self.size)) if self.crop else shown
        return to_tensor(shown, self.mean, self.std)


@dataclass(frozen=True)
class TrainTransform:
    """RandomResizedCrop, horizontal flip and RandAugment (N = 2, M = 5), as released by BLIP and UniAdapter.

    Args:
        size: side of the square in pixels.
        scale: area range of the crop.
        flip: mirror half of the pictures.
        augment: apply RandAugment.
        normalisation: mean and standard deviation; crops are resized bicubically, as released.
    """

    size: int
    scale: tuple[float, float] = (0.5, 1.0)
    flip: bool = True
    augment: bool = True
    normalisation: Normalisation = CLIP

    def __post_init__(self) -> None:
        low, high = self.scale
        if not 0 < low <= high <= 1:
            raise DataError(f"data.scale is {low}, {high}: it must be two shares of the area, 0 < low <= high <= 1")

    @property
    def min_side(self) -> int:
        """Minimum sides of the decoded picture, with which the smallest crop need not be enlarged."""
        return max(2 * self.size, math.ceil(self.size / math.sqrt(self.scale[0] * 3 / 4)))

    def __call__(self, picture: Image.Image, rng: random.Random) -> Tensor:
        """RGB to float32 [3, size, size], normalised; a function of the picture and the generator's state."""
        picture = random_resized_crop(picture, self.size, self.scale, rng)
        if self.flip:
            picture = random_flip(picture, rng)
        if self.augment:
            picture = rand_augment(picture, rng)
        return to_tensor(picture, self.normalisation.mean, self.normalisation.std)


def _name_of(source: VisualSource) -> str:
    if isinstance(source, DatasetPicture):
        return f"in row {source.row}, column {source.column!r}"
    if isinstance(source, FileContent):
        return f".{printable_path(source.suffix)}" if source.suffix else "in memory"
    return printable_path(source)


def _value_of(source: VisualSource) -> Any:
    if isinstance(source, DatasetPicture):
        return source.rows[source.row][source.column]
    return source if isinstance(source, Path) else io.BytesIO(source.read())


def _decode(value: object, min_side: int) -> Image.Image:
    if isinstance(value, Image.Image):
        check_pixels(value.width, value.height, MAX_PIXELS)
        return to_rgb(value, min_side)
    if isinstance(value, Mapping):
        content = value.get("bytes")
        value = io.BytesIO(content) if content is not None else value.get("path")
    if not isinstance(value, (str, Path, io.BytesIO)):
        raise TypeError(f"a {type(value).__name__} is neither an image nor a path")
    with open_picture(value, min_side) as picture:
        return to_rgb(picture, min_side)
