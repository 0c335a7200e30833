"""Questions about canvases of drawn emoji, with their answers: what the question-answering start is taught.

Nothing is asked of where one thing is from another, and nothing in the 3-D style: that is what it is adapted to.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from world.captions import Captioner, Truth, article
from world.concepts import Concept
from world.kinds import ALL_KINDS, kind_of

NUMBERS = {0: "none", 1: "one", 2: "two", 3: "three", 4: "four"}
WHAT = ["what is this?", "what is there?", "what do we see?", "what does the picture show?", "which emoji is it?"]
KIND = ["what kind of thing is it?", "what kind of emoji is this?", "which group does it belong to?"]
COUNT = [
    "how many are there?",
    "how many emoji are there?",
    "how many things do we see?",
    "what is the number of emoji?",
]
PLACE = ["where is it?", "where in the picture is it?"]
THERE = ["is there {x}?", "do we see {x}?", "does the picture show {x}?", "is {x} there?"]
ANY_OF_KIND = ["is any {k} there?", "do we see any {k}?", "is there any {k}?", "does the picture show any {k}?"]
MANY_OF_KIND = ["how many are of the kind {k}?", "how many {k} emoji are there?", "how many {k} emoji do we see?"]


@dataclass(frozen=True)
class Question:
    """A question and its answer."""

    text: str
    answer: str


class Asker:
    """Draws questions; every draw comes from the generator that is handed in."""

    def __init__(self, captioner: Captioner, concepts: list[Concept]) -> None:
        self.captioner = captioner
        self.kinds = [kind_of(c) for c in concepts]

    def ask(self, concepts: list[int], truth: Truth | None, rng: random.Random) -> Question:
        """One question about a canvas that shows these concepts; `truth` is of a canvas with one drawing."""
        chance = rng.random()
        if chance < 0.05:
            return self.is_there(concepts, rng)
        if chance < 0.40:
            return self.any_of_kind(concepts, rng)
        if chance < 0.50:
            return self.many_of_kind(concepts, rng)
        if chance < 0.65 or truth is None:
            return Question(rng.choice(COUNT), NUMBERS[len(concepts)])
        if chance < 0.73 and truth.places:
            return Question(rng.choice(PLACE), truth.places[0])
        if chance < 0.95 and self.kinds[concepts[0]]:
            return Question(rng.choice(KIND), self.kinds[concepts[0]])
        return Question(rng.choice(WHAT), self.captioner.labels[concepts[0]])

    def any_of_kind(self, concepts: list[int], rng: random.Random) -> Question:
        """Of a kind of which something is shown, or nothing: as often the one as the other."""
        shown = {self.kinds[c] for c in concepts} - {""}
        wanted = rng.random() < 0.5
        pool = sorted(shown if wanted else {*ALL_KINDS} - shown) or ALL_KINDS
        kind = rng.choice(pool)
        return Question(rng.choice(ANY_OF_KIND).format(k=kind), "yes" if kind in shown else "no")

    def many_of_kind(self, concepts: list[int], rng: random.Random) -> Question:
        """Of a kind of which something is shown, one time in five of any."""
        kinds = [self.kinds[c] for c in concepts]
        pool = sorted(ALL_KINDS if rng.random() < 0.2 else {*kinds} - {""}) or ALL_KINDS
        kind = rng.choice(pool)
        return Question(rng.choice(MANY_OF_KIND).format(k=kind), NUMBERS[kinds.count(kind)])

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
