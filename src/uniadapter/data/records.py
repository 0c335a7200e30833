"""Annotation files as streams of rows, with errors that name the file and the row.

Read are JSON lists, JSONL (an object a line) and CSV (with a header); what the rows mean is for the file of each
layout to say. A row is named as Python would index it, `train.json[12].caption[3]`, or by its line,
`train.csv:13`.
"""

from __future__ import annotations

import csv
import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniadapter.config import OnError
from uniadapter.errors import DataError

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]
Required = tuple[str | tuple[str, ...], ...]
_JSON_SUFFIXES = {".json", ".jsonl", ".ndjson"}
_HEAD = 1 << 20  # characters of a JSON list that hold its first row


class Problems:
    """What becomes of a record that cannot be used: an error at once, or left out and counted.

    Args:
        on_error: "raise" or "skip".

    Attributes:
        skipped: kind of fault to how often it was met.
        listed: visuals that the file asks for, where it, or a list beside it, says so; None elsewhere.
        notes: what else a reader has to say of its file, for the split's summary.
    """

    def __init__(self, on_error: OnError = "raise") -> None:
        self.on_error = on_error
        self.skipped: Counter[str] = Counter()
        self.listed: int | None = None
        self.notes: list[str] = []

    def report(self, error: DataError) -> None:
        """Raise the error, or count it; the first of a kind is also logged."""
        if self.on_error == "raise":
            raise error
        self.skipped[error.kind] += 1
        if self.skipped[error.kind] == 1:
            logger.warning("left out (%s): %s", error.kind, error)


@dataclass(frozen=True, slots=True)
class Record:
    """One picture or video with one caption, as the file has them.

    Args:
        visual: path of the picture or video, as in the file.
        caption: the text, not cleaned.
        visual_id: the file's id of it; without one, the path.
        origin: where it stands: "FILE[INDEX]" or "FILE:LINE".
        noun: "picture" or "video", for messages; videos are also looked for under another suffix.
    """

    visual: str
    caption: str
    visual_id: str | int
    origin: str
    noun: str = "picture"


def read_rows(path: str | Path, problems: Problems, required: Required = ()) -> Iterator[tuple[str, Row]]:
    """Stream (origin, row) of a JSON list, JSONL or CSV; which of them shows in suffix and content.

    Args:
        path: the annotation file.
        problems: what becomes of rows that are no object or lack a field.
        required: fields that every row must have, and not null; of a tuple of fields, one.

    Raises:
        DataError: the file is missing, is none of these formats, or is cut off; the same with either
            `on_error`.
    """
    file = existing(path)
    readers = {"csv": _csv_rows, "jsonl": _jsonl_rows, "json": _json_rows}
    yield from checked_rows(readers[_format(file)](file, problems, required), problems, required)


def checked_rows(
    rows: Iterable[tuple[str, object]], problems: Problems, required: Required
) -> Iterator[tuple[str, Row]]:
    """Those of the (origin, row) that are objects with the required fields; the others are reported."""
    for origin, row in rows:
        if not isinstance(row, Mapping):
            message = f"{origin} is of type {type(row).__name__}: it should be an object with fields"
            problems.report(DataError(message, "not an object"))
        elif absent := _absent(required, {name for name, value in row.items() if value is not None}):
            problems.report(_no_field(origin, absent, row))
        else:
            yield origin, row


def text_field(origin: str, row: Row, name: str, wanted: str) -> str:
    """A field that must be a text and not empty; `wanted` says in the error what it should be."""
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        raise wrong_type(origin, name, value, wanted)
    return value


def caption_field(origin: str, row: Row, problems: Problems, name: str = "caption") -> Iterator[tuple[str, str]]:
    """Where each caption of a row stands, and the text; what is none is reported.

    Raises:
        DataError: the list of captions is empty.
    """
    value = row[name]
    if not isinstance(value, list):
        return _texts([(origin, value)], name, problems)
    if not value:
        message = f"{origin}: the list of captions is empty: give it one, or remove the record"
        raise DataError(message, "empty caption")
    return _texts([(f"{origin}.{name}[{index}]", one) for index, one in enumerate(value)], name, problems)


def first_row(path: str | Path) -> Row | None:
    """The first row of an annotation file (of CSV the header alone), which shows the layout; None if it is no object.

    A long JSON list is not read to its end for it.

    Raises:
        DataError: the file is missing or empty, or a JSON object in many lines that cannot be read.
    """
    file = existing(path)
    kind = _format(file)
    if kind == "csv":
        with file.open(encoding="utf-8-sig", newline="", errors="replace") as stream:
            header = next((line for line in stream if line.strip()), "")
        return dict.fromkeys((name.strip() for name in next(csv.reader([header], skipinitialspace=True))), "")
    with file.open(encoding="utf-8-sig", errors="replace") as stream:
        lines = (line for line in stream if line.strip())
        head = next(lines, "") if kind == "jsonl" else stream.read(_HEAD).lstrip()
    if kind == "json" and not head.startswith("["):
        content = read_json(file)
        return content if isinstance(content, dict) else None
    try:
        row, _ = json.JSONDecoder().raw_decode(head.removeprefix("[").lstrip())
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def read_json(file: Path) -> Any:
    """The content of a JSON file, or a `DataError`."""
    try:
        return json.loads(existing(file).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError too
        raise DataError(f"{file} is not JSON ({error}): is it complete?", "not JSON") from None


def existing(path: str | Path) -> Path:
    """The path of an annotation file, or a `DataError` if there is none."""
    file = Path(path)
    if not file.is_file():
        raise DataError(f"annotation file {file} does not exist: check the path in the config", "missing file")
    return file


def wrong_type(origin: str, name: str, value: object, wanted: str) -> DataError:
    """The error for a field that is empty or of the wrong type."""
    found = "empty" if isinstance(value, str) else f"of type {type(value).__name__}"
    return DataError(f"{origin}: field {name!r} is {found}: it should be {wanted}", f"unusable {name}")


def _texts(found: list[tuple[str, Any]], name: str, problems: Problems) -> Iterator[tuple[str, str]]:
    for where, caption in found:
        if isinstance(caption, str):
            yield where, caption
        else:
            problems.report(wrong_type(where, name, caption, "a text, or a list of texts"))


def _format(file: Path) -> str:
    suffix = file.suffix.lower()
    if suffix == ".csv":
        return "csv"
    with file.open("rb") as stream:
        first = next((line for line in (raw.strip(b"\xef\xbb\xbf \t\r\n") for raw in stream) if line), b"")
    if not first:
        raise DataError(f"{file} is empty: it should hold a JSON list, an object a line, or CSV", "empty file")
    if first[:1] == b"[":
        return "json"
    if first[:1] == b"{":
        return "jsonl" if suffix in {".jsonl", ".ndjson"} or _is_json(first) else "json"
    return "csv" if suffix not in _JSON_SUFFIXES else ("json" if suffix == ".json" else "jsonl")


def _is_json(text: bytes) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _json_rows(file: Path, problems: Problems, required: Required) -> Iterator[tuple[str, object]]:
    content = read_json(file)
    if not isinstance(content, list):
        shape = f"an object of {_names(content)}" if isinstance(content, dict) else type(content).__name__
        raise DataError(f"{file} is {shape}: it should be a list of records", "not a list of records")
    yield from ((f"{file}[{index}]", row) for index, row in enumerate(content))


def _jsonl_rows(file: Path, problems: Problems, required: Required) -> Iterator[tuple[str, object]]:
    with file.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            origin = f"{file}:{number}"
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig"))
            except (ValueError, RecursionError) as error:
                problems.report(DataError(f"{origin} is not JSON ({error}): write one object a line", "not JSON"))
                continue
            yield origin, row


def _csv_rows(file: Path, problems: Problems, required: Required) -> Iterator[tuple[str, object]]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, skipinitialspace=True)
        try:
            header = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = header
            if absent := _absent(
                required, set(header)
            ):  # no row can be right, so this is the file's fault and not to be skipped a row at a time
                raise _no_field(f"{file}:1 (the header)", absent, dict.fromkeys(header, ""))
            for row in reader:
                origin = f"{file}:{reader.line_num}"
                if None in row:
                    problems.report(
                        DataError(
                            f"{origin} has more columns than the header: quote a text that has a comma",
                            "too many columns",
                        )
                    )
                else:
                    yield origin, row
        except (csv.Error, UnicodeDecodeError) as error:
            where = f"{file}, after line {reader.line_num},"
            raise DataError(f"{where} is not CSV in UTF-8 ({error}): save it as such", "not CSV") from None


def _absent(required: Required, present: Set[str]) -> list[str]:
    """The fields that are lacking, quoted for an error; of a tuple, one is enough."""
    wanted = [(name,) if isinstance(name, str) else name for name in required]
    return [" or ".join(map(repr, names)) for names in wanted if present.isdisjoint(names)]


def _names(row: Row) -> str:
    return ", ".join(str(name) for name in row) or "nothing"


def _no_field(origin: str, absent: list[str], row: Row) -> DataError:
    has = _names({name: value for name, value in row.items() if value is not None})
    return DataError(
        f"{origin}: no field {' and '.join(absent)} (it has {has}): add it, or rename one", "missing field"
    )
