"""Where the picture or video that a record names is looked for on disk."""

from __future__ import annotations

import os
from pathlib import Path

from uniadapter.data.media.kinds import VIDEO_SUFFIXES, has_picture_suffix, has_video_suffix, irregular
from uniadapter.errors import DataError

_LONGEST_SHOWN = 140  # characters of a path in a message


def video_name(name: str) -> str:
    """A video's file name from its id: `.mp4` is added to an id without the suffix of a video."""
    return name if has_video_suffix(name) else f"{name}.mp4"


def resolve_visual(root: Path, visual: str, origin: str, noun: str = "picture") -> Path:
    """The path that a record's `visual` stands for: relative to `root`, or absolute.

    Args:
        root: the data folder.
        visual: as in the annotation file.
        origin: the record, for the error.
        noun: "picture" or "video", for the error.

    Raises:
        DataError: a relative path climbs out of `root` by `..`.
    """
    normal = os.path.normpath(visual)
    if normal.split(os.sep)[0] == os.pardir:
        raise DataError(
            f"{origin}: {noun} {visual} is outside the data folder {root}: if meant, write it in full",
            "path outside the data folder",
        )
    return root / normal


def find_visual(path: Path, noun: str = "picture") -> Path | None:
    """The file, or the folder of frames, at a path; None if there is none.

    Copies of a video set are often re-encoded, so a video is also looked for with another suffix in the place of its
    own or after it (`a.mov`: `a.mp4`, `a.mov.mp4`), and as a folder of frames of its name (`a`).
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


def missing_visual(origin: str, name: object, noun: str = "picture") -> DataError:
    """The error for a picture or video that is not there, or is no file."""
    where = f"{origin}: " if origin else ""
    # Some videos are missing in every copy of a benchmark; a picture that is missing is a wrong path.
    more = ", or data.on_error to skip" if noun == "video" else ""
    if there := irregular(str(name)):
        return DataError(f"{where}{noun} {shown_path(name)} {there}: replace it{more}", f"missing {noun}")
    return DataError(
        f"{where}{noun} {shown_path(name)} does not exist: set data.root to the folder that paths start from{more}",
        f"missing {noun}",
    )


def shown_path(path: object) -> str:
    """A path for a message, what cannot be printed escaped; of one too long the end, which tells files apart."""
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(path)[-_LONGEST_SHOWN - 1 :])
    return text if len(text) <= _LONGEST_SHOWN else f"…{text[1 - _LONGEST_SHOWN :]}"


def said(error: BaseException) -> str:
    """The message of an error without its number and file name."""
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 1]}…"


def _holds_frames(path: Path) -> bool:
    """Whether a path is a folder with at least one picture directly in it."""
    if not os.path.isdir(path):
        return False
    with os.scandir(path) as entries:
        return any(has_picture_suffix(entry.name) for entry in entries)
