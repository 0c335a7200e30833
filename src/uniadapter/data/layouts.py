"""Which of the layouts in circulation an annotation file has, and its records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from uniadapter.data.alpro import read_alpro
from uniadapter.data.didemo import read_didemo
from uniadapter.data.msrvtt import read_msrvtt
from uniadapter.data.pairs import read_pairs
from uniadapter.data.records import DataError, Problems, Record, first_row

LAYOUTS = ("pairs", "alpro", "msrvtt", "didemo")


def read_records(
    path: str | Path, problems: Problems, layout: str = "auto", captions: str | Path | None = None
) -> Iterator[Record]:
    """Stream the records of an annotation file of any layout.

    Args:
        path: the annotation file.
        problems: what becomes of records that cannot be used.
        layout: one of `LAYOUTS`, or "auto" to tell by the first row.
        captions: the file of sentences that a list without captions needs (MSR-VTT).

    Raises:
        DataError: the layout is unknown, or the file cannot be read; with `on_error="raise"` also for the first bad
            record.
    """
    chosen = detect_layout(path) if layout == "auto" else layout
    if chosen == "msrvtt":
        return read_msrvtt(path, problems, captions)
    readers = {"pairs": read_pairs, "alpro": read_alpro, "didemo": read_didemo}
    if chosen not in readers:
        known = ", ".join(("auto", *LAYOUTS))
        raise DataError(f"data.layout is {layout!r}: it must be one of {known}", "unknown layout")
    return readers[chosen](path, problems)


def detect_layout(path: str | Path) -> str:
    """The layout that the first row shows; "pairs" where it shows none, whose reader then says what is lacking.

    Lists of captions are the sentences of one paragraph if the file's name says DiDeMo: nothing in such a file tells
    them from several captions of a video.

    Raises:
        DataError: the file is missing or empty.
    """
    row = first_row(path) or {}
    if "clip_name" in row:
        return "alpro"
    if "sentences" in row or ("video_id" in row and "caption" not in row):
        return "msrvtt"
    if {"video", "description", "times"} <= set(row):
        return "didemo"
    return "didemo" if isinstance(row.get("caption"), list) and "didemo" in Path(path).name.lower() else "pairs"
