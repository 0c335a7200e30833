"""LSMDC's `LSMDC16_annos_training.csv` and kin: columns between tabs and no header.

Clip, four times, sentence; the clip `0001_American_Beauty_00.00.51.926-00.00.54.129` is a video of that name, in a
folder of the film's name or not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from uniadapter.data.layouts.sources import Reading, Source
from uniadapter.data.layouts.tables import table_rows
from uniadapter.errors import DataError

_TIME = re.compile(r"^\d+[.:]\d\d[.:]\d\d[.:]\d+$")
_NAMES = ("clip", "start_aligned", "end_aligned", "start", "end", "sentence")


def is_lsmdc(source: Source) -> bool:
    """Whether a table's first line is a clip with four times."""
    cells = source.table.names if source.table is not None and source.table.delimiter == "\t" else ()
    return len(cells) >= 5 and all(map(_TIME.match, cells[1:5]))


def lsmdc_rows(reading: Reading) -> Iterator[tuple[str, object]]:
    """Rows of video and caption.

    Raises:
        DataError: the file has no sentences, as that of the blind test.
    """
    table = reading.source.table
    assert table is not None
    if len(table.names) < len(_NAMES):
        raise DataError(f"{reading.path} is LSMDC's blind test: it has no sentences", "no captions")
    more = tuple(f"column {number}" for number in range(len(_NAMES), len(table.names)))
    headless = replace(table, names=_NAMES + more, headed=False)
    for origin, row in table_rows(reading.path, headless, reading.problems):
        assert isinstance(row, dict)
        clip = row["clip"]
        film = re.sub(r"_[^_]*$", "", clip)
        video = (f"{clip}.mp4", f"{film}/{clip}.mp4", f"{clip}.avi", f"{film}/{clip}.avi") if clip else None
        yield origin, {"video": video, "video_id": clip, "caption": row["sentence"]}
