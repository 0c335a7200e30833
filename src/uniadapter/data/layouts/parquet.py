"""Rows of Parquet files, by pyarrow (the extra `parquet`)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from uniadapter.data.layouts.records import DataError, Row


def parquet_rows(file: Path) -> Iterator[tuple[str, object]]:
    """Stream (origin, row); one batch of rows is in memory at a time.

    Raises:
        DataError: pyarrow is missing, or the file is corrupt.
    """
    number = 0
    with _opened(file) as content:
        try:
            for batch in content.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    yield f"{file}[{number}]", row
                    number += 1
        except (OSError, ValueError) as error:
            raise DataError(f"{file} cannot be read after row {number} ({error})", "cut off") from None


def first_row(file: Path) -> Row:
    """A row with the column names as keys and empty values.

    Raises:
        DataError: pyarrow is missing, or the file is corrupt or contains the pictures themselves.
    """
    with _opened(file) as content:
        schema = content.schema_arrow
        inside = [one.name for one in schema if "binary" in str(one.type) and "struct" in str(one.type)]
        inside += [one.name for one in schema if str(one.type) in ("binary", "large_binary")]
        if inside:
            raise DataError(
                f"{file} contains the pictures themselves (column {inside[0]!r}): load it with the datasets package "
                "and pass it to uniadapter.data.from_dataset, or save the pictures as files",
                "pictures inside",
            )
        return dict.fromkeys(schema.names, "")


def _opened(file: Path) -> Any:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        message = f"{file} is Parquet: pip install 'uniadapter[parquet]' to read it"
        raise DataError(message, "missing package") from None
    try:
        return ParquetFile(file)
    except (OSError, ValueError) as error:
        raise DataError(f"{file} is not a complete Parquet file ({error})", "cut off") from None
