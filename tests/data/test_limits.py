"""Oversized files and paths that are not files are refused immediately, in one line."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_pictures import gradient, picture
from PIL import Image

from uniadapter.config import DataConfig
from uniadapter.data.captions import load_retrieval
from uniadapter.data.layouts.records import DataError
from uniadapter.data.media import frame_converter, limits, video
from uniadapter.data.media.images import load_picture
from uniadapter.data.media.limits import MAX_FRAMES, check_frames
from uniadapter.data.media.video import load_clip, load_frames, looks_like_video

Write = Callable[[str, Any], Path]


def png(width: int, height: int) -> bytes:
    """A PNG of any size, without a pixel."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def gif(width: int, height: int, frames: int = 1) -> bytes:
    """A GIF of any size, of one small frame or more."""
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 2, 2, 0) + b"\x02\x03\x44\x02\x05\x00"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + frame * frames + b"\x3b"


BOMBS = {
    "wide.png": png(178_000_000, 1),
    "tall.png": png(1, 100_000),
    "large.png": png(13_000, 13_000),
    "any.png": png(2**31 - 1, 2**31 - 1),
    "claims.gif": gif(65_535, 65_535),
    "moves.gif": gif(65_535, 65_535, 3),
    "large.gif": gif(13_000, 13_000, 3),
}


@pytest.mark.parametrize("name", BOMBS)
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("min_side", [0, 64])
def test_a_claimed_size_is_refused_before_anything_is_decoded(
    write: Write, name: str, count: int, min_side: int
) -> None:
    file = write(name, BOMBS[name])
    with pytest.raises(DataError, match=r"pixels.*(save it smaller, or set UNIADAPTER_MOST|cut it into)") as error:
        load_frames(file, "a.json[1]", count, min_side)
    assert error.value.kind in ("picture too large", "video too large")
    assert str(error.value).startswith("a.json[1]: ")
    assert len(str(error.value)) <= 300


def test_bombs_are_left_out_where_faults_are_skipped(write: Write) -> None:
    rows = [{"image": write(name, content).name, "caption": "x"} for name, content in BOMBS.items()]
    write("sound.png", picture(1))
    file = write("own.json", [*rows, {"image": "sound.png", "caption": "y"}])
    split = load_retrieval(file, DataConfig(on_error="skip"), "test")
    assert split.texts == ["y"]
    assert split.skipped["picture too large"] == len(BOMBS)


MEASURED = """
import resource, sys
from pathlib import Path
from uniadapter.data.media.video import load_frames
def size():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
load_frames(Path(sys.argv[1]), "", 1, 64)
resource.setrlimit(resource.RLIMIT_AS, (size() + 140_000_000, resource.RLIM_INFINITY))
for file in sys.argv[2:]:
    for count in (1, 4):
        print(load_frames(Path(file), "", count, 64 * (count > 1))[0].size)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux")
def test_large_pictures_take_little_more_than_their_pixels(tmp_path: Path, write: Write) -> None:
    """Of 18 million pixels: 70 MB as decoded; in one go, transparency alone took 280 MB more."""
    small = write("small.png", picture(1))
    files = []
    for mode, name in (("RGBA", "clear.png"), ("P", "still.gif"), ("I;16", "deep.png"), ("RGB", "photograph.jpg")):
        files.append(tmp_path / name)
        Image.new(mode, (4200, 4200)).save(files[-1], compress_level=1)
    shown = subprocess.run(
        [sys.executable, "-c", MEASURED, str(small), *map(str, files)], capture_output=True, text=True, timeout=120
    )
    assert shown.returncode == 0, shown.stderr[-2000:]
    assert len(shown.stdout.splitlines()) == 2 * len(files)


def test_a_photograph_of_any_size_is_read_at_a_reduced_scale(
    write: Write, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    """As decoded it counts: JPEGs of 200 million pixels come from telephones."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    monkeypatch.setattr("uniadapter.data.media.picture_files.MAX_PIXELS", 20_000)
    file = write("phone.jpg", gradient(640, 480))
    assert load_picture(file, min_side=64).size == (160, 120)
    assert not recwarn.list
    monkeypatch.setattr("uniadapter.data.media.picture_files.REDUCED_SIDE", 64)
    assert load_picture(file).size == (160, 120)
    monkeypatch.setattr("uniadapter.data.media.picture_files.REDUCED_SIDE", 400)
    with pytest.raises(DataError, match="is 640 x 480 pixels"):
        load_picture(file)


def test_a_clip_in_full_size_is_bounded_as_a_whole(
    tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_converter, "MAX_CLIP_PIXELS", 20_000)
    monkeypatch.setattr(video, "MAX_CLIP_PIXELS", 20_000)
    shades = [gradient(160, 120), gradient(160, 120).rotate(180)]
    for name in ("a.gif", "a.png", "a.webp"):
        shades[0].save(tmp_path / name, save_all=True, append_images=shades[1:], duration=40)
        assert max(load_clip(tmp_path / name, "x", 4)[0].size) <= 82, name
        assert load_clip(tmp_path / name, "x", 1)[0].size == (160, 120)
    write("f/1.png", shades[0]), write("f/2.png", shades[1])
    assert load_clip(tmp_path / "f", "x", 4)[0].size == (80, 60)


@pytest.mark.parametrize("count", [-1, 0, MAX_FRAMES + 1, 100_000, 10**12])
def test_numbers_of_frames_that_no_clip_has(write: Write, count: int) -> None:
    file = write("a.png", picture(1))
    for call in (load_clip, load_frames):
        with pytest.raises(
            ValueError, match=rf"frames is {count}: a clip has at least 1 frame and at most 1024"
        ) as error:
            call(file, "", count, min_side=0)
        assert not isinstance(error.value, DataError)  # which would be skipped
    with pytest.raises(ValueError, match="eval_frames is 0"):
        check_frames(0, "eval_frames")


def test_a_file_of_gigabytes_is_not_read_into_memory(tmp_path: Path, write: Write) -> None:
    webp = tmp_path / "a.webp"
    moving = [picture(n) for n in range(3)]
    moving[0].save(webp, save_all=True, append_images=moving[1:], duration=40)
    for file in (webp, write("a.png", picture(1))):
        os.truncate(file, 2 * limits.MAX_BYTES)
        with pytest.raises(DataError, match="has 1073741824 bytes, more than the 536870912"):
            load_frames(file, "", 2, 0)


def irregular(folder: Path) -> dict[str, str]:
    """Paths that lead to no file, and what is said of them."""
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    (folder / "loop.png").symlink_to("loop.png")
    with socket.socket(socket.AF_UNIX) as server:
        before = os.getcwd()
        os.chdir(folder)  # such addresses are short
        server.bind("socket.png")
        os.chdir(before)
    return {
        "pipe.png": "it is a pipe",
        "folder.png": "it is a folder",
        "loop.png": "Too many levels of symbolic links",
        "socket.png": "it is a socket",
        "/dev/zero": "it is a device",
        "/dev/tty": "it is a device",
        "nul\0.png": "embedded null",
        "n" * 100_000 + ".png": "File name too long",
    }


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
@pytest.mark.parametrize("count", [1, 4])
def test_pipes_and_devices_are_refused_without_blocking(tmp_path: Path, count: int) -> None:
    for name, reason in irregular(tmp_path).items():
        assert not looks_like_video(tmp_path / name) or (tmp_path / name).is_dir()
        for call in (load_frames, load_clip):
            with pytest.raises(DataError) as error:
                call(tmp_path / name, "a.json[3]", count, min_side=0)
            wanted = "a folder without pictures" if name == "folder.png" and "video" in str(error.value) else reason
            assert wanted in str(error.value)
            assert len(str(error.value)) <= 300
            assert "\0" not in str(error.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_annotations_that_name_no_file(tmp_path: Path, write: Write) -> None:
    paths = irregular(tmp_path)
    write("sound.png", picture(1))
    for name, reason in paths.items():
        for noun in ("image", "video"):
            file = write("own.json", [{noun: name, "caption": "x"}, {"image": "sound.png", "caption": "y"}])
            with pytest.raises(DataError) as error:
                load_retrieval(file, DataConfig(), "test")
            assert ("a folder" if name == "folder.png" else reason) in str(error.value)
            assert load_retrieval(file, DataConfig(on_error="skip"), "test").texts == ["y"]
