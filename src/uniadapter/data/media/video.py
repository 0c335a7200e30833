"""Videos: from a file, or a folder of frames, to a fixed number of RGB pictures.

Frames are chosen by time, whatever the frame rate: the clip is cut into equal segments, and each gives the frame
shown at its middle (evaluation) or at a random moment of it (training). What a file is shows in its content, not in
its name. Rotation tags are obeyed; pixels that are not square are taken as they are, since the transforms make a
square anyway; sound is not read.
"""

from __future__ import annotations

import io
import math
import os
import random
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from uniadapter.data.media.clips import decode_clip
from uniadapter.data.media.files import said, shown_path
from uniadapter.data.media.images import Source, load_picture
from uniadapter.data.media.kinds import has_picture_suffix, has_video_suffix, irregular, kind_of
from uniadapter.data.media.libav import Deadline, DecodingError, on_white
from uniadapter.data.media.limits import (
    MOST_CLIP_PIXELS,
    MOST_FRAME_PIXELS,
    TooLarge,
    check_bytes,
    check_frames,
    check_pixels,
)
from uniadapter.data.media.picture_files import BROKEN, open_picture
from uniadapter.data.media.records import DataError
from uniadapter.data.media.timeline import LONGEST_SHOWN, draw_positions, places, shown_at


def frame_places(total: int, count: int, rng: random.Random | None) -> list[int]:
    """Numbers of `count` frames out of `total`, one of each equal segment, ascending.

    Args:
        total: frames that there are, at least 1; if fewer than `count`, some are taken more than once.
        count: frames wanted, at least 1.
        rng: draws uniformly within each segment; None takes the middles.
    """
    check_frames(count)
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
    check_frames(count)
    source, positions = Path(source), draw_positions(count, rng)  # drawn first: the same draws whatever the file
    try:
        return _one_size(_filled(_frames_of(source, positions, at_least, origin)))
    except FileNotFoundError:
        reason, remedy, kind = "does not exist", "set data.root to the folder that paths start from", "missing video"
    except DataError:
        raise
    except DecodingError as error:
        reason, remedy, kind = error.reason, error.remedy, error.kind
    except TooLarge as error:
        raise DataError(f"{_named(origin, source)} {error}, or set data.on_error to skip", "video too large") from None
    except (OSError, ValueError) as error:
        reason, remedy, kind = f"cannot be read ({said(error)})", "replace it", "corrupt video"
    skip = "" if kind == "missing video" else ", or set data.on_error to skip"
    raise DataError(f"{_named(origin, source)} {reason}: {remedy}{skip}", kind)


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
    check_frames(count)
    # Where one frame is wanted, what is called a picture is read as one: the first frame of a GIF, not its middle.
    if isinstance(source, Path) and (count > 1 or not has_picture_suffix(source)) and looks_like_video(source):
        return load_clip(source, origin, count, draw, at_least)
    try:
        return [load_picture(source, origin, at_least)] * count
    except DataError:
        if isinstance(source, Path) and kind_of(source) == "video":  # for all that it is called a picture
            return load_clip(source, origin, count, draw, at_least)
        raise


def looks_like_video(path: Path) -> bool:
    """Whether a path is to be read as a video: by content; by its suffix only if the content says nothing.

    A folder is one (of frames); a GIF, WebP or PNG is one if it moves.
    """
    path = Path(path)
    if os.path.isdir(path):
        return True
    kind = kind_of(path)
    if kind == "unknown":
        return has_video_suffix(path) and not irregular(path)
    return _moves(path) if kind == "gif" else kind in ("video", "apng", "webp")


def _named(origin: str, source: Path) -> str:
    return f"{origin}: video {shown_path(source)}" if origin else f"video {shown_path(source)}"


def _frames_of(source: Path, positions: Sequence[float], at_least: int, origin: str) -> list[Image.Image | None]:
    if os.path.isdir(source):
        return _from_folder(source, positions, at_least, origin)
    about = os.stat(source)
    if not stat.S_ISREG(about.st_mode):
        raise DecodingError(irregular(source), "corrupt video")
    if not about.st_size:
        raise DecodingError("is empty (0 bytes)", "empty video")
    kind = kind_of(source)
    if kind == "picture":
        return [_small(load_picture(source, origin, at_least), at_least)] * len(positions)
    if kind == "webp":
        check_bytes(about.st_size)
        return _from_webp(source, positions, at_least)
    if kind in ("gif", "apng"):
        _check_animation(source)
    return decode_clip(source, positions, at_least)


def _check_animation(path: Path) -> None:
    """Refuse a size that libav would only forget; what Pillow cannot read is left to it."""
    try:
        with open_picture(path) as picture:
            check_pixels(picture.width, picture.height, MOST_FRAME_PIXELS)
    except TooLarge:
        raise
    except BROKEN:
        return


def _moves(path: Path) -> bool:
    try:
        with open_picture(path) as picture:
            return bool(getattr(picture, "is_animated", False))
    except BROKEN:
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
            taken[number] = _small(load_picture(folder / names[number], origin, at_least), at_least, len(positions))
        except DataError as error:
            fault = error
    if not taken and fault is not None:
        raise fault
    return [taken.get(number) for number in numbers]


def _is_frame(file: os.DirEntry[str]) -> bool:
    return has_picture_suffix(file.name) and not file.name.startswith(".") and file.is_file()


def _natural(name: str) -> list[str | int]:
    """A key by which frame_2 comes before frame_10."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if place % 2 else part.lower() for place, part in enumerate(parts)]


def _from_webp(file: Path, positions: Sequence[float], at_least: int) -> list[Image.Image | None]:
    """Frames of an animated WebP by Pillow, which PyAV does not read; they can only be decoded in order."""
    deadline, taken = Deadline(), dict[int, Image.Image]()
    content, durations = _webp_chunks(file.read_bytes())
    try:
        with open_picture(io.BytesIO(content)) as animation:
            numbers = _webp_places(durations, int(getattr(animation, "n_frames", 1)), positions)
            for number in range(numbers[-1] + 1):
                deadline.check()
                try:
                    animation.seek(number)
                    animation.load()
                except BROKEN:
                    if not taken:
                        raise
                    break  # each frame is drawn over the one before
                if number in numbers:
                    taken[number] = _small(on_white(animation), at_least, len(positions))
    except TooLarge:
        raise
    except BROKEN as error:
        raise DecodingError(f"cannot be read ({said(error)})", "corrupt video") from None
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


def _small(picture: Image.Image, at_least: int, count: int = 1) -> Image.Image:
    """A picture reduced by a whole number, where its sides are twice what is needed or `count` such ones too much."""
    if at_least:
        factor = min(picture.size) // at_least
    else:
        factor = math.ceil(math.sqrt(math.prod(picture.size) * count / MOST_CLIP_PIXELS))
    return picture.reduce(factor) if factor > 1 else picture


def _filled(frames: Sequence[Image.Image | None]) -> list[Image.Image]:
    """The frames, each missing one replaced by the nearest, the earlier of two."""
    there = [place for place, frame in enumerate(frames) if frame is not None]
    if not there:
        raise DecodingError("has no frame that can be decoded", "corrupt video")
    nearest = [min(there, key=lambda other: (abs(other - place), other)) for place in range(len(frames))]
    return [frame for place in nearest if (frame := frames[place]) is not None]


def _one_size(frames: list[Image.Image]) -> list[Image.Image]:
    """The frames, those of another size than the first scaled to it; a frame that comes twice stays one object."""
    size = frames[0].size
    scaled = {id(frame): frame.resize(size, Image.Resampling.BICUBIC) for frame in frames if frame.size != size}
    return [scaled.get(id(frame), frame) for frame in frames]
