"""JSON files whose top level is an object instead of a list of records.

{train: [records], test: [records]}                     your own files
{data: [records]}, or `annotations`, `questions`, …     TextCaps, TextVQA, DocVQA, CLEVR
{id: record}                                            GQA's questions, ActivityNet's paragraphs, your own files
{file: caption or captions}                             your own files
{image: [paths], caption: [texts]}                      columns, as pandas writes them
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from uniadapter.data.layouts.annotation_file import AnnotationFile, ReadRequest
from uniadapter.data.layouts.field_names import VISUAL_IDS, VISUALS, is_media_name, match_fields, split_name
from uniadapter.data.layouts.records import DataError, field_names
from uniadapter.data.media.paths import video_name

_LISTS = ("data", "annotations", "questions", "records", "rows", "samples", "items", "examples", "captions")


def is_wrapped(source: AnnotationFile) -> bool:
    """Whether a file is an object with a list of records, or with a list per split."""
    content = source.first or {}
    return source.form == "object" and bool(_records_key(content) or _splits(content))


def wrapped_rows(request: ReadRequest) -> Iterator[tuple[str, object]]:
    """Yield the records of the list, or of the requested split's list.

    Raises:
        DataError: the file has splits, but not this one.
    """
    content = request.source.first or {}
    name = _records_key(content)
    if name is None:
        splits = _splits(content)
        wanted = split_name(request.split) or "test"
        if wanted not in splits:
            raise DataError(f"{request.path} has {field_names(splits)}, no split {wanted}", "another split")
        name = splits[wanted]
    return ((f"{request.path}.{name}[{index}]", row) for index, row in enumerate(content[name]))


def is_keyed(source: AnnotationFile) -> bool:
    """Whether a file is an object of id to record, or of file name to captions."""
    content = source.first or {}
    if source.form != "object" or not content or _columns(content):
        return False
    some = list(islice(content.items(), 100))
    if all(isinstance(value, Mapping) for _, value in some):
        return True
    texts = all(isinstance(value, (str, list)) for _, value in some)
    return texts and all(isinstance(key, str) and is_media_name(key) for key, _ in some)


def keyed_rows(request: ReadRequest) -> Iterator[tuple[str, object]]:
    """Yield a row per key, which becomes the question's id, or the name or id of the visual."""
    for key, record in (request.source.first or {}).items():
        origin = f"{request.path}[{str(key)[:60]!r}]"
        if isinstance(record, (str, list)):
            yield origin, {"image": key, "caption": record}
        elif isinstance(record, Mapping):
            yield origin, _record(key, record)
        else:
            yield origin, record


def is_columnar(source: AnnotationFile) -> bool:
    """Whether a file is an object of columns, each a list or an object of row to value."""
    return source.form == "object" and bool(_columns(source.first or {}))


def columnar_rows(request: ReadRequest) -> Iterator[tuple[str, object]]:
    """Yield the rows of the columns."""
    columns = _columns(request.source.first or {})
    for index, cells in enumerate(zip(*columns.values(), strict=True)):
        yield f"{request.path}[{index}]", dict(zip(columns, cells, strict=True))


def _record(key: str, record: Mapping[str, Any]) -> dict[str, Any]:
    if {"sentences", "timestamps"} <= record.keys():  # ActivityNet: one sentence per segment of the video
        sentences = record["sentences"]
        valid = isinstance(sentences, list) and all(isinstance(one, str) for one in sentences)
        caption = " ".join(one.strip() for one in sentences) if valid else sentences
        return {"video": video_name(key), "video_id": key, "caption": caption}
    named = match_fields(record, {})
    if "question" in named:
        return {"question_id": key, **record}
    if named.keys() & {*VISUALS, *VISUAL_IDS}:
        return dict(record)
    return {"image": key if is_media_name(key) else None, "image_id": key, **record}


def _records_key(content: Mapping[str, Any]) -> str | None:
    for name in _LISTS:
        value = content.get(name)
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            return name
    return None


def _splits(content: Mapping[str, Any]) -> dict[str, str]:
    """Split to the file's name of it, if all keys of the object name splits and all values are lists."""
    named = {split_name(key): key for key, value in content.items() if isinstance(value, list)}
    whole = len(named) == len(content) and None not in named
    return {split: key for split, key in named.items() if split is not None} if whole else {}


def _columns(content: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The columns, if the object consists of columns of equal length; else empty."""
    named = match_fields(content, {})
    if not (named.keys() & {*VISUALS, *VISUAL_IDS} and named.keys() & {"caption", "question"}):
        return {}
    columns = {name: list(value.values()) if isinstance(value, Mapping) else value for name, value in content.items()}
    lists = {name: value for name, value in columns.items() if isinstance(value, list)}
    lengths = {len(value) for value in lists.values()}
    return lists if len(lists) == len(columns) and len(lengths) == 1 else {}
