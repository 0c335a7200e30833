"""A list of video or picture names per split, one per line, and one file with all captions (`data.captions`).

MSVD        train_list_msvd.txt            raw-captions.pkl, or AllVideoDescriptions.txt
Flickr8k    Flickr_8k.trainImages.txt      Flickr8k.token.txt
your own    names, one per line            a JSON object of name to captions

A caption is a text or a list of words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from uniadapter.data.layouts.annotation_file import AnnotationFile, ReadRequest, read_json
from uniadapter.data.layouts.field_names import is_known_field, is_media_name
from uniadapter.data.layouts.open_files import BROKEN, error_reason, open_bytes, open_text
from uniadapter.data.layouts.pickles import read_pickle
from uniadapter.data.layouts.records import DataError, annotation_path
from uniadapter.data.media.paths import has_video_suffix, video_name

_FOLDERS = ("images", "Images", "Flicker8k_Dataset")  # [sic], the archive's spelling


def is_name_list(source: AnnotationFile) -> bool:
    """Whether a file is a list of names, one per line."""
    table = source.table
    return table is not None and len(table.names) == 1 and " " not in table.line and not is_known_field(table.names[0])


def listed_rows(request: ReadRequest) -> Iterator[tuple[str, object]]:
    """Yield a row per listed name, with all its captions; names without captions are reported.

    Raises:
        DataError: `data.captions` is not set, or the file does not exist.
    """
    if request.captions is None:
        raise DataError(
            f"{request.path} is a list of names without captions: set data.captions to the file with the captions, "
            "such as raw-captions.pkl",
            "no captions",
        )
    captions = _captions(annotation_path(request.captions))
    listed: dict[str, str] = {}
    try:
        with open_text(request.path) as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    listed.setdefault(line.strip(), f"{request.path}:{number}")
    except (UnicodeDecodeError, *BROKEN) as error:
        raise DataError(f"{request.path} is not text in UTF-8 ({error_reason(error)})", "not text") from None
    request.policy.listed = len(listed)
    for name, origin in listed.items():
        found = captions.get(name, captions.get(Path(name).stem))
        if found is None:
            noun = "picture" if _is_picture(name) else "video"
            message = (
                f"{origin}: {request.captions} has no caption of {noun} {name[:80]}: use two files of the same release"
            )
            request.policy.report(DataError(message, f"{noun} without a caption"))
            continue
        texts = [_text(one) for one in found] if isinstance(found, (list, tuple)) else found
        if _is_picture(name):
            paths = (name, *(f"{folder}/{name}" for folder in _FOLDERS))
            yield origin, {"image": paths, "image_id": name, "caption": texts}
        else:
            yield origin, {"video": video_name(name), "video_id": name, "caption": texts}


def _is_picture(name: str) -> bool:
    return is_media_name(name) and not has_video_suffix(name)


def _captions(file: Path) -> Mapping[str, Any]:
    with open_bytes(file) as stream:
        mark = stream.read(1)
    if file.suffix.lower() in (".pkl", ".pickle"):
        content = read_pickle(file)
    elif mark in (b"{", b"["):
        content = read_json(file)
    else:
        content = _lines(file)
    if not isinstance(content, Mapping):
        raise DataError(f"{file} should be an object of video name to captions", "not captions")
    return content


def _lines(file: Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    try:
        with open_text(file) as stream:
            for line in stream:
                name, _, text = line.strip().partition("\t" if "\t" in line else " ")
                if text and not name.startswith("#"):
                    found.setdefault(name.partition("#")[0], []).append(text)
    except (UnicodeDecodeError, *BROKEN) as error:
        raise DataError(f"{file} is not text in UTF-8 ({error_reason(error)})", "not text") from None
    return found


def _text(caption: object) -> object:
    words = isinstance(caption, (list, tuple)) and all(isinstance(word, str) for word in caption)
    return " ".join(caption) if words else caption  # type: ignore[arg-type]
