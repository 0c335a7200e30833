"""What an index holds: two tables of LanceDB, of files and of their frames, in a folder or an object store.

Writing is idempotent. Frames come first and their file last, so that a killed run leaves frames without a file at most;
they are written again, or dropped, by the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uniadapter.search.lance import lancedb
from uniadapter.search.places import Place

_LISTED = 500  # hashes or paths in one condition
_WRITES = 100  # of one table, after which its fragments are merged
_GROWTH = 1.25  # writes until the next time, as a multiple of all so far; a merge rewrites what the table holds


@dataclass(frozen=True)
class FileRow:
    """A file of an index.

    Args:
        path: absolute.
        digest: hash of its content; "" if it could not be read.
        size: in bytes.
        changed: when it was changed, in nanoseconds.
        kind: "picture" or "video"; "" if it could not be read.
        seconds: of a video.
        taken: when it was taken, seconds since 1970.
        problem: why it is not found by searching; "" if nothing is wrong.
    """

    path: str
    digest: str
    size: int
    changed: int
    kind: str = ""
    seconds: float = 0.0
    taken: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class FrameRow:
    """A frame of an index.

    Args:
        digest: of the file's content.
        number: among its frames.
        time: in seconds.
        vector: unit vector [e], float32.
        thumbnail: as JPEG.
    """

    digest: str
    number: int
    time: float
    vector: NDArray[np.float32]
    thumbnail: bytes


@dataclass(frozen=True)
class Frames:
    """All frames of an index, without their thumbnails.

    Args:
        digests: [F].
        numbers: [F].
        times: [F].
        vectors: [F, e].
    """

    digests: NDArray[Any]
    numbers: NDArray[np.int64]
    times: NDArray[np.float64]
    vectors: NDArray[np.float32]


class Store:
    """The tables of an index.

    Args:
        place: of the index.
        width: e, of the vectors.

    Raises:
        UsageError: LanceDB is not installed.
    """

    def __init__(self, place: Place, width: int) -> None:
        self.place, self._lancedb = place, lancedb()
        import pyarrow as pa

        self._pa = pa
        self._schemas = {
            "files": pa.schema([
                ("path", pa.string()), ("digest", pa.string()), ("size", pa.int64()), ("changed", pa.int64()),
                ("kind", pa.string()), ("seconds", pa.float64()), ("taken", pa.float64()), ("problem", pa.string()),
            ]),
            "frames": pa.schema([
                ("id", pa.string()), ("digest", pa.string()), ("number", pa.int64()), ("time", pa.float64()),
                ("vector", pa.list_(pa.float32(), width)), ("thumbnail", pa.binary()),
            ]),
        }  # fmt: skip
        self._tables: dict[str, Any] = {}
        self._writes, self._compact_at = Counter[str](), dict.fromkeys(self._schemas, _WRITES)

    def create(self) -> None:
        """Create the tables that are not there yet; the caller holds the claim to write."""
        for name in self._schemas:
            self._table(name)

    def _table(self, name: str) -> Any:
        if name not in self._tables:
            database = self._lancedb.connect(self.place.tables)
            self._tables[name] = database.create_table(name, schema=self._schemas[name], exist_ok=True)
        return self._tables[name]

    def _read(self, name: str, columns: list[str]) -> Any:
        table = self._table(name)
        table.checkout_latest()
        return table.search().select(columns).limit(max(1, table.count_rows())).to_arrow()

    def version(self) -> tuple[int, int]:
        """A number for each table that changes with what is in it."""
        for name in self._schemas:
            self._table(name).checkout_latest()
        return self._table("files").version, self._table("frames").version

    def files(self) -> dict[str, FileRow]:
        """All files by path."""
        rows = self._read("files", self._schemas["files"].names).to_pylist()
        return {row["path"]: FileRow(**row) for row in rows}

    def frames(self) -> Frames:
        """All frames, those of a file in their order; so that no result depends on what was written first."""
        found = self._read("frames", ["digest", "number", "time", "vector"])
        found = found.sort_by([("digest", "ascending"), ("number", "ascending")])
        width = self._schemas["frames"].field("vector").type.list_size
        vectors = found["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return Frames(
            np.array(found["digest"].to_pylist(), dtype=object), found["number"].to_numpy(), found["time"].to_numpy(),
            np.asarray(vectors, np.float32).reshape(-1, width),
        )  # fmt: skip

    def nearest(self, vector: NDArray[np.float32], count: int) -> list[tuple[str, int, float, float]]:
        """Digest, number, time and similarity of the most similar frames, by LanceDB's index if it has one."""
        found = self._table("frames").search(vector).distance_type("dot").select(["digest", "number", "time"])
        rows = found.limit(count).to_list()
        return [(row["digest"], row["number"], row["time"], 1.0 - row["_distance"]) for row in rows]

    def thumbnails(self, wanted: Sequence[tuple[str, int]]) -> dict[tuple[str, int], bytes]:
        """Thumbnails by digest and number."""
        out: dict[tuple[str, int], bytes] = {}
        for start in range(0, len(wanted), _LISTED):
            ids = [_id(digest, number) for digest, number in wanted[start : start + _LISTED]]
            rows = self._table("frames").search().where(_among("id", ids)).select(["digest", "number", "thumbnail"])
            out |= {(row["digest"], row["number"]): row["thumbnail"] for row in rows.limit(len(ids)).to_list()}
        return out

    def put_frames(self, rows: Sequence[FrameRow]) -> None:
        """Write frames; those that are there are replaced."""
        if rows:
            values = [{**asdict(row), "id": _id(row.digest, row.number), "vector": row.vector.tolist()} for row in rows]
            self._put("frames", "id", values)

    def put_files(self, rows: Sequence[FileRow]) -> None:
        """Write files; those that are there are replaced."""
        if rows:
            self._put("files", "path", [asdict(row) for row in rows])

    def _put(self, name: str, key: str, values: list[dict[str, Any]]) -> None:
        self.place.check()
        merge = self._table(name).merge_insert(key).when_matched_update_all().when_not_matched_insert_all()
        merge.execute(self._pa.Table.from_pylist(values, schema=self._schemas[name]))
        self._writes[name] += 1
        if self._writes[name] >= self._compact_at[name]:  # each write looks into every fragment
            self._compact(name)
            self._compact_at[name] = ceil(self._writes[name] * _GROWTH)

    def drop_files(self, paths: Sequence[str]) -> None:
        """Delete files; their frames stay until `drop_unused`."""
        self.place.check()
        for start in range(0, len(paths), _LISTED):
            self._table("files").delete(_among("path", paths[start : start + _LISTED]))

    def drop_unused(self) -> None:
        """Delete the frames of no file."""
        used = {row.digest for row in self.files().values() if not row.problem}
        there = set(self._read("frames", ["digest"])["digest"].to_pylist())
        unused = sorted(there - used)
        self.place.check()
        for start in range(0, len(unused), _LISTED):
            self._table("frames").delete(_among("digest", unused[start : start + _LISTED]))

    def compact(self) -> None:
        """Merge small fragments, and forget old versions, which no reader uses any more."""
        for name in self._schemas:
            self._compact(name)

    def _compact(self, name: str) -> None:
        self._table(name).optimize(cleanup_older_than=timedelta(hours=1))

    def build_ann(self) -> None:
        """Build the approximate index of LanceDB over the vectors."""
        self._table("frames").create_index(metric="dot", index_type="IVF_HNSW_SQ", replace=True)


def _id(digest: str, number: int) -> str:
    return f"{digest}:{number:04d}"


def _among(column: str, values: Sequence[str]) -> str:
    """A condition of SQL; a quote in a value is doubled."""
    listed = ", ".join("'" + value.replace("'", "''") + "'" for value in values)
    return f"{column} IN ({listed})"
