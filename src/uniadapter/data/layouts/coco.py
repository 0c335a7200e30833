"""Official caption files of COCO, nocaps and VizWiz-Captions, such as `captions_val2017.json`.

`{images: [{id, file_name}], annotations: [{image_id, caption}]}`; pictures are searched for in the data folder and in
its subfolders named after the split and "images".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from uniadapter.data.layouts.annotation_file import AnnotationFile, ReadRequest
from uniadapter.errors import DataError


def is_coco(source: AnnotationFile) -> bool:
    """Whether a file has this layout."""
    content = source.first or {}
    images = content.get("images")
    named = isinstance(images, list) and bool(images) and isinstance(images[0], Mapping) and "file_name" in images[0]
    return named and (isinstance(content.get("annotations"), list) or "info" in content)


def coco_rows(request: ReadRequest) -> Iterator[tuple[str, object]]:
    """Yield a row per caption, in the order of the annotations.

    Raises:
        DataError: the file has no captions.
    """
    content = request.source.first or {}
    annotations = content.get("annotations")
    if not isinstance(annotations, list) or not annotations:
        raise DataError(f"{request.path} lists COCO's pictures without captions: use a captions_*.json", "no captions")
    if isinstance(annotations[0], Mapping) and "caption" not in annotations[0]:
        raise DataError(
            f"{request.path} is an official COCO file, but its annotations have no caption (boxes or answers, "
            "perhaps): use a captions_*.json",
            "no captions",
        )
    split = re.search(r"(train|val|test)(20\d\d)?", request.source.name)
    names = _file_names(content["images"], split.group(0) if split else "")
    for index, row in enumerate(annotations):
        origin = f"{request.path}.annotations[{index}]"
        if not isinstance(row, Mapping):
            yield origin, row
            continue
        key = row.get("image_id")
        if not isinstance(key, (int, str)) or key not in names:
            message = f"{origin}: its image_id is not in the file's list of images: add it there"
            request.policy.report(DataError(message, "unknown image_id"))
            continue
        yield origin, {"image": names[key], "image_id": key, "caption": row.get("caption")}


def _file_names(images: list[Any], folder: str) -> dict[int | str, Any]:
    """Candidate paths of each picture by its id, likeliest first."""
    found: dict[int | str, Any] = {}
    for image in images:
        key = image.get("id") if isinstance(image, Mapping) else None
        if isinstance(key, (int, str)):
            name = image.get("file_name")
            usable = isinstance(name, str) and name
            found[key] = (name, *((f"{folder}/{name}",) if folder else ()), f"images/{name}") if usable else name
    return found
