"""Folders made on first use: whole or not at all, made anew when what they depend on has changed.

One process makes a folder while others that want it wait; what a killed one left half-made is cleared away by the next.
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
from uniadapter.files.writing import WriteError, clear_leftovers

logger = logging.getLogger(__name__)

STAMP = "complete.sha256"
VARIABLE = "UNIADAPTER_CACHE"  # where they are made


def cache_folder() -> Path:
    """Where they are made: $UNIADAPTER_CACHE, or the user's cache.

    Raises:
        ConfigError: it isn't set, and the system knows no home folder for this user.
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
    """Hash of the files of `folder` and of the version of the code that reads them."""
    digest = hashlib.sha256(version.encode())
    for name in names:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def prepare_folder(target: Path, stamp: str, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a folder unless `target` carries this stamp; returns `target`.

    It appears whole or not at all, however many processes call this at once and whichever of them is killed.

    Raises:
        WriteError: it cannot be written; says why, and which variable names another place.
    """
    if _is_complete(target, stamp):
        return target
    partial: Path | None = None
    try:
        if target.exists() and not (target / STAMP).is_file():
            raise FileExistsError(None, "something else of that name stands there")
        target.parent.mkdir(parents=True, exist_ok=True)
        with _alone(target.parent):
            if _is_complete(target, stamp):  # another process was first
                return target
            clear_leftovers(target.parent)
            partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=f".{os.getpid()}.tmp", dir=target.parent))
            write(partial)
            (partial / STAMP).write_text(stamp + "\n")
            _put(partial, target)
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
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time, where folders can be locked; elsewhere each makes its own and one is kept."""
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


def _put(partial: Path, target: Path) -> None:
    """Move a finished folder into place; an outdated one is moved out of the way first."""
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
        # another process was first; its folder is as good as ours


def _reason(error: OSError, folder: Path) -> str:
    """Why nothing could be written; an encoder of pictures hides a full disk behind a number."""
    if error.strerror is None and shutil.disk_usage(folder).free < 1 << 20:
        return "no space left on device"
    return error.strerror or shortened(str(error), 100) or type(error).__name__
