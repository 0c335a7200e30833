"""Training augmentation of Pillow pictures: RandomResizedCrop, horizontal flip and RandAugment.

Every function takes its random generator, so the result is a function of (seed, epoch, sample id). RandAugment behaves
as in ALBEF and BLIP (`RandomAugment(2, 5)`): operations are chosen with replacement, each is applied with probability
1/2, at magnitude M of 10, with a random sign, filling with mid-grey:

    Rotate           30 degrees x M / 10
    ShearX, ShearY   0.3 x M / 10
    TranslateX, Y    10 pixels x M / 10
    Brightness, Sharpness   a factor of 0.1 + 1.8 x M / 10

At the published M = 5 that factor is 1, so Brightness and Sharpness change nothing, as in the released code.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable

from PIL import Image, ImageEnhance, ImageOps

GREY = (128, 128, 128)
RATIO = (3 / 4, 4 / 3)
ATTEMPTS = 10

Picture = Image.Image
Operation = Callable[[Picture, float, int], Picture]


def random_resized_crop(picture: Picture, size: int, scale: tuple[float, float], rng: random.Random) -> Picture:
    """A random crop, resized bicubically to `size` x `size` pixels (Szegedy et al. 2015, as in torchvision).

    Args:
        picture: RGB.
        size: side of the result in pixels.
        scale: range of the crop's share of the area; its aspect ratio is log-uniform from 3/4 to 4/3.
        rng: random generator.
    """
    left, top, width, height = _crop_box(picture.width, picture.height, scale, rng)
    part = picture.crop((left, top, left + width, top + height))
    return part.resize((size, size), Image.Resampling.BICUBIC)


def random_flip(picture: Picture, rng: random.Random) -> Picture:
    """The picture or its mirror image, each with probability 1/2."""
    return ImageOps.mirror(picture) if rng.random() < 0.5 else picture


def rand_augment(picture: Picture, rng: random.Random, count: int = 2, magnitude: float = 5) -> Picture:
    """Apply RandAugment: `count` operations chosen with replacement, each with probability 1/2.

    Args:
        picture: RGB.
        rng: random generator; three numbers are taken per operation, applied or not.
        count: N.
        magnitude: M, of 10.
    """
    names = list(OPERATIONS)
    for _ in range(count):
        name, applied, sign = rng.choice(names), rng.random() < 0.5, rng.choice((-1, 1))
        if applied:
            picture = OPERATIONS[name](picture, magnitude / 10, sign)
    return picture


def _crop_box(width: int, height: int, scale: tuple[float, float], rng: random.Random) -> tuple[int, int, int, int]:
    for _ in range(ATTEMPTS):
        area = width * height * rng.uniform(*scale)
        ratio = math.exp(rng.uniform(math.log(RATIO[0]), math.log(RATIO[1])))
        wide, high = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < high <= height:
            return rng.randint(0, width - wide), rng.randint(0, height - high), wide, high
    # No crop fitted, as with very long pictures: take the largest central one within the aspect ratios.
    wide = min(width, round(height * RATIO[1]))
    high = min(height, round(width / RATIO[0]))
    wide, high = max(wide, 1), max(high, 1)
    return (width - wide) // 2, (height - high) // 2, wide, high


def _affine(picture: Picture, matrix: tuple[float, float, float, float, float, float]) -> Picture:
    return picture.transform(
        picture.size, Image.Transform.AFFINE, matrix, resample=Image.Resampling.BILINEAR, fillcolor=GREY
    )


def _identity(picture: Picture, strength: float, sign: int) -> Picture:
    return picture


def _auto_contrast(picture: Picture, strength: float, sign: int) -> Picture:
    return ImageOps.autocontrast(picture)


def _equalize(picture: Picture, strength: float, sign: int) -> Picture:
    return ImageOps.equalize(picture)


def _brightness(picture: Picture, strength: float, sign: int) -> Picture:
    return ImageEnhance.Brightness(picture).enhance(0.1 + 1.8 * strength)


def _sharpness(picture: Picture, strength: float, sign: int) -> Picture:
    return ImageEnhance.Sharpness(picture).enhance(0.1 + 1.8 * strength)


def _shear_x(picture: Picture, strength: float, sign: int) -> Picture:
    return _affine(picture, (1, sign * 0.3 * strength, 0, 0, 1, 0))


def _shear_y(picture: Picture, strength: float, sign: int) -> Picture:
    return _affine(picture, (1, 0, 0, sign * 0.3 * strength, 1, 0))


def _translate_x(picture: Picture, strength: float, sign: int) -> Picture:
    return _affine(picture, (1, 0, sign * 10 * strength, 0, 1, 0))


def _translate_y(picture: Picture, strength: float, sign: int) -> Picture:
    return _affine(picture, (1, 0, 0, 0, 1, sign * 10 * strength))


def _rotate(picture: Picture, strength: float, sign: int) -> Picture:
    return picture.rotate(sign * 30 * strength, resample=Image.Resampling.BILINEAR, fillcolor=GREY)


OPERATIONS: dict[str, Operation] = {
    "Identity": _identity,
    "AutoContrast": _auto_contrast,
    "Brightness": _brightness,
    "Sharpness": _sharpness,
    "Equalize": _equalize,
    "ShearX": _shear_x,
    "ShearY": _shear_y,
    "TranslateX": _translate_x,
    "TranslateY": _translate_y,
    "Rotate": _rotate,
}
