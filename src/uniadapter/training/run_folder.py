"""The run folder: locked to one run at a time, and never overwritten unless asked."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from uniadapter.checkpoints.folder_names import (
    CARD_NAME,
    CONFIG_NAME,
    LEGACY_CONFIG_NAME,
    WEIGHTS_NAME,
    is_adapter_of_peft,
)
from uniadapter.errors import ConfigError
from uniadapter.files.writing import remove_temporary_files

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"
CHECKPOINTS = ("checkpoint.pt", "checkpoint.previous.pt")  # the newest first

_held_locks: set[int] = set()  # file descriptors
if hasattr(os, "register_at_fork"):  # else a DataLoader worker that outlives this process would keep them locked
    os.register_at_fork(after_in_child=lambda: _close_locks())

# A folder with one of these holds a run. A config or a log alone may be left by a run that failed at its start.
RESULTS = (
    *CHECKPOINTS,
    "metrics.json",
    "history.jsonl",
    f"adapter/{CONFIG_NAME}",
    f"adapter/{LEGACY_CONFIG_NAME}",
    "model/config.json",
)

# Folders of trained weights, and the files in them.
WEIGHT_FILES = {
    "adapter": (CONFIG_NAME, LEGACY_CONFIG_NAME, WEIGHTS_NAME, CARD_NAME),
    "model": ("*config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "special_tokens_map.json"),
}


def existing_results(folder: Path) -> list[str]:
    """The names in `RESULTS` that exist in a folder."""
    return [name for name in RESULTS if (folder / name).exists()]


def can_resume(folder: Path) -> bool:
    """Whether a folder has a checkpoint."""
    return any((folder / name).is_file() for name in CHECKPOINTS)


def check_run_folder(
    folder: Path, resume: bool = False, overwrite: bool = False, resume_or_start: bool = False
) -> None:
    """Refuse to start a run in a folder that has another run's results.

    Args:
        folder: of the new run.
        resume: the run continues from the checkpoint there.
        overwrite: the run may replace existing files, each when it writes its own.
        resume_or_start: the log of a run that was killed before its first checkpoint may be replaced too.

    Raises:
        ConfigError: there are results and neither option is set, or the path is a file.
    """
    blocked = next((part for part in (folder, *folder.parents) if part.exists()), folder)
    if not blocked.is_dir() and blocked.exists():
        raise ConfigError(f"{blocked}: is a file, not a folder; choose another --output")
    if resume and overwrite:
        raise ConfigError("--resume continues a run and --overwrite replaces it: give only one of them")
    if resume and not can_resume(folder):
        raise ConfigError(f"{folder}: nothing to resume, there is no checkpoint.pt; start a new run without --resume")
    found = existing_results(folder)
    if resume_or_start and found == ["history.jsonl"]:
        return
    if found and not (resume or overwrite):
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise ConfigError(
            f"{folder}: holds an earlier run ({found[0]}{more}): --resume continues it, --overwrite replaces it, "
            "or choose another --output"
        )


@contextmanager
def exclusive_run_folder(
    folder: Path, resume: bool = False, overwrite: bool = False, resume_or_start: bool = False
) -> Iterator[None]:
    """Check and lock the run folder for the block; see `check_run_folder` and `locked_folder`."""
    check_run_folder(folder, resume, overwrite, resume_or_start)
    with locked_folder(folder):
        # another run may have written results before the lock was free
        check_run_folder(folder, resume, overwrite, resume_or_start)
        yield


def remove_replaced_weights(folder: Path, kept: str) -> None:
    """Remove an earlier run's weights of the other kind, after a run that replaces it has saved its own.

    Only files that a run writes are removed; a folder with other files stays.

    Args:
        folder: of the run.
        kept: "adapter" or "model": the weights that the new run wrote.
    """
    for name, written in WEIGHT_FILES.items():
        if name == kept:
            continue
        for pattern in (CONFIG_NAME,) if is_adapter_of_peft(folder / name) else written:
            for file in (folder / name).glob(pattern):
                with suppress(OSError):
                    file.unlink()
        with suppress(OSError):
            (folder / name).rmdir()


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Lock a folder for this process, and remove temporary files that killed processes left in it.

    The lock is released when the process ends, however that happens.

    Raises:
        ConfigError: another process has locked it; the message names that process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = _acquire_lock(folder)
    _held_locks.add(handle)
    try:
        for place in (folder, folder / "adapter", folder / "model"):
            remove_temporary_files(place)
        yield
    finally:
        if handle in _held_locks:  # else this is a fork of the process that has locked it
            with suppress(OSError):
                (folder / LOCK).unlink()  # before the lock is released
            _held_locks.discard(handle)
            os.close(handle)


def _close_locks() -> None:
    for handle in _held_locks:
        os.close(handle)
    _held_locks.clear()


def _acquire_lock(folder: Path) -> int:
    path = folder / LOCK
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not _try_lock(handle):
            holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
            os.close(handle)
            raise ConfigError(f"{folder}: {holder} is writing there: wait for it, or choose another --output")
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):  # else its last holder has removed it in between
                with suppress(OSError):  # a full disk is reported by larger writes
                    os.ftruncate(handle, 0)
                    os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                return handle
        os.close(handle)


def _try_lock(handle: int) -> bool:
    """Whether the file could be locked; always true on file systems and platforms without locks."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
