"""Where the picture or video that a record names is looked for on disk."""

from __future__ import annotations

import os
from pathlib import Path

from uniadapter.errors import DataError

# In the order in which they are tried for a video that is not there under its own name.
VIDEO_SUFFIXES = (
    ".mp4", ".webm", ".mkv", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ogv", ".mts", ".ts",
)  # fmt: skip
_FRAME_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".avif"})


def has_video_suffix(path: str | Path) -> bool:
    """Whether a name ends as videos do."""
    return os.path.splitext(path)[1].lower() in VIDEO_SUFFIXES


def is_video(path: str | Path) -> bool:
    """Whether a path is a video by its suffix, or a folder; without a look into files."""
    suffix = os.path.splitext(path)[1].lower()
    return suffix in VIDEO_SUFFIXES or (suffix not in _FRAME_SUFFIXES and os.path.isdir(path))


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
    """The error for a picture or video that is not there."""
    where = f"{origin}: " if origin else ""
    # Some videos are missing in every copy of a benchmark; a picture that is missing is a wrong path.
    more = ", or data.on_error to skip" if noun == "video" else ""
    return DataError(
        f"{where}{noun} {name} does not exist: set data.root to the folder that paths start from{more}",
        f"missing {noun}",
    )


def _holds_frames(path: Path) -> bool:
    """Whether a path is a folder with at least one picture directly in it."""
    if not os.path.isdir(path):
        return False
    with os.scandir(path) as entries:
        return any(os.path.splitext(entry.name)[1].lower() in _FRAME_SUFFIXES for entry in entries)
