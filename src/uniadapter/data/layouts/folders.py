"""A folder of pictures or videos, with Hugging Face's `metadata` file (imagefolder) or a text file for each.

FOLDER/metadata.jsonl, metadata.csv or metadata.parquet     file_name (relative to the folder) and text, or aliases
FOLDER/a.jpg, FOLDER/a.txt                                  the text file has the caption, as in img2dataset's shards

If the folder has a subfolder for each split, that of the requested split is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from uniadapter.data.layouts.annotation_file import AnnotationFile, ReadRequest, open_annotations
from uniadapter.data.layouts.field_names import is_media_name, match_fields
from uniadapter.data.layouts.open_files import error_reason
from uniadapter.data.layouts.split_rows import split_names
from uniadapter.errors import DataError

_METADATA = tuple(f"metadata.{suffix}" for suffix in ("jsonl", "csv", "parquet", "json", "tsv"))
_TEXT_SUFFIXES = (".txt", ".caption")
_MAX_TEXT_BYTES = 1 << 20  # of a picture's text file


def is_folder(source: AnnotationFile) -> bool:
    """Whether the source is a folder."""
    return source.form == "folder"


def folder_rows(request: ReadRequest) -> Iterator[tuple[str, object]]:
    """Yield a row per row of the metadata file or per picture, with absolute paths.

    Raises:
        DataError: the folder has neither metadata nor pictures with text files.
    """
    folder = _split_folder(request)
    metadata = next((folder / name for name in _METADATA if (folder / name).is_file()), None)
    if metadata is not None:
        for origin, row in open_annotations(metadata).rows(request.policy):
            yield origin, _absolute_paths(folder, row, request.fields) if isinstance(row, Mapping) else row
        return
    media = sorted(_media(folder))
    if not media and ((folder / "dataset_info.json").is_file() or (folder / "dataset_dict.json").is_file()):
        raise DataError(
            f"{folder} is a Hugging Face dataset: use load_from_disk, and pass it to uniadapter.data.from_dataset",
            "dataset",
        )
    if not media and any(folder.glob("*.tar")):
        raise DataError(f"{folder} has tar shards: unpack them, and use the folder with the pictures", "shards")
    if not media:
        raise DataError(
            f"{folder} has no picture, no video and no metadata.jsonl or .csv: use another folder", "empty folder"
        )
    texts = {path: _text_file(path) for path in media}
    if not any(texts.values()):
        raise DataError(
            f"{folder} has {len(media):,} pictures or videos without texts: add metadata.jsonl with file_name "
            "and text, or a .txt of the same name for each",
            "no captions",
        )
    for path, text in texts.items():
        if text is None:
            message = f"{path} has no .txt of the same name: add one, or remove the picture"
            request.policy.report(DataError(message, "picture without a caption"))
            continue
        try:
            captions = [line.strip() for line in _read(text).splitlines() if line.strip()]
        except DataError as error:
            request.policy.report(error)
            continue
        yield str(text), {"image": str(path), "image_id": str(path.relative_to(folder)), "caption": captions or ""}


def _split_folder(request: ReadRequest) -> Path:
    """The subfolder of the requested split, if there is one and the folder itself has no metadata file."""
    folder = request.path.absolute()
    if any((folder / name).is_file() for name in _METADATA):
        return folder
    below = next((folder / name for name in split_names(request.split) if (folder / name).is_dir()), None)
    if below is not None:
        request.policy.notes.append(f"read from {below}")
    return below or folder


def _absolute_paths(folder: Path, row: Mapping[str, object], fields: Mapping[str, str]) -> dict[str, object]:
    """The row with an absolute path; the original path becomes the id, unless the row has one."""
    names = match_fields(row, fields)
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
        yield from (Path(parent, name) for name in files if is_media_name(name) and not name.startswith("."))


def _text_file(path: Path) -> Path | None:
    return next((path.with_suffix(one) for one in _TEXT_SUFFIXES if path.with_suffix(one).is_file()), None)


def _read(file: Path) -> str:
    try:
        if file.stat().st_size > _MAX_TEXT_BYTES:
            raise DataError(f"{file} is too long for a caption: {file.stat().st_size:,} bytes", "unusable caption")
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(f"{file} is not text in UTF-8: save it as such", "unusable caption") from None
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error_reason(error)})", "unusable caption") from None
