"""Opening of files as bytes or text, with transparent decompression of gzip."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TextIO, cast

BROKEN = (OSError, EOFError, zlib.error)  # raised when reading a corrupt or deleted file


def open_bytes(file: Path) -> IO[bytes]:
    """Open a file as bytes, decompressed if it is gzipped, whatever its name."""
    stream = file.open("rb")
    packed = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    return cast(IO[bytes], gzip.open(stream)) if packed else stream


def open_text(file: Path, newline: str | None = None) -> TextIO:
    """Open a file as UTF-8 text, with or without a byte order mark; `newline` as for `open`."""
    return io.TextIOWrapper(open_bytes(file), encoding="utf-8-sig", newline=newline)


def read_lines(stream: IO[bytes], longest: int) -> Iterator[bytes]:
    """Yield the lines of a file, with a limit, since a few kilobytes of gzip may expand to a line of gigabytes.

    Raises:
        ValueError: a line has more than `longest` bytes.
    """
    while line := stream.readline(longest + 1):
        if len(line) > longest:
            raise ValueError(f"a line is longer than {longest >> 20} MB")
        yield line


def error_reason(error: BaseException) -> str:
    """An error's message, without error numbers and file names."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
