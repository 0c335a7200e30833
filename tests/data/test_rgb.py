"""Conversion to RGB gives the same pixels for files and for pictures in memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_pictures import gradient
from PIL import Image, ImageCms

from uniadapter.data.media import rgb
from uniadapter.data.media.images import load_picture, to_rgb
from uniadapter.data.media.rgb import eight_bits

Write = Callable[[str, Any], Path]
RAMP = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)


def glass(mode: str) -> Image.Image:
    """Left half clear, right half opaque grey."""
    layers = Image.new("LA", (4, 2), (90, 0))
    layers.paste((90, 255), (2, 0, 4, 2))
    return layers.convert(mode) if mode in ("LA", "La") else layers.convert("RGBA").convert(mode)


def of(value: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(to_rgb(value))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"])
def test_every_mode_looks_like_the_picture(mode: str) -> None:
    source = gradient(40, 20)
    if mode == "LAB":
        to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
        other = ImageCms.applyTransform(source, to_lab)
        assert other is not None
    else:
        other = source.convert(mode)
    assert to_rgb(other).mode == "RGB"
    allowed = {"1": 120, "L": 60, "P": 30}.get(mode, 4)
    assert np.abs(of(other).astype(int) - np.asarray(source)).mean() < allowed


@pytest.mark.parametrize("mode", ["LA", "La", "PA", "RGBA", "RGBa"])
def test_transparent_parts_are_white(mode: str) -> None:
    pixels = of(glass(mode))
    assert (pixels[:, :2] == 255).all()
    assert (pixels[:, 2:] == 90).all()


def test_a_transparent_colour_key_is_white(write: Write) -> None:
    deep = Image.fromarray(np.array([[0x1234, 0x8000]], np.uint16))
    deep.info["transparency"] = 0x1234
    assert of(deep)[0, :, 0].tolist() == [255, 128]
    palette = Image.new("P", (2, 1), 1)
    palette.putpalette([0, 0, 0, 9, 9, 9])
    palette.putpixel((0, 0), 0)
    palette.info["transparency"] = 0
    assert of(palette)[0, :, 0].tolist() == [255, 9]


@pytest.mark.parametrize(
    "values",
    [
        RAMP.astype(np.uint16) * 257,
        RAMP.astype(np.int32),
        RAMP.astype(np.int32) * 257,
        RAMP.astype(np.float32) / 255,
        RAMP.astype(np.float32),
        RAMP.astype(np.float32) * 256,
        RAMP.astype(np.float32) * 1e6,
        RAMP.astype(np.float32) / 100 - 1,
    ],
)
def test_deep_pictures_are_scaled_and_not_clipped(values: np.ndarray[Any, Any]) -> None:
    """Pillow's own conversion makes them white, or black."""
    assert np.abs(of(Image.fromarray(values))[..., 0].astype(int) - RAMP).max() <= 1
    assert np.abs(eight_bits(values).astype(int) - RAMP).max() <= 1


def test_values_of_other_types() -> None:
    assert eight_bits(np.array([True, False])).tolist() == [255, 0]
    assert eight_bits(RAMP) is RAMP
    assert eight_bits(RAMP.astype(np.int64)).tolist() == RAMP.tolist()
    assert eight_bits(np.array([np.nan, 0.5, np.inf, -np.inf])).tolist() == [0, 128, 255, 0]
    assert eight_bits(np.full(3, np.nan)).tolist() == [0, 0, 0]
    assert eight_bits(np.full(2, -5)).tolist() == [0, 0]
    assert eight_bits(np.zeros(0)).tolist() == []


@pytest.mark.parametrize(
    "name", ["deep.png", "deep.tif", "deep.pgm", "float.tif", "wide.tif", "glass.png", "glass.gif"]
)
def test_files_and_pictures_in_memory_give_the_same_pixels(write: Write, name: str) -> None:
    ramp = RAMP.astype(np.uint16) * 257
    made = {
        "float.tif": Image.fromarray(RAMP.astype(np.float32) / 255),
        "wide.tif": Image.fromarray(ramp.astype(np.int32)),
        "glass.png": glass("RGBA"),
        "glass.gif": glass("RGBA"),
    }
    source = made.get(name, Image.fromarray(ramp))
    file = write(name, source)
    assert load_picture(file).tobytes() == to_rgb(Image.open(file)).tobytes() == to_rgb(source).tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_once_and_not_twice(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "turned.jpg"
    gradient(40, 20).save(file, exif=exif)
    picture = Image.open(file)
    once = to_rgb(picture)
    assert once.size == ((20, 40) if orientation > 4 else (40, 20))
    assert to_rgb(once).tobytes() == once.tobytes() == load_picture(file).tobytes()
    assert to_rgb(picture.convert("RGB")).tobytes() == once.tobytes()


def test_of_an_animation_the_first_frame(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (250, 20, 130)]
    for name in ("moving.gif", "moving.png", "moving.webp"):
        file = tmp_path / name
        frames[0].save(file, save_all=True, append_images=frames[1:], lossless=True)
        assert to_rgb(Image.open(file)).tobytes() == load_picture(file).tobytes() == frames[0].tobytes()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "I;16", "F"])
def test_strips_change_nothing(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    source = gradient(50, 37)
    picture = Image.fromarray(np.asarray(source.convert("L")).astype(np.uint16) * 200) if mode == "I;16" else None
    picture = picture or source.convert("L").convert(mode) if mode == "F" else picture or source.convert(mode)
    whole = of(picture)
    monkeypatch.setattr(rgb, "_STRIP", 300)
    assert (of(picture) == whole).all()
    monkeypatch.setattr(rgb, "_LARGE", 1000)
    assert (of(picture) == whole).all()  # sides of 2,048 it has not
    small = to_rgb(picture, min_side=10)
    assert small.size == (17, 13)
    assert small.tobytes() == Image.fromarray(whole).reduce(3).tobytes()
