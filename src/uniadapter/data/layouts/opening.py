"""Files as bytes or text, unpacked on the way where they are gzipped."""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TextIO, cast

BROKEN = (OSError, EOFError, zlib.error)  # what reading a damaged or vanished file raises


def open_bytes(file: Path) -> IO[bytes]:
    """The file's bytes, unpacked if it is gzipped, whatever its name."""
    stream = file.open("rb")
    packed = stream.read(2) == b"\x1f\x8b"
    stream.seek(0)
    return cast(IO[bytes], gzip.open(stream)) if packed else stream


def open_text(file: Path, newline: str | None = None) -> TextIO:
    """The file's text in UTF-8, with or without a byte order mark; `newline` as for `open`."""
    return io.TextIOWrapper(open_bytes(file), encoding="utf-8-sig", newline=newline)


def lines_of(stream: IO[bytes], longest: int) -> Iterator[bytes]:
    """The lines of a file; a gzipped file of a few kilobytes may unpack to one of gigabytes.

    Raises:
        ValueError: a line has more than `longest` bytes.
    """
    while line := stream.readline(longest + 1):
        if len(line) > longest:
            raise ValueError(f"a line is longer than {longest >> 20} MB")
        yield line


def reason(error: BaseException) -> str:
    """What an error says, without the numbers and names of files that it repeats."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
