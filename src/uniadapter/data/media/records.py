"""What annotation files consist of: rows and the records made of them, with errors that name the file and the row.

How files are opened is for `sources.py`, what their rows mean for the file of each layout. A row is named as Python
would index it, `train.json[12].caption[3]`, or by its line, `train.csv:13`.
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
_TEXT_OF = ("caption", "raw", "text", "sentence", "caption_str")  # where a caption that is an object has its text


class ErrorPolicy:
    """What becomes of a record that cannot be used: an error at once, or left out and counted.

    Args:
        on_error: "raise" or "skip".
        quiet: count only, and log nothing: for a look ahead.

    Attributes:
        skipped: kind of fault to how often it was met.
        changed: what was read otherwise than it stands there, or left aside, to how often.
        listed: visuals that the file asks for, where it, or a list beside it, says so; None elsewhere.
        notes: what else a reader has to say of its file, for the split's summary.
    """

    def __init__(self, on_error: OnError = "raise", quiet: bool = False) -> None:
        self.on_error, self.quiet = on_error, quiet
        self.skipped: Counter[str] = Counter()
        self.changed: Counter[str] = Counter()
        self.listed: int | None = None
        self.notes: list[str] = []

    def report(self, error: DataError) -> None:
        """Raise the error, or count it; the first of a kind is also logged."""
        if self.on_error == "raise":
            raise error
        self.skipped[error.kind] += 1
        if self.skipped[error.kind] == 1 and not self.quiet:
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
        others: further paths at which it may be, where the file has a number or a bare name.
    """

    visual: str
    caption: str
    visual_id: str | int
    origin: str
    noun: str = "picture"
    others: tuple[str, ...] = ()


def checked_rows(
    rows: Iterable[tuple[str, object]], problems: ErrorPolicy, required: Required
) -> Iterator[tuple[str, Row]]:
    """Those of the (origin, row) that are objects with the required fields; the others are reported."""
    for origin, row in rows:
        if not isinstance(row, Mapping):
            message = f"{origin} is of type {type(row).__name__}: it should be an object with fields"
            problems.report(DataError(message, "not an object"))
        elif absent := absent_fields(required, {name for name, value in row.items() if value is not None}):
            problems.report(no_field(origin, absent, row))
        else:
            yield origin, row


def text_field(origin: str, row: Row, name: str, wanted: str) -> str:
    """A field that must be a text and not empty; `wanted` says in the error what it should be."""
    value = row[name]
    if not isinstance(value, str) or not value.strip():
        raise wrong_type(origin, name, value, wanted)
    return value


def caption_field(origin: str, row: Row, problems: ErrorPolicy, name: str = "caption") -> Iterator[tuple[str, str]]:
    """Where each caption of a row stands, and the text; what is none is reported.

    Raises:
        DataError: the list of captions is empty.
    """
    value = row[name]
    if isinstance(value, str) and value.startswith(("['", '["')):
        value = listed(value)
    if not isinstance(value, list):
        return _texts([(origin, value)], name, problems)
    if not value:
        message = f"{origin}: the list of captions is empty: give it one, or remove the record"
        raise DataError(message, "empty caption")
    return _texts([(f"{origin}.{name}[{index}]", one) for index, one in enumerate(value)], name, problems)


def id_field(origin: str, name: str, value: object) -> str | int:
    """An id: a text, or a whole number, which tables and columns of floats may have as 12.0.

    Raises:
        DataError: it is neither.
    """
    if isinstance(value, str):
        if not is_whole(value):
            raise half_a_character(origin, name)
        return value[:-2] if value.endswith(".0") and value[:-2].isdigit() else value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    raise wrong_type(origin, name, value, "a text or a whole number")


def existing(path: str | Path) -> Path:
    """The path of an annotation file, `~` unfolded, or a `DataError` if there is none."""
    if "://" in str(path) or str(path).startswith(("http:/", "https:/")):
        shown = shortened(str(path), 120)
        raise DataError(f"annotation file {shown} is an address: download it, and name the file", "missing file")
    file = expanded(path)
    if not os.path.isfile(file):  # unlike the path's own method this raises for no name, however long
        if os.path.exists(file):
            raise DataError(f"annotation file {file} is no regular file: name the file itself", "missing file")
        raise DataError(f"annotation file {file} does not exist: check the path in the config", "missing file")
    return file


def expanded(path: str | Path) -> Path:
    """The path with `~` replaced by the home folder, where there is one."""
    try:
        return Path(path).expanduser()
    except RuntimeError:  # no home
        return Path(path)


def wrong_type(origin: str, name: str, value: object, wanted: str) -> DataError:
    """The error for a field that is empty or of the wrong type."""
    found = "empty" if isinstance(value, str) and not value.strip() else f"of type {type(value).__name__}"
    return DataError(f"{origin}: field {name!r} is {found}: it should be {wanted}", f"unusable {name}")


def no_field(origin: str, absent: list[str], row: Row, advice: str = "") -> DataError:
    """The error for lacking fields, with those that are there."""
    has = field_names(name for name, value in row.items() if value is not None)
    advice = advice or "add it, or rename one"
    return DataError(f"{origin}: no field {' and '.join(absent)} (it has {has}): {advice}", "missing field")


def absent_fields(required: Required, present: Set[str]) -> list[str]:
    """The fields that are lacking, quoted for an error; of a tuple, one is enough, and ids are not proposed."""
    wanted = [(name,) if isinstance(name, str) else name for name in required]
    lacking = [[name for name in names if not name.endswith("_id")] or names for names in wanted
               if present.isdisjoint(names)]  # fmt: skip
    return [" or ".join(map(repr, names)) for names in lacking]


def field_names(names: Iterable[object]) -> str:
    """The names of an object's fields, for an error; of many the first few, each cut."""
    found = [str(name) for name in names]
    if len(found) > 12:
        return f"{len(found):,} fields, {', '.join(shortened(name, 24) for name in found[:3])}, …"
    return shortened(", ".join(shortened(name, 24) for name in found), 120) or "nothing"


def is_whole(text: str) -> bool:
    """Whether a text has no half of a surrogate pair, which JSON can escape and no tokenizer takes."""
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def half_a_character(origin: str, name: str) -> DataError:
    """The error for a text that is not whole."""
    return DataError(
        f"{origin}: the {name} has half of a surrogate pair: write the character in full", f"broken {name}"
    )


def _texts(found: list[tuple[str, Any]], name: str, problems: ErrorPolicy) -> Iterator[tuple[str, str]]:
    for where, caption in found:
        if isinstance(caption, Mapping):
            caption = next((caption[key] for key in _TEXT_OF if isinstance(caption.get(key), str)), caption)
        if isinstance(caption, str):
            yield where, caption
        else:
            problems.report(wrong_type(where, name, caption, "a text, or a list of texts"))


def listed(cell: str) -> object:
    """The list that a cell of a table holds as text, as pandas and Hugging Face write it; the cell if it holds none."""
    if not cell.startswith("[") or len(cell) > 10_000:
        return cell
    try:
        found = ast.literal_eval(cell)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return cell
    return found if isinstance(found, list) else cell


def decoded(text: str | bytes) -> Any:
    """JSON as Python's values, or a ValueError whatever is wrong."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it nests too deep") from None
