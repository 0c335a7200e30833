"""Detection of file formats by content, suffixes, and errors that name the format found instead of a picture."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from data_pictures import picture
from PIL import Image

from uniadapter.config import DataConfig
from uniadapter.data.captions import load_retrieval
from uniadapter.data.layouts.records import DataError
from uniadapter.data.media.file_kinds import (
    PICTURE_SUFFIXES,
    VIDEO_SUFFIXES,
    explain_unreadable,
    file_kind,
    has_video_suffix,
    is_video,
)
from uniadapter.data.media.images import load_picture
from uniadapter.data.media.video import load_frames, looks_like_video

Write = Callable[[str, Any], Path]
CONTAINERS = {
    "a.asf": ("asf", "wmv2", "yuv420p"),
    "a.f4v": ("flv", "flv", "yuv420p"),
    "a.m2ts": ("mpegts", "mpeg2video", "yuv420p"),
    "a.vob": ("mpeg", "mpeg2video", "yuv420p"),
    "a.qt": ("mov", "mpeg4", "yuv420p"),
    "a.dv": ("avi", "mpeg4", "yuv420p"),  # which is no DV: what it holds counts
    "a.bin": ("matroska", "mpeg4", "yuv420p"),
    "a": ("mp4", "mpeg4", "yuv420p"),
    "a.jpg": ("avi", "mjpeg", "yuvj420p"),
}


@pytest.fixture
def film(tmp_path: Path) -> Callable[[str], Path]:
    def film(name: str) -> Path:
        container, codec, pixels = CONTAINERS[name]
        with av.open(str(tmp_path / name), "w", format=container) as out:
            stream = out.add_stream(codec, rate=25)
            stream.width, stream.height, stream.pix_fmt = 64, 48, pixels
            for shade in range(0, 250, 25):
                content = np.full((48, 64, 3), shade, np.uint8)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(content, format="rgb24")))
            out.mux(stream.encode(None))
        return tmp_path / name

    return film


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_video_is_read_as_one_whatever_it_is_called(film: Callable[[str], Path], name: str) -> None:
    file = film(name)
    assert file_kind(file) == "video"
    assert looks_like_video(file)
    assert is_video(file) == (name != "a.jpg")
    assert not has_video_suffix("a.jpg")
    for count in (1, 4):
        shades = [frame.getpixel((20, 20))[0] for frame in load_frames(file, "x", count, 0)]  # type: ignore[index]
        assert len(shades) == count
        assert shades == sorted(shades)
        assert 90 < shades[count // 2] < 190  # the middle, and not the first frame, which is black


@pytest.mark.parametrize("field", ["video", "image"])
@pytest.mark.parametrize("name", ["a.asf", "a.f4v", "a.m2ts", "a.bin"])
def test_no_valid_video_is_dropped_from_a_gallery(
    film: Callable[[str], Path], write: Write, name: str, field: str
) -> None:
    film(name)
    split = load_retrieval(write("own.json", [{field: name, "caption": "x"}]), DataConfig(on_error="skip"), "test")
    assert split.summary() == "test: 1 videos, 1 captions"
    assert split.visual_kind == "video"


def test_there_is_one_list_and_it_is_searched(film: Callable[[str], Path], write: Write) -> None:
    assert not PICTURE_SUFFIXES & set(VIDEO_SUFFIXES)
    assert len(set(VIDEO_SUFFIXES)) == len(VIDEO_SUFFIXES)
    film("a.asf")
    split = load_retrieval(write("own.json", [{"video": "a.mp4", "caption": "x"}]), DataConfig(), "test")
    assert [Path(str(visual)).name for visual in split.visuals] == ["a.asf"]


FOUND = {
    "photo.heic": (b"\x00\x00\x00\x24ftypheic\x00\x00\x00\x00mif1heic", "it is HEIC", "pip install pillow-heif"),
    "photo.jpg": (b"\x00\x00\x00\x24ftypmif1\x00\x00\x00\x00mif1heic", "it is HEIC", "convert it to JPEG"),
    "photo.jxl": (b"\xff\x0a\xfa\x7f\x01", "it is JPEG XL", "pip install pillow-jxl-plugin"),
    "boxed.jxl": (b"\x00\x00\x00\x0cJXL \x0d\x0a\x87\x0a", "it is JPEG XL", "convert it to JPEG or PNG"),
    "page.jpg": (b"\n <!DOCTYPE html><html>404</html>", "it is a web page", "download the picture again"),
    "drawing.svg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "it is SVG", "convert it"),
    "sheet.png": (b"%PDF-1.7 ...", "it is a PDF", "convert it"),
    "print.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "it is PostScript", "convert it"),
    "all.png": (b"PK\x03\x04....", "it is a ZIP archive", "unpack it"),
    "a.png": (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS", "git lfs pull"),
    "none.png": (b"", "it is empty, 0 bytes", "replace it"),
    "noise.png": (b"\x07" * 99, "not a known picture format", "replace it"),
    "packed.png": (gzip.compress(b"x" * 99), "not a known picture format", "replace it"),
}


@pytest.mark.parametrize("name", FOUND)
def test_errors_name_the_format_of_files_that_are_not_pictures(write: Write, name: str) -> None:
    content, found, remedy = FOUND[name]
    with pytest.raises(DataError) as error:
        load_picture(write(name, content), "a.csv:2")
    assert found in str(error.value)
    assert remedy in str(error.value)
    assert "object at 0x" not in str(error.value)
    assert error.value.kind == "corrupt picture"


def test_avif_without_its_decoder() -> None:
    assert explain_unreadable(b"\x00\x00\x00\x24ftypavif")[0] == "it is AVIF, which this Pillow lacks"


def test_a_plugin_is_used_where_there_is_one(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of that name teaches Pillow the format; here, to take the bytes for a picture of one colour."""
    (tmp_path / "pillow_heif.py").write_text(
        "from PIL import Image\n"
        "def register_heif_opener():\n"
        "    make = lambda stream, name: Image.new('RGB', (3, 2), 'red')\n"
        "    Image.register_open('HEIF', make, lambda head: head[8:12] == b'heic')\n"
    )
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert load_picture(write("photo.heic", FOUND["photo.heic"][0])).getpixel((0, 0)) == (255, 0, 0)


def test_no_other_program_is_started(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    def started(*_: object, **__: object) -> None:
        raise AssertionError("a program was started")

    monkeypatch.setattr("subprocess.Popen", started)
    monkeypatch.setattr("os.system", started)
    with pytest.raises(DataError):
        load_picture(write("a.jpg", FOUND["print.eps"][0] + b"showpage\n%%EOF\n"))


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "avif", "jp2", "tiff", "bmp", "ico", "tga", "ppm"])
def test_formats_that_pillow_reads(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"a.{suffix}"
    picture(1, 48, 48).save(file)
    assert load_picture(file).size == (48, 48)
