"""Videos: from a file, or a folder of frames, to a fixed number of RGB pictures.

Frames are chosen by time, whatever the frame rate: the clip is cut into equal segments, and each gives the frame
shown at its middle (evaluation) or at a random moment of it (training). What a file is shows in its content, not in
its name. Rotation tags are obeyed; pixels that are not square are taken as they are, since the transforms make a
square anyway; sound is not read.
"""

from __future__ import annotations

import io
import os
import random
import re
import struct
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from uniadapter.data.clips import decode_clip
from uniadapter.data.files import is_video
from uniadapter.data.images import Source, load_picture
from uniadapter.data.libav import Deadline, DecodingError, on_white
from uniadapter.data.records import DataError
from uniadapter.data.timeline import LONGEST_SHOWN, draw_positions, places, shown_at

VIDEO_SUFFIXES = frozenset(
    {
        ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".webm", ".mkv", ".avi", ".divx", ".flv", ".f4v", ".wmv", ".asf",
        ".mpg", ".mpeg", ".mpe", ".m1v", ".m2v", ".vob", ".ts", ".mts", ".m2ts", ".ogv", ".ogm", ".rm", ".rmvb", ".mxf",
        ".dv", ".y4m", ".ivf", ".h264", ".264", ".hevc", ".265", ".gif", ".webp", ".apng",
    }
)  # fmt: skip
_FRAME_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".jp2", ".avif"}
)
_HEAD = 4096
_STILL = ("avif", "heic", "heix", "mif1", "heim", "heis")  # pictures in MP4's clothes
_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot")
_VIDEO_STARTS = (
    b"\x1a\x45\xdf\xa3", b"FLV", b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3",
    b"\x00\x00\x01\xb0", b"\x00\x00\x00\x01\x67", b"\x00\x00\x01\x67", b"\x00\x00\x00\x01\x40\x01",
    b"OggS", b"GIF8", b"DKIF", b"YUV4MPEG2", b".RMF", b"\x06\x0e\x2b\x34",
)  # fmt: skip
_PICTURE_STARTS = (b"\xff\xd8\xff", b"\x89PNG", b"BM", b"II*\x00", b"MM\x00*", b"P5", b"P6", b"\x00\x00\x00\x0cjP  ")
_PILLOW_BROKEN = (OSError, SyntaxError, ValueError, TypeError, LookupError, EOFError, MemoryError, struct.error)


def frame_places(total: int, count: int, rng: random.Random | None) -> list[int]:
    """Numbers of `count` frames out of `total`, one of each equal segment, ascending.

    Args:
        total: frames that there are, at least 1; if fewer than `count`, some are taken more than once.
        count: frames wanted, at least 1.
        rng: draws uniformly within each segment; None takes the middles.
    """
    _check(count)
    if total < 1:
        raise ValueError(f"no {count} frames of {total}")
    return places(total, draw_positions(count, rng))


def load_clip(
    source: Path, origin: str, count: int, rng: random.Random | None = None, at_least: int = 0
) -> list[Image.Image]:
    """Exactly `count` frames of a video, upright RGB, all of one size, in the order shown.

    Args:
        source: a video, an animation, a picture (a video of one frame), or a folder of pictures in the order of the
            numbers in their names.
        origin: the record that asks for it, for the error.
        count: frames wanted; a frame stands in for those that are missing or damaged beside it.
        rng: takes a random moment of each of `count` equal segments, by `count` draws; None the middles.
        at_least: sides in pixels that are enough: larger frames are scaled down as they are decoded, in shape, until
            the shorter side is so long; 0 keeps the full size.

    Raises:
        DataError: kind "missing video", "corrupt video", "no video stream", "empty video", "too long to decode", or
            of `load_picture`; names the record and the file.
    """
    _check(count)
    source, positions = Path(source), draw_positions(count, rng)  # drawn first: the same draws whatever the file
    where = f"{origin}: " if origin else ""
    try:
        frames = _frames_of(source, positions, at_least, origin)
        return _one_size(_filled(frames))
    except FileNotFoundError:
        raise DataError(
            f"{where}video {source} does not exist: set data.root to the folder that paths start from",
            "missing video",
        ) from None
    except DataError:
        raise
    except (DecodingError, OSError, ValueError) as error:
        reason = error.reason if isinstance(error, DecodingError) else f"cannot be read ({error})"
        kind = error.kind if isinstance(error, DecodingError) else "corrupt video"
        remedy = "encode it smaller or with more keyframes" if kind == "too long to decode" else "replace it"
        raise DataError(f"{where}video {source} {reason}: {remedy}, or set data.on_error to skip", kind) from None


def load_frames(
    source: Source, origin: str, count: int, at_least: int, draw: random.Random | None = None
) -> list[Image.Image]:
    """Frames of a visual, whichever it is; a picture among videos stands still.

    Args:
        source: a picture, a video, or a folder of frames.
        origin: the record that asks for it, for the error.
        count: frames of a video.
        at_least: sides in pixels that are enough.
        draw: takes random moments of a video; None the middles of equal parts.

    Raises:
        DataError: it cannot be read.
    """
    # Where one frame is wanted, what is called a picture is read as one: the first frame of a GIF, not its middle.
    if isinstance(source, Path) and (count > 1 or is_video(source)) and looks_like_video(source):
        return load_clip(source, origin, count, draw, at_least)
    return [load_picture(source, origin, at_least)] * count


def looks_like_video(path: Path) -> bool:
    """Whether a path is to be read as a video: by content; by its suffix only if the content says nothing.

    A folder is one (of frames); a GIF, WebP or PNG is one if it moves.
    """
    path = Path(path)
    if path.is_dir():
        return True
    try:
        kind = _kind(path)
    except (OSError, ValueError):
        kind = "unknown"
    if kind == "unknown":
        return path.suffix.lower() in VIDEO_SUFFIXES
    return _moves(path) if kind == "gif" else kind in ("video", "webp")


def _check(count: int) -> None:
    if count < 1:
        raise ValueError(f"a clip has at least 1 frame, not {count}")


def _frames_of(source: Path, positions: Sequence[float], at_least: int, origin: str) -> list[Image.Image | None]:
    if source.is_dir():
        return _from_folder(source, positions, at_least, origin)
    size = source.stat().st_size
    if not source.is_file():
        raise DecodingError("is neither a file nor a folder", "corrupt video")
    if not size:
        raise DecodingError("is empty (0 bytes)", "empty video")
    kind = _kind(source)
    if kind == "picture":
        return [_small(load_picture(source, origin, at_least), at_least)] * len(positions)
    if kind == "webp":
        return _from_webp(source, positions, at_least)
    return decode_clip(source, positions, at_least)


def _kind(path: Path) -> str:
    """By content: "video", "gif" (which may stand still), "webp" (one that moves), "picture" or "unknown"."""
    with path.open("rb") as stream:
        head = stream.read(_HEAD)
    if head[:4] == b"RIFF":
        animated = head[12:16] == b"VP8X" and len(head) > 20 and head[20] & 2
        return {b"AVI ": "video", b"WEBP": "webp" if animated else "picture"}.get(head[8:12], "unknown")
    if head[4:8] in _BOXES:
        return "picture" if head[4:8] == b"ftyp" and head[8:12].decode("latin1") in _STILL else "video"
    if head[:4] == b"GIF8":
        return "gif"
    if head.startswith(b"\x89PNG") and b"acTL" in head.split(b"IDAT")[0]:
        return "video"
    if head.startswith(_VIDEO_STARTS) or _is_transport_stream(head):
        return "video"
    return "picture" if head.startswith(_PICTURE_STARTS) else "unknown"


def _is_transport_stream(head: bytes) -> bool:
    """MPEG-TS: a sync byte every 188 bytes, or every 192 after 4 of time code."""
    plain = len(head) > 376 and all(head[at] == 0x47 for at in (0, 188, 376))
    return plain or (len(head) > 388 and all(head[at] == 0x47 for at in (4, 196, 388)))


def _moves(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            return bool(getattr(picture, "is_animated", False))
    except _PILLOW_BROKEN:
        return True


def _from_folder(folder: Path, positions: Sequence[float], at_least: int, origin: str) -> list[Image.Image | None]:
    """Pictures of a folder; a broken one is left out unless all that were chosen are."""
    names = sorted(
        (file.name for file in os.scandir(folder) if _is_frame(file)), key=lambda name: (_natural(name), name)
    )
    if not names:
        raise DecodingError("is a folder without pictures", "empty video")
    numbers = places(len(names), positions)
    taken: dict[int, Image.Image] = {}
    fault: DataError | None = None
    for number in sorted(set(numbers)):
        try:
            taken[number] = _small(load_picture(folder / names[number], origin, at_least), at_least)
        except DataError as error:
            fault = error
    if not taken and fault is not None:
        raise fault
    return [taken.get(number) for number in numbers]


def _is_frame(file: os.DirEntry[str]) -> bool:
    suffix = os.path.splitext(file.name)[1].lower()
    return suffix in _FRAME_SUFFIXES and not file.name.startswith(".") and file.is_file()


def _natural(name: str) -> list[str | int]:
    """A key by which frame_2 comes before frame_10."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if place % 2 else part.lower() for place, part in enumerate(parts)]


def _from_webp(file: Path, positions: Sequence[float], at_least: int) -> list[Image.Image | None]:
    """Frames of an animated WebP by Pillow, which PyAV does not read; they can only be decoded in order."""
    deadline, taken = Deadline(), dict[int, Image.Image]()
    content, durations = _webp_chunks(file.read_bytes())
    try:
        with Image.open(io.BytesIO(content)) as animation:
            numbers = _webp_places(durations, int(getattr(animation, "n_frames", 1)), positions)
            for number in range(numbers[-1] + 1):
                deadline.check()
                try:
                    animation.seek(number)
                    animation.load()
                except _PILLOW_BROKEN:
                    if not taken:
                        raise
                    break  # each frame is drawn over the one before
                if number in numbers:
                    taken[number] = _small(on_white(animation), at_least)
    except (*_PILLOW_BROKEN, Image.DecompressionBombError) as error:
        raise DecodingError(f"cannot be read ({error})", "corrupt video") from None
    return [taken.get(number) for number in numbers]


def _webp_chunks(content: bytes) -> tuple[bytes, list[int]]:
    """A WebP without what a cut left incomplete, and the milliseconds of each of its frames."""
    durations: list[int] = []
    end = 12
    while len(header := content[end : end + 8]) == 8:
        begin, size = end + 8, int.from_bytes(header[4:], "little")
        after = begin + size + size % 2
        if after > len(content):
            break
        if header[:4] == b"ANMF":
            durations.append(int.from_bytes(content[begin + 12 : begin + 15], "little"))
        end = after
    return content[:4] + (end - 8).to_bytes(4, "little") + content[8:end], durations


def _webp_places(durations: list[int], total: int, positions: Sequence[float]) -> list[int]:
    """Frame numbers by duration; by number if the durations are missing or senseless."""
    if len(durations) != total or not all(0 < one <= 1000 * LONGEST_SHOWN for one in durations):
        return places(total, positions)
    starts = [sum(durations[:number]) for number in range(total)]
    return shown_at(starts, sum(durations), positions)


def _small(picture: Image.Image, at_least: int) -> Image.Image:
    """A picture whose sides are twice what is needed or more, reduced by a whole number."""
    factor = min(picture.size) // at_least if at_least else 1
    return picture.reduce(factor) if factor > 1 else picture


def _filled(frames: Sequence[Image.Image | None]) -> list[Image.Image]:
    """The frames, each missing one replaced by the nearest, the earlier of two."""
    there = [place for place, frame in enumerate(frames) if frame is not None]
    if not there:
        raise DecodingError("has no frame that can be decoded", "corrupt video")
    nearest = [min(there, key=lambda other: (abs(other - place), other)) for place in range(len(frames))]
    return [frame for place in nearest if (frame := frames[place]) is not None]


def _one_size(frames: list[Image.Image]) -> list[Image.Image]:
    """The frames, those of another size than the first scaled to it."""
    size = frames[0].size
    return [frame if frame.size == size else frame.resize(size, Image.Resampling.BICUBIC) for frame in frames]
