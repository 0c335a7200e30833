"""The names under which files in circulation, and people's own, have the fields that are wanted.

A file is read by the names of its first usable row: those of this package where it has them, else those that
`data.fields` says, else one of the aliases below. Case, spaces and hyphens don't matter.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from uniadapter.data.media.kinds import has_video_suffix
from uniadapter.data.media.records import (
    DataError,
    ErrorPolicy,
    Required,
    Row,
    absent_fields,
    checked_rows,
    no_field,
)

# Likeliest first.
ALIASES: dict[str, tuple[str, ...]] = {
    "image": (
        "image_path", "img_path", "imagepath", "image_file", "image_filename", "image_file_name", "image_name",
        "img_name", "img",
        "images", "file_path", "filepath", "file_name", "filename", "path", "file",
    ),
    "video": ("video_path", "videopath", "video_file", "video_filename", "video_file_name", "video_name", "videos"),
    "caption": (
        "captions", "text", "texts", "sentence", "sentences", "title", "description", "descriptions", "caption_str",
        "comment", "raw", "txt", "alt_text", "alttext", "encap",
    ),
    "question": ("q", "query", "question_str", "question_text"),
    "image_id": ("cocoid", "imageid", "img_id", "imgid"),
    "video_id": ("videoid", "vid"),
    "question_id": ("questionid", "qid", "question_index"),
    "answer_type": ("answertype",),
    "answer": ("ans",),  # `answers.py` knows where else answers stand
    "split": (),
}  # fmt: skip
TARGETS = tuple(name for name in ALIASES)
SPLITS = {
    "train": ("train", "training", "restval"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
VISUALS = ("image", "video")
VISUAL_IDS = ("video_id", "image_id")
_ADDRESSES = ("url", "image_url", "img_url", "video_url", "coco_url", "image_urls", "imageurl")
# Fields of layouts that are recognised by them, though no alias of ours.
_OTHERS = frozenset({
    "answers", "clip_name", "vid_key", "key", "direct_answers", "label", "times", "comment_number", "id", *_ADDRESSES,
})  # fmt: skip
_PLAIN = "add it, rename one, or map it with data.fields"
_FOLDERS = ("filepath", "file_path")  # of a picture, where its name stands beside
_MEDIA = re.compile(r"\.(jpe?g|png|webp|bmp|gif|tiff?|ppm|avif|heic)$", re.IGNORECASE)


def is_media(cell: str) -> bool:
    """Whether a text ends as the name of a picture or video does."""
    return bool(_MEDIA.search(cell)) or has_video_suffix(cell)


def is_address(value: object) -> bool:
    """Whether a value is an address in the web."""
    return isinstance(value, str) and value[:8].lower().startswith(("http://", "https://", "s3://", "gs://"))


def split_of(value: object) -> str | None:
    """The split that a file's word for it stands for; None if it is none."""
    word = value.strip().lower() if isinstance(value, str) else None
    return next((split for split, names in SPLITS.items() if word in names), None)


def normal(name: object) -> str:
    """A field's name as it is compared."""
    return re.sub(r"[\s-]+", "_", str(name).strip().lower())


_KNOWN = _OTHERS.union(ALIASES, *ALIASES.values())


def is_known(name: str) -> bool:
    """Whether a column's name is one that says what it holds."""
    return normal(name) in _KNOWN


def names_of(row: Row, fields: Mapping[str, str]) -> dict[str, str]:
    """For each of our fields that a row has: the row's name of it."""
    there = {normal(name): str(name) for name in row if isinstance(name, str)}
    found: dict[str, str] = {}
    for ours, aliases in ALIASES.items():
        if ours in fields:
            if fields[ours] in row:
                found[ours] = fields[ours]
        elif ours in row:
            found[ours] = ours
        else:
            theirs = next((there[alias] for alias in (ours, *aliases) if alias in there), None)
            if theirs is not None and theirs not in fields.values():
                found[ours] = theirs
    if found.keys() >= set(VISUALS):  # `image` beside `path`: the first is meant
        exact = [one for one in VISUALS if found[one] == one or one in fields]
        for one in set(VISUALS).difference(exact or ["video"]):
            del found[one]
    return found


def named_rows(
    rows: Iterable[tuple[str, object]],
    problems: ErrorPolicy,
    required: Required,
    fields: Mapping[str, str],
    layout: str,
) -> Iterator[tuple[str, Row]]:
    """Rows under our names, those that lack a required field reported.

    Args:
        rows: (origin, row), as the file has them.
        problems: what becomes of rows that cannot be used.
        required: our names of the fields that are needed; of a tuple, one.
        fields: `data.fields`.
        layout: what the file is taken for, for errors.
    """
    names: dict[str, str] | None = None
    groups = [(name,) if isinstance(name, str) else name for name in required]
    for origin, row in rows:
        if not isinstance(row, Mapping):
            yield from checked_rows([(origin, row)], problems, required)
            continue
        if names is None:
            found = names_of(row, fields)
            if not absent_fields(required, found.keys()):
                names = {ours: theirs for ours, theirs in found.items() if ours != theirs}
        if names:
            more = {ours: row.get(theirs) for ours, theirs in names.items()}
            row = {**row, **{ours: value for ours, value in more.items() if value is not None or ours in fields}}
            if names.get("image") in _FOLDERS:
                row = _joined(row)
        if not _complete(row, groups):
            absent = absent_fields(required, {name for name, value in row.items() if value is not None})
            problems.report(lacking(origin, absent, row, names or {}, fields, layout))
        else:
            yield origin, row


def _joined(row: dict[str, Any]) -> dict[str, Any]:
    """The row with its picture below the folder that it names beside it, as Hugging Face's copies of Karpathy's do."""
    folder, name = row["image"], row.get("filename", row.get("file_name"))
    if isinstance(folder, str) and isinstance(name, str) and folder and name and not is_media(folder):
        return {**row, "image": (f"{folder}/{name}", name)}
    return row


def _complete(row: Row, groups: list[tuple[str, ...]]) -> bool:
    for group in groups:
        for name in group:
            if row.get(name) is not None:
                break
        else:
            return False
    return True


def lacking(
    origin: str, absent: list[str], row: Row, names: Mapping[str, str], fields: Mapping[str, str], layout: str
) -> DataError:
    """The error for a row without a field, by the name that the file has for it, and with the nearest remedy."""
    if any(normal(name) in _ADDRESSES for name in row) and any("'image'" in one for one in absent):
        return DataError(
            f"{origin} has the address of a picture, not a file: download them first (img2dataset, say), and name "
            "each file in a field 'image'",
            "address instead of a file",
        )
    for ours, theirs in fields.items():
        if theirs not in row and any(repr(ours) in one for one in absent):
            return no_field(origin, [repr(theirs)], row, f"data.fields says that it is the {ours}")
    shown = {name: value for name, value in row.items() if name not in names}
    absent = [repr(names[one.strip("'")]) if one.strip("'") in names else one for one in absent]
    return no_field(origin, absent, shown, f"{_remedy(absent, shown)} (read as {layout})")


def _remedy(absent: list[str], row: Row) -> str:
    """What to do about lacking fields: the mapping that is meant, where a field's name is near."""
    pairs = []
    for one in absent:
        ours = one.split(" or ")[0].strip("'")
        near = difflib.get_close_matches(ours, [normal(name) for name in row], 1, 0.7)
        alias = next((name for name in row if normal(name) in ALIASES.get(ours, ())), None)
        theirs = alias or next((name for name in row if near and normal(name) == near[0]), None)
        pairs.append(f"{ours}: {'...' if theirs is None else str(theirs)[:24]}")
    if len(pairs) > sum(pair.endswith("...") for pair in pairs):
        return f"if meant, set data.fields to {{{', '.join(pairs)}}}"
    headless = "" in row.values() and not any(map(is_known, row))
    return "its first line should name the columns: image,caption" if headless else _PLAIN
