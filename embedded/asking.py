"""Questions about canvases of drawn emoji, with their answers: what the question-answering start is taught.

Nothing is asked of where one thing is from another, and nothing in the 3-D style: that is what it is adapted to.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from embedded.captions import Captioner, Truth, article
from embedded.concepts import FLAG_GROUP, Concept

KINDS = {
    "smileys-emotion": "face", "people-body": "person", "animals-nature": "nature", "food-drink": "food",
    "travel-places": "travel", "activities": "activity", "objects": "object", "symbols": "symbol",
}  # fmt: skip
NUMBERS = {1: "one", 2: "two", 3: "three", 4: "four"}
WHAT = ["what is this?", "what is there?", "what do we see?", "what does the picture show?", "which emoji is it?"]
KIND = ["what kind of thing is it?", "what kind of emoji is this?", "which group does it belong to?"]
COUNT = [
    "how many are there?",
    "how many emoji are there?",
    "how many things do we see?",
    "what is the number of emoji?",
]
COLOUR = ["what color is the background?", "on what color is it?", "which color is behind it?"]
PLACE = ["where is it?", "where in the picture is it?"]
THERE = ["is there {x}?", "do we see {x}?", "does the picture show {x}?", "is {x} there?"]


@dataclass(frozen=True)
class Question:
    """A question and its answer."""

    text: str
    answer: str


class Asker:
    """Draws questions; every draw comes from the generator that is handed in."""

    def __init__(self, captioner: Captioner, concepts: list[Concept]) -> None:
        self.captioner = captioner
        self.kinds = [KINDS.get(c.group, "") if c.group != FLAG_GROUP else "flag" for c in concepts]

    def ask(self, concepts: list[int], truth: Truth | None, rng: random.Random) -> Question:
        """One question about a canvas that shows these concepts; `truth` is of a canvas with one drawing."""
        chance = rng.random()
        if chance < 0.35:
            return self.is_there(concepts, rng)
        if chance < 0.50:
            return Question(rng.choice(COUNT), NUMBERS[len(concepts)])
        if truth is None:
            return self.is_there(concepts, rng)
        if chance < 0.60 and truth.colour:
            return Question(rng.choice(COLOUR), truth.colour)
        if chance < 0.68 and truth.places:
            return Question(rng.choice(PLACE), truth.places[0])
        if chance < 0.80 and self.kinds[concepts[0]]:
            return Question(rng.choice(KIND), self.kinds[concepts[0]])
        return Question(rng.choice(WHAT), self.captioner.labels[concepts[0]])

    def is_there(self, concepts: list[int], rng: random.Random) -> Question:
        """Of something that is shown, or that is not: as often the one as the other."""
        shown = rng.random() < 0.5
        if shown:
            concept = rng.choice(concepts)
        else:
            pool = self.captioner.kin[rng.choice(concepts)] if rng.random() < 0.3 else self.captioner.all
            concept = rng.choice([c for c in rng.choices(pool, k=8) if c not in concepts] or [-1])
            if concept < 0:
                return Question(rng.choice(COUNT), NUMBERS[len(concepts)])
        name = self.captioner.name(concept, rng)
        text = rng.choice(THERE).format(x=rng.choice((name, article(name))))
        return Question(text, "yes" if shown else "no")
