"""JSON objects that hold records in other ways than a list of them.

{train: [records], test: [records]}                     one's own
{data: [records]}, or `annotations`, `questions`, …     TextCaps, TextVQA, DocVQA, CLEVR
{id: record}                                            GQA's questions, ActivityNet's paragraphs, one's own
{file: caption or captions}                             one's own
{image: [paths], caption: [texts]}                      pandas, by columns
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from uniadapter.data.layouts.fields import VISUAL_IDS, VISUALS, is_media, names_of, split_of
from uniadapter.data.layouts.sources import Reading, Source
from uniadapter.data.media.files import video_name
from uniadapter.data.media.records import DataError, field_names

_LISTS = ("data", "annotations", "questions", "records", "rows", "samples", "items", "examples", "captions")


def is_wrapped(source: Source) -> bool:
    """Whether a file is an object with its records in a list."""
    content = source.first or {}
    return source.form == "object" and bool(_list_of(content) or _splits(content))


def wrapped_rows(reading: Reading) -> Iterator[tuple[str, object]]:
    """The records of that list; of an object of splits, those of the split that is read.

    Raises:
        DataError: the file has splits, but not this one.
    """
    content = reading.source.first or {}
    name = _list_of(content)
    if name is None:
        splits = _splits(content)
        wanted = split_of(reading.split) or "test"
        if wanted not in splits:
            raise DataError(f"{reading.path} has {field_names(splits)}, no split {wanted}", "another split")
        name = splits[wanted]
    return ((f"{reading.path}.{name}[{index}]", row) for index, row in enumerate(content[name]))


def is_keyed(source: Source) -> bool:
    """Whether a file is an object of id to record, or of file name to captions."""
    content = source.first or {}
    if source.form != "object" or not content or _columns(content):
        return False
    some = list(islice(content.items(), 100))
    if all(isinstance(value, Mapping) for _, value in some):
        return True
    texts = all(isinstance(value, (str, list)) for _, value in some)
    return texts and all(isinstance(key, str) and is_media(key) for key, _ in some)


def keyed_rows(reading: Reading) -> Iterator[tuple[str, object]]:
    """A row for each id: of a question its number, else the name of what it is about."""
    for key, record in (reading.source.first or {}).items():
        origin = f"{reading.path}[{str(key)[:60]!r}]"
        if isinstance(record, (str, list)):
            yield origin, {"image": key, "caption": record}
        elif isinstance(record, Mapping):
            yield origin, _record(key, record)
        else:
            yield origin, record


def is_columnar(source: Source) -> bool:
    """Whether a file is an object of columns, each a list or an object of row to value."""
    return source.form == "object" and bool(_columns(source.first or {}))


def columnar_rows(reading: Reading) -> Iterator[tuple[str, object]]:
    """The rows across the columns."""
    columns = _columns(reading.source.first or {})
    for index, cells in enumerate(zip(*columns.values(), strict=True)):
        yield f"{reading.path}[{index}]", dict(zip(columns, cells, strict=True))


def _record(key: str, record: Mapping[str, Any]) -> dict[str, Any]:
    if {"sentences", "timestamps"} <= record.keys():  # ActivityNet: what is said of a video's parts, in its order
        sentences = record["sentences"]
        told = isinstance(sentences, list) and all(isinstance(one, str) for one in sentences)
        caption = " ".join(one.strip() for one in sentences) if told else sentences
        return {"video": video_name(key), "video_id": key, "caption": caption}
    named = names_of(record, {})
    if "question" in named:
        return {"question_id": key, **record}
    if named.keys() & {*VISUALS, *VISUAL_IDS}:
        return dict(record)
    return {"image": key if is_media(key) else None, "image_id": key, **record}


def _list_of(content: Mapping[str, Any]) -> str | None:
    for name in _LISTS:
        value = content.get(name)
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            return name
    return None


def _splits(content: Mapping[str, Any]) -> dict[str, str]:
    """The file's names of the splits, if the object is one of splits with a list of records each."""
    named = {split_of(key): key for key, value in content.items() if isinstance(value, list)}
    whole = len(named) == len(content) and None not in named
    return {split: key for split, key in named.items() if split is not None} if whole else {}


def _columns(content: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The columns, if the object is one of columns as long as one another; else none."""
    named = names_of(content, {})
    if not (named.keys() & {*VISUALS, *VISUAL_IDS} and named.keys() & {"caption", "question"}):
        return {}
    columns = {name: list(value.values()) if isinstance(value, Mapping) else value for name, value in content.items()}
    lists = {name: value for name, value in columns.items() if isinstance(value, list)}
    lengths = {len(value) for value in lists.values()}
    return lists if len(lists) == len(columns) and len(lengths) == 1 else {}
