"""Helpers that make tar shards and indexes for the tests; the tars by the standard library alone."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from data_pictures import picture
from PIL import Image

from uniadapter.config import DataConfig
from uniadapter.data.shards.index import Shard, ShardIndex

Files = Iterable[tuple[str, bytes]]
SIZES = (5, 8, 1, 13, 6, 9, 2, 7)  # records of the shards of `fake_index`


def png(seed: int, width: int = 40, height: int = 30) -> bytes:
    """A small picture, as the bytes of a PNG."""
    return encoded(picture(seed, width, height))


def encoded(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def caption_files(numbers: Iterable[int], said: int = 1) -> list[tuple[str, bytes]]:
    """The files of records with these numbers: `000012.png` and `000012.json`."""
    found = []
    for number in numbers:
        captions = [f"picture {number} take {take}" for take in range(said)]
        found += [
            (f"{number:06d}.png", png(number)),
            (f"{number:06d}.json", json.dumps({"caption": captions[0] if said == 1 else captions}).encode()),
        ]
    return found


def question_files(numbers: Iterable[int]) -> list[tuple[str, bytes]]:
    """The files of records with one to three questions each."""
    found = []
    for number in numbers:
        asked = [
            {"question": f"what is {number} at {n}?", "answer": ["red", "red", "blue"]} for n in range(number % 3 + 1)
        ]
        found += [
            (f"{number:06d}.png", png(number)),
            (f"{number:06d}.json", json.dumps({"questions": asked}).encode()),
        ]
    return found


def write_tar(file: Path, files: Files, form: int = tarfile.USTAR_FORMAT, **more: Any) -> Path:
    """A tar archive of these files; `more` are attributes of each."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w", format=form) as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            for key, value in more.items():
                setattr(member, key, value)
            archive.addfile(member, io.BytesIO(content))
    return file


def write_set(folder: Path, sizes: Iterable[int], make: Any = caption_files) -> list[Path]:
    """Shards of these many records, as others make them: without an index."""
    first, files = 0, []
    for number, size in enumerate(sizes):
        files.append(write_tar(folder / f"train-{number:06d}.tar", make(range(first, first + size))))
        first += size
    return files


def settings(**changes: Any) -> DataConfig:
    """Settings with which pictures are as they are in the files, but for their size."""
    plain: Mapping[str, Any] = {"workers": 0, "augment": False, "flip": False, "shuffle_buffer": 12, **changes}
    return DataConfig(**plain)


def fake_index(sizes: tuple[int, ...] = SIZES, texts: int = 1) -> ShardIndex:
    """The index of shards that are nowhere; records of 1 to `texts` captions."""
    each = [None if texts == 1 else np.array([1 + n % texts for n in range(size)], np.uint16) for size in sizes]
    shards = [
        Shard(f"{n}.tar", size, size if one is None else int(one.sum()), texts=one)
        for n, (size, one) in enumerate(zip(sizes, each, strict=True))
    ]
    return ShardIndex("/nowhere", "captions", "pictures", tuple(shards))
