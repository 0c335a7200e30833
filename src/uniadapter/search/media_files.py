"""The pictures and videos below a folder, and what of it could not be read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from uniadapter.data.media.file_kinds import has_picture_suffix, has_video_suffix


@dataclass(frozen=True)
class MediaFile:
    """A picture's or video's file.

    Args:
        path: absolute; links to folders are not resolved, so that it is the path by which a user knows the file.
        size: in bytes.
        changed: when it was changed, in nanoseconds.
    """

    path: str
    size: int
    changed: int


@dataclass(frozen=True)
class Problem:
    """A file or folder that could not be indexed, and why."""

    path: str
    reason: str


def find_media(folder: Path) -> tuple[list[MediaFile], list[Problem]]:
    """All pictures and videos below a folder, by their suffixes, in the order of their paths.

    Hidden files and folders are left out. Links are followed; a folder that is reached twice, as in a loop of links, is
    read once.

    Args:
        folder: to search.
    """
    found: list[MediaFile] = []
    problems: list[Problem] = []
    seen: set[tuple[int, int]] = set()
    for entry in _files(str(folder.absolute()), seen, problems):
        if has_picture_suffix(entry) or has_video_suffix(entry):
            try:
                status = os.stat(entry)
            except OSError as error:  # a dangling link
                problems.append(Problem(entry, error.strerror or str(error)))
                continue
            found.append(MediaFile(entry, status.st_size, status.st_mtime_ns))
    return sorted(found, key=lambda file: file.path), problems


def _files(folder: str, seen: set[tuple[int, int]], problems: list[Problem]) -> Iterator[str]:
    """Paths of what is not a folder; a stack instead of recursion, so that no depth is too much."""
    waiting = [folder]
    while waiting:
        here = waiting.pop()
        try:
            status = os.stat(here)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(here) as listed:
                entries = sorted(listed, key=lambda entry: entry.name)
        except OSError as error:
            problems.append(Problem(here, error.strerror or str(error)))
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            try:
                is_folder = entry.is_dir()
            except OSError:
                is_folder = False
            if is_folder:
                waiting.append(entry.path)
            else:
                yield entry.path
