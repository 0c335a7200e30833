"""Captions as the web has them: some name all, some part, some say where; in many wordings.

The second and third stages speak of "left" and "right" between two things, the joint stage of "above" and "below" too.
The grammar "a cat with a dog to its left" is left out of all pre-training, for the tasks to teach.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from world.texts.names import NUMBERS, Lexicon
from world.texts.saying import Saying, article_of
from world.texts.truths import Claim, Scene

OPENERS = (
    "a picture of", "a photo of", "an image of", "a drawing of", "there is", "we see", "here is", "this shows",
    "a scene with", "look at",
)  # fmt: skip
TOWARDS = {
    "left": ("left of", "to the left of", "on the left of", "on the left side of", "is left of", "is to the left of"),
    "right": (
        "right of", "to the right of", "on the right of", "on the right side of", "is right of", "is to the right of",
    ),
    "above": ("above", "over", "is above", "higher than"),
    "below": ("below", "under", "is below", "lower than"),
}  # fmt: skip
FRONTED = {
    "left": ("to the left of", "left of", "on the left of"),
    "right": ("to the right of", "right of", "on the right of"),
}
ITS = {
    "left": ("to its left", "on its left"),
    "right": ("to its right", "on its right"),
    "above": ("above it",),
    "below": ("below it", "under it"),
}
PLACES = {
    "left": ("on the left", "at the left", "on the left side"),
    "right": ("on the right", "at the right", "on the right side"),
    "top": ("at the top", "in the top half", "up at the top"),
    "bottom": ("at the bottom", "in the bottom half", "down at the bottom"),
    "top left": ("at the top left", "in the top left corner"),
    "top right": ("at the top right", "in the top right corner"),
    "bottom left": ("at the bottom left", "in the bottom left corner"),
    "bottom right": ("at the bottom right", "in the bottom right corner"),
}
KEYS = ("above", "over", "higher", "below", "under", "lower", "left", "right")  # words that tell the direction
GROUNDS = ("on {}", "on a {} ground", "on a {} background", "in front of a {} background")


@dataclass(frozen=True)
class Style:
    """What captions may say.

    Args:
        axes: "x" for left and right, "y" for above and below.
        its: share of relations said as "b with a to its left".
    """

    axes: str = "x"
    its: float = 0.0


PRETRAINING = Style()
BOTH = Style("xy")
ABOVE = Style("y")
REVERSED = Style("x", 1.0)


class Captioner:
    """Draws claims about scenes and words them."""

    def __init__(self, lexicon: Lexicon, style: Style = PRETRAINING) -> None:
        self.lexicon, self.style = lexicon, style

    def claim(self, scene: Scene, rng: random.Random, frame: str = "", bare: bool = False) -> Claim | None:
        """Something true, or None where that frame isn't possible.

        Args:
            scene: what the canvas shows.
            rng: of all draws.
            frame: "relation", "places", "objects" or "count"; drawn where it isn't given.
            bare: say nothing of count and ground beside it.
        """
        if not frame:
            for frame in rng.choices(("relation", "places", "objects", "count"), (0.4, 0.25, 0.3, 0.05), k=4):
                found = self.claim(scene, rng, frame, bare)
                if found:
                    return found
            frame = "objects"
        extra = {} if bare else self._extra(scene, rng)
        if frame == "count":
            return Claim(**{**extra, "count": len(scene.things)})
        return getattr(self, f"_{frame}")(scene, rng, extra)

    def _extra(self, scene: Scene, rng: random.Random) -> dict:
        extra: dict = {"count": len(scene.things)} if rng.random() < 0.2 else {}
        if scene.ground and rng.random() < 0.35:
            extra["ground"] = scene.ground
        return extra

    def _objects(self, scene: Scene, rng: random.Random, extra: dict) -> Claim:
        concepts = sorted(scene.concepts)
        return Claim(tuple(rng.sample(concepts, min(len(concepts), rng.choice((1, 2, 2, 3, 4))))), **extra)

    def _places(self, scene: Scene, rng: random.Random, extra: dict) -> Claim | None:
        chosen = self._objects(scene, rng, {}).things[:2]
        places = []
        for concept in chosen:
            sides = scene.sides(concept)
            words = [w for w in ("top", "bottom") if w in sides] + [w for w in ("left", "right") if w in sides]
            if len(words) == 2 and rng.random() < 0.5:
                words = [rng.choice(words)]
            if not words:
                return None
            places.append(" ".join(words))
        if len(set(places)) < len(places):
            return None
        return Claim(chosen, places=tuple(places), **extra)

    def _relation(self, scene: Scene, rng: random.Random, extra: dict) -> Claim | None:
        concepts = sorted(scene.concepts)
        rng.shuffle(concepts)
        for axis in rng.sample(self.style.axes, len(self.style.axes)):
            for a in concepts:
                for b in concepts:
                    direction = scene.direction(a, b, axis) if a != b else ""
                    if direction:
                        rest = [c for c in concepts if c not in (a, b)]
                        rest = rest[: int(rng.random() < 0.25)]
                        return Claim((a, b, *rest), direction, **extra)
        return None

    def word(self, claim: Claim, rng: random.Random, opener: str | None = None) -> Saying:
        """One wording of a claim; draws depend on its kind alone, so that a falsehood differs by what is claimed.

        Args:
            claim: what to say.
            rng: of the wording.
            opener: what the text begins with, or nothing; drawn where it isn't given.
        """
        saying = Saying()
        count_first, ground_first = rng.random() < 0.6, rng.random() < 0.15
        drawn = rng.choice(OPENERS) if rng.random() < 0.35 else ""
        opener = drawn if opener is None else opener
        style = random.Random(rng.random())
        if claim.ground and ground_first:
            self._ground(saying, claim.ground, style)
            saying.say(",")
        saying.say(opener)
        if claim.count and (count_first or not claim.things):
            self._count(saying, claim.count, style)
            saying.say(style.choice((":", ",")) if claim.things else "")
        if claim.direction:
            self._related(saying, claim, style)
        elif claim.places:
            self._placed(saying, claim, style)
        else:
            self._listed(saying, claim.things, style)
        if claim.ground and not ground_first:
            self._ground(saying, claim.ground, style)
        if claim.count and claim.things and not count_first:
            saying.say(",")
            self._count(saying, claim.count, style)
            saying.say(style.choice(("in all", "altogether", "")))
        return saying

    def _name(self, saying: Saying, concept: int, style: random.Random) -> None:
        # a name's own draws, so that another name shifts none of the later ones
        saying.name(concept, self.lexicon, random.Random(style.random()), "the" if style.random() < 0.1 else "a")

    def _listed(self, saying: Saying, things: tuple[int, ...], style: random.Random) -> None:
        joint = style.choice((" and", ",", " and"))
        for number, concept in enumerate(things):
            if number:
                saying.say("and" if number == len(things) - 1 else joint)
            self._name(saying, concept, style)

    def _placed(self, saying: Saying, claim: Claim, style: random.Random) -> None:
        first = style.random() < 0.25
        for number, (concept, place) in enumerate(zip(claim.things, claim.places, strict=True)):
            words = PLACES[place][style.randrange(len(PLACES[place]))]
            if number:
                saying.say(style.choice(("and", ",")))
            if first:
                saying.spot(words, place, concept)
            self._name(saying, concept, style)
            if not first:
                saying.spot(words, place, concept)

    def _related(self, saying: Saying, claim: Claim, style: random.Random) -> None:
        (a, b, *rest), kind, where = claim.things, style.random(), style.random()

        def pick(table: Mapping[str, tuple[str, ...]], direction: str) -> str:
            return table[direction][int(where * len(table[direction]))]

        if kind < self.style.its:
            self._name(saying, b, style)
            saying.say("with")
            self._name(saying, a, style)
            words = pick(ITS, claim.direction)
            saying.turn(words, self._key(words), a, b)
        elif kind > 0.9 and claim.direction in FRONTED:
            words = pick(FRONTED, claim.direction)
            saying.turn(words, self._key(words), a, b)
            self._name(saying, b, style)
            saying.say(style.choice((",", "there is", "is")))
            self._name(saying, a, style)
        else:
            self._name(saying, a, style)
            words = pick(TOWARDS, claim.direction)
            saying.turn(words, self._key(words), a, b)
            self._name(saying, b, style)
        if rest:
            saying.say(", and")
            self._name(saying, rest[0], style)

    @staticmethod
    def _key(words: str) -> str:
        return next(word for word in words.split() if word in KEYS)

    @staticmethod
    def _count(saying: Saying, count: int, style: random.Random) -> None:
        frame = style.choice(("{}", "exactly {}", "just {}"))
        saying.say(frame.format(NUMBERS[count - 1]) + (" thing" if count == 1 else " things"))

    @staticmethod
    def _ground(saying: Saying, colour: str, style: random.Random) -> None:
        frame = style.choice(GROUNDS)
        noun = f"{article_of(colour)} {colour}" if "a {}" in frame else colour
        saying.ground(frame.replace("a {}", "{}").format(noun), colour)
