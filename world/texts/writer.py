"""The texts of a training step: for each canvas two captions with a falsehood each, and two questions."""

from __future__ import annotations

import random
from dataclasses import dataclass

from world.texts.captions import Captioner
from world.texts.names import Lexicon
from world.texts.questions import Asker
from world.texts.saying import Saying
from world.texts.truths import Scene, alterations, falsified

TEXTS = 6  # a canvas: true, false, true, false, question, question


@dataclass
class Step:
    """A batch's texts.

    Args:
        sayings: six a canvas.
        answers: of the questions, number of the answer, two a canvas.
        kinds: of the falsehoods, two a canvas.
    """

    sayings: list[list[Saying]]
    answers: list[list[int]]
    kinds: list[list[str]]


class Writer:
    """Writes the texts.

    Args:
        lexicon: names.
        among: concepts that may be named.
        captioner: words the captions.
        asker: asks the questions.
    """

    def __init__(self, lexicon: Lexicon, among: list[int], captioner: Captioner | None = None) -> None:
        self.lexicon, self.among = lexicon, among
        self.captioner = captioner or Captioner(lexicon)
        self.asker = Asker(lexicon, among, self.captioner.style.axes)

    def pair(
        self, scene: Scene, rng: random.Random, frame: str = "", how: str = "", bare: bool = False
    ) -> tuple[Saying, Saying, str] | None:
        """A caption and a falsehood in the same wording, and how it was made false.

        Args:
            scene: what the canvas shows.
            rng: of all draws.
            frame: of the caption; drawn where it isn't given.
            how: one of `alterations`; drawn where it isn't given.
            bare: the caption says nothing of count and ground.

        Returns:
            None where the canvas has no such caption, or nothing of it could be made false.
        """
        for _ in range(6):
            claim = self.captioner.claim(scene, rng, frame, bare)
            if claim is None or (how and how not in alterations(claim)):
                continue
            kind = how or rng.choice(alterations(claim))
            false = falsified(claim, kind, scene, self.lexicon, self.among, rng)
            if false is not None:
                seed = rng.random()
                true, other = (self.captioner.word(some, random.Random(seed)) for some in (claim, false))
                return true, other, kind
        return None

    def caption(self, scene: Scene, rng: random.Random) -> Saying:
        """A true caption."""
        claim = self.captioner.claim(scene, rng)
        assert claim is not None
        return self.captioner.word(claim, rng)

    def step(self, scenes: list[Scene], rng: random.Random) -> Step:
        """The texts of a batch; relations first, since they are what is hardest to learn."""
        sayings, answers, kinds = [], [], []
        for scene in scenes:
            pairs = [self._some(scene, rng, "relation" if rng.random() < 0.6 else ""), self._some(scene, rng)]
            asked = [self.asker(scene, rng) for _ in range(2)]
            sayings.append([s for true, false, _ in pairs for s in (true, false)] + [q.saying for q in asked if q])
            answers.append([q.answer for q in asked if q])
            kinds.append([kind for _, _, kind in pairs])
        return Step(sayings, answers, kinds)

    def _some(self, scene: Scene, rng: random.Random, frame: str = "") -> tuple[Saying, Saying, str]:
        found = self.pair(scene, rng, frame) or self.pair(scene, rng) or self.pair(scene, rng, "objects")
        assert found is not None
        return found
