"""RandomResizedCrop and RandAugment against their definitions."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
from data_pictures import gradient, picture
from PIL import ImageOps

from uniadapter.data.media import augment
from uniadapter.data.media.augment import OPERATIONS, rand_augment, random_resized_crop


@pytest.mark.parametrize("width, height", [(100, 100), (160, 90), (60, 200)])
def test_crop_boxes_keep_area_and_ratio(width: int, height: int) -> None:
    for seed in range(200):
        left, top, wide, high = augment._crop_box(width, height, (0.5, 1.0), random.Random(seed))
        assert 0 <= left <= width - wide
        assert 0 <= top <= height - high
        assert 0.74 <= wide / high <= 1.35
        # a picture too long for every draw falls back to its largest central part, whose area may be smaller
        central = (left, top) == ((width - wide) // 2, (height - high) // 2)
        assert central or 0.48 <= wide * high / (width * height) <= 1


@pytest.mark.parametrize(
    "width, height, box", [(300, 10, (143, 0, 13, 10)), (10, 300, (0, 143, 10, 13)), (1, 1, (0, 0, 1, 1))]
)
def test_extreme_pictures_fall_back_to_the_centre(width: int, height: int, box: tuple[int, int, int, int]) -> None:
    assert augment._crop_box(width, height, (0.9, 1.0), random.Random(0)) == box
    assert random_resized_crop(picture(0, width, height), 16, (0.9, 1.0), random.Random(0)).size == (16, 16)


@pytest.mark.parametrize("name", list(OPERATIONS))
@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_operations_keep_size_and_mode(name: str, strength: float) -> None:
    source = picture(1, 31, 17)
    result = OPERATIONS[name](source, strength, -1)
    assert (result.size, result.mode) == (source.size, source.mode)


def test_published_strengths_at_five_of_ten() -> None:
    source = gradient(64, 64)
    array = np.asarray(source).astype(int)
    for name in ("Identity", "Brightness", "Sharpness"):
        assert np.array_equal(np.asarray(OPERATIONS[name](source, 0.5, 1)), array), name
    moved = np.asarray(OPERATIONS["TranslateX"](source, 0.5, 1)).astype(int)
    assert np.array_equal(moved[:, :-5], array[:, 5:])
    assert (moved[:, -4:] == 128).all()
    moved = np.asarray(OPERATIONS["TranslateY"](source, 0.5, -1)).astype(int)
    assert np.array_equal(moved[5:], array[:-5])
    assert (moved[:4] == 128).all()
    sheared = np.asarray(OPERATIONS["ShearX"](source, 0.5, 1)).astype(int)
    assert abs(sheared[40, 10, 0] - array[40, 10 + round(0.15 * 40), 0]) <= 4
    sheared = np.asarray(OPERATIONS["ShearY"](source, 0.5, 1)).astype(int)
    assert abs(sheared[10, 40, 1] - array[10 + round(0.15 * 40), 40, 1]) <= 4
    turned = np.asarray(OPERATIONS["Rotate"](source, 0.5, 1)).astype(int)
    slope = math.atan2(turned[42, 32, 0] - turned[22, 32, 0], turned[32, 42, 0] - turned[32, 22, 0])
    assert abs(abs(math.degrees(slope)) - 15) < 2
    assert OPERATIONS["AutoContrast"](source, 0.5, 1).tobytes() == ImageOps.autocontrast(source).tobytes()
    assert OPERATIONS["Equalize"](source, 0.5, 1).tobytes() == ImageOps.equalize(source).tobytes()


def test_brightness_range() -> None:
    source = picture(2)
    mean = float(np.asarray(source).mean())
    assert np.asarray(OPERATIONS["Brightness"](source, 0.0, 1)).mean() == pytest.approx(0.1 * mean, abs=1)
    assert np.asarray(OPERATIONS["Brightness"](source, 1.0, 1)).mean() > 1.3 * mean


def test_two_operations_each_with_half_a_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def spy(name: str) -> augment.Operation:
        def operation(one: augment.Picture, strength: float, sign: int) -> augment.Picture:
            seen.append(name)
            return one

        return operation

    for name in OPERATIONS:
        monkeypatch.setitem(OPERATIONS, name, spy(name))
    for seed in range(1000):
        rand_augment(picture(0), random.Random(seed))
    assert 930 < len(seen) < 1070
    assert all(60 < seen.count(name) < 140 for name in OPERATIONS)
