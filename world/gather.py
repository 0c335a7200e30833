"""Gather the pictures and the words: ``python -m world.gather``.

Writes into ``.cache/embedded``: ``pictures.npz`` (96 px RGBA, all styles), ``concepts.json`` and
``packages.json`` (versions and licences, as the packages declare them).
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import re
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import numpy as np
from PIL import Image

from world import sources
from world.concepts import Concept, clean_phrase, plain_hexcode, read_concepts

LOG = logging.getLogger(__name__)
CACHE = Path(__file__).resolve().parent.parent / ".cache" / "embedded"
SIZE = 96


def slug(text: str) -> str:
    """Only letters and digits: how icon names of different sets are compared."""
    return re.sub(r"[^a-z0-9]", "", clean_phrase(text))


def style_bodies(folder: Path, by_slug: dict[str, str]) -> dict[str, tuple[str, float, float]]:
    """Hexcode → (SVG body, width, height) of one icon set.

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
    """Hexcode → picture of the 3-D style; the files are named by code points."""
    files = {plain_hexcode(p.stem): p for p in sorted((folder / "assets").glob("*.webp"))}
    return {code: square(Image.open(path), size) for code, path in files.items()}


def slugs_of(concepts: list[Concept]) -> dict[str, str]:
    """Slug → hexcode, for the slugs that name one concept only."""
    owners: dict[str, set[str]] = {}
    for concept in concepts:
        for name in concept.names:
            owners.setdefault(slug(name), set()).add(concept.hexcode)
    labels = {slug(c.label): c.hexcode for c in concepts}
    return {s: next(iter(codes)) for s, codes in owners.items() if len(codes) == 1} | labels


def gather(seed: int = 0) -> None:
    """Fetch, match, render and write the cache."""
    folders = {p.name: sources.fetch(p, CACHE / "pkg") for p in sources.ALL}
    described = [sources.describe(p, folders[p.name]) for p in sources.ALL]
    concepts = read_concepts(
        folders[sources.EMOJIBASE.name],
        folders[sources.CLDR.name],
        folders[sources.CLDR_DERIVED.name],
        folders[sources.EMOJILIB.name],
        seed,
    )
    known = {c.hexcode for c in concepts}
    by_slug = slugs_of(concepts)
    pictures: list[np.ndarray] = []
    styles: list[str] = []
    codes: list[str] = []
    for style, package in sources.DRAWN.items():
        for code, icon in sorted(style_bodies(folders[package.name], by_slug).items()):
            if code not in known:
                continue
            try:
                picture = render_svg(*icon)
            except ValueError as error:
                LOG.warning("%s %s: %s", style, code, error)
                continue
            if picture[..., 3].mean() < 4:
                LOG.warning("%s %s: empty picture", style, code)
                continue
            pictures.append(picture)
            styles.append(style)
            codes.append(code)
    for code, picture in read_new_style(folders[sources.NEW_STYLE.name]).items():
        if code in known:
            pictures.append(picture)
            styles.append("fluent-3d")
            codes.append(code)
    np.savez(
        CACHE / "pictures.npz",
        pictures=np.stack(pictures),
        styles=np.array(styles),
        codes=np.array(codes),
    )
    (CACHE / "concepts.json").write_text(json.dumps([asdict(c) for c in concepts], indent=0))
    (CACHE / "packages.json").write_text(json.dumps(described, indent=2))
    LOG.info("%d concepts, %d pictures %s", len(concepts), len(codes), dict(Counter(styles)))
    LOG.info("splits %s", dict(Counter(c.split for c in concepts)))


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    gather(parser.parse_args().seed)
