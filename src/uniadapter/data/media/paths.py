"""Search for the file of a record's picture or video on disk."""

from __future__ import annotations

import os
from pathlib import Path

from uniadapter.data.media.file_kinds import VIDEO_SUFFIXES, has_picture_suffix, has_video_suffix, not_a_file_reason
from uniadapter.errors import DataError

_MAX_CHARACTERS = 140  # of a path in a message


def video_name(name: str) -> str:
    """A video's file name from its id: `.mp4` is appended unless the id has a video suffix."""
    return name if has_video_suffix(name) else f"{name}.mp4"


def resolve_visual(root: Path, visual: str, origin: str, noun: str = "picture") -> Path:
    """The full path of a record's visual.

    Args:
        root: the data folder.
        visual: a path as in the annotation file, relative to `root` or absolute.
        origin: the record, for the error.
        noun: "picture" or "video", for the error.

    Raises:
        DataError: a relative path leaves `root` by `..`.
    """
    normal = os.path.normpath(visual)
    if normal.split(os.sep)[0] == os.pardir:
        raise DataError(
            f"{origin}: {noun} {visual} is outside the data folder {root}: if intended, use an absolute path",
            "path outside the data folder",
        )
    return root / normal


def find_visual(path: Path, noun: str = "picture") -> Path | None:
    """The file or folder of frames at a path; None if there is none.

    Copies of video datasets are often re-encoded. A video is therefore also searched for with other suffixes, replaced
    or appended (`a.mov`: `a.mp4`, `a.mov.mp4`), and as a folder of frames (`a`).
    """
    if os.path.isfile(path) or _holds_frames(path):
        return path
    if noun != "video":
        return None
    bare = path.with_suffix("") if has_video_suffix(path) else path
    for stem in dict.fromkeys((str(bare), str(path))):
        for suffix in VIDEO_SUFFIXES:
            if os.path.isfile(stem + suffix):
                return Path(stem + suffix)
    return bare if _holds_frames(bare) else None


def missing_visual_error(origin: str, name: object, noun: str = "picture") -> DataError:
    """The error for a picture or video that does not exist, or is not a file."""
    where = f"{origin}: " if origin else ""
    # Every copy of a video benchmark lacks some videos; a missing picture is most likely a wrong path.
    more = ", or data.on_error to skip" if noun == "video" else ""
    if there := not_a_file_reason(str(name)):
        return DataError(f"{where}{noun} {printable_path(name)} {there}: replace it{more}", f"missing {noun}")
    return DataError(
        f"{where}{noun} {printable_path(name)} does not exist: set data.root to the folder that paths start from{more}",
        f"missing {noun}",
    )


def printable_path(path: object) -> str:
    """A path for a message, with escapes for unprintable characters; of a long one the end, which is distinctive."""
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(path)[-_MAX_CHARACTERS - 1 :])
    return text if len(text) <= _MAX_CHARACTERS else f"…{text[1 - _MAX_CHARACTERS :]}"


def error_text(error: BaseException) -> str:
    """The message of an error, shortened, without error number and file name."""
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return text if len(text) <= _MAX_CHARACTERS else f"{text[: _MAX_CHARACTERS - 1]}…"


def _holds_frames(path: Path) -> bool:
    """Whether a path is a folder with at least one picture directly in it."""
    if not os.path.isdir(path):
        return False
    with os.scandir(path) as entries:
        return any(has_picture_suffix(entry.name) for entry in entries)
