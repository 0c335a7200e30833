"""The embedded picture dataset: scenes of emoji, rendered from an atlas of sprites and one JSON line per scene."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from uniadapter.embedded.cached_folders import fingerprint, prepare_folder
from uniadapter.embedded.questions import question_rows, read_kinds, scene_questions
from uniadapter.files.assets import asset_path

SIZE = 96  # side of a scene in pixels
SPLITS = ("train", "val", "test", "test_novel")
VERSION = "3"  # part of the fingerprint: raise it when rendering or questions change


def read_specifications(split: str, folder: Path | None = None) -> list[dict[str, Any]]:
    """The scenes of a split: id, background, objects (hexcode, x, y, size), captions, partner."""
    path = (folder or asset_path("scenes")) / f"{split}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


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
    """Write the pictures, captions and questions of one split."""
    pictures = target / "images" / split
    pictures.mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    scenes = read_specifications(split, source)
    for scene in scenes:
        name = f"images/{split}/{scene['id']}.png"
        render(scene, atlas).save(target / name, compress_level=1)
        if split == "train":
            rows += [{"image": name, "caption": text, "image_id": scene["id"]} for text in scene["captions"]]
        else:
            rows.append({"image": name, "caption": scene["captions"]})
    questions = scene_questions(scenes, read_kinds(), f"scenes/{split}")
    asked = question_rows(questions, "image", f"images/{split}/{{}}.png")
    for name, content in ((split, rows), (f"vqa_{split}", asked)):
        (target / f"{name}.json").write_text(json.dumps(content, indent=0) + "\n", encoding="utf-8")


def prepare_scenes(root: Path) -> Path:
    """Render the embedded scenes into ``root/scenes`` unless it is up to date; returns that folder.

    Files: ``train.json``, ``val.json``, ``test.json``, ``test_novel.json`` (captions), the same with the prefix
    ``vqa_`` (questions), and ``images/``.
    """
    source = asset_path("scenes")

    def write(target: Path) -> None:
        atlas = Atlas(source)
        for split in SPLITS:
            _write_split(split, source, target, atlas)

    names = ["sprites.webp", "sprites.json", "kinds.json", *(f"{split}.jsonl" for split in SPLITS)]
    return prepare_folder(Path(root) / "scenes", fingerprint(source, names, VERSION), write)
