"""Text tables (CSV, TSV and similar), with a header or, if they have two columns, without one.

The delimiter is detected from the header: of tab, comma, semicolon and pipe the one that gives most known column names,
else most columns. With commas and semicolons, quotes follow CSV; with tabs and pipes, where captions are often not
quoted, only quotes around a whole cell are removed.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from uniadapter.data.layouts.field_names import is_known_field, is_media_name, is_url
from uniadapter.data.layouts.open_files import BROKEN, error_reason, open_text
from uniadapter.data.layouts.records import DataError, ErrorPolicy

SUFFIXES = {".csv", ".tsv", ".tab", ".token"}
_DELIMITERS = ("\t", ",", ";", "|")
_QUOTED = (",", ";")
_EXCEL_HINT = re.compile(r"sep=.$")


@dataclass(frozen=True)
class Table:
    """Delimiter and header of a table.

    Args:
        delimiter: between columns.
        names: of the columns.
        has_header: whether the first line holds these names.
        line: the first line.
        before: lines before it: 1 for Excel's `sep=,`.
    """

    delimiter: str
    names: tuple[str, ...]
    has_header: bool
    line: str
    before: int = 0


def detect_table(file: Path, head: str) -> Table:
    """Detect the delimiter and header of a table.

    Args:
        file: its path, for errors.
        head: its beginning, not blank.

    Raises:
        DataError: two columns have the same name.
    """
    line, _, rest = head.partition("\n")
    line = line.rstrip("\r")
    if _EXCEL_HINT.match(line) and rest.strip():
        found = _parse_header(file, rest.splitlines()[0])
        return Table(found.delimiter, found.names, found.has_header, found.line, 1)
    return _parse_header(file, line)


def _parse_header(file: Path, line: str) -> Table:
    found = {delimiter: _cells(line, delimiter) for delimiter in _DELIMITERS}
    known = {delimiter: sum(map(is_known_field, cells)) for delimiter, cells in found.items()}
    delimiter = max(_DELIMITERS, key=lambda one: (known[one], one == "," and ".csv" in file.suffixes, len(found[one])))
    if not known[delimiter]:  # no known name: most columns, but prefer tabs, since captions contain the others too
        delimiter = "\t" if "\t" in line else max(_DELIMITERS, key=lambda one: len(found[one]))
        cells = found[delimiter]
        media = [is_media_name(cell) or is_url(cell) for cell in cells]
        if len(cells) == 2 and any(media):
            names = ("image", "caption") if media[0] else ("caption", "image")
            return Table(delimiter, names, False, line)
    header = tuple(found[delimiter])
    twice = next((name for name in header if name and header.count(name) > 1 and known[delimiter]), None)
    if twice is not None:
        message = f"{file}:1 (the header): two columns are called {twice[:60]!r}: rename one"
        raise DataError(message, "two columns of one name")
    return Table(delimiter, header, True, line)


def table_rows(file: Path, table: Table, policy: ErrorPolicy) -> Iterator[tuple[str, object]]:
    """Stream (origin, row); rows with too many columns are reported, in rows with too few the last fields are None.

    Raises:
        DataError: the file is not text in UTF-8, or a quote is never closed.
    """
    quoted = table.delimiter in _QUOTED
    number = 0
    try:
        with open_text(file, newline="" if quoted else None) as stream:
            rows = _csv(stream, table.delimiter, policy, file) if quoted else _plain(stream, table.delimiter)
            for _ in range(table.before + table.has_header):
                next(rows)
            columns = len(table.names)
            for number, cells in rows:
                if len(cells) > columns and any(cells[columns:]):
                    message = f"{file}:{number} has more columns than the header: quote texts with a comma"
                    if not quoted:
                        message = f"{file}:{number} has {len(cells)} columns, more than the header's {columns}"
                    policy.report(DataError(message, "too many columns"))
                else:
                    cells += [None] * (columns - len(cells))
                    yield f"{file}:{number}", dict(zip(table.names, cells, strict=False))
    except (csv.Error, UnicodeDecodeError) as error:
        where = f"{file}, after line {number},"
        raise DataError(f"{where} is not CSV in UTF-8 ({error}): save it as such", "not CSV") from None
    except BROKEN as error:
        raise DataError(f"{file} breaks off after line {number} ({error_reason(error)})", "cut off") from None


def _csv(
    stream: Iterator[str], delimiter: str, policy: ErrorPolicy, file: Path
) -> Iterator[tuple[int, list[str | None]]]:
    """Yield (number of the last line, cells) of each row that is not blank."""
    recent: list[str] = []  # lines of the current row

    def remembered() -> Iterator[str]:
        for line in stream:
            recent.append(line)
            yield line

    reader = csv.reader(remembered(), delimiter=delimiter, skipinitialspace=True)
    before = 0
    for cells in reader:
        if len(recent) > 1:
            policy.changed["rows of several lines"] += 1
            # At the end of the file Python silently closes an open quote, whatever lines it contains.
            if sum(line.count('"') for line in recent) % 2 and next(stream, None) is None:
                raise DataError(f"{file}:{before + 1}: a quote is opened but never closed: close it", "open quote")
        before = reader.line_num
        recent.clear()
        if cells:
            yield before, list(cells)


def _plain(stream: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str | None]]]:
    for number, line in enumerate(stream, start=1):
        if line.strip():
            yield number, list(_cells(line.rstrip("\r\n"), delimiter))


def _cells(line: str, delimiter: str) -> list[str]:
    if delimiter in _QUOTED:
        try:
            return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])]
        except csv.Error:
            return [line]
    cells = [cell.strip() for cell in line.split(delimiter)]
    return [cell[1:-1].replace('""', '"') if _is_quoted(cell) else cell for cell in cells]


def _is_quoted(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")
