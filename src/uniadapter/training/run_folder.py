"""A run's folder: one run at a time, and never a new one over an old one unasked."""

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
from uniadapter.files.writing import clear_leftovers

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

LOCK = ".lock"

_held: set[int] = set()  # handles of locks
if hasattr(os, "register_at_fork"):  # or a loading process that outlives this one by seconds would hold on to them
    os.register_at_fork(after_in_child=lambda: _let_go())

# By these a folder is known to hold a run. A config or a log alone is what an attempt that failed at once leaves.
RESULTS = (
    "checkpoint.pt",
    "metrics.json",
    "history.jsonl",
    f"adapter/{CONFIG_NAME}",
    f"adapter/{LEGACY_CONFIG_NAME}",
    "model/config.json",
)

# What a run has trained: the folder, and the names of the files in it.
TRAINED = {
    "adapter": (CONFIG_NAME, LEGACY_CONFIG_NAME, WEIGHTS_NAME, CARD_NAME),
    "model": ("*config.json", "model.safetensors", "tokenizer.json", "vocab.txt", "special_tokens_map.json"),
}


def results_in(folder: Path) -> list[str]:
    """What of a run stands in a folder."""
    return [name for name in RESULTS if (folder / name).exists()]


def check_unused(folder: Path, resume: bool = False, overwrite: bool = False) -> None:
    """Refuse to start a run where another one's results are.

    Args:
        folder: of the new run.
        resume: it goes on with what is there.
        overwrite: it may replace what is there, file by file, as its own files come to be.

    Raises:
        ConfigError: there are results; or the folder is none.
    """
    blocked = next((part for part in (folder, *folder.parents) if part.exists()), folder)
    if not blocked.is_dir() and blocked.exists():
        raise ConfigError(f"{blocked}: is a file, not a folder; choose another --output")
    if resume and overwrite:
        raise ConfigError("--resume goes on with a run and --overwrite replaces it: give one of them")
    if resume and not (folder / "checkpoint.pt").is_file():
        raise ConfigError(f"{folder}: nothing to resume, there is no checkpoint.pt; leave --resume out to start anew")
    found = results_in(folder)
    if found and not (resume or overwrite):
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise ConfigError(
            f"{folder}: holds an earlier run ({found[0]}{more}): --resume goes on with it, --overwrite replaces it, "
            "or choose another --output"
        )


@contextmanager
def own_folder(folder: Path, resume: bool = False, overwrite: bool = False) -> Iterator[None]:
    """A folder for this run alone; see `check_unused` and `locked`."""
    check_unused(folder, resume, overwrite)
    with locked(folder):
        check_unused(folder, resume, overwrite)  # the run that held it may have ended meanwhile
        yield


def clear_replaced(folder: Path, kept: str) -> None:
    """Remove what an earlier run trained, once a new run that replaces it has saved the other kind.

    Files that no run writes stay, and so does a folder that has any.

    Args:
        folder: of the run.
        kept: "adapter" or "model": what the new run wrote.
    """
    for name, written in TRAINED.items():
        if name == kept:
            continue
        for pattern in (CONFIG_NAME,) if is_adapter_of_peft(folder / name) else written:
            for file in (folder / name).glob(pattern):
                with suppress(OSError):
                    file.unlink()
        with suppress(OSError):
            (folder / name).rmdir()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; what killed processes left half-written in it is cleared away first.

    The lock goes with the process, however that ends.

    Raises:
        ConfigError: another process holds it; names that process.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = _acquire(folder)
    _held.add(handle)
    try:
        for place in (folder, folder / "adapter", folder / "model"):
            clear_leftovers(place)
        yield
    finally:
        if handle in _held:  # else this is a fork of the process that holds it
            with suppress(OSError):
                (folder / LOCK).unlink()  # while it is still held
            _held.discard(handle)
            os.close(handle)


def _let_go() -> None:
    for handle in _held:
        os.close(handle)
    _held.clear()


def _acquire(folder: Path) -> int:
    path = folder / LOCK
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        if not _lock(handle):
            holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
            os.close(handle)
            raise ConfigError(f"{folder}: {holder} is writing there: wait for it, or choose another --output")
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), path.stat()):  # else its last holder removed it meanwhile
                with suppress(OSError):  # of a full disk more is told by what needs room
                    os.ftruncate(handle, 0)
                    os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
                return handle
        os.close(handle)


def _lock(handle: int) -> bool:
    """Whether the lock could be had; file systems and platforms without locks always give it."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
