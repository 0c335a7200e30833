"""Captions of the retrieval task, in a grammar that pre-training never had.

Relations are said as pre-training has them ("beside", "above") and turned round ("its": "a cat with a dog to its
left"); that, both axes at once, chains, lines, sizes and "only" are the tasks' own. What decides a caption is its kind,
by which results are split.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, replace

from world.tasks.claims import OPPOSITE, SLACK, Claim, holds, sides
from world.tasks.names import Names
from world.tasks.scene import BIG, SMALL, Scene
from world.tasks.telling import give_captions
from world.texts.names import NUMBERS
from world.texts.saying import article_of

# How often each kind is tried; a scene that has none of a kind gets another.
WEIGHTS = {"beside": 0.14, "its": 0.4, "above": 0.12, "both": 0.08, "chain": 0.1, "line": 0.05, "size": 0.03,
           "places": 0.08}  # fmt: skip
KINDS = (*WEIGHTS, "alone")
OPENERS = ("", "", "", "", "there is ", "a picture of ", "this picture has ", "the picture contains ")
TOWARDS = {
    "left": ("to the left of", "left of", "on the left of", "on the left side of"),
    "right": ("to the right of", "right of", "on the right of", "on the right side of"),
    "above": ("above", "over", "higher than"),
    "below": ("below", "under", "beneath", "underneath", "lower than"),
}  # fmt: skip
ITS = {
    "left": ("to its left", "on its left", "on its left side"),
    "right": ("to its right", "on its right", "on its right side"),
    "above": ("above it", "over it"),
    "below": ("below it", "under it", "beneath it"),
}
PLACES = {
    "left": ("on the left", "at the left"), "right": ("on the right", "at the right"),
    "top": ("at the top",), "bottom": ("at the bottom",),
    "top left": ("at the top left", "in the top left corner"),
    "top right": ("at the top right", "in the top right corner"),
    "bottom left": ("at the bottom left", "in the bottom left corner"),
    "bottom right": ("at the bottom right", "in the bottom right corner"),
}  # fmt: skip


Made = tuple[str, tuple[str, ...], tuple[Claim, ...]]  # wording, concepts, claims


@dataclass(frozen=True)
class Statement:
    """A wording and what it claims.

    Args:
        text: with `<0>` or `<big 0>` for the concepts named.
        codes: concepts by number.
        claims: all that must hold.
        kind: what decides it.
    """

    text: str
    codes: tuple[str, ...]
    claims: tuple[Claim, ...]
    kind: str


class Stating:
    """Draws statements about one scene.

    Args:
        scene: what is shown.
        rng: of all draws.
    """

    def __init__(self, scene: Scene, rng: random.Random) -> None:
        self.scene, self.rng = scene, rng
        self.codes = [thing.code for thing in scene.things]

    def draw(self, kind: str) -> Statement | None:
        """A statement of this kind that holds; None where none was found at once."""
        made = getattr(self, f"_{kind}")()
        if made is None:
            return None
        text, codes, claims = made
        statement = self._more(Statement(text, codes, claims, kind))
        return statement if all_hold(statement, self.scene) else None

    def _more(self, statement: Statement) -> Statement:
        """With the number of things or the ground said beside it, now and then."""
        text, claims = statement.text, statement.claims
        if len(self.codes) > 1 and self.rng.random() < 0.12:
            text = f"{NUMBERS[len(self.codes) - 1]} things: {text}"
            claims = (*claims, ("count", str(len(self.codes)), ""))
        elif text.startswith("<") and not re.search(r" (is|has|and|alone) |, <", text):
            text = self.rng.choice(OPENERS) + text
        if self.scene.ground and self.rng.random() < 0.2:
            colour = f"{article_of(self.scene.ground)} {self.scene.ground}"
            text += self.rng.choice((f" on {colour} ground", f" in front of {colour} background"))
            claims = (*claims, ("ground", self.scene.ground, ""))
        return replace(statement, text=text, claims=claims)

    def _two(self, directions: tuple[str, ...]) -> tuple[str, str, str] | None:
        """Two things and a direction in which the first lies of the second."""
        if len(self.codes) < 2:
            return None
        a, b = self.rng.sample(self.codes, 2)
        fit = [d for d in directions if holds((d, a, b), self.scene)]
        return (a, b, self.rng.choice(fit)) if fit else None

    def _beside(self) -> Made | None:
        found = self._two(("left", "right"))
        if found is None:
            return None
        a, b, direction = found
        text = self.rng.choice(("<0> {}", "<0> {}", "<0> is {}")).format(self.rng.choice(TOWARDS[direction]))
        return f"{text} <1>", (a, b), ((direction, a, b),)

    def _its(self) -> Made | None:
        found = self._two(tuple(OPPOSITE))
        if found is None:
            return None
        a, b, direction = found
        frame = self.rng.choice(("<1> with <0> {}", "<1> has <0> {}", "<1> and, {}, <0>"))
        return frame.format(self.rng.choice(ITS[direction])), (a, b), ((direction, a, b),)

    def _above(self) -> Made | None:
        found = self._two(("above", "below"))
        if found is None:
            return None
        a, b, direction = found
        of = self.rng.choice(TOWARDS[direction])
        return self.rng.choice((f"<0> {of} <1>", f"<0> is {of} <1>")), (a, b), ((direction, a, b),)

    def _both(self) -> Made | None:
        found = self._two(("above", "below"))
        if found is None:
            return None
        a, b, row = found
        column = next((d for d in ("left", "right") if holds((d, a, b), self.scene)), "")
        if not column:
            return None
        text = self.rng.choice(("<0> {r} and to the {c} of <1>", "<0> {r} <1> and to its {c}"))
        return text.format(r=row, c=column), (a, b), ((row, a, b), (column, a, b))

    def _chain(self) -> Made | None:
        if len(self.codes) < 3:
            return None
        a, b, c = self.rng.sample(self.codes, 3)
        first = [d for d in OPPOSITE if holds((d, a, b), self.scene)]
        starts, text = self.rng.choice(((a, "<0> {} <1> and {} <2>"), (b, "<0> {} <1>, <1> {} <2>")))
        second = [d for d in OPPOSITE if holds((d, starts, c), self.scene)]
        if not first or not second:
            return None
        one, two = self.rng.choice(first), self.rng.choice(second)
        said = (self.rng.choice(TOWARDS[one]), self.rng.choice(TOWARDS[two]))
        return text.format(*said), (a, b, c), ((one, a, b), (two, starts, c))

    def _line(self) -> Made | None:
        if len(self.codes) != 3:
            return None
        for axis, direction, ends in (("x", "left", ("left", "right")), ("y", "above", ("top", "bottom"))):
            a, b, c = (t.code for t in sorted(self.scene.things, key=lambda thing: getattr(thing, axis)))
            claims: tuple[Claim, ...] = ((direction, a, b), (direction, b, c))
            if not all(holds(claim, self.scene) for claim in claims):
                continue
            way = f"from {ends[0]} to {ends[1]}"
            text = self.rng.choice((f"{way} <0>, <1> and <2>", f"<0>, <1> and <2> {way}", "<1> between <0> and <2>"))
            if "between" in text:
                claims = (("between", b, f"{a} {c}"),)
            return text, (a, b, c), claims
        return None

    def _size(self) -> Made | None:
        big = [thing.code for thing in self.scene.things if thing.size >= BIG]
        small = [thing.code for thing in self.scene.things if thing.size <= SMALL]
        if not big or not small:
            return None
        a, b = self.rng.choice(big), self.rng.choice(small)
        text = self.rng.choice(("<big 0> and <small 1>", "<small 1> and <big 0>", "<big 0> next to <small 1>"))
        return text, (a, b), (("big", a, ""), ("small", b, ""))

    def _places(self) -> Made | None:
        if len(self.codes) < 2:
            return None
        chosen = self.rng.sample(self.scene.things, self.rng.randint(2, min(3, len(self.codes))))
        places = []
        for thing in chosen:
            on = sides(thing)
            words = [w for w in ("top", "bottom") if w in on] + [w for w in ("left", "right") if w in on]
            places.append(" ".join(words))
        if not all(places) or len(set(places)) < len(places):
            return None
        parts = [f"<{number}> {self.rng.choice(PLACES[place])}" for number, place in enumerate(places)]
        text = ", ".join(parts[:-1]) + " and " + parts[-1]
        claims = tuple(("at", thing.code, place) for thing, place in zip(chosen, places, strict=True))
        return text, tuple(thing.code for thing in chosen), claims

    def _alone(self) -> Made | None:
        if len(self.codes) != 1:
            return None
        on = sides(self.scene.things[0])
        place = " ".join(w for w in ("top", "bottom", "left", "right") if w in on)
        frame = self.rng.choice(("only <0>, {}", "<0> alone, {}", "<0> and no other thing, {}"))
        claims = (("count", "1", ""), ("at", self.codes[0], place))
        return frame.format(self.rng.choice(PLACES[place])), tuple(self.codes), claims


def between(claim: Claim) -> list[tuple[Claim, Claim]]:
    """The ways in which "b between a and c" can hold: in a row or a column, either way round."""
    _, b, ends = claim
    a, c = ends.split()
    return [((d, x, b), (d, b, y)) for d in ("left", "above") for x, y in ((a, c), (c, a))]


def all_hold(statement: Statement, scene: Scene, slack: int = 0) -> bool:
    """Whether all that a statement claims is true of a scene."""
    for claim in statement.claims:
        if claim[0] == "between":
            if not any(all(holds(part, scene, slack) for part in way) for way in between(claim)):
                return False
        elif not holds(claim, scene, slack):
            return False
    return True


def spelled(statement: Statement, names: Names, rng: random.Random) -> str:
    """With names for the concepts; a concept that is named twice is called the same."""
    seed = rng.random()

    def mention(match: re.Match[str]) -> str:
        code = statement.codes[int(match[2])]
        again = statement.text[: match.start()].count(f"<{match[2]}>") > 0
        return names.said(code, random.Random(f"{seed} {code}"), (match[1] or "").strip(), "the" if again else "")

    return re.sub(r"<((?:big|small) )?(\d)>", mention, statement.text)


def caption(
    scenes: list[Scene], names: Names, must: set[str], rng: random.Random, weights: dict[str, float] = WEIGHTS
) -> None:
    """Give every scene captions that are true of it and clearly false of every other scene of the split.

    Args:
        scenes: of one split.
        names: of things.
        must: concepts of which each caption names one; empty where it doesn't matter.
        rng: of all draws.
        weights: how often each kind is tried.

    Raises:
        RuntimeError: of a scene no such captions were found.
    """

    def draw(scene: Scene) -> Statement | None:
        kind = rng.choices(list(weights), list(weights.values()))[0] if len(scene.things) > 1 else "alone"
        return Stating(scene, rng).draw(kind)

    give_captions(
        scenes,
        Scene.by_code,
        must,
        draw,
        lambda statement, other: all_hold(statement, other, SLACK),
        lambda statement: spelled(statement, names, rng),
        tries=4000,
    )
