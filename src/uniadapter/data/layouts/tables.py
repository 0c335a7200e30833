"""Tables of text: CSV, TSV and their kin, with a header or, of two columns, without one.

What divides the columns shows in the header: of tab, comma, semicolon and pipe the one that gives most names that are
known, else most columns. Between commas and semicolons quotes are CSV's; between tabs and pipes, where captions are
often written as they are, a quote counts only around a whole cell.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from uniadapter.data.layouts.fields import is_address, is_known, is_media
from uniadapter.data.layouts.opening import BROKEN, open_text, reason
from uniadapter.data.media.records import DataError, ErrorPolicy

SUFFIXES = {".csv", ".tsv", ".tab", ".token"}
_DELIMITERS = ("\t", ",", ";", "|")
_QUOTED = (",", ";")
_EXCEL = re.compile(r"sep=.$")


@dataclass(frozen=True)
class Table:
    """How a table is divided.

    Args:
        delimiter: between its columns.
        names: of its columns.
        headed: whether its first line says these names.
        line: its first line.
        before: lines before that, which say how Excel divides it.
    """

    delimiter: str
    names: tuple[str, ...]
    headed: bool
    line: str
    before: int = 0


def table_of(file: Path, head: str) -> Table:
    """How the table that begins with `head`, which is not blank, is divided.

    Raises:
        DataError: two columns have one name.
    """
    line, _, rest = head.partition("\n")
    line = line.rstrip("\r")
    if _EXCEL.match(line) and rest.strip():
        found = _headed(file, rest.splitlines()[0])
        return Table(found.delimiter, found.names, found.headed, found.line, 1)
    return _headed(file, line)


def _headed(file: Path, line: str) -> Table:
    found = {delimiter: _cells(line, delimiter) for delimiter in _DELIMITERS}
    known = {delimiter: sum(map(is_known, cells)) for delimiter, cells in found.items()}
    delimiter = max(_DELIMITERS, key=lambda one: (known[one], one == "," and ".csv" in file.suffixes, len(found[one])))
    if not known[delimiter]:  # no header that says anything: most columns, but tabs before marks that texts have too
        delimiter = "\t" if "\t" in line else max(_DELIMITERS, key=lambda one: len(found[one]))
        cells = found[delimiter]
        media = [is_media(cell) or is_address(cell) for cell in cells]
        if len(cells) == 2 and any(media):
            names = ("image", "caption") if media[0] else ("caption", "image")
            return Table(delimiter, names, False, line)
    header = tuple(found[delimiter])
    twice = next((name for name in header if name and header.count(name) > 1 and known[delimiter]), None)
    if twice is not None:
        message = f"{file}:1 (the header): two columns are called {twice[:60]!r}: rename one"
        raise DataError(message, "two columns of one name")
    return Table(delimiter, header, True, line)


def table_rows(file: Path, table: Table, problems: ErrorPolicy) -> Iterator[tuple[str, object]]:
    """Stream (origin, row); a row of too many columns is reported, one of too few lacks the last fields.

    Raises:
        DataError: the file is not text in UTF-8, or a quote is never closed.
    """
    quoted = table.delimiter in _QUOTED
    number = 0
    try:
        with open_text(file, newline="" if quoted else None) as stream:
            rows = _csv(stream, table.delimiter, problems, file) if quoted else _plain(stream, table.delimiter)
            for _ in range(table.before + table.headed):
                next(rows)
            columns = len(table.names)
            for number, cells in rows:
                if len(cells) > columns and any(cells[columns:]):
                    message = f"{file}:{number} has more columns than the header: quote a text that has a comma"
                    if not quoted:
                        message = f"{file}:{number} has {len(cells)} columns, more than the header's {columns}"
                    problems.report(DataError(message, "too many columns"))
                else:
                    cells += [None] * (columns - len(cells))
                    yield f"{file}:{number}", dict(zip(table.names, cells, strict=False))
    except (csv.Error, UnicodeDecodeError) as error:
        where = f"{file}, after line {number},"
        raise DataError(f"{where} is not CSV in UTF-8 ({error}): save it as such", "not CSV") from None
    except BROKEN as error:
        raise DataError(f"{file} breaks off after line {number} ({reason(error)})", "cut off") from None


def _csv(
    stream: Iterator[str], delimiter: str, problems: ErrorPolicy, file: Path
) -> Iterator[tuple[int, list[str | None]]]:
    """Number of the last line and cells of each row that is not blank."""
    recent: list[str] = []  # lines of the row that is being read

    def remembered() -> Iterator[str]:
        for line in stream:
            recent.append(line)
            yield line

    reader = csv.reader(remembered(), delimiter=delimiter, skipinitialspace=True)
    before = 0
    for cells in reader:
        if len(recent) > 1:
            problems.changed["rows of several lines"] += 1
            # At the end of the file Python closes the quote and says nothing, whatever it swallowed.
            if sum(line.count('"') for line in recent) % 2 and next(stream, None) is None:
                raise DataError(f"{file}:{before + 1}: a quote is opened that is never closed: close it", "open quote")
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
    return [cell[1:-1].replace('""', '"') if _wrapped(cell) else cell for cell in cells]


def _wrapped(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")
