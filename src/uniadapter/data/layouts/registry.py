"""Registry of the supported annotation layouts, and how each is recognised.

A layout yields rows with the expected field names or aliases, from which `pairs.py` makes caption records and
`question_files.py` questions. Three layouts that join or look up captions yield records directly. To add a layout:
write a file with a predicate and a reader, add a line here, and add its name to `config.LayoutName`.
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
    json_objects,
    karpathy,
    lsmdc,
    msrvtt,
    name_lists,
    visual_genome,
)
from uniadapter.data.layouts.annotation_file import AnnotationFile, ReadRequest, open_annotations
from uniadapter.data.layouts.field_names import layout_field_error, match_fields, rename_fields
from uniadapter.data.layouts.pairs import REQUIRED, pair_records
from uniadapter.data.layouts.records import DataError, ErrorPolicy, Record, Required, Row, missing_fields
from uniadapter.data.layouts.split_rows import rows_of_split


@dataclass(frozen=True)
class AnnotationLayout:
    """A supported layout of annotation files.

    Args:
        name: value of `data.layout`.
        what: description, for errors and the documentation.
        fits: predicate on an opened file (its first row).
        rows: reader that yields (origin, row).
        records: reader that yields caption records, for layouts without `rows`.
    """

    name: str
    what: str
    fits: Callable[[AnnotationFile], bool]
    rows: Callable[[ReadRequest], Iterator[tuple[str, object]]] | None = None
    records: Callable[[ReadRequest], Iterator[Record]] | None = None


# With "auto" the first layout that fits is used.
REGISTRY: tuple[AnnotationLayout, ...] = (
    AnnotationLayout("folder", "a folder of pictures", folders.is_folder, folders.folder_rows),
    AnnotationLayout("karpathy", "Karpathy's dataset_*.json", karpathy.is_karpathy, karpathy.karpathy_rows),
    AnnotationLayout("coco", "COCO's official captions", coco.is_coco, coco.coco_rows),
    AnnotationLayout("token", "Flickr's .token", flickr.is_token_file, flickr.token_rows),
    AnnotationLayout("results", "Flickr's results.csv", flickr.is_results, flickr.results_rows),
    AnnotationLayout("lsmdc", "LSMDC's annotations", lsmdc.is_lsmdc, lsmdc.lsmdc_rows),
    AnnotationLayout("alpro", "ALPRO's clips", alpro.is_alpro, records=lambda r: alpro.read_alpro(r.path, r.policy)),
    AnnotationLayout(
        "msrvtt", "MSR-VTT's lists", msrvtt.is_msrvtt,
        records=lambda r: msrvtt.read_msrvtt(r.path, r.policy, r.captions),
    ),
    AnnotationLayout(
        "didemo", "DiDeMo's sentences", didemo.is_didemo,
        records=lambda r: didemo.read_didemo(r.path, r.policy),
    ),
    AnnotationLayout(
        "conversations", "LLaVA's conversations", conversations.is_conversation,
        conversations.conversation_rows,
    ),
    AnnotationLayout(
        "genome", "Visual Genome's question_answers.json", visual_genome.is_genome,
        visual_genome.genome_rows,
    ),
    AnnotationLayout("columns", "an object of columns", json_objects.is_columnar, json_objects.columnar_rows),
    AnnotationLayout("wrapped", "an object with a list of records", json_objects.is_wrapped, json_objects.wrapped_rows),
    AnnotationLayout("keyed", "an object of id to record", json_objects.is_keyed, json_objects.keyed_rows),
    AnnotationLayout("names", "a list of names", name_lists.is_name_list, name_lists.listed_rows),
    AnnotationLayout("pairs", "rows of image and caption", lambda source: True, lambda r: r.source.rows(r.policy)),
)  # fmt: skip
LAYOUTS = tuple(layout.name for layout in REGISTRY)


def read_records(
    path: str | Path,
    policy: ErrorPolicy,
    layout: str = "auto",
    captions: str | Path | None = None,
    *,
    split: str = "train",
    fields: Mapping[str, str] | None = None,
) -> Iterator[Record]:
    """Stream the records of an annotation file of any layout.

    Args:
        path: the annotation file, or a folder of pictures.
        policy: handles records that cannot be used.
        layout: one of `LAYOUTS`, or "auto" to detect it from the first row.
        captions: the file with the captions, for lists without captions (MSR-VTT, MSVD).
        split: to read, from files with several.
        fields: expected field names to the file's.

    Raises:
        DataError: the layout is unknown, or the file cannot be read; with `on_error="raise"` also for the first bad
            record.
    """
    fields = fields or {}
    source = open_annotations(path)
    chosen = find_layout(source, layout, not fields)
    request = ReadRequest(source, policy, "caption", split, captions, fields)
    if chosen.records is not None:
        return chosen.records(request)
    return pair_records(layout_rows(chosen, request, REQUIRED), policy)


def layout_rows(layout: AnnotationLayout, request: ReadRequest, required: Required) -> Iterator[tuple[str, Row]]:
    """Stream the rows of the requested split with the expected field names.

    Args:
        layout: of the file, one with `rows`.
        request: the file, and what to read from it.
        required: expected names of the required fields; of a tuple, one is enough.

    Raises:
        DataError: as `read_records`.
    """
    source, read = request.source, layout.rows
    assert read is not None
    if source.form in ("table", "parquet") and layout.name == "pairs":
        header: dict[str, Any] = dict(source.first or {})
        if missing_fields(required, match_fields(header, request.fields).keys()):
            # Every row would fail, so raise for the file even with `on_error="skip"`.
            where = f"{source.path}:1 (the header)" if source.form == "table" else str(source.path)
            raise layout_field_error(
                where, missing_fields(required, header.keys()), header, {}, request.fields, layout.what
            )

    def again(policy: ErrorPolicy) -> Iterator[tuple[str, object]]:
        again = ReadRequest(source, policy, request.wanted, request.split, request.captions, request.fields)
        return read(again)

    first = source.first if layout.name in ("pairs", "results") else None
    if layout.name in ("wrapped", "columns", "keyed", "folder"):
        first = next((row for _, row in again(ErrorPolicy("skip", quiet=True)) if isinstance(row, Mapping)), None)
    rows = rows_of_split(again, request.policy, first, request.split, request.fields, str(source.path))
    return rename_fields(rows, request.policy, required, request.fields, layout.what)


def recognise_layout(source: AnnotationFile, records: bool = True) -> AnnotationLayout:
    """Detect the layout from the first row; "pairs" if no other fits, whose reader then names the missing fields.

    Args:
        source: the file.
        records: whether to consider layouts that only yield caption records.
    """
    return next(one for one in REGISTRY if (records or one.rows is not None) and one.fits(source))


def detect_layout(path: str | Path) -> str:
    """The name of an annotation file's layout, detected from its first row.

    Raises:
        DataError: the file is missing or empty.
    """
    return recognise_layout(open_annotations(path)).name


def find_layout(source: AnnotationFile, name: str, records: bool = True) -> AnnotationLayout:
    """The layout for a value of `data.layout`.

    Args:
        source: the file.
        name: one of `LAYOUTS`, or "auto".
        records: whether "auto" considers layouts that only yield caption records.

    Raises:
        DataError: there is no such layout, or the file does not have it.
    """
    if name == "auto":
        return recognise_layout(source, records)
    for layout in REGISTRY:
        if layout.name == name:
            if layout.rows is not None and not layout.fits(source):
                other = recognise_layout(source).what
                message = f"{source.path} is not {layout.what}, as data.layout says: it looks like {other}; try auto"
                raise DataError(message, "another layout")
            return layout
    known = ", ".join(("auto", *sorted(LAYOUTS, key=("pairs", "alpro", "msrvtt", "didemo", *LAYOUTS).index)))
    raise DataError(f"data.layout is {name!r}: it must be one of {known}", "unknown layout")
