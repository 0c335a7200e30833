"""Decoding of pictures, and the training and evaluation transforms."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from data_pictures import gradient, picture
from PIL import Image, ImageOps
from transformers import BlipImageProcessorPil

from uniadapter.data.layouts.records import DataError
from uniadapter.data.media import picture_files
from uniadapter.data.media.images import (
    MEAN,
    STD,
    DatasetPicture,
    EvaluationTransform,
    TrainTransform,
    load_picture,
    to_tensor,
)

Write = Callable[[str, Any], Path]


def test_modes_become_rgb(write: Write) -> None:
    for mode in ("L", "P", "RGB", "CMYK", "1"):
        file = write(f"{mode}.{'jpg' if mode == 'CMYK' else 'png'}", picture(0).convert(mode))
        loaded = load_picture(file)
        assert (loaded.mode, loaded.size) == ("RGB", (40, 30))


def test_sixteen_bits_are_not_clipped(write: Write) -> None:
    file = write("deep.png", Image.fromarray(np.full((4, 4), 0x8040, np.uint16)))
    assert load_picture(file).getpixel((0, 0)) == (0x80, 0x80, 0x80)


def test_transparent_is_white(write: Write) -> None:
    layers = Image.new("RGBA", (2, 1), (255, 0, 0, 0))
    layers.putpixel((1, 0), (0, 0, 255, 255))
    loaded = load_picture(write("glass.png", layers))
    assert [loaded.getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 255)]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_obeyed(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    file = tmp_path / "turned.png"
    gradient(40, 20).save(file, exif=exif)
    expected = ImageOps.exif_transpose(Image.open(file)).convert("RGB")
    loaded = load_picture(file)
    assert loaded.size == expected.size
    assert loaded.tobytes() == expected.tobytes()


def test_large_jpeg_is_decoded_small_but_never_below_what_is_needed(write: Write) -> None:
    file = write("large.jpg", gradient(640, 480))
    assert load_picture(file).size == (640, 480)
    assert load_picture(file, min_side=64).size == (160, 120)
    assert load_picture(file, min_side=300).size == (640, 480)
    full, fast = load_picture(file), load_picture(file, min_side=128)
    transform = EvaluationTransform(64)
    assert (transform(full) - transform(fast)).abs().max() < 0.1


def encoded(suffix: str) -> bytes:
    content = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(content, format=suffix)
    return content.getvalue()


@pytest.mark.parametrize(
    "name, content",
    [
        ("text.jpg", b"<html>404</html>"),
        ("empty.png", b""),
        ("cut.jpg", encoded("JPEG")[:-2000]),
        ("cut.png", encoded("PNG")[:-2000]),
        ("cut.webp", encoded("WEBP")[:-2000]),
        ("flipped.png", encoded("PNG")[:200] + b"\x00" * 50 + encoded("PNG")[250:]),
    ],
)
def test_corrupt_pictures_are_named(write: Write, name: str, content: bytes) -> None:
    file = write(name, content)
    for min_side in (0, 1):
        with pytest.raises(DataError) as error:
            load_picture(file, "train.json[4]", min_side)
        assert str(error.value).startswith(f"train.json[4]: picture {file} cannot be read (")
        assert error.value.kind == "corrupt picture"
        assert "\n" not in str(error.value)


def test_a_bomb_is_an_error(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(picture_files, "MAX_PIXELS", 500)
    file = write("bomb.png", picture(0, 100, 100))
    with pytest.raises(
        DataError, match=r"is 100 x 100 pixels, more than 500 in all: .* UNIADAPTER_MOST_PIXELS"
    ) as error:
        load_picture(file)
    assert error.value.kind == "picture too large"
    monkeypatch.setenv("UNIADAPTER_MOST_PIXELS", "10000")
    assert load_picture(file).size == (100, 100)
    monkeypatch.setenv("UNIADAPTER_MOST_PIXELS", "a lot")
    with pytest.raises(DataError, match="UNIADAPTER_MOST_PIXELS is 'a lot': it must be a number"):
        load_picture(file)


def test_missing_picture_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^a\.csv:2: picture .*none\.png does not exist: set data\.root") as error:
        load_picture(tmp_path / "none.png", "a.csv:2")
    assert error.value.kind == "missing picture"


def test_pictures_of_a_dataset(write: Write) -> None:
    file = write("a.png", picture(3))
    rows: list[dict[str, Any]] = [
        {"image": picture(3)},
        {"image": {"bytes": file.read_bytes(), "path": None}},
        {"image": {"path": str(file)}},
    ]
    for row in range(3):
        assert load_picture(DatasetPicture(rows, row, "image")).tobytes() == picture(3).tobytes()
    with pytest.raises(DataError, match="picture in row 0, column 'image' cannot be read"):
        load_picture(DatasetPicture([{"image": 5}], 0, "image"))


def test_evaluation_is_transformers_processor() -> None:
    for source in (picture(1, 90, 61), picture(2, 20, 33)):
        processor = BlipImageProcessorPil(size={"height": 48, "width": 48})
        theirs = processor(source, return_tensors="pt")["pixel_values"][0]
        ours = EvaluationTransform(48)(source)
        assert ours.dtype == torch.float32
        assert ours.shape == (3, 48, 48)
        assert ours.is_contiguous()
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_normalisation() -> None:
    white = to_tensor(Image.new("RGB", (2, 3), (255, 255, 255)))
    assert white.shape == (3, 3, 2)
    torch.testing.assert_close(white[:, 0, 0], (1 - torch.tensor(MEAN)) / torch.tensor(STD))
    red = to_tensor(Image.new("RGB", (1, 1), (255, 0, 0))).flatten()
    assert red[0] > 0 > red[1]


def test_training_transform_is_a_function_of_the_generator() -> None:
    transform, source = TrainTransform(32), picture(5, 80, 60)
    before = source.tobytes()
    results = [transform(source, random.Random(seed)) for seed in range(20)]
    for seed, result in enumerate(results):
        assert result.shape == (3, 32, 32)
        assert result.dtype == torch.float32
        assert result.min() >= -1.8
        assert result.max() <= 2.2
        assert torch.equal(result, transform(source, random.Random(seed)))
    assert len({result.numpy().tobytes() for result in results}) == 20
    assert source.tobytes() == before


def test_flip_off_never_flips() -> None:
    source = gradient(80, 60)  # brighter to the right

    def slopes(flip: bool) -> list[bool]:
        transform = TrainTransform(32, flip=flip, augment=False)
        results = [transform(source, random.Random(seed)) for seed in range(40)]
        return [bool(result[0, :, -4:].mean() > result[0, :, :4].mean()) for result in results]

    assert all(slopes(False))
    assert 8 < sum(slopes(True)) < 32


def test_whole_area_without_chance_is_the_evaluation() -> None:
    source = picture(4, 60, 60)
    transform = TrainTransform(32, scale=(1.0, 1.0), flip=False, augment=False)
    found = [transform(source, random.Random(seed)) for seed in range(10)]
    whole = EvaluationTransform(32)(source)
    assert any(torch.allclose(one, whole) for one in found)


def test_the_area_of_a_crop_has_limits() -> None:
    assert TrainTransform(64, (0.2, 1.0)).min_side == 166  # 64 / sqrt(0.2 * 3/4)
    for scale in ((0.0, 1.0), (0.9, 0.5), (0.5, 1.5)):
        with pytest.raises(DataError, match=r"data\.scale"):
            TrainTransform(64, scale)
