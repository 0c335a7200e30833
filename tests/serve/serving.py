"""A small index of pictures and a clip, and a server of it, for the tests."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import uniadapter as ua
from uniadapter.embedded import resolve_embedded
from uniadapter.serve.adapters import Adapters
from uniadapter.serve.service import Service

CLIPS = 4


def make_index(folder: Path, pictures: int = 12) -> ua.Index:
    """Of the embedded test pictures and clips, by `embedded:scenes`."""
    media = folder / "media"
    for kind, field, count in (("scenes", "image", pictures), ("clips", "video", CLIPS)):
        source = Path(resolve_embedded(f"embedded:{kind}/test"))
        (media / kind).mkdir(parents=True)
        names = list(dict.fromkeys(row[field] for row in json.loads(source.read_text())))[:count]
        for name in names:
            shutil.copy(source.parent / name, media / kind / Path(name).name)
    index = ua.Index(folder / "my.index", "embedded:scenes")
    index.add(media)
    return index


def make_service(folder: Path, sources: list[str] | None = None, waiting: int = 64) -> Service:
    index = make_index(folder)
    return Service(index, Adapters(index.encoder.loaded, sources), waiting)
