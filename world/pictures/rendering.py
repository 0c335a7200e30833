"""Drawings of the icon sets and of the 3-D style as arrays, by code point."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import numpy as np
from PIL import Image

from world.pictures.emoji import Emoji, clean_phrase, plain_hexcode

SIZE = 96


def slug(text: str) -> str:
    """Only letters and digits: how icon names of different sets are compared."""
    return re.sub(r"[^a-z0-9]", "", clean_phrase(text))


def style_bodies(folder: Path, by_slug: dict[str, str]) -> dict[str, tuple[str, float, float]]:
    """Code → (SVG body, width, height) of one icon set.

    By code point where the set says it, else by name; a name that fits two emoji is in
    ``by_slug`` for neither.
    """
    icons = json.loads((folder / "icons.json").read_text())
    chars: dict[str, str] = json.loads((folder / "chars.json").read_text())
    names = {plain_hexcode(code): name for code, name in chars.items()}
    for name in [*icons["icons"], *icons.get("aliases", {})]:
        code = by_slug.get(slug(name))
        if code is not None:
            names.setdefault(code, name)
    bodies: dict[str, tuple[str, float, float]] = {}
    for code, name in names.items():
        alias = icons.get("aliases", {}).get(name, {})
        if set(alias) - {"parent", "hidden"}:
            continue  # a rotated or flipped alias is another picture
        icon = icons["icons"].get(alias.get("parent", name))
        if icon is None:
            continue
        width = icon.get("width", icons.get("width", 16))
        height = icon.get("height", icons.get("height", 16))
        bodies[code] = (icon["body"], width, height)
    return bodies


def render_svg(body: str, width: float, height: float) -> np.ndarray:
    """RGBA uint8 [96, 96, 4], not premultiplied."""
    import resvg_py  # of the extra "world": what only reads the pictures does without it

    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}" width="{SIZE}" height="{SIZE}">{body}</svg>'
    )
    png = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE, skip_system_fonts=True)
    return square(Image.open(io.BytesIO(bytes(png))))


def square(image: Image.Image, size: int = SIZE) -> np.ndarray:
    """Fit into a transparent square; resampled premultiplied so that edges don't darken."""
    image = image.convert("RGBA").convert("RGBa")
    scale = size / max(image.size)
    fitted = image.resize(
        (max(1, round(image.width * scale)), max(1, round(image.height * scale))),
        Image.Resampling.LANCZOS,
    )
    canvas = Image.new("RGBa", (size, size))
    canvas.paste(fitted, ((size - fitted.width) // 2, (size - fitted.height) // 2))
    return np.asarray(canvas.convert("RGBA"))


def read_new_style(folder: Path, size: int = SIZE) -> dict[str, np.ndarray]:
    """Code → picture of the 3-D style; the files are named by code points."""
    files = {plain_hexcode(p.stem): p for p in sorted((folder / "assets").glob("*.webp"))}
    return {code: square(Image.open(path), size) for code, path in files.items()}


def slugs_of(emoji: list[Emoji]) -> dict[str, str]:
    """Slug → code, for the slugs that name one emoji only."""
    owners: dict[str, set[str]] = {}
    for one in emoji:
        for name in one.names:
            owners.setdefault(slug(name), set()).add(one.hexcode)
    labels = {slug(one.label): one.hexcode for one in emoji}
    return {s: next(iter(codes)) for s, codes in owners.items() if len(codes) == 1} | labels
