"""Which concepts the world has: ``python -m world.pictures.concepts`` writes ``world/pictures/concepts.json``.

Few and distinctive, so that a patch says what is on it: one a family, none whose pictures are near-twins of another's
by perceptual hash, drawn in at least six of the eight drawn styles, the held-out one among them, and in the new one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import Counter
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from PIL import Image

from world.pictures.candidates import CANDIDATES, MOST, SHORT
from world.pictures.emoji import family_of
from world.pictures.gathering import read_words
from world.pictures.sources import CACHE, DRAWN, HELD_OUT, NEW

LOG = logging.getLogger(__name__)
FILE = Path(__file__).with_name("concepts.json")
NOVEL = 0.15  # share of the concepts that pre-training never sees
STYLES = 6  # drawn styles that a concept must have
TWINS = 10  # of 64 bits of a difference hash: nearer than this in a style, two drawings are taken for one


@dataclass(frozen=True)
class WorldConcept:
    """One thing of the world: its code point, its name, what kind of thing, and whether pre-training sees it."""

    code: str
    name: str
    kind: str
    novel: bool


def plain(name: str) -> str:
    """Lower case, letters and digits only, single spaces."""
    return " ".join(re.sub(r"[^a-z0-9]+", " ", name.lower()).split())


def difference_hash(picture: np.ndarray) -> int:
    """64 bits that say, of a picture laid on grey, where it gets brighter from left to right."""
    ground = Image.new("RGBA", (picture.shape[1], picture.shape[0]), (128, 128, 128, 255))
    ground.alpha_composite(Image.fromarray(picture))
    grey = np.asarray(ground.convert("L").resize((9, 8), Image.Resampling.BILINEAR)).astype(int)
    return int("".join("1" if bit else "0" for bit in (grey[:, 1:] > grey[:, :-1]).flatten()), 2)


def is_novel(code: str) -> bool:
    """A draw that depends on the concept alone."""
    return int.from_bytes(hashlib.sha256(f"novel:{code}".encode()).digest()[:8], "big") / 2**64 < NOVEL


def twins(codes: list[str], pictures: dict[tuple[str, str], np.ndarray]) -> list[tuple[str, str, str, int]]:
    """Pairs of concepts that look alike in a style: (earlier, later, style, bits that differ)."""
    out = []
    for style in (NEW, HELD_OUT):
        hashes = {code: difference_hash(pictures[style, code]) for code in codes}
        for one, two in combinations(codes, 2):
            apart = (hashes[one] ^ hashes[two]).bit_count()
            if apart < TWINS:
                out.append((one, two, style, apart))
    return out


def read_stack() -> dict[tuple[str, str], np.ndarray]:
    """(style, code) → RGBA uint8 [96, 96, 4], as gathered."""
    with np.load(CACHE / "pictures.npz") as file:
        styles, codes, stack = file["styles"], file["codes"], file["pictures"]
    return {(str(s), str(c)): p for s, c, p in zip(styles, codes, stack, strict=True)}


def check_distinct(concepts: list[WorldConcept]) -> None:
    """Check that concepts are of different families and don't look alike.

    Raises:
        ValueError: two are of one family, or near-twins by their hashes.
    """
    families = Counter(family_of(concept.code, "") for concept in concepts)
    same = [family for family, count in families.items() if count > 1]
    if same:
        raise ValueError(f"concepts of one family of emoji: {', '.join(same)}; keep one of each")
    found = twins([concept.code for concept in concepts], read_stack())
    if found:
        pairs = "; ".join(f"{one} and {two} by {apart} bits in {style}" for one, two, style, apart in found)
        raise ValueError(f"concepts that look alike, nearer than {TWINS} bits: {pairs}; leave one of each out")


def choose() -> list[WorldConcept]:
    """The concepts, in the order of the candidates; of near-twins the earlier stays."""
    pictures = read_stack()
    have: dict[str, set[str]] = {}
    for style, code in pictures:
        have.setdefault(code, set()).add(style)
    by_label = {plain(concept.label): concept for concept in read_words().values()}
    chosen: dict[str, tuple[str, str]] = {}
    families: set[str] = set()
    for kind, names in CANDIDATES.items():
        taken = 0
        for name in names.split("|"):
            concept = by_label.get(plain(name))
            if concept is None or concept.family in families or taken == MOST[kind]:
                continue
            drawn = have.get(concept.hexcode, set())
            if not {NEW, HELD_OUT} <= drawn or len(drawn & DRAWN.keys()) < STYLES:
                continue
            chosen[concept.hexcode] = (SHORT.get(plain(name), plain(name)).removesuffix(" face"), kind)
            families.add(concept.family)
            taken += 1
    for one, two, style, apart in twins(list(chosen), pictures):
        if one in chosen and two in chosen:
            LOG.info("left out %s: %d bits from %s in %s", chosen[two][0], apart, chosen[one][0], style)
            del chosen[two]
    return [WorldConcept(code, name, kind, is_novel(code)) for code, (name, kind) in chosen.items()]


def read_concepts() -> list[WorldConcept]:
    """The chosen concepts, as committed."""
    return [WorldConcept(**row) for row in json.loads(FILE.read_text())]


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    world = choose()
    rows = ",\n".join(json.dumps(asdict(concept)) for concept in world)
    FILE.write_text(f"[\n{rows}\n]\n")
    LOG.info("%d concepts, %d of them novel", len(world), sum(c.novel for c in world))
    LOG.info("%s", dict(Counter(c.kind for c in world)))
