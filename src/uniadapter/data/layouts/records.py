"""Rows of annotation files, the records made from them, and errors that name the file and the row.

`annotation_file.py` opens files; one file per layout interprets their rows. The origin of a row is a
Python-like index, `train.json[12].caption[3]`, or a line number, `train.csv:13`.
"""

from __future__ import annotations

import ast
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniadapter.errors import DataError, OnError
from uniadapter.files.messages import shortened

logger = logging.getLogger(__name__)

Row = Mapping[str, Any]
Required = tuple[str | tuple[str, ...], ...]
_ERRORS_KEPT = 1000  # of each kind
_CAPTION_KEYS = ("caption", "raw", "text", "sentence", "caption_str")  # of a caption that is an object


class ErrorPolicy:
    """Handles records that cannot be used: raises, or skips and counts them.

    Args:
        on_error: "raise" or "skip".
        quiet: log nothing, for a first pass over a file.

    Attributes:
        skipped: kind of error to the number of records with it.
        errors: kind of error to what is wrong with its first thousand records, and where.
        changed: description to the number of values that were converted or ignored.
        listed: number of visuals in the file's list of videos; None if there is no list.
        notes: further parts of the split's summary.
    """

    def __init__(self, on_error: OnError = "raise", quiet: bool = False) -> None:
        self.on_error, self.quiet = on_error, quiet
        self.skipped: Counter[str] = Counter()
        self.errors: dict[str, list[str]] = {}
        self.changed: Counter[str] = Counter()
        self.listed: int | None = None
        self.notes: list[str] = []

    def report(self, error: DataError) -> None:
        """Raise the error, or count it; the first one of each kind is logged."""
        if self.on_error == "raise":
            raise error
        self.skipped[error.kind] += 1
        if self.skipped[error.kind] <= _ERRORS_KEPT:
            self.errors.setdefault(error.kind, []).append(str(error))
        if self.skipped[error.kind] == 1 and not self.quiet:
            logger.warning("left out (%s): %s", error.kind, error)


@dataclass(frozen=True, slots=True)
class Record:
    """One picture or video with one caption, as read from a file.

    Args:
        visual: path of the picture or video, as in the file.
        caption: the text, not cleaned.
        visual_id: the file's id of the visual; its path if the file has none.
        origin: position in the file: "FILE[INDEX]" or "FILE:LINE".
        noun: "picture" or "video"; videos are also searched for with other suffixes.
        others: alternative paths, if the file has only an id or a bare name.
        group: visuals with the same one are each other's hard negatives; None if the row names none.
    """

    visual: str
    caption: str
    visual_id: str | int
    origin: str
    noun: str = "picture"
    others: tuple[str, ...] = ()
    group: str | int | None = None


def usable_rows(
    rows: Iterable[tuple[str, object]], policy: ErrorPolicy, required: Required
) -> Iterator[tuple[str, Row]]:
    """Yield the (origin, row) that are objects with all required fields, and report the others."""
    for origin, row in rows:
        if not isinstance(row, Mapping):
            message = f"{origin} is of type {type(row).__name__}: it should be an object with fields"
            policy.report(DataError(message, "not an object"))
        elif absent := missing_fields(required, {name for name, value in row.items() if value is not None}):
            policy.report(missing_field_error(origin, absent, row))
        else:
            yield origin, row


def text_field(origin: str, row: Row, name: str, wanted: str) -> str:
    """The value of a field that must be a non-empty string.

    Args:
        origin: position of the row, for errors.
        row: the row.
        name: of the field.
        wanted: what the field should be, for the error.

    Raises:
        DataError: it is empty or not a string.
    """
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        raise wrong_type_error(origin, name, value, wanted)
    return value


def caption_field(origin: str, row: Row, policy: ErrorPolicy, name: str = "caption") -> Iterator[tuple[str, str]]:
    """Yield (origin, text) of each caption of a row, and report values that are not texts.

    Raises:
        DataError: the list of captions is empty.
    """
    value = row[name]
    if isinstance(value, str) and value.startswith(("['", '["')):
        value = parse_list_cell(value)
    if not isinstance(value, list):
        return _texts([(origin, value)], name, policy)
    if not value:
        message = f"{origin}: the list of captions is empty: give it one, or remove the record"
        raise DataError(message, "empty caption")
    return _texts([(f"{origin}.{name}[{index}]", one) for index, one in enumerate(value)], name, policy)


def id_field(origin: str, name: str, value: object) -> str | int:
    """An id, a string or an integer; 12.0, as in columns of floats, becomes 12.

    Raises:
        DataError: it is of another type.
    """
    if isinstance(value, str):
        if not is_valid_unicode(value):
            raise lone_surrogate_error(origin, name)
        return value[:-2] if value.endswith(".0") and value[:-2].isdigit() else value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise wrong_type_error(origin, name, value, "a string or a whole number")


def group_field(row: Row) -> str | int | None:
    """The `group` of a row, a string or an integer; None without one, or if it is of another type."""
    value = row.get("group")
    if value in (None, "") or isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return None
    if isinstance(value, str):
        return value[:-2] if value.endswith(".0") and value[:-2].isdigit() else value  # as for ids
    return int(value) if value == value // 1 else None


def annotation_path(path: str | Path) -> Path:
    """The path of an existing annotation file, `~` expanded.

    Raises:
        DataError: it does not exist, or is a folder or a URL.
    """
    if "://" in str(path) or str(path).startswith(("http:/", "https:/")):
        shown = shortened(str(path), 120)
        raise DataError(f"annotation file {shown} is a URL: download it, and name the file", "missing file")
    file = expand_home(path)
    if not os.path.isfile(file):  # unlike `Path.is_file` this never raises, however long the name
        if os.path.exists(file):
            raise DataError(f"annotation file {file} is not a regular file: name the file itself", "missing file")
        raise DataError(f"annotation file {file} does not exist: check the path in the config", "missing file")
    return file


def expand_home(path: str | Path) -> Path:
    """The path with `~` expanded, if there is a home folder."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no home
        return Path(path)


def wrong_type_error(origin: str, name: str, value: object, wanted: str) -> DataError:
    """The error for a field that is empty or of the wrong type; `wanted` says what it should be."""
    found = "empty" if isinstance(value, str) and not value.strip() else f"of type {type(value).__name__}"
    return DataError(f"{origin}: field {name!r} is {found}: it should be {wanted}", f"unusable {name}")


def missing_field_error(origin: str, absent: list[str], row: Row, advice: str = "") -> DataError:
    """The error for missing fields; it lists those that the row has."""
    has = field_names(name for name, value in row.items() if value is not None)
    advice = advice or "add it, or rename one"
    return DataError(f"{origin}: no field {' and '.join(absent)} (it has {has}): {advice}", "missing field")


def missing_fields(required: Required, present: Set[str]) -> list[str]:
    """The required fields that are missing, quoted for an error; of a tuple one is enough, and ids are not named."""
    wanted = [(name,) if isinstance(name, str) else name for name in required]
    lacking = [[name for name in names if not name.endswith("_id")] or names for names in wanted
               if present.isdisjoint(names)]  # fmt: skip
    return [" or ".join(map(repr, names)) for names in lacking]


def field_names(names: Iterable[object]) -> str:
    """The names of an object's fields, for an error, shortened."""
    found = [str(name) for name in names]
    if len(found) > 12:
        return f"{len(found):,} fields, {', '.join(shortened(name, 24) for name in found[:3])}, …"
    return shortened(", ".join(shortened(name, 24) for name in found), 120) or "nothing"


def is_valid_unicode(text: str) -> bool:
    """Whether a text has no lone surrogate, which JSON can escape but no tokenizer accepts."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def lone_surrogate_error(origin: str, name: str) -> DataError:
    """The error for a text with a lone surrogate."""
    return DataError(f"{origin}: the {name} has a lone surrogate: write the character in full", f"broken {name}")


def _texts(found: list[tuple[str, Any]], name: str, policy: ErrorPolicy) -> Iterator[tuple[str, str]]:
    for where, caption in found:
        if isinstance(caption, Mapping):
            caption = next((caption[key] for key in _CAPTION_KEYS if isinstance(caption.get(key), str)), caption)
        if isinstance(caption, str):
            yield where, caption
        else:
            policy.report(wrong_type_error(where, name, caption, "a string, or a list of strings"))


def parse_list_cell(cell: str) -> object:
    """The list that a table's cell holds as text, as pandas and Hugging Face write it; else the cell unchanged."""
    if not cell.startswith("[") or len(cell) > 10_000:
        return cell
    try:
        found = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return cell
    return found if isinstance(found, list) else cell


def parse_json(text: str | bytes) -> Any:
    """The content of a JSON text.

    Raises:
        ValueError: it is not JSON, or nests too deep.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it nests too deep") from None
