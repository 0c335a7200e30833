"""Cached folders of generated files: created atomically, and again when their sources have changed.

One process creates a folder while others wait for it; partial folders of killed processes are removed by the next one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from uniadapter.errors import ConfigError
from uniadapter.files.messages import shortened
from uniadapter.files.writing import WriteError, remove_temporary_files

logger = logging.getLogger(__name__)

STAMP = "complete.sha256"
VARIABLE = "UNIADAPTER_CACHE"  # environment variable with the cache folder


def cache_folder() -> Path:
    """The cache folder: $UNIADAPTER_CACHE, or `uniadapter` in the user's cache folder.

    Raises:
        ConfigError: the variable is not set, and the user has no home folder.
    """
    chosen, cache = os.environ.get(VARIABLE), os.environ.get("XDG_CACHE_HOME")
    try:
        if chosen:
            return Path(chosen).expanduser()
        return (Path(cache) if cache else Path.home() / ".cache") / "uniadapter"
    except RuntimeError as error:
        raise ConfigError(
            f"no home folder is known (HOME is not set): set {VARIABLE} to a folder to unpack to"
        ) from error


def fingerprint(folder: Path, names: Iterable[str], version: str) -> str:
    """SHA-256 of the files `names` in `folder` and of the version of the code that converts them."""
    digest = hashlib.sha256(version.encode())
    for name in names:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def prepare_folder(target: Path, stamp: str, write: Callable[[Path], None]) -> Path:
    """Create a folder by `write` unless it exists with the same fingerprint.

    The folder is created atomically, even if several processes call this at the same time or one is killed.

    Args:
        target: the folder.
        stamp: fingerprint of its sources, stored in the folder.
        write: fills a new folder.

    Returns:
        `target`.

    Raises:
        WriteError: it cannot be written; the message names the environment variable for another folder.
    """
    if _is_complete(target, stamp):
        return target
    partial: Path | None = None
    try:
        if target.exists() and not (target / STAMP).is_file():
            raise FileExistsError(None, "another file or folder of that name exists")
        target.parent.mkdir(parents=True, exist_ok=True)
        with _exclusive(target.parent):
            if _is_complete(target, stamp):  # another process was first
                return target
            remove_temporary_files(target.parent)
            partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=f".{os.getpid()}.tmp", dir=target.parent))
            write(partial)
            (partial / STAMP).write_text(stamp + "\n")
            _move_into_place(partial, target)
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(
            f"{target}: could not be unpacked ({_reason(error, target.parent)}); set {VARIABLE} to a folder with room "
            "that can be written to"
        ) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
    logger.info("wrote the embedded %s into %s", target.name, target)
    return target


def _is_complete(target: Path, stamp: str) -> bool:
    try:
        return (target / STAMP).read_text().strip() == stamp
    except (OSError, UnicodeDecodeError):
        return False


@contextmanager
def _exclusive(folder: Path) -> Iterator[None]:
    """Lock a folder for the block, where that is supported; elsewhere several may write, and one result is kept."""
    if os.name != "posix":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _move_into_place(partial: Path, target: Path) -> None:
    """Move a complete folder to its place; an outdated one is removed first."""
    os.chmod(partial, 0o755)
    if target.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", suffix=f".{os.getpid()}.tmp", dir=target.parent))
        with suppress(FileNotFoundError):  # without locks another process may do the same
            os.replace(target, old / target.name)
        shutil.rmtree(old, ignore_errors=True)
    try:
        os.rename(partial, target)
    except OSError:
        if not (target / STAMP).is_file():
            raise
        # another process was first; its folder has the same content


def _reason(error: OSError, folder: Path) -> str:
    """Why nothing could be written; picture encoders report a full disk only as an error number."""
    if error.strerror is None and shutil.disk_usage(folder).free < 1 << 20:
        return "no space left on device"
    return error.strerror or shortened(str(error), 100) or type(error).__name__
