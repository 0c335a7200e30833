"""Opening of annotation files: their format, their first row, and a stream of their rows.

Formats: JSON lists and objects, JSONL, tables (`tables.py`) and Parquet; text formats may be gzipped. Folders are read
by their layout. Archives and pickles are refused with an error that names the format.
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
from uniadapter.data.layouts.open_files import BROKEN, error_reason, open_bytes, read_lines
from uniadapter.data.layouts.records import (
    DataError,
    ErrorPolicy,
    Required,
    Row,
    annotation_path,
    expand_home,
    field_names,
    missing_field_error,
    missing_fields,
    parse_json,
    usable_rows,
)

Form = Literal["list", "lines", "object", "table", "parquet", "folder"]
_HEAD_BYTES = 1 << 20  # beginning of a file, in which its first row is expected
_MAX_BYTES = 1 << 32  # of a JSON document; of a gzipped one, decompressed, a quarter
_MAX_LINE_BYTES = 1 << 26  # of a line of JSONL
_BLANK = b"\xef\xbb\xbf \t\r\n"
_REFUSED: tuple[tuple[int, bytes, str, str], ...] = (  # offset, magic bytes, format, remedy
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
class AnnotationFile:
    """An annotation file or folder, read as far as needed to detect its layout.

    Args:
        path: the file or folder.
        form: its format.
        first: the first row; for "object" the whole object, for "table" the header as keys; None if the first row is
            not an object.
        table: delimiter and header of a table.
    """

    path: Path
    form: Form
    first: Row | None = None
    table: tables.Table | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The file's name, lower case."""
        return self.path.name.lower()

    def rows(self, policy: ErrorPolicy, required: Required = ()) -> Iterator[tuple[str, object]]:
        """Stream (origin, row).

        Args:
            policy: handles lines that cannot be read.
            required: fields that the header of a table must have.

        Raises:
            DataError: the file is truncated or not of its format, whatever `on_error` is.
        """
        if self.form == "table":
            assert self.table is not None
            if absent := missing_fields(required, set(self.table.names)):
                # Every row would fail, so raise for the file even with `on_error="skip"`.
                raise missing_field_error(f"{self.path}:1 (the header)", absent, dict.fromkeys(self.table.names, ""))
            return tables.table_rows(self.path, self.table, policy)
        if self.form == "lines" or (self.form == "object" and _has_one_line(self.path)):
            return _lines(self.path, policy)
        if self.form == "parquet":
            return parquet.parquet_rows(self.path)
        return _items(self.path, self.first if self.form == "object" else read_json(self.path))


@dataclass(frozen=True)
class ReadRequest:
    """The arguments of a layout's reader.

    Args:
        source: the file or folder.
        policy: handles records that cannot be used.
        wanted: whether rows of captions or of questions are read.
        split: to read, from files with several.
        captions: `data.captions`, for lists without captions.
        fields: `data.fields`, expected field names to the file's.
    """

    source: AnnotationFile
    policy: ErrorPolicy
    wanted: Literal["caption", "question"] = "caption"
    split: str = "train"
    captions: str | Path | None = None
    fields: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The file or folder."""
        return self.source.path


def open_annotations(path: str | Path) -> AnnotationFile:
    """Open an annotation file or folder, and read its first row.

    Raises:
        DataError: it is missing, empty, or of an unsupported format.
    """
    if os.path.isdir(expand_home(path)):
        return AnnotationFile(expand_home(path), "folder")
    file = annotation_path(path)
    head = _head(file)
    if head.startswith(b"PAR1"):
        return AnnotationFile(file, "parquet", parquet.first_row(file))
    text = head.lstrip(_BLANK)
    if not text:
        raise DataError(f"{file} is empty: it should hold a JSON list, one object per line, or CSV", "empty file")
    form = _text_form(file, text)
    if form == "object":
        return AnnotationFile(file, form, read_json(file))
    if form == "table":
        table = tables.detect_table(file, text.decode("utf-8", "replace"))
        return AnnotationFile(file, form, dict.fromkeys(table.names, ""), table)
    return AnnotationFile(file, form, _first_item(text if form == "list" else text.split(b"\n", 1)[0]))


def read_rows(path: str | Path, policy: ErrorPolicy, required: Required = ()) -> Iterator[tuple[str, Row]]:
    """Stream (origin, row) of a JSON list, JSONL, a table or Parquet; the format is detected from the content.

    Args:
        path: the annotation file.
        policy: handles rows that are not objects or lack a field.
        required: fields that every row must have, not null; of a tuple of fields, one is enough.

    Raises:
        DataError: the file is missing, truncated or in another format, whatever `on_error` is.
    """
    yield from usable_rows(open_annotations(path).rows(policy, required), policy, required)


def first_row(path: str | Path) -> Row | None:
    """The first row of an annotation file (of a table the header as keys); None if it is not an object.

    Only the beginning of a JSON list is read.

    Raises:
        DataError: the file is missing, empty, or a JSON object that cannot be read.
    """
    return open_annotations(path).first


def read_json(path: str | Path) -> Any:
    """The content of a JSON file, which may be gzipped.

    Raises:
        DataError: it is missing, too large or not JSON.
    """
    file = annotation_path(path)
    try:
        with open_bytes(file) as stream:
            content = _read_limited(stream)
        return parse_json(content.decode("utf-8-sig"))
    except (ValueError, *BROKEN) as error:  # UnicodeDecodeError is a ValueError too
        raise DataError(f"{file} is not JSON ({error}): is it complete?", "not JSON") from None


def _read_limited(stream: IO[bytes]) -> bytes:
    """The rest of a stream; read by blocks, since a read with a limit would allocate all of it at once."""
    blocks, size = [], 0
    while block := stream.read(_HEAD_BYTES):
        blocks.append(block)
        size += len(block)
        most = _MAX_BYTES // 4 if isinstance(stream, gzip.GzipFile) else _MAX_BYTES
        if size > most:
            raise ValueError(f"it holds more than {most >> 20:,} MB")
    return b"".join(blocks)


def _head(file: Path) -> bytes:
    try:
        with open_bytes(file) as stream:
            head = stream.read(_HEAD_BYTES)
    except BROKEN as error:
        raise DataError(f"annotation file {file} cannot be read ({error_reason(error)})", "unreadable file") from None
    for at, mark, what, remedy in _REFUSED:
        if head.startswith(mark, at):
            raise DataError(f"{file} is {what}: {remedy}", "not an annotation file")
    if (head[:1] == b"\x80" and head[1:2] <= b"\x05") or file.suffix.lower() in (".pkl", ".pickle"):
        raise DataError(
            f"{file} is a pickle, which may hold code: save its rows as JSON; for MSVD set data.captions to "
            "raw-captions.pkl, and data.train to the list, train_list_msvd.txt",
            "pickle",
        )
    if b"\0" in head and not head.startswith(b"PAR1"):
        raise DataError(f"{file} is a binary file: it should be JSON, JSONL, CSV or Parquet", "not an annotation file")
    return head


def _text_form(file: Path, text: bytes) -> Form:
    """The format of a text file, by its suffix and its beginning, which is not blank."""
    suffixes = [suffix.lower() for suffix in file.suffixes if suffix.lower() != ".gz"]
    suffix = suffixes[-1] if suffixes else ""
    if suffix in tables.SUFFIXES:
        return "table"
    if text[:1] == b"[":
        return "list"
    if text[:1] == b"{":
        return "lines" if suffix in {".jsonl", ".ndjson"} or _is_json_lines(file) else "object"
    return {".json": "list", ".jsonl": "lines", ".ndjson": "lines"}.get(suffix, "table")  # type: ignore[return-value]


def _is_json_lines(file: Path) -> bool:
    """Whether there are several lines and the first one is valid JSON; parsing comes last, because it is slow."""
    with open_bytes(file) as stream:
        lines = (line for line in (raw.strip(_BLANK) for raw in read_lines(stream, _MAX_BYTES)) if line)
        try:
            first = next(lines, b"")
            if next(lines, None) is None:
                return False
        except ValueError:
            return False
    try:
        parse_json(first)
    except ValueError:
        return False
    return True


def _has_one_line(file: Path) -> bool:
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


def _lines(file: Path, policy: ErrorPolicy) -> Iterator[tuple[str, object]]:
    with open_bytes(file) as stream:
        number = 0
        try:
            for number, line in enumerate(read_lines(stream, _MAX_LINE_BYTES), start=1):
                if not line.strip():
                    continue
                origin = f"{file}:{number}"
                try:
                    row = parse_json(line.decode("utf-8-sig"))
                except ValueError as error:
                    policy.report(DataError(f"{origin} is not JSON ({error}): write one object per line", "not JSON"))
                    continue
                yield origin, row
        except DataError:
            raise
        except (ValueError, *BROKEN) as error:
            raise DataError(f"{file} breaks off after line {number} ({error_reason(error)})", "cut off") from None
