"""Annotation files opened: what form they have, their first row, and their rows as a stream.

Read are JSON lists and objects, JSONL (an object a line), tables (`tables.py`) and Parquet, the text formats also
gzipped; a folder is left to its layout. What else circulates, archives and pickles, is refused by name.
"""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from uniadapter.data.layouts import parquet, tables
from uniadapter.data.layouts.opening import BROKEN, lines_of, open_bytes, reason
from uniadapter.data.media.records import (
    DataError,
    ErrorPolicy,
    Required,
    Row,
    absent_fields,
    checked_rows,
    decoded,
    existing,
    expanded,
    field_names,
    no_field,
)

Form = Literal["list", "lines", "object", "table", "parquet", "folder"]
_HEAD = 1 << 20  # bytes of a file that hold its first row
_MOST = 1 << 32  # bytes of a document; once unpacked, a quarter of that
_LONGEST = 1 << 26  # bytes of a line of JSONL
_BLANK = b"\xef\xbb\xbf \t\r\n"
_REFUSED: tuple[tuple[int, bytes, str, str], ...] = (  # at, bytes, what it is, what to do
    (257, b"ustar", "a tar archive (a shard of img2dataset or WebDataset)", "unpack it, and name the folder"),
    (0, b"PK\x03\x04", "a zip archive or an Excel sheet", "unpack it, or save the sheet as CSV"),
    (0, b"BZh", "packed by bzip2", "unpack it"),
    (0, b"\xfd7zXZ", "packed by xz", "unpack it"),
    (0, b"\x28\xb5\x2f\xfd", "packed by zstd", "unpack it"),
    (0, b"7z\xbc\xaf", "a 7z archive", "unpack it"),
    (0, b"ARROW1", "an Arrow file", "save it as Parquet or JSONL"),
    (0, b"\x89HDF", "an HDF5 file", "save its rows as JSONL or CSV"),
    (0, b"SQLite format 3", "an SQLite data base", "save its rows as JSONL or CSV"),
    (0, b"\xff\xfe", "text in UTF-16", "save it in UTF-8"),
    (0, b"\xfe\xff", "text in UTF-16", "save it in UTF-8"),
)


@dataclass
class Source:
    """An annotation file or folder, looked into as far as its layout shows.

    Args:
        path: where it is.
        form: how its rows are kept.
        first: its first row; of an object the object itself, of a table its header; None if that is no object.
        table: how a table is divided.
    """

    path: Path
    form: Form
    first: Row | None = None
    table: tables.Table | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The file's name, lower case."""
        return self.path.name.lower()

    def rows(self, problems: ErrorPolicy, required: Required = ()) -> Iterator[tuple[str, object]]:
        """Stream (origin, row).

        Args:
            problems: what becomes of lines that cannot be read.
            required: fields that the header of a table must have.

        Raises:
            DataError: the file is cut off, or not of its form; the same with either `on_error`.
        """
        if self.form == "table":
            assert self.table is not None
            if absent := absent_fields(required, set(self.table.names)):
                # No row can be right, so this is the file's fault and not to be skipped a row at a time.
                raise no_field(f"{self.path}:1 (the header)", absent, dict.fromkeys(self.table.names, ""))
            return tables.table_rows(self.path, self.table, problems)
        if self.form == "lines" or (self.form == "object" and _one_line(self.path)):
            return _lines(self.path, problems)
        if self.form == "parquet":
            return parquet.parquet_rows(self.path)
        return _items(self.path, self.first if self.form == "object" else read_json(self.path))


@dataclass(frozen=True)
class Reading:
    """What a layout's reader is given.

    Args:
        source: the file or folder.
        problems: what becomes of records that cannot be used.
        wanted: what the rows are for: "caption" or "question".
        split: name of the split that is read, for files that hold several.
        captions: `data.captions`, for lists without captions.
        fields: `data.fields`, our names of fields to the file's.
    """

    source: Source
    problems: ErrorPolicy
    wanted: Literal["caption", "question"] = "caption"
    split: str = "train"
    captions: str | Path | None = None
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file or folder."""
        return self.source.path


def open_source(path: str | Path) -> Source:
    """Look into an annotation file, or take a folder.

    Raises:
        DataError: it is missing, empty, or nothing that is read.
    """
    if os.path.isdir(expanded(path)):
        return Source(expanded(path), "folder")
    file = existing(path)
    head = _head(file)
    if head.startswith(b"PAR1"):
        return Source(file, "parquet", parquet.first_row(file))
    text = head.lstrip(_BLANK)
    if not text:
        raise DataError(f"{file} is empty: it should hold a JSON list, an object a line, or CSV", "empty file")
    form = _text_form(file, text)
    if form == "object":
        return Source(file, form, read_json(file))
    if form == "table":
        table = tables.table_of(file, text.decode("utf-8", "replace"))
        return Source(file, form, dict.fromkeys(table.names, ""), table)
    return Source(file, form, _first_item(text if form == "list" else text.split(b"\n", 1)[0]))


def read_rows(path: str | Path, problems: ErrorPolicy, required: Required = ()) -> Iterator[tuple[str, Row]]:
    """Stream (origin, row) of a JSON list, JSONL, a table or Parquet; which of them shows in the content.

    Args:
        path: the annotation file.
        problems: what becomes of rows that are no object or lack a field.
        required: fields that every row must have, and not null; of a tuple of fields, one.

    Raises:
        DataError: the file is missing, is none of these formats, or is cut off; the same with either
            `on_error`.
    """
    yield from checked_rows(open_source(path).rows(problems, required), problems, required)


def first_row(path: str | Path) -> Row | None:
    """The first row of an annotation file (of a table the header alone), which shows the layout; None if it is none.

    A long JSON list is not read to its end for it.

    Raises:
        DataError: the file is missing or empty, or a JSON object in many lines that cannot be read.
    """
    return open_source(path).first


def read_json(path: str | Path) -> Any:
    """The content of a JSON file, gzipped or not, or a `DataError`."""
    file = existing(path)
    try:
        with open_bytes(file) as stream:
            content = _whole(stream)
        return decoded(content.decode("utf-8-sig"))
    except (ValueError, *BROKEN) as error:  # UnicodeDecodeError is a ValueError too
        raise DataError(f"{file} is not JSON ({error}): is it complete?", "not JSON") from None


def _whole(stream: IO[bytes]) -> bytes:
    """All that is left of a stream, by blocks: told how much it may be at most, it would take as much at once."""
    blocks, size = [], 0
    while block := stream.read(_HEAD):
        blocks.append(block)
        size += len(block)
        most = _MOST // 4 if isinstance(stream, gzip.GzipFile) else _MOST
        if size > most:
            raise ValueError(f"it holds more than {most >> 20:,} MB")
    return b"".join(blocks)


def _head(file: Path) -> bytes:
    try:
        with open_bytes(file) as stream:
            head = stream.read(_HEAD)
    except BROKEN as error:
        raise DataError(f"annotation file {file} cannot be read ({reason(error)})", "unreadable file") from None
    for at, mark, what, remedy in _REFUSED:
        if head.startswith(mark, at):
            raise DataError(f"{file} is {what}: {remedy}", "not an annotation file")
    if (head[:1] == b"\x80" and head[1:2] <= b"\x05") or file.suffix.lower() in (".pkl", ".pickle"):
        raise DataError(
            f"{file} is a pickle, which may hold code: save its rows as JSON; MSVD's raw-captions.pkl is named as "
            "data.captions, and its list, train_list_msvd.txt, as data.train",
            "pickle",
        )
    if b"\0" in head and not head.startswith(b"PAR1"):
        raise DataError(f"{file} is a binary file: it should be JSON, JSONL, CSV or Parquet", "not an annotation file")
    return head


def _text_form(file: Path, text: bytes) -> Form:
    """The form of a text file by its beginning, which is not blank."""
    suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() != ".gz"]
    suffix = suffixes[-1] if suffixes else ""
    if suffix in tables.SUFFIXES:
        return "table"
    if text[:1] == b"[":
        return "list"
    if text[:1] == b"{":
        return "lines" if suffix in {".jsonl", ".ndjson"} or _several_lines(file) else "object"
    return {".json": "list", ".jsonl": "lines", ".ndjson": "lines"}.get(suffix, "table")  # type: ignore[return-value]


def _several_lines(file: Path) -> bool:
    """Whether the first line is JSON of its own and others follow; the first of the two is asked last, for its cost."""
    with open_bytes(file) as stream:
        lines = (line for line in (raw.strip(_BLANK) for raw in lines_of(stream, _MOST)) if line)
        try:
            first = next(lines, b"")
            if next(lines, None) is None:
                return False
        except ValueError:
            return False
    try:
        decoded(first)
    except ValueError:
        return False
    return True


def _one_line(file: Path) -> bool:
    with open_bytes(file) as stream:
        return sum(bool(line.strip(_BLANK)) for line in stream) == 1


def _first_item(text: bytes) -> Row | None:
    try:
        row, _ = json.JSONDecoder().raw_decode(text.decode("utf-8", "replace").removeprefix("[").lstrip())
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, Mapping) else None


def _items(file: Path, content: object) -> Iterator[tuple[str, object]]:
    if not isinstance(content, list):
        shape = f"an object of {field_names(content)}" if isinstance(content, Mapping) else type(content).__name__
        raise DataError(
            f"{file} is {shape}: it should be a list of records, or one of the layouts in docs/data.md",
            "not a list of records",
        )
    return ((f"{file}[{index}]", row) for index, row in enumerate(content))


def _lines(file: Path, problems: ErrorPolicy) -> Iterator[tuple[str, object]]:
    with open_bytes(file) as stream:
        number = 0
        try:
            for number, line in enumerate(lines_of(stream, _LONGEST), start=1):
                if not line.strip():
                    continue
                origin = f"{file}:{number}"
                try:
                    row = decoded(line.decode("utf-8-sig"))
                except ValueError as error:
                    problems.report(DataError(f"{origin} is not JSON ({error}): write one object a line", "not JSON"))
                    continue
                yield origin, row
        except DataError:
            raise
        except (ValueError, *BROKEN) as error:
            raise DataError(f"{file} breaks off after line {number} ({reason(error)})", "cut off") from None
