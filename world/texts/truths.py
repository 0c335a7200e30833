"""What is true of a canvas, what is clearly false, and what can be left open."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from world.pictures.canvas import Placed
from world.pictures.grounds import COLOURS, SIZE
from world.texts.names import Lexicon

BETWEEN = 18.0  # pixels between middles from which one thing is to the side of another
ASIDE = 12.0  # pixels off the canvas's middle from which a thing is on a side
APART = 120.0  # between two colours (of 441 at most), from which they aren't mistaken for one another
OPPOSITE = {"left": "right", "right": "left", "top": "bottom", "bottom": "top", "above": "below", "below": "above"}


@dataclass(frozen=True)
class Scene:
    """What a canvas shows.

    Args:
        things: each with its concept and middle.
        ground: name of the ground's colour, "" where it has no single one.
    """

    things: list[Placed]
    ground: str = ""

    @property
    def concepts(self) -> set[int]:
        """Of the things."""
        return {concept for concept, _, _ in self.things}

    def where(self, concept: int) -> tuple[float, float]:
        """Middle of a concept's only thing."""
        return next((x, y) for c, x, y in self.things if c == concept)

    def sides(self, concept: int) -> set[str]:
        """Sides of the canvas that it is clearly on."""
        x, y = self.where(concept)
        found = {("left" if x < SIZE / 2 else "right"): x, ("top" if y < SIZE / 2 else "bottom"): y}
        return {side for side, value in found.items() if abs(value - SIZE / 2) > ASIDE}

    def direction(self, a: int, b: int, axis: str) -> str:
        """How a lies to b along "x" (left, right) or "y" (above, below); "" where that is not clear."""
        (ax, ay), (bx, by) = self.where(a), self.where(b)
        gap = ax - bx if axis == "x" else ay - by
        if abs(gap) < BETWEEN:
            return ""
        return {("x", True): "left", ("x", False): "right", ("y", True): "above", ("y", False): "below"}[axis, gap < 0]


@dataclass(frozen=True)
class Claim:
    """What a caption says.

    Args:
        things: concepts in the order in which they are named.
        direction: how the first lies to the second; "" if that isn't said.
        places: where each of the things is ("left", "top left", …); empty if that isn't said.
        count: how many things there are; 0 if that isn't said.
        ground: colour of the ground; "" if that isn't said.
    """

    things: tuple[int, ...] = ()
    direction: str = ""
    places: tuple[str, ...] = ()
    count: int = 0
    ground: str = ""

    def false_of(self, scene: Scene, lexicon: Lexicon) -> bool:
        """Whether some part of it is clearly false."""
        if any(not (lexicon.alike[thing] & scene.concepts) for thing in self.things):
            return True
        if self.count and self.count != len(scene.things):
            return True
        if self.ground and scene.ground and self.ground != scene.ground:
            return True
        if not set(self.things) <= scene.concepts:
            return False
        if self.direction:
            axis = "x" if self.direction in ("left", "right") else "y"
            if scene.direction(self.things[0], self.things[1], axis) == OPPOSITE[self.direction]:
                return True
        placed = zip(self.things, self.places, strict=False)
        return any(OPPOSITE[word] in scene.sides(thing) for thing, place in placed for word in place.split())

    def true_of(self, scene: Scene) -> bool:
        """Whether all of it is clearly true."""
        if not set(self.things) <= scene.concepts or self.count not in (0, len(scene.things)):
            return False
        if self.ground not in ("", scene.ground):
            return False
        if self.direction:
            axis = "x" if self.direction in ("left", "right") else "y"
            if scene.direction(self.things[0], self.things[1], axis) != self.direction:
                return False
        placed = zip(self.things, self.places, strict=False)
        return all(set(place.split()) <= scene.sides(thing) for thing, place in placed)


def _near(name: str) -> list[str]:
    """Colours that can't be mistaken for this one."""
    far = lambda a, b: sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) > APART**2  # noqa: E731
    return [other for other, colour in COLOURS.items() if far(colour, COLOURS[name])]


OTHER_COLOURS = {name: _near(name) for name in COLOURS}


def alterations(claim: Claim) -> list[str]:
    """Ways in which a claim can be made false, weighed by repetition."""
    found = []
    if claim.direction:
        found += ["turned", "turned", "exchanged", "exchanged", "swapped", "swapped"]
    elif claim.places:
        found += ["moved", "swapped"] + (["exchanged"] if len(claim.things) > 1 else [])
    elif claim.things:
        found += ["object", "object"]
    if claim.count:
        found += ["count", "count"]
    return found + (["ground", "ground"] if claim.ground else [])


def another(scene: Scene, lexicon: Lexicon, among: list[int], rng: random.Random) -> int:
    """A concept that the canvas doesn't show, under none of its names."""
    while True:
        concept = rng.choice(among)
        if not lexicon.alike[concept] & scene.concepts:
            return concept


def falsified(
    claim: Claim, how: str, scene: Scene, lexicon: Lexicon, among: list[int], rng: random.Random
) -> Claim | None:
    """The claim with one thing about it changed so that it is clearly false; None where it can't be.

    Args:
        claim: true of the scene.
        how: one of `alterations`.
        scene: what the canvas shows.
        lexicon: names.
        among: concepts that may be named.
        rng: of what is swapped in.
    """
    things = list(claim.things)
    if how in ("object", "swapped"):
        named = things[:2] if claim.direction else things
        things[rng.randrange(len(named))] = another(scene, lexicon, among, rng)
        changed = replace(claim, things=tuple(things))
    elif how == "turned":
        changed = replace(claim, direction=OPPOSITE[claim.direction])
    elif how == "exchanged":
        one, two = (0, 1) if claim.direction else rng.sample(range(len(things)), 2)
        things[one], things[two] = things[two], things[one]
        changed = replace(claim, things=tuple(things))
    elif how == "moved":
        places = list(claim.places)
        place = rng.randrange(len(places))
        words = places[place].split()
        word = rng.randrange(len(words))
        words[word] = OPPOSITE[words[word]]
        places[place] = " ".join(words)
        changed = replace(claim, places=tuple(places))
    elif how == "count":
        changed = replace(claim, count=rng.choice([n for n in range(1, 5) if n != claim.count]))
    else:
        changed = replace(claim, ground=rng.choice(OTHER_COLOURS[claim.ground]))
    if "object" in how or how == "swapped":
        return changed
    return changed if changed.false_of(scene, lexicon) else None
