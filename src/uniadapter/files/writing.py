"""Atomic writes: at any moment a path holds either the complete old file or the complete new one.

Temporary files carry the writer's process id in their name; `remove_temporary_files` removes those of killed processes.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_TEMPORARY = re.compile(r"^\..+\.(\d+)\.tmp$")


class WriteError(OSError):
    """A file could not be written; an existing one is unchanged. One line with the path and the reason."""


@contextmanager
def atomic_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` when the block succeeds, and is deleted otherwise.

    A missing folder is created. The file is synced to disk before it is renamed. It keeps the mode of the file that it
    replaces; a new one gets the umask's. The target of a symbolic link is replaced, not the link.

    Args:
        path: the file to write.

    Yields:
        The path to write to, in the same folder; it does not exist yet.

    Raises:
        WriteError: it cannot be written: a full disk, a read-only folder, a folder of that name.
    """
    path = Path(path)
    temporary: Path | None = None
    try:
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.is_dir():
            raise IsADirectoryError(None, "a folder of that name exists")
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        temporary.touch()  # to learn the umask's mode, since some writers (safetensors) create private files
        mode = (target if target.exists() else temporary).stat().st_mode & 0o7777
        temporary.unlink()
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())  # a full disk may be reported only here
        temporary.chmod(mode)
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(f"{path}: could not be written ({_reason(error)}); nothing there was changed") from error
    finally:
        if temporary is not None:
            with suppress(OSError):  # after a success it has been renamed
                temporary.unlink()


@contextmanager
def atomic_folder(folder: Path | str) -> Iterator[Path]:
    """Yield a temporary folder whose files move into `folder` when the block succeeds; other files there stay.

    Each file is replaced atomically, the largest first; a failure before that changes nothing.

    Args:
        folder: created if missing; may be a symbolic link to a folder.

    Yields:
        The folder to fill.

    Raises:
        WriteError: it cannot be written: a full disk, a read-only folder, a file of that name.
    """
    folder = Path(folder)
    temporary = folder / f".files.{os.getpid()}.tmp"
    try:
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(None, "a file of that name exists")
        temporary.mkdir(parents=True, exist_ok=True)
        yield temporary
        files = [file for file in temporary.rglob("*") if file.is_file()]
        for file in sorted(files, key=lambda file: -file.stat().st_size):
            with atomic_file(folder / file.relative_to(temporary)) as target:
                os.replace(file, target)
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(f"{folder}: could not be written ({_reason(error)}); nothing there was changed") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: Path | str, content: bytes) -> Path:
    """Write a file atomically; see `atomic_file`."""
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        file.write(content)
    return Path(path)


def write_text(path: Path | str, content: str) -> Path:
    """Write a text in UTF-8 atomically; see `atomic_file`."""
    return write_bytes(path, content.encode())


def remove_temporary_files(folder: Path | str) -> list[Path]:
    """Remove the temporary files that killed processes left in a folder (not below it); returns their paths."""
    removed = []
    with suppress(OSError):
        for file in Path(folder).iterdir():
            match = _TEMPORARY.match(file.name)
            if match and not _alive(int(match.group(1))) and not file.is_symlink():
                with suppress(OSError):
                    shutil.rmtree(file) if file.is_dir() else file.unlink()
                    removed.append(file)
    return removed


def check_output_folder(path: Path | str) -> Path:
    """Check, before hours of work, that a folder for results can be written; it is not created yet.

    Raises:
        WriteError: it or one of its parents is a file, or is read-only.
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
    except (OSError, ValueError) as error:  # the name is too long or has a null byte
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
    except (OSError, OverflowError):  # another user's process, for example
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Sync the folder, so that the rename itself survives a power failure, where the system supports it."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__
