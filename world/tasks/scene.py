"""Scenes of one to four things: where they lie, how large they are, on what; and their twins."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from world.pictures.grounds import COLOURS

Counts = tuple[tuple[int, ...], tuple[float, ...]]
COUNTS: Counts = ((1, 2, 3, 4), (0.08, 0.35, 0.36, 0.21))
SPLITS = {"train": 4000, "val": 400, "test": 500, "test_novel": 400}
BIG, SMALL = 42, 28  # sides in pixels from which, and up to which, a thing is called big or small
SIDES = {"big": (42, 46), "small": (26, 28), "plain": (32, 40), "line": (29, 31)}
NEAR, MIDDLE, FAR = 24, 48, 72
Slot = tuple[int, int]


@dataclass(frozen=True)
class Thing:
    """One thing: the code of its concept, its middle and its side in pixels of a 96-pixel picture."""

    code: str
    x: int
    y: int
    size: int


@dataclass
class Scene:
    """A specification.

    Args:
        id: its name in its split.
        background: two colours and the angle of the gradient between them, as the package's renderer reads them.
        ground: name of the colour where both are shades of one; else "".
        things: what lies where.
        partner: id of the twin, in which two things have changed places.
        captions: of the retrieval task.
        about: what decides each caption (`captions.KINDS`).
        references: of the captioning task.
    """

    id: str
    background: list[str | int]
    ground: str
    things: list[Thing]
    partner: str | None = None
    captions: list[str] = field(default_factory=list)
    about: list[str] = field(default_factory=list)
    references: list[str] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """As written to disk."""
        return {
            "id": self.id, "background": self.background, "ground": self.ground,
            "objects": [[t.code, t.x, t.y, t.size] for t in self.things], "partner": self.partner,
            "captions": self.captions, "about": self.about, "references": self.references,
        }  # fmt: skip

    def by_code(self) -> dict[str, Thing]:
        """Things by concept."""
        return {thing.code: thing for thing in self.things}


def arranged(count: int, rng: random.Random) -> tuple[list[Slot], bool]:
    """Middles of `count` things, and whether they stand in a line of three."""
    corners = [(NEAR, NEAR), (FAR, NEAR), (NEAR, FAR), (FAR, FAR)]
    if count == 1:
        return [rng.choice([*corners, (NEAR, MIDDLE), (FAR, MIDDLE), (MIDDLE, NEAR), (MIDDLE, FAR)])], False
    if count == 2:
        across, kind = rng.randint(30, 66), rng.random()
        if kind < 0.4:
            return [(NEAR, across), (FAR, across)], False
        if kind < 0.8:
            return [(across, NEAR), (across, FAR)], False
        return ([corners[0], corners[3]] if rng.random() < 0.5 else [corners[1], corners[2]]), False
    if count == 3:
        kind, across = rng.random(), rng.randint(36, 60)
        if kind < 0.2:
            return [(17, across), (48, across), (79, across)], True
        if kind < 0.4:
            return [(across, 17), (across, 48), (across, 79)], True
        if kind < 0.7:
            return rng.sample(corners, 3), False
        one, two = (NEAR, FAR) if rng.random() < 0.5 else (FAR, NEAR)
        if kind < 0.85:
            return [(MIDDLE, one), (NEAR, two), (FAR, two)], False
        return [(one, MIDDLE), (two, NEAR), (two, FAR)], False
    return corners, False


def sized(count: int, line: bool, rng: random.Random) -> list[int]:
    """Sides: of about half the scenes some are big and the others small."""
    kinds = ["line" if line else "plain"] * count
    if not line and rng.random() < 0.5:
        kinds = [rng.choice(("big", "small")) for _ in range(count)]
    return [rng.randint(*SIDES[kind]) for kind in kinds]


def laid(codes: list[str], slots: list[Slot], sizes: list[int], rng: random.Random) -> list[Thing]:
    """Things in slots, each moved a little but kept whole."""
    things = []
    for code, slot, size in zip(codes, slots, sizes, strict=True):
        half, shake = (size + 1) // 2, 1 if len(slots) == 3 and size <= SIDES["line"][1] else 3
        x, y = (min(max(v + rng.randint(-shake, shake), half), 96 - half) for v in slot)
        things.append(Thing(code, x, y, size))
    return things


def ground(rng: random.Random, name: str | None = None) -> tuple[list[str | int], str]:
    """A background and its name: two shades of a colour, or two colours, which have none.

    Args:
        rng: of colours and angle.
        name: of the colour; drawn where it isn't given, "" for two colours.
    """
    if name is None:
        name = rng.choice(sorted(COLOURS)) if rng.random() < 0.75 else ""
    first, second = (name, name) if name else rng.sample(sorted(COLOURS), 2)

    def shade(colour: str, by: int) -> str:
        change = rng.randint(-by, by)
        return "".join(f"{min(255, max(0, c + change + rng.randint(-8, 8))):02x}" for c in COLOURS[colour])

    return [shade(first, 8), shade(second, 20), rng.randrange(0, 360, 5)], name


class Dealer:
    """Deals concepts so that each comes up about equally often and no two meet twice.

    So a caption that names two can be true of a scene and its twin only; what is shown alone is alone once.

    Args:
        seen: of which scenes are made.
        novel: of which every scene holds one or two; empty where there is none.
        rng: of the order.
    """

    def __init__(self, seen: list[str], novel: list[str], rng: random.Random) -> None:
        self.pools, self.rng = {"seen": seen, "novel": novel, "alone": novel or seen}, rng
        self.decks: dict[str, list[str]] = {pool: [] for pool in self.pools}
        self.met: set[frozenset[str]] = set()

    def hand(self, count: int) -> list[str]:
        """Distinct concepts in any order, of which no two were in one hand before.

        Raises:
            RuntimeError: there are too few for so many hands.
        """
        if count == 1:
            return [self._draw("alone")]
        for _ in range(10_000):
            codes = self._drawn(count)
            pairs = {frozenset(pair) for pair in combinations(codes, 2)}
            if not pairs & self.met:
                self.met |= pairs
                return codes
        raise RuntimeError("too few concepts for so many scenes")

    def _drawn(self, count: int) -> list[str]:
        strange = 0
        if self.pools["novel"]:
            strange = 1 if count < 3 else self.rng.randint(1, 2)
        codes = [self._draw("novel") for _ in range(strange)]
        while len(set(codes)) < len(codes):
            codes = [self._draw("novel") for _ in range(strange)]
        while len(codes) < count:
            code = self._draw("seen")
            if code not in codes:
                codes.append(code)
        self.rng.shuffle(codes)
        return codes

    def _draw(self, pool: str) -> str:
        if not self.decks[pool]:
            self.decks[pool] = self.rng.sample(self.pools[pool], len(self.pools[pool]))
        return self.decks[pool].pop()


def draw_scenes(
    total: int, dealer: Dealer, novel: set[str], rng: random.Random, counts: Counts = COUNTS
) -> list[Scene]:
    """Scenes without texts. Each of more than one thing is followed by its twin, on a ground of the same name.

    Args:
        total: how many.
        dealer: of concepts.
        novel: concepts of which at least one changes places in a twin, where there are any.
        rng: of all draws.
        counts: numbers of things, and how often each.
    """
    out: list[Scene] = []
    while len(out) < total:
        count = rng.choices(*counts)[0]
        if count == 1 or len(out) == total - 1:
            count, twins = 1, False
        else:
            twins = True
        codes, (slots, line) = dealer.hand(count), arranged(count, rng)
        sizes = sized(count, line, rng)
        background, name = ground(rng)
        first = Scene(f"{len(out):05d}", background, name, laid(codes, slots, sizes, rng))
        out.append(first)
        if twins:
            i, j = rng.sample(range(count), 2)
            while novel and not {codes[i], codes[j]} & novel:
                i, j = rng.sample(range(count), 2)
            codes[i], codes[j] = codes[j], codes[i]
            second = Scene(f"{len(out):05d}", ground(rng, name)[0], name, laid(codes, slots, sizes, rng), first.id)
            first.partner = second.id
            out.append(second)
    return out
