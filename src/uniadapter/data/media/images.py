"""Pictures: from a file to RGB, and from RGB to the tensor that the visual encoder reads.

Orientation tags are obeyed, transparent parts become white, and of an animation the first frame is taken.
"""

from __future__ import annotations

import io
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from uniadapter.data.media.augment import rand_augment, random_flip, random_resized_crop
from uniadapter.data.media.files import missing_visual, said, shown_path
from uniadapter.data.media.limits import MOST_PIXELS, TooLarge, check_pixels
from uniadapter.data.media.picture_files import BROKEN, Unidentified, open_picture
from uniadapter.data.media.records import DataError
from uniadapter.data.media.rgb import to_rgb


@dataclass(frozen=True)
class Normalisation:
    """How a base wants to see pictures; the defaults are CLIP's, which BLIP took over.

    Args:
        mean: of each channel, subtracted from pixels in [0, 1].
        std: of each channel, divided by afterwards.
        resampling: filter of the resizing, by Pillow's name.
        crop: it was trained on the middle square of pictures, rather than on whole ones squeezed to a square.
    """

    mean: tuple[float, float, float] = (0.48145466, 0.4578275, 0.40821073)
    std: tuple[float, float, float] = (0.26862954, 0.26130258, 0.27577711)
    resampling: str = "bicubic"
    crop: bool = False


CLIP = Normalisation()
MEAN, STD = CLIP.mean, CLIP.std

_SKIP = ", or set data.on_error to skip"


class Rows(Protocol):
    """Any sequence of mappings, as a Hugging Face dataset is."""

    def __len__(self) -> int:
        """Number of rows."""

    def __getitem__(self, row: int, /) -> Mapping[str, Any]:
        """One row."""


@dataclass(frozen=True, eq=False)
class DatasetPicture:
    """A picture that stays in its dataset until it is needed.

    Args:
        rows: the dataset.
        row: its row there.
        column: its column there; the value is a Pillow image, a path, or `{"bytes": ..., "path": ...}`.
    """

    rows: Rows
    row: int
    column: str


Source = Path | DatasetPicture


def load_picture(source: Source, origin: str = "", at_least: int = 0) -> Image.Image:
    """Read a picture as RGB, upright.

    Args:
        source: where it is.
        origin: the record that asks for it, for the error.
        at_least: sides in pixels that are enough: a JPEG is decoded at the smallest of its scales (1/1, 1/2,
            1/4, 1/8) with both sides at least this long, which is several times faster for large photographs;
            0 decodes in full; of more than 16 million pixels, sides of 2,048 are then enough.

    Raises:
        DataError: kind "missing picture" or "corrupt picture"; names the record and the file.
    """
    where = f"{origin}: " if origin else ""
    name = shown_path(source) if isinstance(source, Path) else f"in row {source.row}, column {source.column!r}"
    try:
        value: Any = source if isinstance(source, Path) else source.rows[source.row][source.column]
        return _decode(value, at_least)
    except FileNotFoundError:
        raise missing_visual(origin, source if isinstance(source, Path) else name) from None
    except TooLarge as error:
        raise DataError(f"{where}picture {name} {error}{_SKIP}", "picture too large") from None
    except BROKEN as error:
        remedy = error.remedy if isinstance(error, Unidentified) else "replace it"
        message = f"{where}picture {name} cannot be read ({said(error)}): {remedy}{_SKIP}"
        raise DataError(message, "corrupt picture") from None


def to_tensor(picture: Image.Image, mean: Sequence[float] = MEAN, std: Sequence[float] = STD) -> Tensor:
    """An RGB picture as float32 [3, H, W], normalised by mean and standard deviation per channel, CLIP's."""
    pixels = torch.from_numpy(np.array(picture, dtype=np.uint8)).permute(2, 0, 1)
    shift, scale = torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)
    return pixels.float().div_(255).sub_(shift).div_(scale).contiguous()


@dataclass(frozen=True)
class EvaluationTransform:
    """The whole picture, squeezed to a square, or its middle square.

    Args:
        size: side of the square in pixels.
        mean: of each channel.
        std: of each channel.
        resampling: name of Pillow's filter.
        crop: resize the shorter side and cut the middle out, as CLIP's own processor does.
    """

    size: int
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD
    resampling: str = "bicubic"
    crop: bool = False

    @property
    def at_least(self) -> int:
        """Sides of the decoded picture that are enough: twice the result's, the rest is the filter's."""
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
        normalisation: its mean and deviation; crops are resized bicubically, as released.
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
    def at_least(self) -> int:
        """Sides of the decoded picture that are enough: the smallest crop is then not enlarged."""
        return max(2 * self.size, math.ceil(self.size / math.sqrt(self.scale[0] * 3 / 4)))

    def __call__(self, picture: Image.Image, rng: random.Random) -> Tensor:
        """RGB to float32 [3, size, size], normalised; a function of the picture and the generator's state."""
        picture = random_resized_crop(picture, self.size, self.scale, rng)
        if self.flip:
            picture = random_flip(picture, rng)
        if self.augment:
            picture = rand_augment(picture, rng)
        return to_tensor(picture, self.normalisation.mean, self.normalisation.std)


def _decode(value: object, at_least: int) -> Image.Image:
    if isinstance(value, Image.Image):
        check_pixels(value.width, value.height, MOST_PIXELS)
        return to_rgb(value, at_least)
    if isinstance(value, Mapping):
        content = value.get("bytes")
        value = io.BytesIO(content) if content is not None else value.get("path")
    if not isinstance(value, (str, Path, io.BytesIO)):
        raise TypeError(f"a {type(value).__name__} is neither an image nor a path")
    with open_picture(value, at_least) as picture:
        return to_rgb(picture, at_least)
