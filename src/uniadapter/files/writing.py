"""Files written all or nothing: the one way in which this package writes what a user may already have.

At any moment either the old or the whole new file stands there. What a killed process left half-written carries that
process's number in its name, and is cleared away by the next one that writes into the folder (`clear_leftovers`).
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_LEFTOVER = re.compile(r"^\..+\.(\d+)\.tmp$")


class WriteError(OSError):
    """A file could not be written; what stood there before still does. One line that names it and says why."""


@contextmanager
def written_atomically(path: Path | str) -> Iterator[Path]:
    """A temporary file beside `path` that takes its place when the block ends well, and vanishes otherwise.

    The folder is made where it is missing. The file reaches the disk before it is renamed, gets the mode that the
    umask gives (or keeps that of the file it replaces), and a symbolic link is written through, not replaced.

    Args:
        path: the file to write.

    Yields:
        The path to write to, in the same folder; not yet there.

    Raises:
        WriteError: it cannot be written: a full disk, a read-only folder, a folder of that name.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(None, "a folder of that name stands there")
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        temporary.touch()  # a writer may make it private (safetensors does), so the umask's mode is asked of the system
        mode = (target if target.exists() else temporary).stat().st_mode & 0o7777
        temporary.unlink()
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # a full disk may show only here
        temporary.chmod(mode)
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(f"{path}: could not be written ({_reason(error)}); nothing there was changed") from error
    finally:
        if temporary is not None:
            with suppress(OSError):  # most often it has taken its place
                temporary.unlink()


@contextmanager
def written_into(folder: Path | str) -> Iterator[Path]:
    """A temporary folder whose files move into `folder` when the block ends well; whatever else stands there stays.

    Each file is replaced whole, the largest first; a failure before that leaves everything as it was.

    Args:
        folder: made where it is missing; a symbolic link to a folder is written through.

    Yields:
        The folder to fill.

    Raises:
        WriteError: it cannot be written: a full disk, a read-only folder, a file of that name.
    """
    folder = Path(folder)
    temporary = folder / f".files.{os.getpid()}.tmp"
    try:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(None, "a file of that name stands there")
        temporary.mkdir(parents=True, exist_ok=True)
        yield temporary
        files = [file for file in temporary.rglob("*") if file.is_file()]
        for file in sorted(files, key=lambda file: -file.stat().st_size):
            with written_atomically(folder / file.relative_to(temporary)) as target:
                os.replace(file, target)
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(f"{folder}: could not be written ({_reason(error)}); nothing there was changed") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: Path | str, content: bytes) -> Path:
    """Write a file, all or nothing; see `written_atomically`."""
    with written_atomically(path) as temporary, temporary.open("wb") as file:
        file.write(content)
    return Path(path)


def write_text(path: Path | str, content: str) -> Path:
    """Write a text in UTF-8, all or nothing; see `written_atomically`."""
    return write_bytes(path, content.encode())


def clear_leftovers(folder: Path | str) -> list[Path]:
    """Remove what killed processes left half-written in a folder (not below it); returns what was removed."""
    removed = []
    with suppress(OSError):
        for file in Path(folder).iterdir():
            match = _LEFTOVER.match(file.name)
            if match and not _alive(int(match.group(1))) and not file.is_symlink():
                with suppress(OSError):
                    shutil.rmtree(file) if file.is_dir() else file.unlink()
                    removed.append(file)
    return removed


def usable_folder(path: Path | str) -> Path:
    """Return the folder that results will go to, known now, before hours of work, to be one that can be written.

    It is not made yet.

    Raises:
        WriteError: something that is no folder stands there or above, or it cannot be written.
    """
    path = Path(path)
    try:
        for place in (path, *path.absolute().parents):
            if place.is_dir():
                if not os.access(place, os.W_OK | os.X_OK):
                    raise WriteError(f"{path}: nothing can be written there ({place} is read-only for this user)")
                break
            if place.exists() or place.is_symlink():
                raise WriteError(f"{path}: cannot be the folder of results, {place} is a file; name another")
    except WriteError:
        raise
    except (OSError, ValueError) as error:  # too long a name, a null byte
        reason = _reason(error) if isinstance(error, OSError) else error
        raise WriteError(f"{str(path)[:200]}: cannot be the folder of results ({reason})") from None
    return path


def file_hash(path: Path | str) -> str:
    """SHA-256 of a file's bytes, in hex."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _alive(pid: int) -> bool:
    if pid == os.getpid():
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's process, say
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Make the renaming itself last through a power cut, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
