"""The pictures of the tasks: one atlas of a style's drawings, and scenes rendered from it as the package does."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from uniadapter.embedded.emoji_scenes import Atlas, render
from world.pictures.rendering import square
from world.pictures.sources import CACHE, NEW
from world.tasks.names import Names

CELL, COLUMNS, QUALITY = 64, 16, 85


def pictures_of(codes: list[str], style: str = NEW) -> dict[str, np.ndarray]:
    """RGBA uint8 [96, 96, 4] by code, cropped to what is drawn, from the gathered pictures of a style.

    Raises:
        FileNotFoundError: they have not been gathered.
    """
    with np.load(CACHE / "pictures.npz") as file:
        found = {(str(s), str(c)): row for row, (s, c) in enumerate(zip(file["styles"], file["codes"], strict=True))}
        stack = file["pictures"]
        return {code: stack[found[style, code]] for code in codes}


def write_atlas(names: Names, out: Path, style: str = NEW, codes: Iterable[str] = ()) -> None:
    """Write `sprites.webp` with a cell a concept and `sprites.json` that says which is whose.

    Args:
        names: of things.
        out: folder.
        style: of the drawings.
        codes: of the concepts; all where none are given.
    """
    codes = sorted(codes or names.of)
    pictures, novel = pictures_of(codes, style), set(names.novel)
    atlas = np.zeros((-(-len(codes) // COLUMNS) * CELL, COLUMNS * CELL, 4), np.uint8)
    index = {}
    for number, code in enumerate(codes):
        row, column = divmod(number, COLUMNS)
        # a pixel of margin, so that no cell bleeds into the next when the atlas is compressed
        picture = np.pad(square(Image.fromarray(pictures[code]), CELL - 2), ((1, 1), (1, 1), (0, 0)))
        atlas[row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = picture
        index[code] = {"cell": number, "label": names.of[code][0], "kind": names.kind[code], "novel": code in novel}
    Image.fromarray(atlas).save(out / "sprites.webp", quality=QUALITY, alpha_quality=90, method=6)
    header = {"cell": CELL, "columns": COLUMNS, "sprites": index}
    (out / "sprites.json").write_text(json.dumps(header, sort_keys=True).replace('}, "', '},\n"') + "\n")


def painted(rows: list[dict[str, Any]], folder: Path) -> np.ndarray:
    """Pictures of specifications uint8 [V, 96, 96, 3], with the atlas in `folder`."""
    atlas = Atlas(folder)
    return np.stack([np.asarray(render(row, atlas)) for row in rows])
