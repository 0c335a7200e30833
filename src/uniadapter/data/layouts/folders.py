"""A folder of pictures or videos: with Hugging Face's `metadata` file, or with a text beside each.

FOLDER/metadata.jsonl, metadata.csv or metadata.parquet     file_name (below the folder) and text, or other names
FOLDER/a.jpg, FOLDER/a.txt                                  the text is the caption; so shards of img2dataset unpack

Where the folder has a folder for each split, that of the split is taken.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from uniadapter.data.layouts.fields import is_media, names_of
from uniadapter.data.layouts.opening import reason
from uniadapter.data.layouts.selecting import split_names
from uniadapter.data.layouts.sources import Reading, Source, open_source
from uniadapter.errors import DataError

_METADATA = tuple(f"metadata.{suffix}" for suffix in ("jsonl", "csv", "parquet", "json", "tsv"))
_SIDECARS = (".txt", ".caption")
_LONGEST = 1 << 20  # bytes of a text beside a picture


def is_folder(source: Source) -> bool:
    """Whether it is a folder."""
    return source.form == "folder"


def folder_rows(reading: Reading) -> Iterator[tuple[str, object]]:
    """Rows, one a row of the metadata or one a picture; paths are absolute.

    Raises:
        DataError: the folder has neither.
    """
    folder = _of_split(reading)
    metadata = next((folder / name for name in _METADATA if (folder / name).is_file()), None)
    if metadata is not None:
        for origin, row in open_source(metadata).rows(reading.problems):
            yield origin, _below(folder, row, reading.fields) if isinstance(row, Mapping) else row
        return
    media = sorted(_media(folder))
    if not media and ((folder / "dataset_info.json").is_file() or (folder / "dataset_dict.json").is_file()):
        raise DataError(
            f"{folder} is a dataset of Hugging Face's: load_from_disk it, and give it to uniadapter.data.from_dataset",
            "dataset",
        )
    if not media and any(folder.glob("*.tar")):
        raise DataError(f"{folder} has tar shards: unpack them, and name the folder with the pictures", "shards")
    if not media:
        raise DataError(
            f"{folder} has no picture, no video and no metadata.jsonl or .csv: name another", "empty folder"
        )
    texts = {path: _sidecar(path) for path in media}
    if not any(texts.values()):
        raise DataError(
            f"{folder} has {len(media):,} pictures or videos without texts: add metadata.jsonl with file_name "
            "and text, or a .txt of the same name beside each",
            "no captions",
        )
    for path, text in texts.items():
        if text is None:
            message = f"{path} has no .txt of its name beside it: add one, or remove it"
            reading.problems.report(DataError(message, "picture without a caption"))
            continue
        try:
            captions = [line.strip() for line in _read(text).splitlines() if line.strip()]
        except DataError as error:
            reading.problems.report(error)
            continue
        yield str(text), {"image": str(path), "image_id": str(path.relative_to(folder)), "caption": captions or ""}


def _of_split(reading: Reading) -> Path:
    """The folder of the split below the one that is named, if there is one and nothing says otherwise."""
    folder = reading.path.absolute()
    if any((folder / name).is_file() for name in _METADATA):
        return folder
    below = next((folder / name for name in split_names(reading.split) if (folder / name).is_dir()), None)
    if below is not None:
        reading.problems.notes.append(f"read from {below}")
    return below or folder


def _below(folder: Path, row: Mapping[str, object], fields: Mapping[str, str]) -> dict[str, object]:
    """The row with its path made absolute; as it stands there the path is the id, unless the row has one."""
    names = names_of(row, fields)
    ours = "image" if "image" in names else "video"
    value = row.get(names.get(ours, ""))
    if not isinstance(value, str) or not value.strip():
        return dict(row)
    outside = os.path.normpath(value).split(os.sep)[0] == os.pardir
    more = {} if f"{ours}_id" in names else {f"{ours}_id": value}
    return {**row, **more, names[ours]: value if outside else str(folder / value)}


def _media(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [one for one in folders if not one.startswith(".")]
        yield from (Path(parent, name) for name in files if is_media(name) and not name.startswith("."))


def _sidecar(path: Path) -> Path | None:
    return next((path.with_suffix(one) for one in _SIDECARS if path.with_suffix(one).is_file()), None)


def _read(file: Path) -> str:
    try:
        if file.stat().st_size > _LONGEST:
            raise DataError(f"{file} is longer than a caption: {file.stat().st_size:,} bytes", "unusable caption")
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{file} is not text in UTF-8: save it as such", "unusable caption") from None
    except OSError as error:
        raise DataError(f"{file} cannot be read ({reason(error)})", "unusable caption") from None
