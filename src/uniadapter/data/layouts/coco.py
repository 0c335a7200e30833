"""The official files of COCO, nocaps and VizWiz-Captions, `captions_val2017.json` say.

`{images: [{id, file_name}], annotations: [{image_id, caption}]}`; pictures are looked for beside the file, and in a
folder of the split's name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from uniadapter.data.layouts.sources import Reading, Source
from uniadapter.errors import DataError


def is_coco(source: Source) -> bool:
    """Whether a file is one."""
    content = source.first or {}
    images = content.get("images")
    named = isinstance(images, list) and bool(images) and isinstance(images[0], Mapping) and "file_name" in images[0]
    return named and (isinstance(content.get("annotations"), list) or "info" in content)


def coco_rows(reading: Reading) -> Iterator[tuple[str, object]]:
    """Rows, one a caption, in the order of the annotations.

    Raises:
        DataError: the file has no captions.
    """
    content = reading.source.first or {}
    annotations = content.get("annotations")
    if not isinstance(annotations, list) or not annotations:
        raise DataError(
            f"{reading.path} lists COCO's pictures without a caption: name a captions_*.json", "no captions"
        )
    if isinstance(annotations[0], Mapping) and "caption" not in annotations[0]:
        raise DataError(
            f"{reading.path} is an official file of COCO, but its annotations have no caption (boxes or answers, it "
            "seems): name a captions_*.json",
            "no captions",
        )
    split = re.search(r"(train|val|test)(20\d\d)?", reading.source.name)
    names = _file_names(content["images"], split.group(0) if split else "")
    for index, row in enumerate(annotations):
        origin = f"{reading.path}.annotations[{index}]"
        if not isinstance(row, Mapping):
            yield origin, row
            continue
        key = row.get("image_id")
        if not isinstance(key, (int, str)) or key not in names:
            message = f"{origin}: its image_id is not among the file's images: add the picture there"
            reading.problems.report(DataError(message, "unknown image_id"))
            continue
        yield origin, {"image": names[key], "image_id": key, "caption": row.get("caption")}


def _file_names(images: list[Any], folder: str) -> dict[int | str, Any]:
    """Paths of each picture by its id, likeliest first."""
    found: dict[int | str, Any] = {}
    for image in images:
        key = image.get("id") if isinstance(image, Mapping) else None
        if isinstance(key, (int, str)):
            name = image.get("file_name")
            usable = isinstance(name, str) and name
            found[key] = (name, *((f"{folder}/{name}",) if folder else ()), f"images/{name}") if usable else name
    return found
