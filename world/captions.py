"""Captions of single emoji: names in many wordings, and where, how large, on what."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from world.canvas import COLOURS
from world.concepts import Concept

PUNCTUATION = ', . ? ! ; : - " ( )'

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


JOINTS = [" and ", " and ", " with ", ", "]
OPENINGS = ["", "", "", "a picture of ", "there is ", "we see ", "an image of ", "a drawing of "]


@dataclass(frozen=True)
class Caption:
    """A true caption.

    Args:
        text: in words.
        names: the concepts it names.
        only_here: it also says a place, a size or a colour, so it need not be true of other canvases that show these.
        false: the same made false, or "".
        false_names: the concepts that the false one names.
        said: the words that stand for each of `names`.
        false_said: those of `false_names`.
    """

    text: str
    names: tuple[int, ...]
    only_here: bool = False
    false: str = ""
    false_names: tuple[int, ...] = ()
    said: tuple[str, ...] = ()
    false_said: tuple[str, ...] = ()


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
        self.all = [i for i, c in enumerate(concepts) if c.split != "novel"]
        kinds: dict[str, list[int]] = {}
        for i in self.all:
            kinds.setdefault(concepts[i].subgroup, []).append(i)
        self.kin = [kinds.get(c.subgroup, []) for c in concepts]

    def name(self, concept: int, rng: random.Random) -> str:
        """The label, another name or a telling keyword."""
        chance = rng.random()
        if chance < 0.20 and self.keywords[concept]:
            return rng.choice(self.keywords[concept])
        return self.labels[concept] if chance < 0.6 else rng.choice(self.names[concept])

    def of_one(self, concept: int, truth: Truth, rng: random.Random) -> Caption:
        """Of a canvas with one drawing; where it says a place or a colour, also the same made false."""
        name, own = self.name(concept, rng), (concept,)
        sized = name
        if truth.size and rng.random() < 0.2:
            sized = f"{rng.choice(SIZES[truth.size])} {name}"
        chance = rng.random()
        if chance < 0.4 and truth.places:
            place = rng.choice(truth.places)
            frame, phrase = rng.choice(PLACED), rng.choice((sized, article(sized)))
            false = rng.choice(PLACES[opposite(place, rng)])
            texts = [frame.format(x=phrase, p=p) for p in (rng.choice(PLACES[place]), false)]
            return Caption(texts[0], own, True, texts[1], own, (name,), (name,))
        if chance > 0.85 and truth.colour:
            frame, phrase = rng.choice(COLOURED), rng.choice((sized, article(sized)))
            other = rng.choice([c for c in COLOURS if c != truth.colour])
            texts = [frame.format(x=phrase, c=c) for c in (truth.colour, other)]
            return Caption(texts[0], own, True, texts[1], own, (name,), (name,))
        return Caption(self.plain(sized, rng), own, sized != name, said=(name,))

    def plain(self, name: str, rng: random.Random) -> str:
        """A name in one of many frames."""
        return rng.choice(PLAIN).format(n=name, a=article(name), t=f"the {name}")

    def of_several(self, concepts: list[int], rng: random.Random) -> Caption:
        """Of a canvas with several drawings: names all of them or some, in any order, and nothing of where they are.

        Half of the time also the same with one name exchanged for that of a concept of the same kind, or of any.
        """
        count = len(concepts) if rng.random() < 0.65 else rng.randint(1, len(concepts))
        named = rng.sample(concepts, count)
        if rng.random() < 0.5:
            return self.true_listing(named, rng)
        place = rng.randrange(count)
        pool = self.kin[named[place]] if rng.random() < 0.5 else self.all
        strange = [c for c in rng.choices(pool, k=8) if c not in concepts]
        if not strange:
            return self.true_listing(named, rng)
        false = [*named[:place], strange[0], *named[place + 1 :]]
        state = rng.getstate()
        text, said = self.listing(named, rng)
        rng.setstate(state)  # the same words around the other name, as far as names have as many
        wrong, wrongly_said = self.listing(false, rng)
        return Caption(text, tuple(named), False, wrong, tuple(false), said, wrongly_said)

    def true_listing(self, named: list[int], rng: random.Random) -> Caption:
        """A caption that has no false one beside it."""
        text, said = self.listing(named, rng)
        return Caption(text, tuple(named), said=said)

    def listing(self, concepts: list[int], rng: random.Random) -> tuple[str, tuple[str, ...]]:
        """Names, joined: "a cat, pizza and the rocket"; and the names."""
        names = tuple(self.name(c, rng) for c in concepts)
        if len(names) == 1:
            return self.plain(names[0], rng), names
        words = [rng.choice((n, article(n), article(n), f"the {n}")) for n in names]
        last = rng.choice(JOINTS)
        return rng.choice(OPENINGS) + ", ".join(words[:-1]) + last + words[-1], names

    def told_of_several(self, concepts: list[int], rng: random.Random) -> str:
        """What the decoder learns to say of several: every label, in any order."""
        words = [article(self.labels[c]) for c in rng.sample(concepts, len(concepts))]
        return ", ".join(words[:-1]) + " and " + words[-1]

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
        """Every string the tokenizer is trained on; names more often than keywords, which are rarer in captions."""
        lines = [SCENE_WORDS] * 50 + [" ".join(COLOURS)] * 50 + [PUNCTUATION] * 50
        lines += [p for group in PLACES.values() for p in group] * 20
        lines += [w for group in SIZES.values() for w in group] * 20
        lines += [t.format(n="", a="", t="", x="", p="", c="") for t in (*PLAIN, *PLACED, *COLOURED, *OPENINGS)] * 20
        for i in self.all:
            lines += [self.labels[i], *self.names[i]] * 6 + self.keywords[i]
        return lines
