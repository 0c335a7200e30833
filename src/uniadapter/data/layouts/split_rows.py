"""Selection of one split's rows from files that hold several splits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from uniadapter.data.layouts.field_names import SPLITS, match_fields, split_name
from uniadapter.data.layouts.records import DataError, ErrorPolicy, Row, field_names


def split_names(split: str) -> tuple[str, ...]:
    """The names that files use for a split ("val": "valid", "dev", …); further test sets are read as "test"."""
    return SPLITS.get(split, SPLITS["test"])


def rows_of_split(
    rows: Callable[[ErrorPolicy], Iterator[tuple[str, object]]],
    policy: ErrorPolicy,
    first: Row | None,
    split: str,
    fields: Mapping[str, str],
    where: str,
) -> Iterator[tuple[str, object]]:
    """Yield the rows of one split, if the rows have a field `split` with more than one value; else all rows.

    A file whose rows all name the same split is read completely, since a validation file may serve as a test set.

    Args:
        rows: reads the file; called twice if it has a field `split`.
        policy: handles invalid rows.
        first: the file's first row.
        split: to read.
        fields: `data.fields`.
        where: the file, for errors.

    Raises:
        DataError: the file has several splits, but not this one.
    """
    name = match_fields(first, fields).get("split") if first is not None else None
    if name is None:
        yield from rows(policy)
        return

    def split_of_row(row: object) -> Any:
        return split_name(row.get(name)) if isinstance(row, Mapping) else None

    there = {split_of_row(row) for _, row in rows(ErrorPolicy("skip", quiet=True))}
    wanted = split_name(split) or "test"
    if len(there) < 2 or None in there:
        yield from rows(policy)
        return
    if wanted not in there:
        raise DataError(f"{where} has rows of {field_names(sorted(there))}, none of {wanted}", "another split")
    for origin, row in rows(policy):
        if split_of_row(row) == wanted:
            yield origin, row
        else:
            policy.changed["rows of other splits ignored"] += 1
