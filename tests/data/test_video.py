"""Videos: sampled frames, containers, and corrupt files."""

from __future__ import annotations

import random
import struct
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest
from av.stream import Disposition
from data_pictures import gradient, picture
from PIL import Image

from uniadapter.data.layouts.records import DataError
from uniadapter.data.media import frame_converter, pyav_reader, video_decoding
from uniadapter.data.media.file_kinds import has_video_suffix
from uniadapter.data.media.frame_times import (
    PacketInfo,
    frame_indices,
    frame_indices_by_time,
    frame_timestamps,
    packet_spans,
    sample_positions,
)
from uniadapter.data.media.video import load_clip, looks_like_video, sample_frame_indices

Write = Callable[[str, Any], Path]
BITS = 8
X264 = {"preset": "ultrafast", "crf": "10"}


def numbered(number: int, width: int = 64, height: int = 48) -> np.ndarray:
    """A frame that shows its number in black and white bars over noise of its own, uint8 [H, W, 3]."""
    bars = np.array([255 if number >> bit & 1 else 0 for bit in range(BITS)], np.uint8)
    pixels = np.random.default_rng(number).integers(96, 160, (height, width, 3), dtype=np.uint8)
    pixels[: 2 * height // 3] = bars.repeat(width // BITS)[None, :, None]
    return pixels


def number_of(frame: Image.Image) -> int:
    """The number that a frame shows."""
    grey = np.asarray(frame.convert("L"), float)[: frame.height // 2]
    bars = [grey[:, columns].mean() > 127 for columns in np.array_split(np.arange(frame.width), BITS)]
    return sum(1 << bit for bit, bar in enumerate(bars) if bar)


def numbers(frames: Sequence[Image.Image]) -> list[int]:
    return [number_of(frame) for frame in frames]


def encode(
    file: Path,
    frames: Sequence[np.ndarray],
    codec: str = "libx264",
    stamps: Sequence[int] | None = None,
    rate: int = 25,
    gop: int = 12,
    options: dict[str, str] | None = None,
    pixels: str = "yuv420p",
    container: str | None = None,
    sound: bool = False,
) -> Path:
    """Write a video; stamps are in units of 1/rate s."""
    with av.open(str(file), "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, options=options or (X264 if codec == "libx264" else {}))
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        stream.codec_context.gop_size = gop
        if codec in ("mpeg4", "mpeg2video", "flv", "wmv2"):
            stream.codec_context.bit_rate = 2_000_000
        stream.codec_context.time_base = Fraction(1, rate)
        voice = out.add_stream("aac", rate=8000) if sound else None
        if voice is not None:
            out.mux(voice.encode(silence()))
        for place, content in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(content, format="rgb24")
            frame.pts = stamps[place] if stamps else place
            frame.time_base = Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
        if voice is not None:
            out.mux(voice.encode(None))
    return file


def silence() -> av.AudioFrame:
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts = 8000, 0
    return frame


def movie(file: Path, count: int = 60, **kwargs: Any) -> Path:
    return encode(file, [numbered(number) for number in range(count)], **kwargs)


def every_frame(file: Path) -> list[Image.Image]:
    """All frames by a plain loop, in the order shown."""
    with av.open(str(file)) as container:
        container.streams.video[0].thread_count = 1
        return [frame.to_image() for frame in container.decode(video=0)]


# Which frames.


def test_places_are_middles_of_equal_segments() -> None:
    assert sample_frame_indices(80, 8, None) == [5, 15, 25, 35, 45, 55, 65, 75]
    assert sample_frame_indices(8, 8, None) == list(range(8))
    assert sample_frame_indices(3, 8, None) == [0, 0, 0, 1, 1, 2, 2, 2]
    assert sample_frame_indices(1, 4, None) == [0, 0, 0, 0]
    assert sample_frame_indices(5, 1, None) == [2]


def test_random_places_are_uniform_in_their_segments() -> None:
    drawn = [sample_frame_indices(10, 4, random.Random(seed)) for seed in range(2000)]
    assert all(places == sorted(places) for places in drawn)
    first = [places[0] for places in drawn]  # of [0, 2.5): frame 2 half as often as 0 and 1
    shares = [first.count(number) / len(first) for number in range(3)]
    assert set(first) == {0, 1, 2}
    assert np.allclose(shares, [0.4, 0.4, 0.2], atol=0.04)
    assert {places[-1] for places in drawn} == {7, 8, 9}
    assert sample_frame_indices(10, 4, random.Random(5)) == drawn[5]


def test_nonsense_counts_are_the_callers_fault() -> None:
    for total, count in ((0, 8), (8, 0)):
        with pytest.raises(ValueError, match="frame"):
            sample_frame_indices(total, count, None)


@pytest.mark.parametrize("total", [1, 5, 16, 57, 250])
def test_time_and_number_agree_on_a_constant_rate(total: int) -> None:
    for rng in (None, random.Random(total)):
        positions = sample_positions(8, rng)
        assert frame_indices_by_time([7 + 512 * n for n in range(total)], 7 + 512 * total, positions) == frame_indices(
            total, positions
        )


def entries(stamps: Sequence[int | None], keys: Sequence[int] = (0,), duration: int = 1) -> list[PacketInfo]:
    return [PacketInfo(pts, duration, number in keys, True) for number, pts in enumerate(stamps)]


def test_broken_timestamps_are_not_trusted() -> None:
    positions = sample_positions(2, None)
    assert frame_timestamps(entries([0, 1, 2, 3]), positions, 25) == [1, 3]
    assert frame_timestamps(entries([0, 1, None, 3]), positions, 25) is None
    assert frame_timestamps(entries([0, 1, 1, 3]), positions, 25) is None
    assert frame_timestamps(entries([0, 1, 2, 25 * 3600]), positions, 25) is None  # an hour for one picture
    assert frame_timestamps(entries([*range(100, 200), *range(100)]), positions, 25) is None  # starts anew
    assert frame_timestamps(entries([0, 1, 2, 3], duration=10**9), positions, 25) == [1, 3]
    assert frame_timestamps([], positions, 25) is None


def test_hidden_packets_are_decoded_but_not_taken() -> None:
    packets = [PacketInfo(-2, 1, True, False), PacketInfo(-1, 1, False, False), *entries([0, 1, 2, 3], keys=())]
    wanted = frame_timestamps(packets, sample_positions(4, None), 25)
    assert wanted == [0, 1, 2, 3]
    assert [(span.first, span.last) for span in packet_spans(packets, wanted, True)] == [(0, 5)]


def test_spans_start_at_the_keyframe_that_the_frame_needs() -> None:
    # Stored: I0 P3 B1 B2 | I6 B4 B5 P7; B4 and B5 come after the keyframe I6 but may refer to P3.
    packets = entries([0, 3, 1, 2, 6, 4, 5, 7], keys=(0, 4))
    assert [(span.first, span.last) for span in packet_spans(packets, [7], True)] == [(4, 7)]
    assert [(span.first, span.last) for span in packet_spans(packets, [5], True)] == [(0, 6)]
    assert [(span.first, span.last) for span in packet_spans(packets, [1, 7], True)] == [(0, 2), (4, 7)]
    merged = packet_spans(packets, [6, 4], True)
    assert [(span.first, span.last, span.timestamps) for span in merged] == [(0, 5, (4, 6))]
    assert packet_spans(packets, [7], False)[0].first == 0


# Containers and codecs.

CONTAINERS = [
    ("a.mp4", {}),
    ("b.mp4", {"options": {"preset": "medium", "x264-params": "bframes=3:b-pyramid=normal:open-gop=1"}}),
    ("a.mkv", {}),
    ("a.mov", {"codec": "mpeg4", "options": {"bf": "2", "qscale": "2"}}),
    ("a.avi", {"codec": "mpeg4"}),
    ("a.ts", {}),
    ("a.mpg", {"codec": "mpeg2video", "options": {"bf": "2"}}),
    ("a.flv", {"codec": "flv"}),
    ("a.wmv", {"codec": "wmv2"}),
    ("vp8.webm", {"codec": "libvpx", "options": {"deadline": "realtime", "cpu-used": "8"}}),
    ("vp9.webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}),
    ("hevc.mp4", {"codec": "libx265", "options": {"preset": "ultrafast", "x265-params": "log-level=none:pools=1"}}),
    ("a.264", {"container": "h264"}),
    ("a.gif", {"codec": "gif", "pixels": "rgb8"}),
    ("sound.mp4", {"sound": True}),
]


@pytest.mark.parametrize("name, how", CONTAINERS, ids=[name for name, _ in CONTAINERS])
def test_frames_of_containers(tmp_path: Path, name: str, how: dict[str, Any]) -> None:
    file = movie(tmp_path / name, 40, **how)
    assert has_video_suffix(file) or file.suffix == ".gif"
    assert looks_like_video(file)
    plain = every_frame(file)
    assert numbers(plain) == list(range(40))
    for seed in (None, 1, 2):
        rng, again = (None, None) if seed is None else (random.Random(seed), random.Random(seed))
        clip = load_clip(file, "x", 8, rng)
        expected = sample_frame_indices(40, 8, again)
        assert [(frame.mode, frame.size) for frame in clip] == [("RGB", (64, 48))] * 8
        assert max(abs(got - want) for got, want in zip(numbers(clip), expected, strict=True)) <= (name[0] == "v")
        assert all(frame.tobytes() == plain[number_of(frame)].tobytes() for frame in clip)


def test_only_the_needed_packets_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = movie(tmp_path / "a.mp4", 200, gop=10, options={**X264, "bf": "0", "sc_threshold": "0"})
    fed = []
    decode = pyav_reader.Reader.decode
    monkeypatch.setattr(
        pyav_reader.Reader, "decode", lambda self, packet, *how: fed.append(packet) or decode(self, packet, *how)
    )
    assert numbers(load_clip(file, "x", 4)) == [25, 75, 125, 175]
    assert len(fed) == 4 * 6


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "open.mp4", "vp9.webm"])
def test_seeking_takes_the_same_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    how = next((how for other, how in CONTAINERS if other == name), CONTAINERS[1][1])
    file = movie(tmp_path / name, 100, gop=15, **how)
    held = [load_clip(file, "x", 8, seed and random.Random(seed)) for seed in (None, 1, 2, 3)]
    seeks = []
    seek = pyav_reader.Reader.seek
    monkeypatch.setattr(pyav_reader.Reader, "seek", lambda self, ticks: seeks.append(ticks) or seek(self, ticks))
    monkeypatch.setattr(pyav_reader, "MAX_HELD_BYTES", 0)
    for seed, clip in zip((None, 1, 2, 3), held, strict=True):
        sought = load_clip(file, "x", 8, seed and random.Random(seed))
        assert numbers(sought) == numbers(clip)
        assert all(one.tobytes() == other.tobytes() for one, other in zip(sought, clip, strict=True))
    assert len(seeks) >= 4 * 9


def test_large_files_that_cannot_be_sought_in_are_read_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [movie(tmp_path / "a.264", container="h264"), movie(tmp_path / "a.gif", codec="gif", pixels="rgb8")]
    held = [numbers(load_clip(file, "x", 8)) for file in files]
    monkeypatch.setattr(pyav_reader, "MAX_HELD_BYTES", 0)
    assert [numbers(load_clip(file, "x", 8)) for file in files] == held == [sample_frame_indices(60, 8, None)] * 2


def test_variable_rate_is_sampled_by_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Ten frames in the first second, then one that stays for seven.
    stamps = [*range(0, 10), 10, 80]
    file = encode(tmp_path / "a.mp4", [numbered(n) for n in range(12)], stamps=stamps, rate=10, options={"bf": "0"})
    expected = [4 if position < 1 else 10 for position in sample_positions(8, None)]
    with av.open(str(file)) as container:
        end = container.streams.video[0].duration * float(container.streams.video[0].time_base)
    assert end == pytest.approx(8.1)
    assert numbers(load_clip(file, "x", 8))[1:] == expected[1:]
    assert numbers(load_clip(file, "x", 81)) == [*range(10), *[10] * 70, 11]
    monkeypatch.setattr(pyav_reader, "MAX_HELD_BYTES", 0)
    assert numbers(load_clip(file, "x", 81)) == [*range(10), *[10] * 70, 11]


def test_without_timestamps_frames_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = movie(tmp_path / "a.mp4", 37)
    by_time = numbers(load_clip(file, "x", 8))
    entry = pyav_reader.packet_info
    monkeypatch.setattr(
        video_decoding, "packet_info", lambda packet: PacketInfo(None, 0, entry(packet).is_keyframe, True)
    )
    assert numbers(load_clip(file, "x", 8)) == sample_frame_indices(37, 8, None) == by_time


def test_a_few_frames_are_repeated(tmp_path: Path) -> None:
    assert numbers(load_clip(movie(tmp_path / "one.mp4", 1), "x", 8)) == [0] * 8
    assert numbers(load_clip(movie(tmp_path / "three.mp4", 3), "x", 8)) == [0, 0, 0, 1, 1, 2, 2, 2]
    assert numbers(load_clip(movie(tmp_path / "one.webm", 1, codec="libvpx-vp9"), "x", 3)) == [0] * 3


def test_augmentation_is_a_function_of_the_generator_only(tmp_path: Path) -> None:
    files = [movie(tmp_path / "a.mp4", 90), movie(tmp_path / "b.gif", 20, codec="gif", pixels="rgb8")]
    (tmp_path / "frames").mkdir()
    Image.fromarray(numbered(3)).save(tmp_path / "frames" / "3.png")
    for source in (*files, tmp_path / "frames"):
        rng = random.Random(7)
        first = load_clip(source, "x", 6, rng)
        assert rng.random() == _draws(7, 7)[-1]
        assert numbers(load_clip(source, "x", 6, random.Random(7))) == numbers(first)
    taken = {tuple(numbers(load_clip(files[0], "x", 6, random.Random(seed)))) for seed in range(10)}
    assert len(taken) == 10


def _draws(seed: int, count: int) -> list[float]:
    rng = random.Random(seed)
    return [rng.random() for _ in range(count)]


# Animations, folders, names.


def animation(file: Path, durations: Sequence[int], **kwargs: Any) -> Path:
    first, *rest = (Image.fromarray(numbered(n)) for n in range(len(durations)))
    first.save(file, save_all=True, append_images=rest, duration=list(durations), **kwargs)
    return file


def test_animated_webp_by_time(tmp_path: Path) -> None:
    file = animation(tmp_path / "a.webp", [100] * 10 + [1000], lossless=True)
    assert looks_like_video(file)
    assert numbers(load_clip(file, "x", 4)) == [2, 7, 10, 10]
    assert numbers(load_clip(file, "x", 20)) == [*range(10), *[10] * 10]
    still = tmp_path / "still.webp"
    Image.fromarray(numbered(5)).save(still, lossless=True)
    assert not looks_like_video(still)
    assert numbers(load_clip(still, "x", 2)) == [5, 5]


def test_webp_and_gif_are_white_where_transparent(tmp_path: Path) -> None:
    layers = [Image.new("RGBA", (16, 16), (255, 0, 0, 0)), Image.new("RGBA", (16, 16), (0, 0, 255, 255))]
    for name in ("a.webp", "a.gif"):
        layers[0].save(
            tmp_path / name, save_all=True, append_images=layers[1:], duration=100, lossless=True, disposal=2
        )
        clip = load_clip(tmp_path / name, "x", 2)
        assert [frame.getpixel((8, 8)) for frame in clip] == [(255, 255, 255), (0, 0, 255)], name


def test_gif_of_differences(tmp_path: Path) -> None:
    file = animation(tmp_path / "a.gif", [50] * 12, optimize=True)  # Pillow stores what changed only
    assert looks_like_video(file)
    assert numbers(load_clip(file, "x", 12)) == list(range(12))
    assert numbers(load_clip(file, "x", 1)) == [6]
    still = tmp_path / "still.gif"
    Image.fromarray(numbered(5)).save(still)
    assert not looks_like_video(still)
    assert numbers(load_clip(still, "x", 3)) == [5] * 3


def test_apng(tmp_path: Path) -> None:
    file = animation(tmp_path / "a.png", [50] * 12)
    assert looks_like_video(file)
    assert numbers(load_clip(file, "x", 12)) == list(range(12))


def test_a_folder_of_frames_in_the_order_of_numbers(tmp_path: Path) -> None:
    folder = tmp_path / "video7"
    folder.mkdir()
    for number in range(12):
        Image.fromarray(numbered(number)).save(folder / f"frame_{number}.{'png' if number % 2 else 'PNG'}")
    (folder / ".frame_0.png").write_bytes(b"hidden")
    (folder / "notes.txt").write_text("not a picture")
    (folder / "more.png").mkdir()
    assert looks_like_video(folder)
    assert numbers(load_clip(folder, "x", 12)) == list(range(12))
    assert numbers(load_clip(folder, "x", 3)) == [2, 6, 10]
    (folder / "frame_6.PNG").write_bytes(b"")
    assert numbers(load_clip(folder, "x", 3)) == [2, 2, 10]
    with pytest.raises(DataError, match=r"x: picture .*frame_6\.PNG cannot be read") as error:
        load_clip(folder, "x", 1)
    assert error.value.kind == "corrupt picture"


def test_frames_of_several_sizes_take_the_first_ones(tmp_path: Path, write: Write) -> None:
    for number, size in enumerate(((64, 48), (80, 60), (32, 32))):
        write(f"f/{number}.png", picture(number, *size))
    assert {frame.size for frame in load_clip(tmp_path / "f", "x", 3)} == {(64, 48)}


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match=r"^a\.json\[3\]: video .*none is a folder without pictures") as error:
        load_clip(tmp_path / "none", "a.json[3]", 8)
    assert error.value.kind == "empty video"


def test_content_counts_and_not_the_name(tmp_path: Path, write: Write) -> None:
    film = movie(tmp_path / "a.mp4", 16).rename(tmp_path / "film.jpg")
    assert looks_like_video(film)
    assert numbers(load_clip(film, "x", 8)) == sample_frame_indices(16, 8, None)
    still = write("still.png", gradient(40, 20)).rename(tmp_path / "still.mp4")
    assert not looks_like_video(still)
    assert [frame.tobytes() for frame in load_clip(still, "x", 2)] == [gradient(40, 20).tobytes()] * 2
    odd = movie(tmp_path / "b.mkv", 16).rename(tmp_path / "a: b%20c?.mp4")
    assert numbers(load_clip(odd, "x", 8)) == sample_frame_indices(16, 8, None)
    assert looks_like_video(tmp_path / "absent.MP4")
    assert not looks_like_video(tmp_path / "absent.jpg")
    assert looks_like_video(write("cut.mp4", b"\x00" * 100))


def test_playlists_open_nothing(tmp_path: Path, write: Write) -> None:
    movie(tmp_path / "a.ts", 16)
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.ts\n#EXT-X-ENDLIST\n"
    for name, content in (("a.mp4", playlist), ("b.mp4", "ffconcat version 1.0\nfile a.ts\n")):
        with pytest.raises(DataError) as error:
            load_clip(write(name, content), "x", 8)
        assert error.value.kind == "corrupt video"


# Size and orientation.


def test_a_huge_frame_is_scaled_down_as_it_is_decoded(tmp_path: Path) -> None:
    wide = [np.asarray(gradient(16000, 128)), np.asarray(gradient(16000, 128))]
    file = encode(tmp_path / "wide.mp4", wide, codec="mjpeg", pixels="yuvj420p")
    clip = load_clip(file, "x", 2, min_side=32)
    assert [frame.size for frame in clip] == [(4000, 32)] * 2
    expected = np.asarray(gradient(4000, 32), float)
    assert np.abs(np.asarray(clip[0], float) - expected)[1:-1, 8:-8].mean() < 4
    assert load_clip(file, "x", 1, min_side=500)[0].size == (16000, 128)


def test_shrinking_keeps_the_shape() -> None:
    assert frame_converter.reduced_size(1920, 1080, 448) == (796, 448)
    assert frame_converter.reduced_size(1080, 1920, 448) == (448, 796)
    assert frame_converter.reduced_size(320, 240, 448) == (320, 240)
    assert frame_converter.reduced_size(320, 240, 0) == (320, 240)


def test_large_frames_of_a_folder_and_a_webp_are_reduced(tmp_path: Path, write: Write) -> None:
    write("f/1.png", gradient(640, 480))
    assert load_clip(tmp_path / "f", "x", 1, min_side=100)[0].size == (160, 120)
    big = [gradient(640, 480), gradient(640, 480).rotate(180)]
    big[0].save(tmp_path / "a.webp", save_all=True, append_images=big[1:], duration=40)
    assert load_clip(tmp_path / "a.webp", "x", 2, min_side=100)[1].size == (160, 120)


def test_too_many_pixels_are_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = movie(tmp_path / "a.mp4", 4)
    monkeypatch.setattr(pyav_reader, "MAX_FRAME_PIXELS", 1000)
    with pytest.raises(DataError, match=r"is 64 x 48 pixels, more than 1000 .* UNIADAPTER_MOST_PIXELS") as error:
        load_clip(file, "x", 2)
    assert error.value.kind == "video too large"
    with pytest.raises(DataError, match=r"frames of more than 1000 pixels: .* UNIADAPTER_MOST_PIXELS") as error:
        load_clip(movie(tmp_path / "a.mkv", 4, codec="mpeg4"), "x", 2)
    assert error.value.kind == "corrupt video"
    monkeypatch.setenv("UNIADAPTER_MOST_PIXELS", "4000")
    assert len(load_clip(file, "x", 2)) == 2


@pytest.mark.parametrize("turn, method", [(90, "ROTATE_270"), (180, "ROTATE_180"), (270, "ROTATE_90")])
def test_rotation_is_obeyed(tmp_path: Path, turn: int, method: str) -> None:
    file = encode(tmp_path / "a.mp4", [np.asarray(gradient(64, 48))] * 2, options={"crf": "5"})
    upright = load_clip(file, "x", 1)[0]
    one = 1 << 16
    a, b, c, d = {90: (0, one, -one, 0), 180: (-one, 0, 0, -one), 270: (0, -one, one, 0)}[turn]
    content = bytearray(file.read_bytes())
    matrix = content.index(b"tkhd") + 4 + 40  # version 0
    content[matrix : matrix + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    file.write_bytes(content)
    assert load_clip(file, "x", 1)[0].tobytes() == upright.transpose(Image.Transpose[method]).tobytes()


# Broken files.


def failure(file: Path, **kwargs: Any) -> DataError:
    with pytest.raises(DataError) as error:
        load_clip(file, "train.json[4]", 8, **kwargs)
    message = str(error.value)
    assert message.startswith(f"train.json[4]: video {file} "[:170])  # of a longer name the middle is cut
    assert "\n" not in message
    return error.value


def test_missing_and_empty_files_are_named(tmp_path: Path, write: Write) -> None:
    missing = failure(tmp_path / "none.mp4")
    assert missing.kind == "missing video"
    assert "set data.root" in str(missing)
    assert failure(write("zero.mp4", b"")).kind == "empty video"
    assert failure(write("page.mp4", "<html>404 Not Found</html>" * 20)).kind == "corrupt video"
    assert failure(write("noise.mp4", np.random.default_rng(0).bytes(5000))).kind == "corrupt video"
    for name, shown in (("nul\0", "nul\\x00.mp4"), ("n" * 100_000, "nnn.mp4")):
        with pytest.raises(DataError, match="cannot be read") as error:
            load_clip(tmp_path / f"{name}.mp4", "train.json[4]", 8)
        assert error.value.kind == "corrupt video"
        assert f"{shown} cannot be read" in str(error.value)
        assert len(str(error.value)) <= 300


@pytest.mark.parametrize("name, codec", [("a.mp4", "aac"), ("a.mkv", "aac"), ("a.wav", "pcm_s16le")])
def test_audio_files_have_no_video_stream(tmp_path: Path, name: str, codec: str) -> None:
    file = tmp_path / name
    with av.open(str(file), "w") as out:
        stream = out.add_stream(codec, rate=8000, layout="mono")
        frame = silence()
        if codec != "aac":
            frame = av.AudioResampler("s16", "mono", 8000).resample(frame)[0]
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    error = failure(file.rename(tmp_path / "renamed.mp4"))
    assert error.kind == "no video stream"


def test_a_cover_picture_is_no_video(tmp_path: Path) -> None:
    file = tmp_path / "song.m4a"
    with av.open(str(file), "w", format="mp4") as out:
        voice, cover = out.add_stream("aac", rate=8000, layout="mono"), out.add_stream("png")
        cover.width, cover.height, cover.pix_fmt = 64, 48, "rgb24"
        cover.disposition = Disposition.attached_pic
        out.mux(voice.encode(silence()) + voice.encode(None))
        out.mux(cover.encode(av.VideoFrame.from_ndarray(numbered(1), format="rgb24")) + cover.encode(None))
    assert failure(file).kind == "no video stream"


@pytest.mark.parametrize("name", ["a.mkv", "a.ts", "fast.mp4", "a.avi", "a.gif", "a.264"])
@pytest.mark.parametrize("share", [0.25, 0.6, 0.97])
def test_the_beginning_of_a_truncated_file_is_used(tmp_path: Path, name: str, share: float) -> None:
    how = next((how for other, how in CONTAINERS if other == name), {})
    whole = movie(tmp_path / f"whole.{name[-3:]}", 60, gop=6, **how)
    content = _index_first(whole, tmp_path) if name == "fast.mp4" else whole.read_bytes()
    file = tmp_path / name
    file.write_bytes(content[: int(share * len(content))])
    clip = load_clip(file, "x", 8)
    got = numbers(clip)
    assert got == sorted(got)
    assert got[0] < 12
    assert 3 < got[-1] <= 59
    assert len(set(got)) > 3


def _index_first(file: Path, folder: Path) -> bytes:
    """The same MP4 with its index before the pictures."""
    fast = folder / "index_first.mp4"
    with av.open(str(file)) as source, av.open(str(fast), "w", options={"movflags": "+faststart"}) as out:
        stream = source.streams.video[0]
        copy = out.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.dts is not None:
                packet.stream = copy
                out.mux(packet)
    return fast.read_bytes()


@pytest.mark.parametrize("share", [0.25, 0.6, 0.97])
def test_of_a_truncated_webp_too(tmp_path: Path, share: float) -> None:
    content = animation(tmp_path / "a.webp", [100] * 20, lossless=True).read_bytes()
    (tmp_path / "cut.webp").write_bytes(content[: int(share * len(content))])
    got = numbers(load_clip(tmp_path / "cut.webp", "x", 20))
    assert got == sorted(got)
    assert set(got) == set(range(got[-1] + 1))
    assert 20 * share - 4 < got[-1] < 20 * share


def test_an_mp4_without_its_index_is_corrupt(tmp_path: Path) -> None:
    content = movie(tmp_path / "a.mp4", 60).read_bytes()
    (tmp_path / "cut.mp4").write_bytes(content[: len(content) // 2])
    assert failure(tmp_path / "cut.mp4").kind == "corrupt video"


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.avi", "vp9.webm", "a.gif", "a.webp"])
def test_flipped_bits_never_surface_as_anything_else(tmp_path: Path, name: str) -> None:
    how = next((how for other, how in CONTAINERS if other == name), {})
    source = tmp_path / name
    content = (animation(source, [40] * 20) if name == "a.webp" else movie(source, 30, **how)).read_bytes()
    rng, decoded, kinds = random.Random(name), 0, set[str]()
    for trial in range(25):
        broken = bytearray(content)
        for _ in range(1 + trial):
            broken[rng.randrange(len(broken) // 20, len(broken))] ^= 1 << rng.randrange(8)
        source.write_bytes(broken)
        try:
            clip = load_clip(source, "x", 8, min_side=16)
        except DataError as error:
            kinds.add(error.kind)
            continue
        decoded += 1
        assert len(clip) == 8
        assert {(frame.mode, frame.size) for frame in clip} == {("RGB", clip[0].size)}
    assert kinds <= {"corrupt video", "no video stream", "empty video", "too long to decode"}
    assert decoded > (0 if name == "a.webp" else 5)


def test_corrupt_frames_are_replaced_by_their_neighbours(tmp_path: Path) -> None:
    file = movie(tmp_path / "a.mkv", 60, codec="mjpeg", pixels="yuvj420p", options={"qscale": "2"})
    with av.open(str(file)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    content = file.read_bytes()
    for number in range(30, 40):
        content = content.replace(packets[number], bytes(len(packets[number])))
    file.write_bytes(content)
    clip = numbers(load_clip(file, "x", 6))  # 5, 15, ..., 35 is gone
    assert clip[:3] + clip[4:] == [5, 15, 25, 45, 55]
    assert clip[3] in (25, 29)


def test_a_file_that_claims_ten_hours_is_read_at_once(tmp_path: Path) -> None:
    content = bytearray(movie(tmp_path / "a.mp4", 50).read_bytes())
    header = content.index(b"mvhd") + 4
    scale = int.from_bytes(content[header + 12 : header + 16], "big")
    content[header + 16 : header + 20] = (scale * 36000).to_bytes(4, "big")
    for name in (b"tkhd", b"mdhd"):
        at = content.index(name) + 4 + (20 if name == b"tkhd" else 16)
        content[at : at + 4] = (0x7FFFFFFF).to_bytes(4, "big")
    (tmp_path / "claims.mp4").write_bytes(content)
    start = time.perf_counter()
    assert numbers(load_clip(tmp_path / "claims.mp4", "x", 8)) == sample_frame_indices(50, 8, None)
    far = movie(tmp_path / "far.mkv", 51, stamps=[*range(50), 25 * 36000])
    assert numbers(load_clip(far, "x", 8)) == sample_frame_indices(51, 8, None)
    assert time.perf_counter() - start < 2


def test_large_files_that_claim_ten_hours_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pyav_reader, "MAX_HELD_BYTES", 0)
    far = movie(tmp_path / "far.mkv", 51, stamps=[*range(50), 25 * 36000])
    assert numbers(load_clip(far, "x", 8)) == sample_frame_indices(51, 8, None)


@pytest.mark.parametrize("limit", ["PROCESSOR_SECONDS", "WALL_SECONDS", "MAX_DECODED_PACKETS", "MAX_PACKETS"])
def test_decoding_stops_at_its_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    file = movie(tmp_path / "a.mp4", 60)
    monkeypatch.setattr(pyav_reader, limit, 0)
    error = failure(file)
    assert error.kind == "too long to decode"
    assert "encode it smaller" in str(error)


def test_nothing_is_printed_and_files_are_closed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = bytearray(movie(tmp_path / "a.mkv", 30).read_bytes())
    content[len(content) // 2 :: 7] = bytes(len(content[len(content) // 2 :: 7]))
    (tmp_path / "a.mkv").write_bytes(content)
    open_before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").is_dir() else 0
    for _ in range(5):
        load_clip(tmp_path / "a.mkv", "x", 8)
        failure(tmp_path / "none.mp4")
    if open_before:
        assert len(list(Path("/proc/self/fd").iterdir())) == open_before
    assert capfd.readouterr() == ("", "")


def test_no_threads_are_started(tmp_path: Path) -> None:
    file = movie(tmp_path / "a.mp4", 30)
    reader = pyav_reader.Reader(file)
    assert reader._decoder.thread_count == 1
    reader.close()
    load_clip(file, "x", 8)
    before = psutil.Process().num_threads()
    load_clip(file, "x", 8, min_side=16)
    assert psutil.Process().num_threads() == before
