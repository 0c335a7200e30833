"""Small annotation layouts with real picture files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from data_pictures import picture
from PIL import Image


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, Any], Path]:
    """Write a file of the test: bytes and text as they are, a picture by its suffix, anything else as JSON."""

    def write(name: str, content: Any) -> Path:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Image.Image):
            content.save(file)
        elif isinstance(content, bytes):
            file.write_bytes(content)
        else:
            file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
        return file

    return write


@pytest.fixture
def coco(write: Callable[[str, Any], Path], tmp_path: Path) -> Path:
    """COCO's Karpathy layout: 6 training pictures (JPEG) of 2 captions, 3 validation pictures of 5 captions."""
    rows, held = [], []
    for index in range(6):
        name = f"train2014/COCO_train2014_{index:012d}.jpg"
        write(name, picture(index, 64, 48))
        rows += [{"image": name, "caption": f"Picture {index}, take {n}.", "image_id": f"coco_{index}"} for n in (1, 2)]
    for index in range(3):
        name = f"val2014/COCO_val2014_{index:012d}.jpg"
        write(name, picture(100 + index))
        held.append({"image": name, "caption": [f"Held {index} number {n}" for n in range(5)]})
    write("coco_karpathy_train.json", rows)
    write("coco_karpathy_val.json", held)
    return tmp_path
