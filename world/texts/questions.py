"""Questions about canvases with their answers, several wordings each."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from world.pictures.grounds import COLOURS
from world.texts.captions import KEYS
from world.texts.names import KINDS, NUMBERS, Lexicon
from world.texts.saying import Saying
from world.texts.truths import OPPOSITE, Scene, another

IS_THERE = ("is there", "do you see", "can you see", "does the picture show", "is that")
HOW_MANY = ("how many things are there ?", "how many things ?", "how many things do you see ?", "count the things .")
SIDES = ("left", "right", "top", "bottom")
ASIDE = ("to the {} of", "{} of", "on the {} of")
WAYS = ("left", "right", "above", "below")
AXIS = {"left": "x", "right": "x", "above": "y", "below": "y"}
RELATED = {"left": ASIDE, "right": ASIDE, "above": ("above", "over", "higher than"), "below": ("below", "under")}
KINDS_ASKED = (
    "thing",
    "kind",
    "relation",
    "place",
    "count",
    "kind count",
    "ground",
    "beside",
    "which",
    "where",
    "corner",
)
WEIGHTS = (0.16, 0.14, 0.14, 0.06, 0.08, 0.06, 0.04, 0.14, 0.06, 0.06, 0.06)


@dataclass(frozen=True)
class Question:
    """A question and its answer: a word of `answers`, which holds a usual name for every concept.

    Args:
        saying: the question.
        answer: number of the answer.
        kind: one of `KINDS_ASKED`.
    """

    saying: Saying
    answer: int
    kind: str


class Asker:
    """Draws questions.

    Args:
        lexicon: names.
        among: concepts that may be named.
        axes: "x" to ask of left and right, "y" of above and below, "xy" of both.
    """

    def __init__(self, lexicon: Lexicon, among: list[int], axes: str = "x") -> None:
        self.lexicon, self.among, self.axes = lexicon, among, axes
        self.answers = ["yes", "no", *NUMBERS, *COLOURS, *SIDES]
        self.first_name = len(self.answers)
        self.answers += [" ".join(names[0]) for names in lexicon.names]
        self.number = {answer: number for number, answer in enumerate(self.answers[: self.first_name])}
        self.share = Counter(lexicon.kinds[c] for c in among)

    def __call__(self, scene: Scene, rng: random.Random, kind: str = "") -> Question | None:
        """A question of this kind, or of any; None where it can't be asked of the canvas."""
        if kind:
            asked = getattr(self, "_" + kind.replace(" ", "_"))(scene, Saying(), rng)
            return Question(asked[0], asked[1], kind) if asked else None
        while True:
            found = self(scene, rng, rng.choices(KINDS_ASKED, WEIGHTS)[0])
            if found:
                return found

    def _thing(self, scene: Scene, saying: Saying, rng: random.Random) -> tuple[Saying, int]:
        yes = rng.random() < 0.5
        concept = rng.choice(sorted(scene.concepts)) if yes else another(scene, self.lexicon, self.among, rng)
        saying.say(rng.choice(IS_THERE)).name(concept, self.lexicon, rng)
        return saying.say(rng.choice(("?", "here ?"))), self.number["yes" if yes else "no"]

    def _kind(self, scene: Scene, saying: Saying, rng: random.Random) -> tuple[Saying, int] | None:
        shown = {self.lexicon.kinds[c] for c in scene.concepts} & KINDS.keys()
        yes = rng.random() < 0.5
        if yes and not shown:
            return None
        some = sorted(shown if yes else KINDS.keys() - shown)
        # absent kinds by how often they would be present: else the kind alone would tell the answer
        kind = rng.choice(some) if yes else rng.choices(some, [self.share[k] for k in some])[0]
        one, several = KINDS[kind]
        words, key = rng.choice(((f"is there any {one} ?", one), (f"are there {several} ?", several)))
        return saying.kind(words, key, kind), self.number["yes" if yes else "no"]

    def _pair(self, scene: Scene, rng: random.Random) -> tuple[int, int, str] | None:
        """Two things of which one is to the other's side."""
        concepts = sorted(scene.concepts)
        rng.shuffle(concepts)
        axis = rng.choice(self.axes) if len(self.axes) > 1 else self.axes
        pairs = ((a, b, scene.direction(a, b, axis)) for a in concepts for b in concepts if a != b)
        return next((pair for pair in pairs if pair[2]), None)

    def _relation(self, scene: Scene, saying: Saying, rng: random.Random) -> tuple[Saying, int] | None:
        pair = self._pair(scene, rng)
        if pair is None:
            return None
        a, b, direction = pair
        yes = rng.random() < 0.5
        said = direction if yes else OPPOSITE[direction]
        saying.say("is").name(a, self.lexicon, rng, "the")
        words = rng.choice(RELATED[said]).format(said)
        saying.turn(words, next(word for word in words.split() if word in KEYS), a, b)
        return saying.name(b, self.lexicon, rng, "the").say("?"), self.number["yes" if yes else "no"]

    def _place(self, scene: Scene, saying: Saying, rng: random.Random) -> tuple[Saying, int] | None:
        concept = rng.choice(sorted(scene.concepts))
        sides = sorted(scene.sides(concept))
        if not sides:
            return None
        side, yes = rng.choice(sides), rng.random() < 0.5
        said = side if yes else OPPOSITE[side]
        saying.say("is").name(concept, self.lexicon, rng, "the")
        at = "at the" if said in ("top", "bottom") else "on the"
        return saying.spot(f"{at} {said}", said, concept).say("?"), self.number["yes" if yes else "no"]

    def _count(self, scene: Scene, saying: Saying, rng: random.Random) -> tuple[Saying, int]:
        return saying.say(rng.choice(HOW_MANY)), self.number[NUMBERS[len(scene.things) - 1]]

    def _kind_count(self, scene: Scene, saying: Saying, rng: random.Random) -> tuple[Saying, int] | None:
        counts = Counter(kind for c, _, _ in scene.things if (kind := self.lexicon.kinds[c]) in KINDS)
        if not counts:
            return None
        most = max(counts.values())
        kind = rng.choice(sorted(k for k in counts if counts[k] == most or rng.random() < 0.3))
        words = rng.choice(("how many {} are there ?", "how many {} ?", "how many {} do you see ?"))
        several = KINDS[kind][1]
        return saying.kind(words.format(several), several, kind), self.number[NUMBERS[counts[kind] - 1]]

    def _ground(self, scene: Scene, saying: Saying, rng: random.Random) -> tuple[Saying, int] | None:
        if not scene.ground:
            return None
        saying.say(rng.choice(("what colour is the ground ?", "what colour is the background ?")))
        return saying, self.number[scene.ground]

    def _beside(self, scene: Scene, saying: Saying, rng: random.Random) -> tuple[Saying, int] | None:
        """What is left of (above) something, where that is one thing beyond doubt."""
        ways = [way for way in WAYS if AXIS[way] in self.axes]
        for b in rng.sample(sorted(scene.concepts), len(scene.concepts)):
            for direction in rng.sample(ways, len(ways)):
                found = [c for c in sorted(scene.concepts - {b}) if self._leans(scene, c, b, direction)]
                if len(found) == 1 and scene.direction(found[0], b, AXIS[direction]) == direction:
                    self._ask_what(saying, found[0], rng)
                    saying.say(rng.choice(RELATED[direction]).format(direction))
                    saying.name(b, self.lexicon, rng, "the")
                    return saying.say("?"), self.first_name + found[0]
        return None

    @staticmethod
    def _leans(scene: Scene, a: int, b: int, direction: str) -> bool:
        """Whether a is at all on that side of b."""
        side = "xy".index(AXIS[direction])
        away = scene.where(a)[side] - scene.where(b)[side]
        return away < -6 if direction in ("left", "above") else away > 6

    @staticmethod
    def _ask_what(saying: Saying, concept: int, rng: random.Random) -> None:
        saying.looks.append((0, concept))
        saying.say(rng.choice(("what is", "what do you see", "what thing is")))

    def _which(self, scene: Scene, saying: Saying, rng: random.Random) -> tuple[Saying, int] | None:
        """The only one of its kind."""
        counts = Counter(self.lexicon.kinds[c] for c in scene.concepts)
        fit = sorted(c for c in scene.concepts if (kind := self.lexicon.kinds[c]) in KINDS and counts[kind] == 1)
        if not fit:
            return None
        concept = rng.choice(fit)
        saying.looks.append((0, concept))
        words = rng.choice(("which {} is there ?", "which {} do you see ?", "what {} is this ?"))
        kind = self.lexicon.kinds[concept]
        return saying.kind(words.format(KINDS[kind][0]), KINDS[kind][0], kind), self.first_name + concept

    def _where(self, scene: Scene, saying: Saying, rng: random.Random) -> tuple[Saying, int] | None:
        concept = rng.choice(sorted(scene.concepts))
        sides = sorted(scene.sides(concept))
        if not sides:
            return None
        side = rng.choice(sides)
        ends = ("on the left or on the right", "at the top or at the bottom")[side in ("top", "bottom")]
        saying.say("is").name(concept, self.lexicon, rng, "the")
        keys = ("left right", "top bottom")[side in ("top", "bottom")]
        return saying.spot(ends, keys, concept).say("?"), self.number[side]

    def _corner(self, scene: Scene, saying: Saying, rng: random.Random) -> tuple[Saying, int] | None:
        """What lies in a corner, or is there alone."""
        concept = rng.choice(sorted(scene.concepts))
        sides = scene.sides(concept)
        if len(sides) < 2:
            return None
        row, column = (next(w for w in words if w in sides) for words in (("top", "bottom"), ("left", "right")))
        if any({row, column} <= scene.sides(other) for other in scene.concepts - {concept}):
            return None
        saying.looks.append((0, concept))
        saying.say(rng.choice(("what is at the {} {} ?", "what is in the {} {} corner ?")).format(row, column))
        return saying, self.first_name + concept
