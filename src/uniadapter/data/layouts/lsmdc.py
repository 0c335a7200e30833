"""LSMDC's `LSMDC16_annos_training.csv` and similar files: tab-separated, without a header.

Columns: clip, four times, sentence. The clip `0001_American_Beauty_00.00.51.926-00.00.54.129` is a video file of that
name, with or without a folder named after the film.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from uniadapter.data.layouts.annotation_file import AnnotationFile, ReadRequest
from uniadapter.data.layouts.tables import table_rows
from uniadapter.errors import DataError

_TIME = re.compile(r"^\d+[.:]\d\d[.:]\d\d[.:]\d+$")
_NAMES = ("clip", "start_aligned", "end_aligned", "start", "end", "sentence")


def is_lsmdc(source: AnnotationFile) -> bool:
    """Whether a table's first line is a clip with four times."""
    cells = source.table.names if source.table is not None and source.table.delimiter == "\t" else ()
    return len(cells) >= 5 and all(map(_TIME.match, cells[1:5]))


def lsmdc_rows(request: ReadRequest) -> Iterator[tuple[str, object]]:
    """Yield a row per video and caption.

    Raises:
        DataError: the file has no sentences, as the blind test's.
    """
    table = request.source.table
    assert table is not None
    if len(table.names) < len(_NAMES):
        raise DataError(f"{request.path} is LSMDC's blind test: it has no sentences", "no captions")
    more = tuple(f"column {number}" for number in range(len(_NAMES), len(table.names)))
    named = replace(table, names=_NAMES + more, has_header=False)
    for origin, row in table_rows(request.path, named, request.policy):
        assert isinstance(row, dict)
        clip = row["clip"]
        film = re.sub(r"_[^_]*$", "", clip)
        video = (f"{clip}.mp4", f"{film}/{clip}.mp4", f"{clip}.avi", f"{film}/{clip}.avi") if clip else None
        yield origin, {"video": video, "video_id": clip, "caption": row["sentence"]}
