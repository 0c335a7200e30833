"""Files at local paths and at addresses that fsspec knows (`https://…`, `s3://…`), and how often one tries to read."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from uniadapter.errors import DataError
from uniadapter.files.messages import shortened
from uniadapter.files.writing import atomic_file, write_bytes

logger = logging.getLogger(__name__)

T = TypeVar("T")
WAITS = (1.0, 3.0, 9.0)  # seconds before each further try
_FINAL = (FileNotFoundError, PermissionError, IsADirectoryError, ImportError, DataError)  # another try is no use
_LOST_SHARD = "lost shard"


class LostShard(DataError):
    """A shard that cannot be read, after several tries where these may help."""

    def __init__(self, message: str, kind: str = _LOST_SHARD) -> None:
        super().__init__(message, kind)


def lost_shards(left_out: Mapping[str, str]) -> list[str]:
    """The messages of lost shards, of messages of errors with their kinds."""
    return [message for message, kind in left_out.items() if kind == _LOST_SHARD]


def is_address(name: str) -> bool:
    """Whether a name is an address elsewhere, rather than a path."""
    return "://" in name


def join(base: str, name: str) -> str:
    """The path or address of a file in a folder."""
    return f"{base.rstrip('/')}/{name}" if is_address(base) else os.path.join(base, name)


def connect(address: str) -> tuple[Any, str]:
    """Fsspec's file system for an address, and the path in it.

    Raises:
        DataError: fsspec does not know it, or the package for it is not installed.
    """
    import fsspec

    try:
        return fsspec.core.url_to_fs(address)  # type: ignore[no-any-return]
    except (ImportError, ValueError) as error:
        raise DataError(f"{shortened(address, 120)}: {shortened(str(error), 150)}", "missing package") from None


def read_file(name: str) -> bytes:
    """The content of a small file.

    Raises:
        FileNotFoundError: there is none.
        DataError: it cannot be read.
    """
    if not is_address(name):
        return Path(name).read_bytes()
    system, path = connect(name)
    return retried(lambda: bytes(system.cat_file(path)), name)


def write_file(name: str, content: bytes) -> None:
    """Write a file, all or nothing; an object store does that by itself."""
    if not is_address(name):
        write_bytes(name, content)
        return
    system, path = connect(name)
    retried(lambda: system.pipe_file(path, content), name)


def move_file(file: Path, name: str) -> None:
    """Copy a local file to a path or address, all or nothing."""
    if not is_address(name):
        with atomic_file(name) as temporary:
            os.replace(file, temporary)
        return
    system, path = connect(name)
    retried(lambda: system.put_file(str(file), path), name)


def remove_file(name: str) -> None:
    """Remove a file, if it is there and can be removed."""
    with suppress(OSError):
        if not is_address(name):
            os.unlink(name)
            return
        system, path = connect(name)
        system.rm_file(path)


def list_names(folder: str) -> list[str]:
    """The names of the files in a folder.

    Raises:
        DataError: there is no such folder, or it cannot be listed.
    """
    try:
        if not is_address(folder):
            return os.listdir(folder)
        system, path = connect(folder)
        return [str(one).rstrip("/").rpartition("/")[2] for one in retried(lambda: system.ls(path, False), folder)]
    except OSError as error:
        raise DataError(f"{shortened(folder, 160)}: {reason_of(error)}: check the name", "no shards") from None


def retried(action: Callable[[], T], name: str) -> T:
    """What an action returns, which is tried four times; one line says so.

    Raises:
        FileNotFoundError: there is nothing at the name.
        DataError: it failed every time.
    """
    for tried, wait in enumerate((*WAITS, None)):
        try:
            return action()
        except _FINAL:
            raise
        except Exception as error:  # every store has its own
            if wait is None:
                message = f"{shortened(name, 120)}: {reason_of(error)}, {len(WAITS) + 1} times: look at the network"
                raise DataError(message, "lost source") from error
            if not tried:
                logger.warning("%s: %s; trying again", shortened(name, 120), reason_of(error))
            time.sleep(wait)
    raise AssertionError


def reason_of(error: BaseException) -> str:
    """Why something could not be read, in a few words."""
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return shortened(" ".join(str(getattr(error, "strerror", None) or error).split()) or type(error).__name__, 100)
