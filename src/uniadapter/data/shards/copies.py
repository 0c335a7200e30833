"""Local copies of shards that are elsewhere: fetched when they are needed, checked, and few at a time.

The processes of a run share the folder: one fetches a shard, the others wait for it. What was not used for longest goes
when there are too many, so that the disk holds some shards and not the set.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from uniadapter.data.shards.places import LostShard, connect, reason_of, retried
from uniadapter.errors import DataError
from uniadapter.files.messages import shortened
from uniadapter.files.writing import file_hash

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger(__name__)

STALLED = 20.0  # seconds without a byte, after which a transfer is given up
LOST_FOR = 600.0  # seconds for which a shard that could not be fetched is not tried again


class LocalCopies:
    """A folder of copies.

    Args:
        folder: where to keep them; None means one of this user's in the folder for temporary files, by `owner`.
        most: copies kept at a time.
        owner: what the folder belongs to: a hash of the set.
    """

    def __init__(self, folder: str | None, most: int, owner: str) -> None:
        user = os.getuid() if hasattr(os, "getuid") else 0
        temporary = Path(tempfile.gettempdir()) / f"uniadapter-{user}" / owner[:16]
        self.folder, self.is_temporary, self.most = Path(folder or temporary).expanduser(), folder is None, most
        self._since = time.time()  # what an earlier run could not fetch may be there now
        self._guards: dict[tuple[int, str], threading.Lock] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_guards": {}}

    def get(self, address: str, size: int, sha256: str) -> Path:
        """The copy of a shard, fetched if it is not there.

        Args:
            address: of the shard.
            size: in bytes, compared with the copy's; 0 if it is not known.
            sha256: of its content, compared too; "" if it is not known.

        Raises:
            LostShard: it is not there, is another file than the index says, or could not be fetched in several tries.
        """
        name = f"{hashlib.sha256(f'{address} {size} {sha256}'.encode()).hexdigest()[:16]}.tar"
        copy, lost = self.folder / name, self.folder / f"{name}.lost"
        self._make_folder()
        with self._locked(name):
            if copy.exists():
                os.utime(copy)
                return copy
            with suppress(OSError):
                if lost.stat().st_mtime > max(self._since, time.time() - LOST_FOR):
                    raise LostShard(lost.read_text(encoding="utf-8"))
            try:
                self._fetch(address, copy, size, sha256)
            except DataError as error:
                with suppress(OSError):
                    lost.write_text(str(error), encoding="utf-8")
                raise LostShard(str(error)) from error
            with suppress(OSError):
                lost.unlink()
        self._make_room()
        return copy

    def _make_folder(self) -> None:
        """Make the folder; one for temporary files has a name that others know, so it must be this user's own."""
        self.folder.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder.mkdir(exist_ok=True, mode=0o700)
        owner = self.folder.parent.stat().st_uid
        if self.is_temporary and hasattr(os, "getuid") and owner != os.getuid():
            raise LostShard(f"{self.folder.parent} belongs to another user: set data.cache to a folder of your own")

    def close(self) -> None:
        """Remove the folder, unless it is one that the user has named."""
        if self.is_temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold a shard's lock among processes, where the system has locks, and among the threads of this one."""
        # By `lockf` and not `flock`, which a process that is forked meanwhile would hold on to. Nor may it use a lock
        # of a thread that it does not have, so each process has its own.
        guard = self._guards.setdefault((os.getpid(), name), threading.Lock())
        with guard, (self.folder / f"{name}.lock").open("w") as stream:
            if fcntl is not None:
                fcntl.lockf(stream, fcntl.LOCK_EX)
            yield

    def _fetch(self, address: str, copy: Path, size: int, sha256: str) -> None:
        def once() -> Path:
            part = copy.with_suffix(f".{uuid.uuid4().hex}.part")
            try:
                _transfer(address, part)
                check_shard(address, part, size, sha256)
            except BaseException:
                part.unlink(missing_ok=True)
                raise
            return part

        try:
            os.replace(retried(once, address), copy)
        except (FileNotFoundError, PermissionError) as error:
            raise DataError(f"{shortened(address, 160)}: {reason_of(error)}: check the address") from error

    def _make_room(self) -> None:
        """Remove the copies that were not used for longest, and what killed processes left."""
        with suppress(OSError):
            files = [(file.stat().st_mtime, file) for file in self.folder.iterdir()]
            copies = sorted((used, file) for used, file in files if file.suffix == ".tar")
            left = [file for used, file in files if file.suffix == ".part" and time.time() - used > LOST_FOR]
            for file in [*left, *(file for _, file in copies[: max(len(copies) - self.most, 0)])]:
                with suppress(OSError):
                    file.unlink()


def check_shard(address: str, file: Path, size: int, sha256: str) -> None:
    """Compare a shard's file with what the index says.

    Raises:
        DataError: it has another size or checksum.
    """
    there = file.stat().st_size
    if size and there != size:
        raise DataError(
            f"{shortened(address, 160)} has {there:,} bytes, and the index says {size:,}: copy it again, or write the "
            "index anew with `uniadapter shard --index_only`",
            "shard unlike its index",
        )
    if sha256 and file_hash(file) != sha256:
        raise DataError(
            f"{shortened(address, 160)} has another checksum than the index says: copy it again, or write the index "
            "anew with `uniadapter shard --index_only`",
            "shard unlike its index",
        )


def _transfer(address: str, target: Path) -> None:
    """Copy a file from an address; a transfer that stalls is left to its thread, since not every store has a timeout.

    Raises:
        TimeoutError: no byte came for `STALLED` seconds.
    """
    failed: list[BaseException] = []

    def copy() -> None:
        try:
            system, path = connect(address)
            system.get_file(path, str(target))
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    had, since = -1, time.monotonic()
    while thread.is_alive():
        thread.join(0.05 if had < 0 else 0.5)
        size = target.stat().st_size if target.exists() else -1
        if size != had:
            had, since = size, time.monotonic()
        elif thread.is_alive() and time.monotonic() - since > STALLED:
            raise TimeoutError(f"nothing came for {STALLED:g} s")
    if failed:
        raise failed[0]
