"""An index in an object store: what a folder has as files is rows of a third table, which LanceDB changes atomically.

The claim of the process that writes is a row with an owner and a time until which it holds. It is taken by one commit
that takes hold only where the row is out of date or one's own, so that of two processes one wins; the owner
puts the time off while it lives, and before each writing. Clocks of the machines must agree to within a minute.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import cached_property
from typing import Any

from uniadapter.errors import DataError, UsageError
from uniadapter.files.messages import shortened
from uniadapter.search.lance import TABLES, lancedb

HELD = 120.0  # seconds for which a claim holds
BEAT = 20.0  # seconds after which it is put off
_TRIES = 5
_ABOUT, _DESCRIPTION, _CLAIM = "about", "description", "claim"


class ObjectStore:
    """An index at an address that LanceDB knows; endpoint and credentials are taken from the environment by LanceDB.

    Args:
        address: `s3://bucket/my.index`, say.

    Raises:
        UsageError: LanceDB is not installed.
    """

    def __init__(self, address: str) -> None:
        self.name = address.rstrip("/")
        self.tables = f"{self.name}/{TABLES}"
        self._lancedb = lancedb()
        self._owner = uuid.uuid4().hex
        self._writes = False

    @cached_property
    def _database(self) -> Any:
        return self._lancedb.connect(self.tables)

    @contextmanager
    def told(self) -> Iterator[None]:
        """See `Place`."""
        try:
            yield
        except RuntimeError as error:
            if not str(error).startswith("lance error"):
                raise
            raise self._unreachable(error) from error

    def _unreachable(self, error: Exception) -> DataError:
        reason = shortened(" ".join(str(error).split()), 120)
        where = "look at the address, and at endpoint and credentials in the environment"
        return DataError(f"{self.name}: cannot be reached; {where} ({reason})", "no index")

    def _table(self) -> Any:
        """The third table, made with a claim of nobody: were it inserted, two could do so, and each take its own."""
        import pyarrow as pa

        schema = pa.schema([("key", pa.string()), ("value", pa.string()), ("until", pa.float64())])
        free = pa.Table.from_pylist([{"key": _CLAIM, "value": "", "until": 0.0}], schema=schema)
        table = self._database.create_table(_ABOUT, free, exist_ok=True)
        table.checkout_latest()
        return table

    def _change(self, key: str, value: str, until: float, condition: str | None = None) -> bool:
        """Write a row, where a condition of SQL holds for the one that is there; returns whether it did."""
        import pyarrow as pa

        table = self._table()
        row = pa.Table.from_pylist([{"key": key, "value": value, "until": until}], schema=table.schema)
        change = table.merge_insert("key").when_matched_update_all(where=condition)
        done = (change if condition else change.when_not_matched_insert_all()).execute(row)
        return bool(done.num_updated_rows + done.num_inserted_rows)

    def described(self) -> dict[str, Any] | None:
        """See `Place`."""
        try:
            there = self._database.list_tables(limit=1000).tables
        except (ValueError, RuntimeError, OSError) as error:  # the first that asks the store
            raise self._unreachable(error) from error
        if _ABOUT not in there:
            return None
        with self.told():
            rows = self._table().search().where(f"key = '{_DESCRIPTION}'").to_list()
        if not rows:
            return None
        try:
            found = json.loads(rows[0]["value"])
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise DataError(f"{self.name}: its description is broken; build the index again", "broken index")
        return found

    def describe(self, description: dict[str, Any]) -> None:
        """See `Place`."""
        self.check()
        with self.told():
            self._change(_DESCRIPTION, json.dumps(description), 0.0)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See `Place`; a killed process' claim ends after `HELD` seconds."""
        with self.told():
            claimed = self._claim()
        if not claimed:
            raise UsageError(
                f"{self.name}: another process is indexing into it, or died less than {HELD:.0f} s ago; wait"
            )
        self._writes, ended = True, threading.Event()
        beating = threading.Thread(target=self._beat, args=(ended,), daemon=True)
        beating.start()
        try:
            yield
        finally:
            ended.set()
            beating.join()
            self._writes = False
            with suppress(ValueError, RuntimeError, OSError):  # else it ends by itself
                self._change(_CLAIM, "", 0.0, f"target.value = '{self._owner}'")
                self._table().optimize(cleanup_older_than=timedelta(hours=1))

    def _claim(self) -> bool:
        """Take the claim, or put it off; returns whether it is one's own now."""
        for _ in range(_TRIES):
            now = time.time()
            free = f"target.until < {now} OR target.value = '{self._owner}'"
            try:
                return self._change(_CLAIM, self._owner, now + HELD, free)
            except RuntimeError as error:  # another makes or changes the table at the same moment
                if "concurrent transaction" not in str(error):
                    raise
                time.sleep(0.2)
        return False

    def _beat(self, ended: threading.Event) -> None:
        """Put the claim off until the block ends; what fails is left to the next time, and to `check`."""
        while not ended.wait(BEAT):
            with suppress(ValueError, RuntimeError, OSError):
                self._claim()

    def check(self) -> None:
        """See `Place`; the store is asked, because who makes the tables at the same moment may overwrite the claim."""
        if self._writes:
            with self.told():
                own = self._claim()
            if not own:
                raise UsageError(f"{self.name}: another process indexes into it since this one paused; run it again")

    def delete(self) -> None:
        """See `Place`."""
        with self.told():
            self._database.drop_all_tables()
