"""Karpathy's `dataset_coco.json` and `dataset_flickr30k.json`, which hold every split.

`{images: [{filepath, filename, split, sentences: [{raw}], cocoid or imgid}]}`; "restval" belongs to training.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from uniadapter.data.layouts.selecting import split_names
from uniadapter.data.layouts.sources import Reading, Source
from uniadapter.data.media.records import DataError, field_names


def is_karpathy(source: Source) -> bool:
    """Whether a file is one."""
    images = (source.first or {}).get("images")
    first = images[0] if isinstance(images, list) and images else None
    return isinstance(first, Mapping) and {"sentences", "filename"} <= first.keys()


def karpathy_rows(reading: Reading) -> Iterator[tuple[str, object]]:
    """Rows of the split that is read, a picture with its sentences each.

    Raises:
        DataError: the file has no picture of the split.
    """
    wanted = split_names(reading.split)
    images: list[Any] = (reading.source.first or {})["images"]
    others, found = set(), 0
    for index, image in enumerate(images):
        origin = f"{reading.path}.images[{index}]"
        if isinstance(image, Mapping) and isinstance(image.get("split"), str) and image["split"] not in wanted:
            others.add(image["split"])
            reading.problems.changed["pictures of other splits left aside"] += 1
            continue
        found += 1
        yield origin, _row(image) if isinstance(image, Mapping) else image
    if not found:
        there = field_names(sorted(others))
        raise DataError(f"{reading.path} has pictures of {there}, none of {reading.split}", "another split")


def _row(image: Mapping[str, Any]) -> dict[str, Any]:
    name, folder = image.get("filename"), image.get("filepath")
    row: dict[str, Any] = {"image": name, "caption": image.get("sentences"), "image_id": image.get("cocoid")}
    if isinstance(name, str) and name:
        folders = [folder] if isinstance(folder, str) and folder else ["images", "flickr30k-images", "flickr30k_images"]
        paths = [f"{one}/{name}" for one in folders]
        row["image"] = (*paths, name) if folder else (name, *paths)
    return row
