"""Folders made on first use: whole or not at all, made anew when what they depend on has changed."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

logger = logging.getLogger(__name__)

STAMP = "complete.sha256"


def fingerprint(folder: Path, names: Iterable[str], version: str) -> str:
    """Hash of the files of `folder` and of the version of the code that reads them."""
    digest = hashlib.sha256(version.encode())
    for name in names:
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()


def prepare_folder(target: Path, stamp: str, write: Callable[[Path], None]) -> Path:
    """Let `write` fill a folder unless `target` carries this stamp; returns `target`.

    It appears whole or not at all, so that two processes may call this at once.
    """
    if _is_complete(target, stamp):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        write(partial)
        (partial / STAMP).write_text(stamp + "\n")
        _put(partial, target, stamp)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    logger.info("wrote the embedded %s into %s", target.name, target)
    return target


def _is_complete(target: Path, stamp: str) -> bool:
    file = target / STAMP
    return file.exists() and file.read_text().strip() == stamp


def _put(partial: Path, target: Path, stamp: str) -> None:
    """Move a finished folder into place; an outdated one is moved out of the way first."""
    os.chmod(partial, 0o755)
    if target.exists() and not _is_complete(target, stamp):
        old = Path(tempfile.mkdtemp(prefix=f".{target.name}-old-", dir=target.parent))
        os.replace(target, old / target.name)
        shutil.rmtree(old, ignore_errors=True)
    try:
        os.rename(partial, target)
    except OSError:
        # another process was first; its folder is as good as ours
        if not _is_complete(target, stamp):
            raise
