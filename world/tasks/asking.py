"""Questions about the scenes, balanced so that who cannot see stays at chance.

Of yes-or-no questions the same text is asked of two scenes of the split, with "yes" for one and "no" for the other.
Numbers and kinds are drawn so that no answer of a group is more frequent than its median one.
"""

from __future__ import annotations

import random
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from world.tasks.claims import OPPOSITE, towards
from world.tasks.names import Names
from world.tasks.scene import Scene
from world.texts.names import KINDS, NUMBERS

IS_THERE = ("is there {a}?", "do you see {a}?", "does this picture contain {a}?", "is {a} in the picture?")
HOW_MANY = ("how many things are there?", "how many things does the picture show?", "count the things.")
OF_KIND = ("how many {k} are there?", "how many {k} do you see?")
RELATED = ("is {a} {w} {b}?", "do you see {a} {w} {b}?")
WAYS = {
    "left": ("left of", "to the left of"), "right": ("right of", "to the right of"),
    "above": ("above", "higher than"), "below": ("below", "under"),
}  # fmt: skip
WHAT = ("what is {w} {b}?", "what do you see {w} {b}?", "which thing is {w} {b}?")
EITHER = ("is the thing {w} {b} {k} or {l}?", "{w} {b} there is what: {k} or {l}?")
UNCLEAR = 8  # pixels: nearer to the asked side than this, another thing might be meant


@dataclass(frozen=True)
class Question:
    """A question about one picture or clip.

    Args:
        about: id of the scene or clip.
        text: the question.
        answer: the one right answer.
        kind: its type, by which results are split.
        group: questions of one group look alike to who cannot see; answers are balanced within it.
    """

    about: str
    text: str
    answer: str
    kind: str
    group: str = ""

    def row(self) -> dict[str, Any]:
        """As written to disk."""
        return {"about": self.about, "question": self.text, "answer": self.answer, "kind": self.kind}


def ask(scenes: list[Scene], names: Names, rng: random.Random) -> list[Question]:
    """All questions about the scenes of a split.

    Args:
        scenes: of one split.
        names: of things.
        rng: of all draws.
    """
    shown = {scene.id: [thing.code for thing in scene.things] for scene in scenes}
    found = [*present(shown, IS_THERE, "is there", names, rng), *_related(scenes, names, rng)]
    found += _what(scenes, names, rng)
    found += balanced([*_counted(scenes, names, rng), *_either(scenes, names, rng)], rng)
    return in_order(found, shown)


def in_order(questions: list[Question], ids: Iterable[str]) -> list[Question]:
    """The questions in the order of the scenes or clips that they are about."""
    order = {one: number for number, one in enumerate(ids)}
    return sorted(questions, key=lambda question: order[question.about])


def present(
    shown: dict[str, list[str]], wordings: tuple[str, ...], kind: str, names: Names, rng: random.Random
) -> Iterator[Question]:
    """Whether something is there: of each scene or clip that shows it, and of another that doesn't.

    Args:
        shown: codes by id.
        wordings: with `{a}` for the thing.
        kind: of the questions.
        names: of things.
        rng: of all draws.
    """
    for one, codes in shown.items():
        code = rng.choice(codes)
        others = [other for other, theirs in shown.items() if code not in theirs]
        if not others:
            continue
        other = rng.choice(others)
        text = rng.choice(wordings).format(a=names.said(code, rng, article="a"))
        yield Question(one, text, "yes", kind)
        yield Question(other, text, "no", kind)


def _related(scenes: list[Scene], names: Names, rng: random.Random) -> Iterator[Question]:
    """How two things lie: the same asked of both twins, in which it's the other way round."""
    by_id = {scene.id: scene for scene in scenes}
    for scene in scenes:
        twin = by_id.get(scene.partner or "")
        if twin is None or scene.id > twin.id:
            continue
        one, two = scene.by_code(), twin.by_code()
        fit = [
            (a, b, way)
            for a in one
            for b in one
            for way in OPPOSITE
            if a != b and towards(one[a], one[b], way) and towards(two[a], two[b], OPPOSITE[way])
        ]
        for axis in (("left", "right"), ("above", "below")):
            some = [found for found in fit if found[2] in axis]
            if some:
                a, b, way = rng.choice(some)
                said = {"a": names.said(a, rng, article="the"), "b": names.said(b, rng, article="the")}
                text = rng.choice(RELATED).format(w=rng.choice(WAYS[way]), **said)
                kind = "left of" if axis[0] == "left" else "above"
                yield Question(scene.id, text, "yes", kind)
                yield Question(twin.id, text, "no", kind)


def only(scene: Scene, code: str, way: str) -> str:
    """The only thing that lies a way of another, beyond doubt; "" where there is none or it isn't clear."""
    things = scene.by_code()
    others = [thing for thing in scene.things if thing.code != code]
    near = [thing for thing in others if towards(thing, things[code], way, slack=18 - UNCLEAR)]
    return near[0].code if len(near) == 1 and towards(near[0], things[code], way) else ""


def _asides(scene: Scene, rng: random.Random) -> Iterator[tuple[str, str, str]]:
    """(what is there, the way, of what), in any order."""
    options = [(thing.code, way) for thing in scene.things for way in OPPOSITE]
    for code, way in rng.sample(options, len(options)):
        found = only(scene, code, way)
        if found:
            yield found, way, code


def _what(scenes: list[Scene], names: Names, rng: random.Random) -> Iterator[Question]:
    """What lies on a side of something: answered by the usual name of a thing that pre-training saw.

    Scenes of two things, where the way needn't be read, are asked less.
    """
    seen = set(names.seen)
    for scene in scenes:
        if len(scene.things) < 2 or (len(scene.things) == 2 and rng.random() < 0.7):
            continue
        for found, way, code in _asides(scene, rng):
            if found in seen:
                said = names.said(code, rng, article="the")
                text = rng.choice(WHAT).format(w=rng.choice(WAYS[way]), b=said)
                kind = "what is left" if way in ("left", "right") else "what is above"
                yield Question(scene.id, text, names.of[found][0], kind)
                break


def _counted(scenes: list[Scene], names: Names, rng: random.Random) -> Iterator[Question]:
    """How many things there are, and how many of a kind."""
    for scene in scenes:
        yield Question(scene.id, rng.choice(HOW_MANY), NUMBERS[len(scene.things) - 1], "how many", "how many")
        kinds = Counter(kind for thing in scene.things if (kind := names.kind[thing.code]))
        for kind, count in kinds.items():
            several = KINDS[kind][1]
            text = rng.choice(OF_KIND).format(k=several)
            yield Question(scene.id, text, NUMBERS[count - 1], "how many of a kind", several)


def _either(scenes: list[Scene], names: Names, rng: random.Random) -> Iterator[Question]:
    """Of which of two kinds a thing on some side is; the other kind is shown too, or is asked after elsewhere."""
    for scene in scenes:
        for found, way, code in _asides(scene, rng):
            right = names.kind[found]
            others = sorted({names.kind[t.code] for t in scene.things} - {right, ""})
            if not right or not others:
                continue
            pair = sorted((right, rng.choice(others)))
            words = [KINDS[kind][0] for kind in pair]
            rng.shuffle(words)
            said = names.said(code, rng, article="the")
            text = rng.choice(EITHER).format(w=rng.choice(WAYS[way]), b=said, k=_a(words[0]), l=_a(words[1]))
            yield Question(scene.id, text, KINDS[right][0], "which kind", " ".join(pair))
            break


def _a(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def balanced(questions: list[Question], rng: random.Random) -> list[Question]:
    """Leave questions out, at random, until no answer of a group is more frequent than its median answer was.

    A group with one answer alone is left out: who cannot see would know it.
    """
    groups: dict[str, dict[str, list[int]]] = {}
    for row, question in enumerate(questions):
        groups.setdefault(question.group, {}).setdefault(question.answer, []).append(row)
    kept: list[int] = []
    for answers in groups.values():
        most = statistics.median_low(map(len, answers.values())) if len(answers) > 1 else 0
        for rows in answers.values():
            rng.shuffle(rows)
            kept += rows[:most]
    return [questions[row] for row in sorted(kept)]
