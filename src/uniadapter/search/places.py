"""Where an index is: its description, the claim of the one process that writes, and the address of its tables.

A folder has a file for each. An object store has neither locks nor folders: see `search.object_store`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any, Protocol

from uniadapter.errors import DataError, UsageError
from uniadapter.files.schema import SchemaError, read_json
from uniadapter.files.writing import write_text
from uniadapter.search.lance import TABLES

DESCRIPTION, LOCK = "index.json", "lock"
SCHEMES = ("s3", "gs", "az")  # of the object stores that LanceDB knows


class Place(Protocol):
    """Where an index is."""

    @property
    def name(self) -> str:
        """As the user knows it."""

    @property
    def tables(self) -> str:
        """Address of the tables, for LanceDB."""

    def described(self) -> dict[str, Any] | None:
        """What the index was made with; None if there is none.

        Raises:
            DataError: the description is broken, or something else is there.
        """

    def describe(self, description: dict[str, Any]) -> None:
        """Write what the index is made with."""

    def writing(self) -> AbstractContextManager[None]:
        """Within the block no other process writes.

        Raises:
            UsageError: another process is writing.
        """

    def check(self) -> None:
        """Called before each writing.

        Raises:
            UsageError: the claim of `writing` is lost.
        """

    def told(self) -> AbstractContextManager[None]:
        """Within the block the failures of a store become one line.

        Raises:
            DataError: the store cannot be reached.
        """

    def delete(self) -> None:
        """Delete the index."""


class Folder:
    """An index in a folder; created by the first writing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def name(self) -> str:
        """See `Place`."""
        return str(self.folder)

    @property
    def tables(self) -> str:
        """See `Place`."""
        return str(self.folder / TABLES)

    def described(self) -> dict[str, Any] | None:
        """See `Place`."""
        if self.folder.exists() and not self.folder.is_dir():
            raise DataError(f"{self.folder}: a file, no index", "no index")
        file = self.folder / DESCRIPTION
        if not file.is_file():
            if self.folder.exists() and {file.name for file in self.folder.iterdir()} - {LOCK, TABLES}:
                raise DataError(f"{self.folder}: a folder of other files, no index; name a new one", "no index")
            return None
        with suppress(SchemaError, OSError):
            found = read_json(file)
            if isinstance(found, dict):
                return found
        raise DataError(f"{file}: broken; build the index again", "broken index")

    def describe(self, description: dict[str, Any]) -> None:
        """See `Place`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / DESCRIPTION, json.dumps(description, indent=1) + "\n")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See `Place`; the system ends the claim with the process."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LOCK).open("w") as file:
            if os.name == "posix":
                import fcntl

                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    raise UsageError(f"{self.folder}: another process is indexing into it; wait for it") from None
            yield

    def check(self) -> None:
        """See `Place`; this claim is never lost."""

    def told(self) -> AbstractContextManager[None]:
        """See `Place`; a file's failure names the file."""
        return nullcontext()

    def delete(self) -> None:
        """See `Place`."""
        shutil.rmtree(self.folder)


def place_of(named: str | Path) -> Place:
    """The place that a path or an address names.

    Raises:
        UsageError: an address of another kind.
    """
    scheme, sign, _ = str(named).partition("://")
    if not isinstance(named, str) or not sign:
        return Folder(Path(named).expanduser())
    if scheme not in SCHEMES:
        raise UsageError(f"{named}: an index is in a folder, or at {', '.join(f'{one}://' for one in SCHEMES)}")
    from uniadapter.search.object_store import ObjectStore

    return ObjectStore(named)


def check_there(named: str | Path) -> None:
    """Check that there is an index.

    Raises:
        DataError: there is none; says how to make it.
    """
    if place_of(named).described() is None:
        raise DataError(f"{named}: no index; make one with uniadapter index FOLDER --index {named}", "no index")
