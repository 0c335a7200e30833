"""Every style's pictures of the concepts: ``python -m world.pictures.gathering`` writes ``.cache/world/pictures.npz``.

Cropped to what is drawn and squared, so that a side in pixels means the same in every style.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import asdict

import numpy as np
from PIL import Image

from uniadapter.files.writing import atomic_file, write_text
from world.pictures.emoji import Emoji, read_emoji
from world.pictures.rendering import SIZE, read_new_style, render_svg, slugs_of, square, style_bodies
from world.pictures.sources import ALL, CACHE, DRAWN, NEW, NEW_STYLE, WORDS, fetch

LOG = logging.getLogger(__name__)
DRAWN_AT_ALL = 4  # mean alpha below which a picture is empty


def cropped(picture: np.ndarray) -> np.ndarray:
    """RGBA uint8 [H, W, 4] cut to its alpha's box and fitted into a square [96, 96, 4]."""
    shown = picture[..., 3] > 16
    rows, columns = np.where(shown.any(1))[0], np.where(shown.any(0))[0]
    box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return square(Image.fromarray(picture).crop(box), SIZE)


def gather() -> None:
    """Fetch the packages, render all styles, and write the cache."""
    folders = {package.name: fetch(package) for package in ALL}
    emojibase, cldr, derived, emojilib = (folders[package.name] for package in WORDS)
    emoji = read_emoji(emojibase, cldr, derived, emojilib)
    known, by_slug = {one.hexcode for one in emoji}, slugs_of(emoji)
    found: list[tuple[str, str, np.ndarray]] = []
    for style, package in DRAWN.items():
        for code, icon in sorted(style_bodies(folders[package.name], by_slug).items()):
            if code not in known:
                continue
            try:
                found.append((style, code, render_svg(*icon)))
            except ValueError as error:
                LOG.warning("%s %s: %s", style, code, error)
    found += [(NEW, code, p) for code, p in read_new_style(folders[NEW_STYLE.name]).items() if code in known]
    found = [(style, code, cropped(p)) for style, code, p in found if p[..., 3].mean() >= DRAWN_AT_ALL]
    styles, codes, pictures = zip(*found, strict=True)
    with atomic_file(CACHE / "pictures.npz") as temporary, temporary.open("wb") as stream:
        np.savez(stream, pictures=np.stack(pictures), styles=np.array(styles), codes=np.array(codes))
    write_text(CACHE / "words.json", json.dumps([asdict(one) for one in emoji], indent=0))
    LOG.info("%d pictures %s", len(found), dict(Counter(styles)))


def read_words() -> dict[str, Emoji]:
    """Code point → emoji with its names, as gathered."""
    rows = json.loads((CACHE / "words.json").read_text())
    return {row["hexcode"]: Emoji(**row) for row in rows}


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    gather()
