"""Rotation and mirroring by the display matrix, against its definition and against ffmpeg's filters."""

from __future__ import annotations

import struct
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from uniadapter.data.media.display_matrix import upright
from uniadapter.data.media.video import load_clip

ONE = 1 << 16
# a, b, c, d of (x, y) -> (a x + c y, b x + d y), and the filters that ffmpeg puts in by itself.
MATRICES = {
    "as it is": ((1, 0, 0, 1), "null"),
    "rotated by 90": ((0, 1, -1, 0), "transpose=clock"),
    "rotated by 180": ((-1, 0, 0, -1), "hflip,vflip"),
    "rotated by 270": ((0, -1, 1, 0), "transpose=cclock"),
    "hflip": ((-1, 0, 0, 1), "hflip"),
    "vflip": ((1, 0, 0, -1), "vflip"),
    "transpose": ((0, 1, 1, 0), "transpose=cclock_flip"),
    "antitranspose": ((0, -1, -1, 0), "transpose=clock_flip"),
}
PIXELS = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def matrix(a: float, b: float, c: float, d: float) -> list[int]:
    return [int(a * ONE), int(b * ONE), 0, int(c * ONE), int(d * ONE), 0, 0, 0, 1 << 30]


def by_definition(pixels: np.ndarray, a: int, b: int, c: int, d: int) -> np.ndarray:
    """Every pixel where the matrix puts it, moved into view."""
    rows, columns = np.indices(pixels.shape[:2])
    x, y = a * columns + c * rows, b * columns + d * rows
    x, y = x - x.min(), y - y.min()
    shown = np.empty((y.max() + 1, x.max() + 1, 3), np.uint8)
    shown[y, x] = pixels
    return shown


def by_filters(pixels: np.ndarray, filters: str) -> np.ndarray:
    graph = av.filter.Graph()
    steps = [graph.add_buffer(width=pixels.shape[1], height=pixels.shape[0], format="rgb24", time_base="1/25")]
    for name, _, setting in (step.partition("=") for step in filters.split(",")):
        steps.append(graph.add(name, setting or None))
    steps.append(graph.add("buffersink"))
    graph.link_nodes(*steps).configure()
    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    frame.pts = 0
    graph.push(frame)
    return graph.pull().to_ndarray(format="rgb24")


@pytest.mark.parametrize("name", MATRICES)
def test_the_eight_ways_to_hold_a_camera(name: str) -> None:
    turns, filters = MATRICES[name]
    shown = np.asarray(upright(Image.fromarray(PIXELS), matrix(*turns)))
    assert (shown == by_definition(PIXELS, *turns)).all()
    assert (shown == by_filters(PIXELS, filters)).all()


@pytest.mark.parametrize("degrees", [30, 200, 315])
def test_other_angles_turn_within_the_frame(degrees: int) -> None:
    angle = np.deg2rad(degrees)
    turned = matrix(np.cos(angle), np.sin(angle), -np.sin(angle), np.cos(angle))
    half = np.zeros((31, 31, 3), np.uint8)
    half[:, 20:] = 255
    shown = np.asarray(upright(Image.fromarray(half), turned)).astype(int)
    wanted = by_filters(half, f"rotate={degrees}*PI/180").astype(int)
    assert shown.shape == wanted.shape
    assert np.abs(shown - wanted).mean() < 12


@pytest.mark.parametrize("odd", [[0] * 9, [0, 0, 0, 0, 5, 0, 0, 0, 0], [-(2**31)] * 9, [2**31 - 1] * 9])
def test_a_senseless_matrix_harms_nothing(odd: list[int]) -> None:
    assert upright(Image.fromarray(PIXELS), odd).mode == "RGB"
    assert upright(Image.fromarray(PIXELS), None).tobytes() == PIXELS.tobytes()


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("count", [1, 3])
def test_videos_with_a_matrix(tmp_path: Path, name: str, count: int) -> None:
    """As MP4 has it, for one frame and for several, in full size and reduced."""
    file, turns = tmp_path / "a.mp4", MATRICES[name][0]
    with av.open(str(file), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        smooth = np.asarray(Image.fromarray(PIXELS[:4, :4]).resize((64, 48), Image.Resampling.BICUBIC))
        for _ in range(3):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(smooth, format="rgb24")))
        out.mux(stream.encode(None))
    for min_side in (0, 24):
        plain = load_clip(file, "x", count, min_side=min_side)
        content = bytearray(file.read_bytes())
        begin = content.index(b"tkhd") + 4 + 40  # version 0
        content[begin : begin + 36] = struct.pack(">9i", *matrix(*turns))
        (tmp_path / "turned.mp4").write_bytes(content)
        for before, after in zip(plain, load_clip(tmp_path / "turned.mp4", "x", count, min_side=min_side), strict=True):
            assert (np.asarray(after) == by_definition(np.asarray(before), *turns)).all()
