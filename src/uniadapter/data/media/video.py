"""Videos: from a file, or a folder of frames, to a fixed number of RGB pictures.

Frames are sampled by time, whatever the frame rate: the video is divided into equal segments, and from each comes the
frame at its middle (evaluation) or at a random time (training). The format is detected from the content, not the name.
Rotation is applied; the pixel aspect ratio is ignored, since the transforms make a square anyway; sound is not read.
"""

from __future__ import annotations

import io
import math
import os
import random
import re
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from uniadapter.data.media.file_kinds import (
    HEAD,
    file_kind,
    has_picture_suffix,
    has_video_suffix,
    kind_of_bytes,
    not_a_file_reason,
)
from uniadapter.data.media.frame_converter import flatten_alpha
from uniadapter.data.media.frame_times import MAX_FRAME_SECONDS, frame_indices, frame_indices_by_time, sample_positions
from uniadapter.data.media.images import FileContent, VisualSource, load_picture
from uniadapter.data.media.limits import (
    MAX_CLIP_PIXELS,
    MAX_FRAME_PIXELS,
    TooLarge,
    check_bytes,
    check_frames,
    check_pixels,
)
from uniadapter.data.media.paths import error_text, printable_path
from uniadapter.data.media.picture_files import BROKEN, open_picture
from uniadapter.data.media.pyav_reader import Deadline, DecodingError
from uniadapter.data.media.video_decoding import decode_clip
from uniadapter.errors import DataError


def sample_frame_indices(total: int, count: int, rng: random.Random | None) -> list[int]:
    """Indices of `count` out of `total` frames, one from each equal segment, ascending.

    Args:
        total: at least 1; if less than `count`, frames are repeated.
        count: at least 1.
        rng: samples uniformly within each segment; None takes the middles.
    """
    check_frames(count)
    if total < 1:
        raise ValueError(f"no {count} frames of {total}")
    return frame_indices(total, sample_positions(count, rng))


def load_clip(
    source: Path, origin: str, count: int, rng: random.Random | None = None, min_side: int = 0
) -> list[Image.Image]:
    """Exactly `count` frames of a video, upright RGB, all of the same size, in display order.

    Args:
        source: a video, an animation, a picture (a video of one frame), or a folder of pictures, sorted by the numbers
            in their names.
        origin: the record, for the error.
        count: number of frames; missing or corrupt ones are replaced by the nearest.
        rng: samples a random time in each of `count` equal segments; None takes the middles.
        min_side: larger frames are scaled down until the shorter side has this many pixels; 0 keeps the full size.

    Raises:
        DataError: kind "missing video", "corrupt video", "no video stream", "empty video", "too long to decode", or
            of `load_picture`; names the record and the file.
    """
    check_frames(count)
    source, positions = Path(source), sample_positions(count, rng)  # first, so `rng` advances alike for every file
    try:
        return _to_one_size(_fill_missing(_frames_of(source, positions, min_side, origin)))
    except FileNotFoundError:
        reason, remedy, kind = "does not exist", "set data.root to the folder that paths start from", "missing video"
    except DataError:
        raise
    except DecodingError as error:
        reason, remedy, kind = error.reason, error.remedy, error.kind
    except TooLarge as error:
        raise DataError(
            f"{_describe(origin, source)} {error}, or set data.on_error to skip", "video too large"
        ) from None
    except (OSError, ValueError) as error:
        reason, remedy, kind = f"cannot be read ({error_text(error)})", "replace it", "corrupt video"
    skip = "" if kind == "missing video" else ", or set data.on_error to skip"
    raise DataError(f"{_describe(origin, source)} {reason}: {remedy}{skip}", kind)


def load_frames(
    source: VisualSource, origin: str, count: int, min_side: int, rng: random.Random | None = None
) -> list[Image.Image]:
    """Frames of a picture or a video; a picture is repeated.

    Args:
        source: a picture, a video, or a folder of frames.
        origin: the record, for the error.
        count: number of frames.
        min_side: as in `load_clip`.
        rng: samples random times of a video; None takes the middles of equal segments.

    Raises:
        DataError: it cannot be read.
    """
    check_frames(count)
    if isinstance(source, FileContent):
        return _of_content(source, origin, count, min_side, rng)
    # For one frame, a file with a picture's suffix is read as a picture: the first frame of a GIF, not its middle.
    if isinstance(source, Path) and (count > 1 or not has_picture_suffix(source)) and looks_like_video(source):
        return load_clip(source, origin, count, rng, min_side)
    try:
        return [load_picture(source, origin, min_side)] * count
    except DataError:
        if isinstance(source, Path) and file_kind(source) == "video":  # despite its suffix
            return load_clip(source, origin, count, rng, min_side)
        raise


def _of_content(
    source: FileContent, origin: str, count: int, min_side: int, rng: random.Random | None
) -> list[Image.Image]:
    """As `load_frames`, of a file's content; PyAV needs a file, whose name is ours and not the archive's."""
    content, ending = source.read(), f".{source.suffix.rpartition('.')[2]}"
    kind, name = kind_of_bytes(content[:HEAD]), f"a{ending}"
    still = kind in ("picture", "unknown") or (count == 1 and kind != "video" and has_picture_suffix(name))
    if still and not has_video_suffix(name):
        return [load_picture(FileContent(source.suffix, lambda: content), origin, min_side)] * count
    with tempfile.NamedTemporaryFile(prefix="uniadapter-") as file:
        Path(file.name).write_bytes(content)
        try:
            return load_clip(Path(file.name), origin, count, rng, min_side)
        except DataError as error:
            raise DataError(str(error).replace(file.name, ending), error.kind) from None


def looks_like_video(path: Path) -> bool:
    """Whether a path is read as a video, by its content or, if that is unknown, by its suffix.

    A folder is one (of frames), and so is an animated GIF, WebP or PNG.
    """
    path = Path(path)
    if os.path.isdir(path):
        return True
    kind = file_kind(path)
    if kind == "unknown":
        return has_video_suffix(path) and not not_a_file_reason(path)
    return _is_animated(path) if kind == "gif" else kind in ("video", "apng", "webp")


def _describe(origin: str, source: Path) -> str:
    return f"{origin}: video {printable_path(source)}" if origin else f"video {printable_path(source)}"


def _frames_of(source: Path, positions: Sequence[float], min_side: int, origin: str) -> list[Image.Image | None]:
    if os.path.isdir(source):
        return _from_folder(source, positions, min_side, origin)
    about = os.stat(source)
    if not stat.S_ISREG(about.st_mode):
        raise DecodingError(not_a_file_reason(source), "corrupt video")
    if not about.st_size:
        raise DecodingError("is empty (0 bytes)", "empty video")
    kind = file_kind(source)
    if kind == "picture":
        return [_small(load_picture(source, origin, min_side), min_side)] * len(positions)
    if kind == "webp":
        check_bytes(about.st_size)
        return _from_webp(source, positions, min_side)
    if kind in ("gif", "apng"):
        _check_animation(source)
    return decode_clip(source, positions, min_side)


def _check_animation(path: Path) -> None:
    """Check an animation's size by Pillow, since libav gives no clear error; other faults are left to libav."""
    try:
        with open_picture(path) as picture:
            check_pixels(picture.width, picture.height, MAX_FRAME_PIXELS)
    except TooLarge:
        raise
    except BROKEN:
        return


def _is_animated(path: Path) -> bool:
    try:
        with open_picture(path) as picture:
            return bool(getattr(picture, "is_animated", False))
    except BROKEN:
        return True


def _from_folder(folder: Path, positions: Sequence[float], min_side: int, origin: str) -> list[Image.Image | None]:
    """Pictures of a folder; a corrupt one is skipped, unless all of the selected ones are corrupt."""
    names = sorted(
        (file.name for file in os.scandir(folder) if _is_frame(file)), key=lambda name: (_natural_sort_key(name), name)
    )
    if not names:
        raise DecodingError("is a folder without pictures", "empty video")
    numbers = frame_indices(len(names), positions)
    taken: dict[int, Image.Image] = {}
    fault: DataError | None = None
    for number in sorted(set(numbers)):
        try:
            taken[number] = _small(load_picture(folder / names[number], origin, min_side), min_side, len(positions))
        except DataError as error:
            fault = error
    if not taken and fault is not None:
        raise fault
    return [taken.get(number) for number in numbers]


def _is_frame(file: os.DirEntry[str]) -> bool:
    return has_picture_suffix(file.name) and not file.name.startswith(".") and file.is_file()


def _natural_sort_key(name: str) -> list[str | int]:
    """A sort key with which frame_2 comes before frame_10."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if place % 2 else part.lower() for place, part in enumerate(parts)]


def _from_webp(file: Path, positions: Sequence[float], min_side: int) -> list[Image.Image | None]:
    """Frames of an animated WebP by Pillow, since PyAV cannot read it; they must be decoded in order."""
    deadline, taken = Deadline(), dict[int, Image.Image]()
    content, durations = _webp_chunks(file.read_bytes())
    try:
        with open_picture(io.BytesIO(content)) as animation:
            numbers = _webp_frame_indices(durations, int(getattr(animation, "n_frames", 1)), positions)
            for number in range(numbers[-1] + 1):
                deadline.check()
                try:
                    animation.seek(number)
                    animation.load()
                except BROKEN:
                    if not taken:
                        raise
                    break  # each frame depends on the one before
                if number in numbers:
                    taken[number] = _small(flatten_alpha(animation), min_side, len(positions))
    except TooLarge:
        raise
    except BROKEN as error:
        raise DecodingError(f"cannot be read ({error_text(error)})", "corrupt video") from None
    return [taken.get(number) for number in numbers]


def _webp_chunks(content: bytes) -> tuple[bytes, list[int]]:
    """A WebP without a truncated last chunk, and the durations of its frames in milliseconds."""
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


def _webp_frame_indices(durations: list[int], total: int, positions: Sequence[float]) -> list[int]:
    """Frame indices by display time, or by number if the durations are missing or invalid."""
    if len(durations) != total or not all(0 < one <= 1000 * MAX_FRAME_SECONDS for one in durations):
        return frame_indices(total, positions)
    starts = [sum(durations[:number]) for number in range(total)]
    return frame_indices_by_time(starts, sum(durations), positions)


def _small(picture: Image.Image, min_side: int, count: int = 1) -> Image.Image:
    """A picture reduced by an integer factor: sides of at least `min_side` or, with 0, `count` within the limit."""
    if min_side:
        factor = min(picture.size) // min_side
    else:
        factor = math.ceil(math.sqrt(math.prod(picture.size) * count / MAX_CLIP_PIXELS))
    return picture.reduce(factor) if factor > 1 else picture


def _fill_missing(frames: Sequence[Image.Image | None]) -> list[Image.Image]:
    """The frames, missing ones replaced by the nearest one (of two the earlier)."""
    there = [place for place, frame in enumerate(frames) if frame is not None]
    if not there:
        raise DecodingError("has no frame that can be decoded", "corrupt video")
    nearest = [min(there, key=lambda other: (abs(other - place), other)) for place in range(len(frames))]
    return [frame for place in nearest if (frame := frames[place]) is not None]


def _to_one_size(frames: list[Image.Image]) -> list[Image.Image]:
    """The frames, resized to the size of the first; repeated frames remain the same object."""
    size = frames[0].size
    scaled = {id(frame): frame.resize(size, Image.Resampling.BICUBIC) for frame in frames if frame.size != size}
    return [scaled.get(id(frame), frame) for frame in frames]
