"""What a request may name: the files of the index, and what was uploaded. Never a path."""

from __future__ import annotations

import hashlib
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from uniadapter.data.media.user_inputs import as_clips
from uniadapter.data.media.video import looks_like_video
from uniadapter.errors import DataError
from uniadapter.files.messages import shortened
from uniadapter.search.store import FileRow

MOST_UPLOADS = 64  # kept at once; the oldest goes
KEPT_SECONDS = 3600.0  # an upload


class UnknownItemError(LookupError):
    """No such item: it was never there, or has gone since."""


@dataclass(frozen=True)
class Item:
    """A picture or video.

    Args:
        key: by which requests name it.
        path: of the file.
        name: for people.
        video: whether it moves.
        seconds: of a video; 0 where it isn't known.
    """

    key: str
    path: str
    name: str
    video: bool
    seconds: float = 0.0


def key_of(path: str) -> str:
    """The key of an index's file."""
    return hashlib.sha256(path.encode("utf-8", "surrogateescape")).hexdigest()[:20]


class Items:
    """The index's files and the uploads, by key.

    Args:
        folders: of the index; names are told from there on.
    """

    def __init__(self, folders: Sequence[str]) -> None:
        self._folders = [Path(one) for one in folders]
        self._files: dict[str, Item] = {}
        self._by_name: dict[str, str] = {}
        self._uploads: dict[str, tuple[Item, float]] = {}
        self._lock = threading.Lock()
        self._room = Path(tempfile.mkdtemp(prefix="uniadapter-uploads-"))

    def set_files(self, rows: Sequence[FileRow]) -> None:
        """The files of the index, as they are now."""
        self._files = {
            key_of(row.path): Item(key_of(row.path), row.path, self._name(row.path), row.kind == "video", row.seconds)
            for row in rows
        }
        self._by_name = {item.name: item.key for item in self._files.values()}

    def __len__(self) -> int:
        """The number of the index's files."""
        return len(self._files)

    @property
    def videos(self) -> int:
        """How many of the index's files are videos."""
        return sum(item.video for item in self._files.values())

    def _name(self, path: str) -> str:
        for folder in self._folders:
            if folder in Path(path).parents:
                return str(Path(path).relative_to(folder))
        return Path(path).name

    def __getitem__(self, key: str) -> Item:
        found = self._files.get(key)
        if found is None and key in self._uploads:
            found = self._uploads[key][0]
        if found is None:
            raise UnknownItemError("this picture or video is not in the index any more, or its upload has expired")
        return found

    def of_file(self, path: str) -> Item | None:
        """The item of a file of the index; None if it is there no more."""
        return self._files.get(key_of(path))

    def named(self, text: str) -> Item:
        """A file of the index by its name, with or without `./`, or an item by its key.

        Raises:
            UnknownItemError: there is none.
        """
        name = text.removeprefix("./")
        key = self._by_name.get(name, name)
        return self[key]

    def new_file(self) -> Path:
        """A file to write an upload into; `add` keeps it."""
        return self._room / secrets.token_urlsafe(12)

    def add(self, file: Path, name: str) -> Item:
        """Keep an upload.

        Args:
            file: of `new_file`, written.
            name: that it has at home.

        Raises:
            DataError: it is no picture and no video, or beyond a limit; the file is deleted.
        """
        shown = shortened(Path(name.replace("\\", "/")).name or "upload", 80)
        suffix = Path(shown).suffix.lower()
        named = file.with_name(file.name + (suffix if suffix[1:].isalnum() and len(suffix) < 7 else ""))
        file.rename(named)
        try:
            video = looks_like_video(named)
            as_clips(str(named))[0].read(1)
        except Exception as error:
            named.unlink(missing_ok=True)
            if not isinstance(error, (ValueError, OSError, TypeError)):
                raise
            raise DataError(str(error).replace(str(named), shown), "no picture") from None
        item = Item("u" + named.name.partition(".")[0], str(named), shown, video)
        with self._lock:
            self._uploads[item.key] = (item, time.monotonic())
            self._forget()
        return item

    def _forget(self) -> None:
        """Delete what is old, or too much."""
        now = time.monotonic()
        by_age = sorted(self._uploads, key=lambda key: self._uploads[key][1])
        old = [key for key in by_age if now - self._uploads[key][1] > KEPT_SECONDS]
        for key in dict.fromkeys([*old, *by_age[: max(0, len(by_age) - MOST_UPLOADS)]]):
            Path(self._uploads.pop(key)[0].path).unlink(missing_ok=True)

    def close(self) -> None:
        """Delete all uploads."""
        shutil.rmtree(self._room, ignore_errors=True)
