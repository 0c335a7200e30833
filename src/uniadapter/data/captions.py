"""Loading of retrieval and captioning splits, from a file or from a Hugging Face dataset."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from uniadapter.config import DataConfig
from uniadapter.data.layouts.records import DataError, ErrorPolicy, Record, group_field, id_field
from uniadapter.data.layouts.registry import read_records
from uniadapter.data.media.file_kinds import has_video_suffix
from uniadapter.data.media.images import DatasetPicture, Rows
from uniadapter.data.split_builder import CleanText, SplitBuilder, data_root, finish_split
from uniadapter.data.splits import RetrievalSplit
from uniadapter.data.text import clean_caption


def load_retrieval(
    path: str | Path, config: DataConfig, name: str, check: bool | None = None, clean: CleanText = clean_caption
) -> RetrievalSplit:
    """Read a split from an annotation file.

    Args:
        path: a file in one of the layouts of `layouts/registry.py` (those of COCO, Flickr30K, MSR-VTT, DiDeMo and
            others), JSONL, CSV or Parquet of `image, caption` or `video, caption`, or a folder of pictures.
        config: `root`, `layout`, `captions`, `fields`, `max_words`, `on_error` and `workers` are used.
        name: of the split.
        check: decode every visual now (of a video one frame); those that fail raise or are dropped, by `on_error`.
            None checks if `on_error` is "skip" and the split is not "train": evaluation must know its gallery
            beforehand, while training replaces an unreadable visual when it meets it.
        clean: cleans a caption.

    Raises:
        DataError: the file cannot be read or nothing in it is usable; with `on_error="raise"` also at the
            first record that cannot be used.
    """
    policy = ErrorPolicy(config.on_error)
    root = data_root(path, config)
    split = RetrievalSplit(name, skipped=policy.skipped, errors=policy.errors)
    builder = SplitBuilder(split, policy, clean, config.max_words, "caption")
    for record in read_records(path, policy, config.layout, config.captions, split=name, fields=config.fields):
        builder.add_file(record, root)
    builder.describe(Path(path).name)
    if check is None:
        check = config.on_error == "skip" and name != "train"
    return finish_split(split, policy, str(path), check, config.workers)


def from_dataset(
    dataset: Rows,
    image_column: str = "image",
    caption_column: str = "caption",
    *,
    id_column: str | None = None,
    group_column: str | None = None,
    config: DataConfig | None = None,
    name: str = "dataset",
    check: bool | None = None,
) -> RetrievalSplit:
    """Make a split from a Hugging Face dataset, or any sequence of mappings.

    Args:
        dataset: its rows hold a picture (Pillow image, path, or `{"bytes": ..., "path": ...}`) and a caption
            or a list of captions. Pictures are read from the dataset when needed, not kept in memory.
        image_column: column of the picture.
        caption_column: column of the caption.
        id_column: column of an id that rows of the same picture share; without it, rows share a picture only if they
            have the same path.
        group_column: column of the group that pictures share which are each other's hard negatives.
        config: as for `load_retrieval`; `root` defaults to the working directory.
        name: of the split.
        check: as for `load_retrieval`.

    Raises:
        DataError: as `load_retrieval`.
    """
    config = config or DataConfig()
    policy = ErrorPolicy(config.on_error)
    split = RetrievalSplit(name, skipped=policy.skipped, errors=policy.errors)
    builder = SplitBuilder(split, policy, clean_caption, config.max_words, "caption")
    columns = (image_column, caption_column) + ((id_column,) if id_column else ())
    for row, (image, caption, *ids), group in _columns(dataset, columns, group_column, name, policy):
        origin = f"{name}[{row}]"
        try:
            ids = [id_field(origin, str(id_column), one) for one in ids]
        except DataError as error:
            policy.report(error)
            continue
        for one in _captions(caption, caption_column, origin, policy):
            if isinstance(image, (str, Path)):
                noun = "video" if has_video_suffix(image) else "picture"
                record = Record(str(image), one, ids[0] if ids else str(image), origin, noun, group=group)
                builder.add_file(record, Path(config.root or ""))
            else:
                key = ids[0] if ids else row
                builder.add((image_column, key), DatasetPicture(dataset, row, image_column), key, one, origin, group)
    builder.describe()
    if check is None:
        check = config.on_error == "skip" and name != "train"
    return finish_split(split, policy, name, check, config.workers)


def _columns(
    dataset: Rows, names: tuple[str, ...], group: str | None, where: str, policy: ErrorPolicy
) -> Iterator[tuple[int, tuple[Any, ...], str | int | None]]:
    """Row indices, the values of these columns, and groups; the pictures of a Hugging Face dataset are not decoded."""
    known = getattr(dataset, "column_names", None)
    if known is None:
        for row in range(len(dataset)):
            values = dataset[row]
            if not isinstance(values, Mapping):
                message = f"{where}[{row}] is of type {type(values).__name__}: it should be a mapping of columns"
                policy.report(DataError(message, "not an object"))
                continue
            absent = [name for name in names if values.get(name) is None]
            if absent:
                policy.report(_no_column(f"{where}[{row}]", absent[0], list(values)))
            else:
                yield row, tuple(values[name] for name in names), group_field({"group": values.get(group or "")})
        return
    for name in (*names, group) if group else names:
        if name not in known:
            raise _no_column(where, name, known)
    lazy = len(dataset) > 0 and isinstance(dataset[0][names[0]], (Image.Image, dict))
    table: Any = dataset  # indexing by a name gives a column
    images = [None] * len(dataset) if lazy else table[names[0]]
    groups = table[group] if group else [None] * len(dataset)
    columns = zip(images, *(table[name] for name in names[1:]), strict=True)
    for row, (content, value) in enumerate(zip(columns, groups, strict=True)):
        yield row, content, group_field({"group": value})


def _captions(value: object, column: str, origin: str, policy: ErrorPolicy) -> list[str]:
    """The captions of one row; values that are not strings are reported."""
    found = list(value) if isinstance(value, (list, tuple)) else [value]
    texts = [one for one in found if isinstance(one, str)]
    if not texts or len(texts) < len(found):
        message = f"{origin}: column {column!r} should hold a string, or a list of strings: pass another caption_column"
        policy.report(DataError(message, "unusable caption"))
    return texts


def _no_column(where: str, name: str, known: list[str]) -> DataError:
    return DataError(f"{where}: no column {name!r} (it has {', '.join(known)}): pass its name", "missing field")
