"""The embedded picture datasets: scenes of emoji, rendered from an atlas of sprites and one JSON line per scene.

`scenes` are of the tasks' 3-D style, `drawn` of a flat one, in the words of the embedded base's own pre-training.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from uniadapter.embedded.annotations import (
    SPECIFICATIONS,
    SPLITS,
    Rows,
    caption_rows,
    question_rows,
    read_specifications,
    write_annotations,
)
from uniadapter.embedded.cached_folders import fingerprint, prepare_folder
from uniadapter.files.assets import asset_path

SIZE = 96  # side of a scene in pixels
VERSION = "5"  # part of the fingerprint: raise it when rendering or the annotations' rows change


def read_scenes(split: str, folder: Path | None = None) -> Rows:
    """The scenes of a split.

    Each has an id, a background, objects (hexcode, x, y, size), its twin's id ("partner", in which two things have
    changed places) or null, captions, what decides each of them ("about"), and five references that name everything.
    """
    return read_specifications("scenes", split, folder)


class Atlas:
    """The emoji sprites by hexcode, with premultiplied alpha."""

    def __init__(self, folder: Path) -> None:
        """Read ``sprites.webp`` and ``sprites.json`` of ``folder``."""
        header = json.loads((folder / "sprites.json").read_text(encoding="utf-8"))
        self.cell, self.columns = header["cell"], header["columns"]
        self.sprites: dict[str, dict[str, Any]] = header["sprites"]
        with Image.open(folder / "sprites.webp") as image:
            self.image = image.convert("RGBA").convert("RGBa")
        self._sized: dict[tuple[str, int], np.ndarray] = {}

    def sprite(self, hexcode: str, size: int) -> np.ndarray:
        """One sprite at ``size`` pixels: premultiplied uint8 [size, size, 4]."""
        key = (hexcode, size)
        if key not in self._sized:
            row, column = divmod(self.sprites[hexcode]["cell"], self.columns)
            left, top = column * self.cell, row * self.cell
            cell = self.image.crop((left, top, left + self.cell, top + self.cell))
            self._sized[key] = np.asarray(cell.resize((size, size), Image.Resampling.LANCZOS))
        return self._sized[key]


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (0, 2, 4)], dtype=np.float64)


def gradient(first: str, second: str, angle: float) -> np.ndarray:
    """A gradient from one colour to another along ``angle`` (degrees): float [96, 96, 3]."""
    axis = np.linspace(-1.0, 1.0, SIZE)
    radians = np.deg2rad(angle)
    ramp = (np.cos(radians) * axis[None, :] + np.sin(radians) * axis[:, None]) / 2.83 + 0.5
    return _rgb(first) * (1 - ramp[..., None]) + _rgb(second) * ramp[..., None]


def render(scene: dict[str, Any], atlas: Atlas) -> Image.Image:
    """Render one scene, 96 × 96 pixels."""
    canvas = gradient(*scene["background"])
    for hexcode, x, y, size in scene["objects"]:
        sprite = atlas.sprite(hexcode, size).astype(np.float64)
        top, left = y - size // 2, x - size // 2
        window = canvas[top : top + size, left : left + size]
        window *= 1 - sprite[..., 3:] / 255
        window += sprite[..., :3]
    return Image.fromarray(np.clip(canvas + 0.5, 0, 255).astype(np.uint8))


def _write_split(split: str, source: Path, target: Path, atlas: Atlas) -> None:
    """Write the pictures, captions, references and questions of one split."""
    (target / "images" / split).mkdir(parents=True)
    captions: Rows = []
    references: Rows = []
    scenes = read_scenes(split, source)
    for scene in scenes:
        name = f"images/{split}/{scene['id']}.png"
        render(scene, atlas).save(target / name, compress_level=1)
        captions += caption_rows(scene, scene["captions"], "image", name, split)
        references += caption_rows(scene, scene["references"], "image", name, split)
    asked = read_specifications("scenes", f"vqa_{split}", source)
    questions = question_rows(asked, scenes, "image", f"images/{split}/{{}}.png")
    write_annotations(target, {split: captions, f"captions_{split}": references, f"vqa_{split}": questions})


def prepare_scenes(root: Path, source: Path | None = None, name: str = "scenes") -> Path:
    """Render embedded scenes into ``root/NAME`` unless it is up to date; returns that folder.

    Files: ``train.json``, ``val.json``, ``test.json``, ``test_novel.json`` (captions; of ``drawn`` ``test.json``
    alone), the same with the prefixes ``captions_`` (five references of each scene) and ``vqa_`` (questions), and
    ``images/``.

    Args:
        root: folder to write to.
        source: folder of specifications and sprites, if not the package's own.
        name: "scenes" or "drawn".

    Raises:
        WriteError: the folder cannot be written.
    """
    folder = source or asset_path(name)

    def write(target: Path) -> None:
        atlas = Atlas(folder)
        for split in SPLITS:
            if (folder / f"{split}.jsonl").is_file():
                _write_split(split, folder, target, atlas)

    there = [one for one in SPECIFICATIONS if (folder / one).is_file()]
    stamp = fingerprint(folder, ["sprites.webp", "sprites.json", *there], VERSION)
    return prepare_folder(Path(root) / name, stamp, write)
