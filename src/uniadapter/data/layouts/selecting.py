"""Files that hold several splits: which of their rows belong to the split that is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from uniadapter.data.layouts.fields import SPLITS, names_of, split_of
from uniadapter.data.media.records import DataError, ErrorPolicy, Row, field_names


def split_names(split: str) -> tuple[str, ...]:
    """How files call a split; further test sets are read as "test". COCO's "restval" belongs to training."""
    return SPLITS.get(split, SPLITS["test"])


def of_split(
    rows: Callable[[ErrorPolicy], Iterator[tuple[str, object]]],
    problems: ErrorPolicy,
    first: Row | None,
    split: str,
    fields: Mapping[str, str],
    where: str,
) -> Iterator[tuple[str, object]]:
    """The rows of a file, without those of other splits if its rows say that they are of several.

    A file all of one split is taken whole, whatever it calls it: a validation file may well serve as a test.

    Args:
        rows: gives them, as often as asked.
        problems: what becomes of bad rows.
        first: the file's first row.
        split: that is read.
        fields: `data.fields`.
        where: the file.

    Raises:
        DataError: it has several splits, but not this one.
    """
    name = names_of(first, fields).get("split") if first is not None else None
    if name is None:
        yield from rows(problems)
        return

    def told(row: object) -> Any:
        return split_of(row.get(name)) if isinstance(row, Mapping) else None

    there = {told(row) for _, row in rows(ErrorPolicy("skip", quiet=True))}
    wanted = split_of(split) or "test"
    if len(there) < 2 or None in there:
        yield from rows(problems)
        return
    if wanted not in there:
        raise DataError(f"{where} has rows of {field_names(sorted(there))}, none of {wanted}", "another split")
    for origin, row in rows(problems):
        if told(row) == wanted:
            yield origin, row
        else:
            problems.changed["rows of other splits left aside"] += 1
