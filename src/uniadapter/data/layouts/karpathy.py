"""Karpathy's `dataset_coco.json` and `dataset_flickr30k.json`, which hold all splits.

`{images: [{filepath, filename, split, sentences: [{raw}], cocoid or imgid}]}`; "restval" is part of the training split.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from uniadapter.data.layouts.annotation_file import AnnotationFile, ReadRequest
from uniadapter.data.layouts.records import DataError, field_names
from uniadapter.data.layouts.split_rows import split_names


def is_karpathy(source: AnnotationFile) -> bool:
    """Whether a file has this layout."""
    images = (source.first or {}).get("images")
    first = images[0] if isinstance(images, list) and images else None
    return isinstance(first, Mapping) and {"sentences", "filename"} <= first.keys()


def karpathy_rows(request: ReadRequest) -> Iterator[tuple[str, object]]:
    """Yield a row per picture of the requested split, with its sentences.

    Raises:
        DataError: the file has no picture of the split.
    """
    wanted = split_names(request.split)
    images: list[Any] = (request.source.first or {})["images"]
    others, found = set(), 0
    for index, image in enumerate(images):
        origin = f"{request.path}.images[{index}]"
        if isinstance(image, Mapping) and isinstance(image.get("split"), str) and image["split"] not in wanted:
            others.add(image["split"])
            request.policy.changed["pictures of other splits ignored"] += 1
            continue
        found += 1
        yield origin, _row(image) if isinstance(image, Mapping) else image
    if not found:
        there = field_names(sorted(others))
        raise DataError(f"{request.path} has pictures of {there}, none of {request.split}", "another split")


def _row(image: Mapping[str, Any]) -> dict[str, Any]:
    name, folder = image.get("filename"), image.get("filepath")
    row: dict[str, Any] = {"image": name, "caption": image.get("sentences"), "image_id": image.get("cocoid")}
    if isinstance(name, str) and name:
        folders = [folder] if isinstance(folder, str) and folder else ["images", "flickr30k-images", "flickr30k_images"]
        paths = [f"{one}/{name}" for one in folders]
        row["image"] = (*paths, name) if folder else (name, *paths)
    return row
