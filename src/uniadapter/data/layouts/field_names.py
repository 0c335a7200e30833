"""Mapping of a file's field names to the expected ones.

The names are matched on the first usable row of a file, in this order: the mapping in `data.fields`, the expected name
itself, one of the aliases below. Case, spaces and hyphens are ignored.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from uniadapter.data.layouts.records import (
    DataError,
    ErrorPolicy,
    Required,
    Row,
    missing_field_error,
    missing_fields,
    usable_rows,
)
from uniadapter.data.media.file_kinds import has_video_suffix

# Expected name to its aliases, likeliest first.
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
    "answer": ("ans",),  # `answers.py` has the other names of answers
    "split": (),
    "group": (),
}  # fmt: skip
TARGETS = tuple(name for name in ALIASES)
SPLITS = {
    "train": ("train", "training", "restval"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
VISUALS = ("image", "video")
VISUAL_IDS = ("video_id", "image_id")
_URL_FIELDS = ("url", "image_url", "img_url", "video_url", "coco_url", "image_urls", "imageurl")
# Fields by which layouts are recognised, which are not aliases.
_LAYOUT_FIELDS = frozenset({
    "answers", "clip_name", "vid_key", "key", "direct_answers", "label", "times", "comment_number", "id", *_URL_FIELDS,
})  # fmt: skip
_ADVICE = "add it, rename one, or map it with data.fields"
_FOLDERS = ("filepath", "file_path")  # the folder of a picture, if there is a field with its name too
_MEDIA = re.compile(r"\.(jpe?g|png|webp|bmp|gif|tiff?|ppm|avif|heic)$", re.IGNORECASE)


def is_media_name(cell: str) -> bool:
    """Whether a text ends with the suffix of a picture or video."""
    return bool(_MEDIA.search(cell)) or has_video_suffix(cell)


def is_url(value: object) -> bool:
    """Whether a value is a URL."""
    return isinstance(value, str) and value[:8].lower().startswith(("http://", "https://", "s3://", "gs://"))


def split_name(value: object) -> str | None:
    """The split ("train", "val" or "test") that a value names, such as "validation"; None if it names none."""
    word = value.strip().lower() if isinstance(value, str) else None
    return next((split for split, names in SPLITS.items() if word in names), None)


def normalised(name: object) -> str:
    """A field's name for comparison: lower case, with underscores for spaces and hyphens."""
    return re.sub(r"[\s-]+", "_", str(name).strip().lower())


_KNOWN = _LAYOUT_FIELDS.union(ALIASES, *ALIASES.values())


def is_known_field(name: str) -> bool:
    """Whether a column's name is an expected one, an alias, or a field of a known layout."""
    return normalised(name) in _KNOWN


def match_fields(row: Row, fields: Mapping[str, str]) -> dict[str, str]:
    """Expected name to the row's name, for each expected field that the row has.

    Args:
        row: the first row of a file.
        fields: `data.fields`.
    """
    there = {normalised(name): str(name) for name in row if isinstance(name, str)}
    found: dict[str, str] = {}
    for expected, aliases in ALIASES.items():
        if expected in fields:
            if fields[expected] in row:
                found[expected] = fields[expected]
        elif expected in row:
            found[expected] = expected
        else:
            actual = next((there[alias] for alias in (expected, *aliases) if alias in there), None)
            if actual is not None and actual not in fields.values():
                found[expected] = actual
    if found.keys() >= set(
        VISUALS
    ):  # with an exact name and an alias, such as `image` and `video_name`, take the exact
        exact = [one for one in VISUALS if found[one] == one or one in fields]
        for one in set(VISUALS).difference(exact or ["video"]):
            del found[one]
    return found


def rename_fields(
    rows: Iterable[tuple[str, object]],
    policy: ErrorPolicy,
    required: Required,
    fields: Mapping[str, str],
    layout: str,
) -> Iterator[tuple[str, Row]]:
    """Yield rows with the expected field names, and report those without a required field.

    Args:
        rows: (origin, row), as read from the file.
        policy: handles rows that cannot be used.
        required: expected names of the required fields; of a tuple, one is enough.
        fields: `data.fields`.
        layout: description of the file's layout, for errors.
    """
    names: dict[str, str] | None = None
    groups = [(name,) if isinstance(name, str) else name for name in required]
    for origin, row in rows:
        if not isinstance(row, Mapping):
            yield from usable_rows([(origin, row)], policy, required)
            continue
        if names is None:
            found = match_fields(row, fields)
            if not missing_fields(required, found.keys()):
                names = {expected: actual for expected, actual in found.items() if expected != actual}
        if names:
            more = {expected: row.get(actual) for expected, actual in names.items()}
            row = {
                **row,
                **{expected: value for expected, value in more.items() if value is not None or expected in fields},
            }
            if names.get("image") in _FOLDERS:
                row = _joined(row)
        if not _complete(row, groups):
            absent = missing_fields(required, {name for name, value in row.items() if value is not None})
            policy.report(layout_field_error(origin, absent, row, names or {}, fields, layout))
        else:
            yield origin, row


def _joined(row: dict[str, Any]) -> dict[str, Any]:
    """The row with `filepath` (a folder) and `filename` joined, as in Hugging Face's copies of Karpathy's files."""
    folder, name = row["image"], row.get("filename", row.get("file_name"))
    if isinstance(folder, str) and isinstance(name, str) and folder and name and not is_media_name(folder):
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


def layout_field_error(
    origin: str, absent: list[str], row: Row, names: Mapping[str, str], fields: Mapping[str, str], layout: str
) -> DataError:
    """The error for a row without a required field: its name in the file, and how to fix it."""
    if any(normalised(name) in _URL_FIELDS for name in row) and any("'image'" in one for one in absent):
        return DataError(
            f"{origin} has the URL of a picture, not a file: download the pictures first (with img2dataset, for "
            "example), and name each file in a field 'image'",
            "address instead of a file",
        )
    for expected, actual in fields.items():
        if actual not in row and any(repr(expected) in one for one in absent):
            return missing_field_error(origin, [repr(actual)], row, f"data.fields names it as the {expected}")
    shown = {name: value for name, value in row.items() if name not in names}
    absent = [repr(names[one.strip("'")]) if one.strip("'") in names else one for one in absent]
    return missing_field_error(origin, absent, shown, f"{_remedy(absent, shown)} (read as {layout})")


def _remedy(absent: list[str], row: Row) -> str:
    """How to fix missing fields: the mapping that is probably meant, if a field's name is similar."""
    pairs = []
    for one in absent:
        expected = one.split(" or ")[0].strip("'")
        near = difflib.get_close_matches(expected, [normalised(name) for name in row], 1, 0.7)
        alias = next((name for name in row if normalised(name) in ALIASES.get(expected, ())), None)
        actual = alias or next((name for name in row if near and normalised(name) == near[0]), None)
        pairs.append(f"{expected}: {'...' if actual is None else str(actual)[:24]}")
    if len(pairs) > sum(pair.endswith("...") for pair in pairs):
        return f"if meant, set data.fields to {{{', '.join(pairs)}}}"
    headless = "" in row.values() and not any(map(is_known_field, row))
    return "its first line should name the columns: image,caption" if headless else _ADVICE
