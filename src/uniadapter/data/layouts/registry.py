"""The layouts in which annotation files circulate: one table of what is read, and how each is recognised.

A layout gives rows under our names or aliases of them, from which `pairs.py` makes captions and `asking.py`
questions; the three that join or look up captions give records themselves. To add one: a file that says how it is
recognised and what its rows are, a line here, and its name in `config.Layout`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from uniadapter.data.layouts import (
    alpro,
    coco,
    conversations,
    didemo,
    flickr,
    folders,
    genome,
    karpathy,
    lsmdc,
    msrvtt,
    names,
    objects,
)
from uniadapter.data.layouts.fields import lacking, named_rows, names_of
from uniadapter.data.layouts.pairs import REQUIRED, pair_records
from uniadapter.data.layouts.selecting import of_split
from uniadapter.data.layouts.sources import Reading, Source, open_source
from uniadapter.data.media.records import DataError, ErrorPolicy, Record, Required, Row, absent_fields


@dataclass(frozen=True)
class Layout:
    """One layout.

    Args:
        name: as `data.layout` names it.
        what: in words, for errors and the documentation.
        fits: whether a file is of it, by its first row.
        rows: its (origin, row).
        records: its records, of those that make them themselves; captions only.
    """

    name: str
    what: str
    fits: Callable[[Source], bool]
    rows: Callable[[Reading], Iterator[tuple[str, object]]] | None = None
    records: Callable[[Reading], Iterator[Record]] | None = None


# The first that fits is taken.
TABLE: tuple[Layout, ...] = (
    Layout("folder", "a folder of pictures", folders.is_folder, folders.folder_rows),
    Layout("karpathy", "Karpathy's dataset_*.json", karpathy.is_karpathy, karpathy.karpathy_rows),
    Layout("coco", "COCO's official captions", coco.is_coco, coco.coco_rows),
    Layout("token", "Flickr's .token", flickr.is_token_file, flickr.token_rows),
    Layout("results", "Flickr's results.csv", flickr.is_results, flickr.results_rows),
    Layout("lsmdc", "LSMDC's annotations", lsmdc.is_lsmdc, lsmdc.lsmdc_rows),
    Layout("alpro", "ALPRO's clips", alpro.is_alpro, records=lambda r: alpro.read_alpro(r.path, r.problems)),
    Layout(
        "msrvtt", "MSR-VTT's lists", msrvtt.is_msrvtt,
        records=lambda r: msrvtt.read_msrvtt(r.path, r.problems, r.captions),
    ),
    Layout("didemo", "DiDeMo's sentences", didemo.is_didemo, records=lambda r: didemo.read_didemo(r.path, r.problems)),
    Layout("conversations", "LLaVA's conversations", conversations.is_conversation, conversations.conversation_rows),
    Layout("genome", "Visual Genome's question_answers.json", genome.is_genome, genome.genome_rows),
    Layout("columns", "an object of columns", objects.is_columnar, objects.columnar_rows),
    Layout("wrapped", "an object with a list of records", objects.is_wrapped, objects.wrapped_rows),
    Layout("keyed", "an object of id to record", objects.is_keyed, objects.keyed_rows),
    Layout("names", "a list of names", names.is_name_list, names.listed_rows),
    Layout("pairs", "rows of image and caption", lambda source: True, lambda r: r.source.rows(r.problems)),
)  # fmt: skip
LAYOUTS = tuple(layout.name for layout in TABLE)


def read_records(
    path: str | Path,
    problems: ErrorPolicy,
    layout: str = "auto",
    captions: str | Path | None = None,
    *,
    split: str = "train",
    fields: Mapping[str, str] | None = None,
) -> Iterator[Record]:
    """Stream the records of an annotation file of any layout.

    Args:
        path: the annotation file, or a folder of pictures.
        problems: what becomes of records that cannot be used.
        layout: one of `LAYOUTS`, or "auto" to tell by the first row.
        captions: the file of captions that a list without captions needs (MSR-VTT, MSVD).
        split: that is read, of files that hold several.
        fields: our names of fields to the file's.

    Raises:
        DataError: the layout is unknown, or the file cannot be read; with `on_error="raise"` also for the first bad
            record.
    """
    fields = fields or {}
    source = open_source(path)
    chosen = named_layout(source, layout, not fields)
    reading = Reading(source, problems, "caption", split, captions, fields)
    if chosen.records is not None:
        return chosen.records(reading)
    return pair_records(layout_rows(chosen, reading, REQUIRED), problems)


def layout_rows(layout: Layout, reading: Reading, required: Required) -> Iterator[tuple[str, Row]]:
    """Stream the rows of a file under our names, without those of other splits.

    Args:
        layout: of the file, one that gives rows.
        reading: what is read.
        required: our names of the fields that are needed; of a tuple, one.

    Raises:
        DataError: as `read_records`.
    """
    source, read = reading.source, layout.rows
    assert read is not None
    if source.form in ("table", "parquet") and layout.name == "pairs":
        header: dict[str, Any] = dict(source.first or {})
        if absent_fields(required, names_of(header, reading.fields).keys()):
            # No row can be right, so this is the file's fault and not to be skipped a row at a time.
            where = f"{source.path}:1 (the header)" if source.form == "table" else str(source.path)
            raise lacking(where, absent_fields(required, header.keys()), header, {}, reading.fields, layout.what)

    def again(problems: ErrorPolicy) -> Iterator[tuple[str, object]]:
        again = Reading(source, problems, reading.wanted, reading.split, reading.captions, reading.fields)
        return read(again)

    first = source.first if layout.name in ("pairs", "results") else None
    if layout.name in ("wrapped", "columns", "keyed", "folder"):
        first = next((row for _, row in again(ErrorPolicy("skip", quiet=True)) if isinstance(row, Mapping)), None)
    rows = of_split(again, reading.problems, first, reading.split, reading.fields, str(source.path))
    return named_rows(rows, reading.problems, required, reading.fields, layout.what)


def layout_of(source: Source, records: bool = True) -> Layout:
    """The layout that the first row shows; "pairs" where it shows none, whose reader then says what is lacking.

    Args:
        source: the file.
        records: whether layouts that only give records of captions may be meant.
    """
    return next(one for one in TABLE if (records or one.rows is not None) and one.fits(source))


def detect_layout(path: str | Path) -> str:
    """The name of the layout that an annotation file shows by its first row.

    Raises:
        DataError: the file is missing or empty.
    """
    return layout_of(open_source(path)).name


def named_layout(source: Source, name: str, records: bool = True) -> Layout:
    """The layout that `data.layout` names.

    Args:
        source: the file.
        name: one of `LAYOUTS`, or "auto".
        records: whether "auto" may mean layouts that only give records of captions.

    Raises:
        DataError: there is no such layout, or the file is not of it.
    """
    if name == "auto":
        return layout_of(source, records)
    for layout in TABLE:
        if layout.name == name:
            if layout.rows is not None and not layout.fits(source):
                other = layout_of(source).what
                message = f"{source.path} is not {layout.what}, as data.layout says: it looks like {other}; try auto"
                raise DataError(message, "another layout")
            return layout
    known = ", ".join(("auto", *sorted(LAYOUTS, key=("pairs", "alpro", "msrvtt", "didemo", *LAYOUTS).index)))
    raise DataError(f"data.layout is {name!r}: it must be one of {known}", "unknown layout")
