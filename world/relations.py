"""What can truly be said of a scene, and how people might word it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

CENTRE = 48
GAP = 12  # pixels between centres from which a relation is clear


@dataclass(frozen=True)
class Placed:
    """One emoji of a scene: centre and side in pixels of a 96-pixel canvas."""

    hexcode: str
    x: int
    y: int
    size: int


# A claim is (relation, concept, concept or ""); see `holds`.
Claim = tuple[str, str, str]


@dataclass(frozen=True)
class Statement:
    """A wording with slots ``{0}``, ``{1}`` … for the concepts named, and what it claims."""

    text: str
    concepts: tuple[str, ...]
    claims: tuple[Claim, ...]


def holds(claim: Claim, scene: dict[str, Placed], slack: int = 0) -> bool:
    """Whether a claim is true of a scene (hexcode → object); `slack` pixels make it easier."""
    relation, first, second = claim
    a = scene[first]
    if not second:
        wanted = relation.split()
        return all(word in sides(a, slack) for word in wanted)
    b = scene[second]
    dx, dy, gap = b.x - a.x, b.y - a.y, GAP - slack
    if relation == "left":
        return dx >= gap and dx > abs(dy) - slack
    if relation == "above":
        return dy >= gap and dy > abs(dx) - slack
    if relation == "above left":
        return dx >= gap and dy >= gap
    if relation == "above right":
        return -dx >= gap and dy >= gap
    raise ValueError(f"unknown relation {relation!r}")


def sides(item: Placed, slack: int = 0) -> set[str]:
    """Which sides of the canvas an object is clearly on."""
    out = set()
    if abs(item.x - CENTRE) > GAP + 2 - slack:
        out.add("left" if item.x < CENTRE else "right")
    if abs(item.y - CENTRE) > GAP + 2 - slack:
        out.add("top" if item.y < CENTRE else "bottom")
    return out


PLACES = {
    "left": ["on the left", "at the left", "on the left side"],
    "right": ["on the right", "at the right", "on the right side"],
    "top": ["at the top", "in the upper part"],
    "bottom": ["at the bottom", "in the lower part"],
    "top left": ["at the top left", "in the top left corner", "in the upper left"],
    "top right": ["at the top right", "in the top right corner", "in the upper right"],
    "bottom left": ["at the bottom left", "in the bottom left corner", "in the lower left"],
    "bottom right": ["at the bottom right", "in the bottom right corner", "in the lower right"],
}
# Phrases between two names, by direction seen from the first.
TOWARDS = {
    "left": ["to the left of", "left of", "on the left of", "on the left side of"],
    "right": ["to the right of", "right of", "on the right of", "on the right side of"],
    "above": ["above", "over", "above", "higher than"],
    "below": ["below", "under", "beneath", "underneath", "lower than"],
    "above left": ["above and to the left of", "to the upper left of"],
    "above right": ["above and to the right of", "to the upper right of"],
    "below left": ["below and to the left of", "to the lower left of"],
    "below right": ["below and to the right of", "to the lower right of"],
}
# Where the second of two is, seen from the first: "an owl with a rocket to its left".
ITS = {
    "left": ["to its left", "on its left", "on its left side"],
    "right": ["to its right", "on its right", "on its right side"],
    "above": ["above it", "over it"],
    "below": ["below it", "under it", "beneath it", "underneath it"],
    "above left": ["above it to the left"],
    "above right": ["above it to the right"],
    "below left": ["below it to the left"],
    "below right": ["below it to the right"],
}
OPPOSITE = {
    "left": "right", "right": "left", "above": "below", "below": "above",
    "above left": "below right", "below right": "above left",
    "above right": "below left", "below left": "above right",
}  # fmt: skip


def claim_of(direction: str, first: str, second: str) -> Claim:
    """``first`` is in ``direction`` of ``second``, as one of the four stored relations."""
    if direction in ("left", "above", "above left", "above right"):
        return (direction, first, second)
    return (OPPOSITE[direction], second, first)


def direction_between(a: Placed, b: Placed, diagonal: bool) -> str:
    """Direction of ``a`` seen from ``b``; by the larger difference unless ``diagonal``."""
    dx, dy = a.x - b.x, a.y - b.y
    row, column = ("above" if dy < 0 else "below"), ("left" if dx < 0 else "right")
    if diagonal:
        return f"{row} {column}"
    return row if abs(dy) > abs(dx) else column


def is_diagonal(a: Placed, b: Placed) -> bool:
    """Neither beside nor above: both differences count."""
    dx, dy = abs(a.x - b.x), abs(a.y - b.y)
    return min(dx, dy) > 0.6 * max(dx, dy)


class Wording:
    """Draws statements about one scene."""

    def __init__(self, objects: list[Placed], rng: random.Random) -> None:
        self.objects, self.rng = objects, rng

    def pick(self, count: int) -> list[Placed]:
        """Some objects in a random order."""
        return self.rng.sample(self.objects, count)

    def towards(self, a: Placed, b: Placed) -> str:
        """Direction of ``a`` from ``b`` for use in a sentence."""
        return direction_between(a, b, is_diagonal(a, b))

    def pair(self) -> Statement:
        """Two objects and one relation."""
        a, b = self.pick(2)
        direction = self.towards(a, b)
        frame = self.rng.randrange(5)
        if frame <= 1:
            text = "{0} " + self.rng.choice(TOWARDS[direction]) + " {1}"
        elif frame == 2:
            text = "{0} is " + self.rng.choice(TOWARDS[direction]) + " {1}"
        elif frame == 3:
            text = "{1} with {0} " + self.rng.choice(ITS[direction])
        else:
            text = "{1}, and {0} " + self.rng.choice(ITS[direction])
        return Statement(text, (a.hexcode, b.hexcode), (claim_of(direction, a.hexcode, b.hexcode),))

    def place_of(self, item: Placed) -> str:
        """A side or a corner, or nothing where the object is central."""
        on = sides(item)
        row = next((s for s in ("top", "bottom") if s in on), "")
        column = next((s for s in ("left", "right") if s in on), "")
        if row and column and self.rng.random() < 0.75:
            return f"{row} {column}"
        return self.rng.choice([s for s in (row, column) if s] or [""])

    def places(self) -> Statement | None:
        """Two or more objects, each with its side or corner."""
        # "at the top" for one is only worth saying if it is not so for the other
        chosen = self.pick(self.rng.randint(2, len(self.objects)))
        places = [self.place_of(item) for item in chosen]
        if not all(places) or len(set(places)) < len(places):
            return None
        phrases = [self.rng.choice(PLACES[p]) for p in places]
        frame = self.rng.randrange(4)
        if frame == 0:
            parts = [f"{p} {{{i}}}" for i, p in enumerate(phrases)]
        else:
            parts = [f"{{{i}}} {p}" for i, p in enumerate(phrases)]
        joint = " and " if len(parts) == 2 and frame < 3 else ", "
        claims = tuple((p, item.hexcode, "") for p, item in zip(places, chosen, strict=True))
        return Statement(joint.join(parts), tuple(o.hexcode for o in chosen), claims)

    def two_of_one(self) -> Statement | None:
        """One object related to two others."""
        if len(self.objects) < 3:
            return None
        a, b, c = self.pick(3)
        first, second = self.towards(a, b), self.towards(a, c)
        claims = [claim_of(first, a.hexcode, b.hexcode), claim_of(second, a.hexcode, c.hexcode)]
        say = self.rng.choice
        frame = self.rng.randrange(3)
        if frame == 0 and first == second:
            text = "{0} " + say(TOWARDS[first]) + " {1} and {2}"
        elif frame <= 1:
            text = "{0} " + say(TOWARDS[first]) + " {1} and " + say(TOWARDS[second]) + " {2}"
        else:
            text = "{0} with {1} " + say(ITS[OPPOSITE[first]])
            text += " and {2} " + say(ITS[OPPOSITE[second]])
        return Statement(text, (a.hexcode, b.hexcode, c.hexcode), tuple(claims))

    def chain(self) -> Statement | None:
        """One related to a second, and that to a third."""
        if len(self.objects) < 3:
            return None
        a, b, c = self.pick(3)
        first, second = self.towards(a, b), self.towards(b, c)
        claims = (claim_of(first, a.hexcode, b.hexcode), claim_of(second, b.hexcode, c.hexcode))
        say = self.rng.choice
        text = "{0} " + say(TOWARDS[first]) + " {1}, {1} " + say(TOWARDS[second]) + " {2}"
        return Statement(text, (a.hexcode, b.hexcode, c.hexcode), claims)

    def line(self) -> Statement | None:
        """Three in a row or a column, in order; or one between two."""
        if len(self.objects) != 3:
            return None
        spread = {k: max(getattr(o, k) for o in self.objects) for k in "xy"}
        spread = {k: v - min(getattr(o, k) for o in self.objects) for k, v in spread.items()}
        axis = "x" if spread["x"] > spread["y"] else "y"
        if spread["y" if axis == "x" else "x"] > GAP + 4:
            return None
        a, b, c = sorted(self.objects, key=lambda o: getattr(o, axis))
        relation = "left" if axis == "x" else "above"
        way = ("left", "right") if axis == "x" else ("top", "bottom")
        frames = [
            f"from {way[0]} to {way[1]} {{0}}, {{1}} and {{2}}",
            f"{{0}}, {{1}} and {{2}} from {way[0]} to {way[1]}",
            f"{{2}}, {{1}} and {{0}} from {way[1]} to {way[0]}",
            "{1} between {0} " + f"{PLACES[way[0]][0]} and {{2}} {PLACES[way[1]][0]}",
            f"{{0}} {PLACES[way[0]][0]}, {{1}} in the middle and {{2}} {PLACES[way[1]][0]}",
        ]
        claims = ((relation, a.hexcode, b.hexcode), (relation, b.hexcode, c.hexcode))
        text = self.rng.choice(frames)
        return Statement(text, (a.hexcode, b.hexcode, c.hexcode), claims)

    def grid(self) -> Statement | None:
        """Four: two rows or two columns."""
        if len(self.objects) != 4:
            return None
        by_row = sorted(self.objects, key=lambda o: o.y)
        by_column = sorted(self.objects, key=lambda o: o.x)
        if self.rng.random() < 0.5:
            pairs, names = by_row, ("top", "bottom")
            frames = ["{0} and {1} above {2} and {3}", "{2} and {3} below {0} and {1}"]
        else:
            pairs, names = by_column, ("left", "right")
            frames = ["{0} and {1} left of {2} and {3}", "{2} and {3} right of {0} and {1}"]
        first, second = list(pairs[:2]), list(pairs[2:])
        self.rng.shuffle(first)
        self.rng.shuffle(second)
        one, two = (self.rng.choice(PLACES[n]) for n in names)
        frames += [f"{{0}} and {{1}} {one}, {{2}} and {{3}} {two}"] * 2
        chosen = [*first, *second]
        claims = [(names[i // 2], o.hexcode, "") for i, o in enumerate(chosen)]
        text = self.rng.choice(frames)
        return Statement(text, tuple(o.hexcode for o in chosen), tuple(claims))

    def statements(self) -> Iterator[Statement]:
        """Endless; only statements that hold of this scene."""
        scene = {o.hexcode: o for o in self.objects}
        if len(self.objects) == 2:
            makers = [self.pair, self.pair, self.pair, self.places]
        else:
            makers = [self.pair, self.places, self.two_of_one, self.chain, self.line, self.line]
            makers += [self.grid, self.grid] if len(self.objects) == 4 else []
        while True:
            statement = self.rng.choice(makers)()
            if statement is not None and all(holds(c, scene) for c in statement.claims):
                yield statement
