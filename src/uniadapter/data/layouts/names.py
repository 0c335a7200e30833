"""A list of videos or pictures, one a line, and one file of captions for every split, named as `data.captions`.

MSVD        train_list_msvd.txt            raw-captions.pkl, or AllVideoDescriptions.txt
Flickr8k    Flickr_8k.trainImages.txt      Flickr8k.token.txt
one's own   names, one a line              an object of name to captions as JSON

A caption is a text or a list of words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from uniadapter.data.layouts.fields import is_known, is_media
from uniadapter.data.layouts.opening import BROKEN, open_bytes, open_text, reason
from uniadapter.data.layouts.pickles import read_pickle
from uniadapter.data.layouts.sources import Reading, Source, read_json
from uniadapter.data.media.files import has_video_suffix, video_name
from uniadapter.data.media.records import DataError, existing

_FOLDERS = ("images", "Images", "Flicker8k_Dataset")  # the last is spelt so in the archive


def is_name_list(source: Source) -> bool:
    """Whether a file is a list of names, one a line."""
    table = source.table
    return table is not None and len(table.names) == 1 and " " not in table.line and not is_known(table.names[0])


def listed_rows(reading: Reading) -> Iterator[tuple[str, object]]:
    """A row for each listed name, with all its captions; one without any is reported.

    Raises:
        DataError: `data.captions` is not set, or no such file.
    """
    if reading.captions is None:
        raise DataError(
            f"{reading.path} is a list of names without captions: set data.captions to the file that has them, "
            "raw-captions.pkl say",
            "no captions",
        )
    captions = _captions(existing(reading.captions))
    listed: dict[str, str] = {}
    try:
        with open_text(reading.path) as stream:
            for number, line in enumerate(stream, start=1):
                if line.strip():
                    listed.setdefault(line.strip(), f"{reading.path}:{number}")
    except (UnicodeDecodeError, *BROKEN) as error:
        raise DataError(f"{reading.path} is not text in UTF-8 ({reason(error)})", "not text") from None
    reading.problems.listed = len(listed)
    for name, origin in listed.items():
        found = captions.get(name, captions.get(Path(name).stem))
        if found is None:
            noun = "picture" if _is_picture(name) else "video"
            message = (
                f"{origin}: {reading.captions} has no caption of {noun} {name[:80]}: take the two from one release"
            )
            reading.problems.report(DataError(message, f"{noun} without a caption"))
            continue
        texts = [_text(one) for one in found] if isinstance(found, (list, tuple)) else found
        if _is_picture(name):
            paths = (name, *(f"{folder}/{name}" for folder in _FOLDERS))
            yield origin, {"image": paths, "image_id": name, "caption": texts}
        else:
            yield origin, {"video": video_name(name), "video_id": name, "caption": texts}


def _is_picture(name: str) -> bool:
    return is_media(name) and not has_video_suffix(name)


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
        raise DataError(f"{file} should be an object of video to captions", "not captions")
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
        raise DataError(f"{file} is not text in UTF-8 ({reason(error)})", "not text") from None
    return found


def _text(caption: object) -> object:
    words = isinstance(caption, (list, tuple)) and all(isinstance(word, str) for word in caption)
    return " ".join(caption) if words else caption  # type: ignore[arg-type]
