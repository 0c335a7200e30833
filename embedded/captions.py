"""Captions of single emoji: names in many wordings, and where, how large, on what."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from embedded.canvas import COLOURS
from embedded.concepts import Concept

PLAIN = [
    "{n}", "{n}", "{a}", "{a}", "{t}", "a picture of {a}", "an emoji of {a}", "{n} emoji",
    "a drawing of {a}", "this is {a}", "there is {a}", "a photo of {a}", "an image of {n}",
    "we see {a}", "the picture shows {a}", "one {n}", "{n} icon",
]  # fmt: skip
PLACES: dict[str, list[str]] = {
    "left": ["on the left", "at the left", "to the left", "on the left side"],
    "right": ["on the right", "at the right", "to the right", "on the right side"],
    "top": ["at the top", "on top", "in the upper part", "above"],
    "bottom": ["at the bottom", "in the lower part", "below", "underneath"],
    "middle": ["in the middle", "in the centre", "at the centre"],
    "top left": ["at the top left", "in the top left corner", "in the upper left"],
    "top right": ["at the top right", "in the top right corner", "in the upper right"],
    "bottom left": ["at the bottom left", "in the bottom left corner", "in the lower left"],
    "bottom right": ["at the bottom right", "in the bottom right corner", "in the lower right"],
}
PLACED = ["{x} {p}", "{x} {p}", "{p} there is {x}", "{p}, {x}", "{p} is {x}", "{x} placed {p}"]
SIZES = {"small": ["small", "tiny", "little"], "large": ["large", "big", "huge"]}
COLOURED = ["{x} on a {c} background", "{x} on {c}", "{x} in front of {c}", "on {c}, {x}"]
# Words of scene captions that single emoji never need; the tokenizer must know them.
SCENE_WORDS = (
    "and with above below over under beneath underneath beside next to between left right of its "
    "it them both two three four things picture scene emoji top bottom middle centre corner one "
    "other another while is are sits stands lies placed from row column diagonal diagonally "
    "side by each directly just higher lower than up down in at on the a an there"
)


@dataclass(frozen=True)
class Truth:
    """What may be said of one canvas; empty where nothing can be said for sure."""

    places: tuple[str, ...]
    size: str
    colour: str


def truth_of(scale: float, x: float, y: float, colour: str) -> Truth:
    """Names of place and size, silent near the borders between two names."""
    column = "left" if x < -0.28 else "right" if x > 0.28 else "middle" if abs(x) < 0.14 else ""
    row = "top" if y < -0.28 else "bottom" if y > 0.28 else "middle" if abs(y) < 0.14 else ""
    if scale > 0.72:
        places: tuple[str, ...] = ()
    elif column == "middle" and row == "middle":
        places = ("middle",)
    elif row in ("top", "bottom") and column in ("left", "right"):
        places = (f"{row} {column}", f"{row} {column}", row, column)
    else:
        places = tuple(p for p in (row, column) if p and p != "middle")
    size = "small" if scale < 0.45 else "large" if scale > 0.8 else ""
    return Truth(places, size, colour)


def opposite(place: str, rng: random.Random) -> str:
    """A place that is false wherever ``place`` is true."""
    swap = {"left": "right", "right": "left", "top": "bottom", "bottom": "top"}
    words = place.split()
    if words == ["middle"]:
        return rng.choice([p for p in PLACES if p != "middle"])
    flips = rng.choice([[0], [1], [0, 1]]) if len(words) == 2 else [0]
    return " ".join(swap[w] if i in flips else w for i, w in enumerate(words))


def article(name: str) -> str:
    """``a`` or ``an`` before a name, by its first letter."""
    return ("an " if name[0] in "aeiou" else "a ") + name


class Captioner:
    """Draws wordings; every draw comes from the generator that is handed in."""

    def __init__(self, concepts: list[Concept], counts: Counter[str]) -> None:
        self.labels = [c.label for c in concepts]
        self.names = [c.names for c in concepts]
        self.keywords = [[k for k in c.keywords if counts[k] <= 6] for c in concepts]

    def name(self, concept: int, rng: random.Random) -> str:
        """The label, another name or a telling keyword."""
        chance = rng.random()
        if chance < 0.30 and self.keywords[concept]:
            return rng.choice(self.keywords[concept])
        return self.labels[concept] if chance < 0.6 else rng.choice(self.names[concept])

    def caption(self, concept: int, truth: Truth, rng: random.Random) -> tuple[str, str]:
        """A true caption and, where it says a place or a colour, the same made false."""
        name = self.name(concept, rng)
        sized = name
        if truth.size and rng.random() < 0.2:
            sized = f"{rng.choice(SIZES[truth.size])} {name}"
        chance = rng.random()
        if chance < 0.45 and truth.places:
            place = rng.choice(truth.places)
            frame, phrase = rng.choice(PLACED), rng.choice((sized, article(sized)))
            false = rng.choice(PLACES[opposite(place, rng)])
            texts = [frame.format(x=phrase, p=p) for p in (rng.choice(PLACES[place]), false)]
            return texts[0], texts[1]
        if chance > 0.85 and truth.colour:
            frame, phrase = rng.choice(COLOURED), rng.choice((sized, article(sized)))
            other = rng.choice([c for c in COLOURS if c != truth.colour])
            return frame.format(x=phrase, c=truth.colour), frame.format(x=phrase, c=other)
        text = rng.choice(PLAIN).format(n=sized, a=article(sized), t=f"the {sized}")
        return text, ""

    def told(self, concept: int, truth: Truth, rng: random.Random) -> str:
        """What the decoder learns to say: the label, half of the time with place or colour."""
        name = self.labels[concept] if rng.random() < 0.7 else rng.choice(self.names[concept])
        chance = rng.random()
        text = article(name)
        if chance < 0.5 and truth.places:
            text += " " + PLACES[truth.places[0]][0]
        elif chance > 0.75 and truth.colour:
            text += f" on a {truth.colour} background"
        return text

    def corpus(self) -> list[str]:
        """Every string the tokenizer is trained on."""
        lines = [SCENE_WORDS] * 50 + [" ".join(COLOURS)] * 50
        lines += [p for group in PLACES.values() for p in group] * 20
        lines += [w for group in SIZES.values() for w in group] * 20
        lines += [t.format(n="", a="", t="") for t in PLAIN] * 20
        for label, names, keywords in zip(self.labels, self.names, self.keywords, strict=True):
            lines += [label, label, *names, *keywords]
        return lines

    def texts(self) -> list[str]:
        """Every word that a caption may hold, the frames of the templates included."""
        frames = [t.format(n="", a="", t="", x="", p="", c="") for t in (*PLAIN, *PLACED, *COLOURED)]
        names = [p for group in (*self.names, *self.keywords) for p in group]
        return [*self.corpus(), *frames, *names, *(article(name) for name in names)]
