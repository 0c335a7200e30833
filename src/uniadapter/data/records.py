"""Annotation files as streams of records, with errors that name the file and the record.

Read are the files in circulation (lists of `{image, caption, image_id}`, the caption a text or a list of
texts) and one's own: JSONL (an object a line) or CSV (with a header) of `image, caption`. A record is named
as Python would index it, `train.json[12].caption[3]`, or by its line, `train.csv:13`.
"""

from __future__ import annotations

import csv
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniadapter.config import OnError

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]
_JSON_SUFFIXES = {".json", ".jsonl", ".ndjson"}


class DataError(ValueError):
    """Data that cannot be used; one line that says what is wrong, where, and what to do.

    Args:
        message: the line.
        kind: a few words that the same fault of another record shares; skipped records are counted by it.
    """

    def __init__(self, message: str, kind: str = "unusable data") -> None:
        super().__init__(" ".join(message.split()))
        self.kind = kind


class Problems:
    """What becomes of a record that cannot be used: an error at once, or left out and counted.

    Args:
        on_error: "raise" or "skip".

    Attributes:
        skipped: kind of fault to how often it was met.
    """

    def __init__(self, on_error: OnError = "raise") -> None:
        self.on_error = on_error
        self.skipped: Counter[str] = Counter()

    def report(self, error: DataError) -> None:
        """Raise the error, or count it; the first of a kind is also logged."""
        if self.on_error == "raise":
            raise error
        self.skipped[error.kind] += 1
        if self.skipped[error.kind] == 1:
            logger.warning("left out (%s): %s", error.kind, error)


@dataclass(frozen=True, slots=True)
class Record:
    """One picture with one caption, as the file has them.

    Args:
        image: path of the picture, as in the file.
        caption: the text, not cleaned.
        image_id: the file's `image_id`; without one, the path.
        origin: where it stands: "FILE[INDEX]" or "FILE:LINE".
    """

    image: str
    caption: str
    image_id: str | int
    origin: str


def read_rows(path: str | Path, problems: Problems, required: tuple[str, ...] = ()) -> Iterator[tuple[str, Row]]:
    """Stream (origin, row) of a JSON list, JSONL or CSV; which of them shows in suffix and content.

    Args:
        path: the annotation file.
        problems: what becomes of rows that are no object or lack a field.
        required: fields that every row must have, and not null.

    Raises:
        DataError: the file is missing, is none of these formats, or is cut off; the same with either
            `on_error`.
    """
    file = Path(path)
    if not file.is_file():
        raise DataError(f"annotation file {file} does not exist: check the path in the config", "missing file")
    readers = {"csv": _csv_rows, "jsonl": _jsonl_rows, "json": _json_rows}
    for origin, row in readers[_format(file)](file, problems, required):
        absent = [name for name in required if row.get(name) is None]
        if absent:
            problems.report(_no_field(origin, absent, row))
        else:
            yield origin, row


def read_records(path: str | Path, problems: Problems) -> Iterator[Record]:
    """Stream the (picture, caption) pairs of an annotation file, a record for each caption, in file order.

    Args:
        path: the annotation file.
        problems: what becomes of records that cannot be used.

    Raises:
        DataError: as `read_rows`; with `on_error="raise"` also for the first bad record.
    """
    for origin, row in read_rows(path, problems, required=("image", "caption")):
        try:
            image, image_id, captions = _picture_fields(origin, row)
        except DataError as error:
            problems.report(error)
            continue
        for where, caption in captions:
            if isinstance(caption, str):
                yield Record(image, caption, image_id, where)
            else:
                problems.report(_wrong_type(where, "caption", caption, "a text, or a list of texts"))


def resolve_picture(root: Path, image: str, origin: str) -> Path:
    """The file that a record's `image` names: relative to `root`, or absolute.

    Raises:
        DataError: a relative path climbs out of `root` by `..`.
    """
    normal = os.path.normpath(image)
    if normal.split(os.sep)[0] == os.pardir:
        raise DataError(
            f"{origin}: picture {image} is outside the data folder {root}: if meant, write it in full",
            "path outside the data folder",
        )
    return root / normal


def _picture_fields(origin: str, row: Row) -> tuple[str, str | int, list[tuple[str, Any]]]:
    image, caption = row["image"], row["caption"]
    if not isinstance(image, str) or not image.strip():
        raise _wrong_type(origin, "image", image, "the path of a picture")
    image_id = row.get("image_id")
    if image_id is None or image_id == "":
        image_id = image
    if not isinstance(image_id, (str, int)):
        raise _wrong_type(origin, "image_id", image_id, "a text or a whole number")
    if not isinstance(caption, list):
        return image, image_id, [(origin, caption)]
    if not caption:
        raise DataError(f"{origin}: the list of captions is empty: give it one, or remove the record", "empty caption")
    return image, image_id, [(f"{origin}.caption[{index}]", one) for index, one in enumerate(caption)]


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


def _json_rows(file: Path, problems: Problems, required: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:  # UnicodeDecodeError is a ValueError too
        raise DataError(f"{file} is not JSON ({error}): is it complete?", "not JSON") from None
    if not isinstance(content, list):
        shape = f"an object of {_names(content)}" if isinstance(content, dict) else type(content).__name__
        raise DataError(f"{file} is {shape}: it should be a list of records", "not a list of records")
    for index, row in enumerate(content):
        origin = f"{file}[{index}]"
        if isinstance(row, dict):
            yield origin, row
        else:
            problems.report(_not_an_object(origin, row))


def _jsonl_rows(file: Path, problems: Problems, required: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
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
            if isinstance(row, dict):
                yield origin, row
            else:
                problems.report(_not_an_object(origin, row))


def _csv_rows(file: Path, problems: Problems, required: tuple[str, ...]) -> Iterator[tuple[str, Row]]:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        reader = csv.DictReader(stream, skipinitialspace=True)
        try:
            header = [name.strip() for name in reader.fieldnames or []]
            reader.fieldnames = header
            absent = [name for name in required if name not in header]
            if absent:  # no row can be right, so this is the file's fault and not to be skipped a row at a time
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


def _names(row: Row) -> str:
    return ", ".join(str(name) for name in row) or "nothing"


def _no_field(origin: str, absent: list[str], row: Row) -> DataError:
    names = " and ".join(repr(name) for name in absent)
    has = _names({name: value for name, value in row.items() if value is not None})
    return DataError(f"{origin}: no field {names} (it has {has}): add it, or rename one", "missing field")


def _wrong_type(origin: str, name: str, value: object, wanted: str) -> DataError:
    found = "empty" if isinstance(value, str) else f"of type {type(value).__name__}"
    return DataError(f"{origin}: field {name!r} is {found}: it should be {wanted}", f"unusable {name}")


def _not_an_object(origin: str, row: object) -> DataError:
    return DataError(f"{origin} is of type {type(row).__name__}: it should be an object with fields", "not an object")
