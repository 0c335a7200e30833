"""Questions about the embedded scenes and clips, made from what was drawn: what is there, how many, where, when.

They are balanced, so that who cannot see stays near the most frequent answer: among questions that look alike without
the picture, no answer is given more often than the median one. What an emoji shows is told by its kind (a face, a
vehicle), from the groups of emojibase-data.
"""

from __future__ import annotations

import itertools
import json
import random
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from uniadapter.embedded import wordings as words
from uniadapter.files.assets import asset

APART = 16  # pixels between two centres, from which one is said to be left of or above the other


@dataclass(frozen=True)
class Question:
    """A question about one visual.

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
    group: str


def read_kinds() -> dict[str, str]:
    """Hexcode to the kind of thing that it shows; what has no kind is absent, and nothing is asked of it."""
    return json.loads((asset("scenes") / "kinds.json").read_text(encoding="utf-8"))


def scene_questions(scenes: Iterable[dict[str, Any]], kinds: dict[str, str], seed: str) -> list[Question]:
    """Questions about scenes (of `read_specifications`), the same for the same seed on every machine."""
    rng = random.Random(seed)
    found: list[Question] = []
    for scene in scenes:
        about, shown = scene["id"], [kinds.get(code, "") for code, *_ in scene["objects"]]
        found.append(_asked(about, words.COUNT, words.NUMBERS[len(shown)], "how many", rng))
        found += _presence(about, shown, kinds, words.ANY, words.MISSING, rng)
        found += _sides(about, scene["objects"], shown, rng)
        found += _relation(about, scene["objects"], shown, rng)
    return balanced(found, rng)


def clip_questions(clips: Iterable[dict[str, Any]], kinds: dict[str, str], seed: str) -> list[Question]:
    """Questions about composed clips (of `read_sequences`), the same for the same seed on every machine."""
    rng = random.Random(seed)
    found: list[Question] = []
    for clip in clips:
        about, shown = clip["id"], [kinds.get(code, "") for code in clip["parts"]]
        found.append(_asked(about, words.PARTS, words.NUMBERS[len(shown)], "how many", rng))
        found += _presence(about, shown, kinds, words.APPEARS, (), rng)
        found += [
            _asked(about, wording, shown[place], "first or last", rng, group=f"end {place}")
            for wording, place in ((words.FIRST, 0), (words.LAST, -1))
            if shown[place]
        ]
        found += [
            _asked(about, words.NEXT, after, "after", rng, k=before)
            for before, after in itertools.pairwise(shown)
            if shown.count(before) == 1 and before and after
        ]
        found += _before(about, shown, rng)
    return balanced(found, rng)


def _asked(
    about: str, wordings: Sequence[str], answer: str, kind: str, rng: random.Random, group: str = "", **fill: str
) -> Question:
    return Question(about, rng.choice(wordings).format(**fill), answer, kind, group or kind)


def _presence(
    about: str, shown: list[str], kinds: dict[str, str], present: Sequence[str], missing: Sequence[str],
    rng: random.Random,
) -> Iterator[Question]:  # fmt: skip
    """One question about a kind that is there, and one about a kind that is not."""
    absent = sorted(set(kinds.values()) - set(shown))
    for pool, there in ((sorted(set(shown) - {""}), True), (absent, False)):
        if pool:
            kind = rng.choice(pool)
            denied = bool(missing) and rng.random() < 0.3
            answer = "yes" if there != denied else "no"
            wordings = missing if denied else present
            yield _asked(about, wordings, answer, "is there", rng, group=f"is there {kind} {denied}", k=kind)


def _sides(about: str, objects: list[list[Any]], shown: list[str], rng: random.Random) -> Iterator[Question]:
    """What is furthest left, right, up and down, wherever that is clear."""
    for side, axis, sign in (("left", 1, 1), ("right", 1, -1), ("top", 2, 1), ("bottom", 2, -1)):
        order = sorted(range(len(objects)), key=lambda row: sign * objects[row][axis])
        first, second = order[0], order[1]
        if shown[first] and abs(objects[first][axis] - objects[second][axis]) >= APART:
            where = rng.choice(words.SIDES[side])
            yield _asked(about, words.SIDE, shown[first], "what is where", rng, w=where)


def _relation(about: str, objects: list[list[Any]], shown: list[str], rng: random.Random) -> Iterator[Question]:
    """Whether one thing is on some side of another; as often as not it is on the other side."""
    single = [row for row, kind in enumerate(shown) if kind and shown.count(kind) == 1]
    if len(single) < 2:
        return
    one, other = rng.sample(single, 2)
    clear = [axis for axis in (1, 2) if abs(objects[one][axis] - objects[other][axis]) >= APART]
    if not clear:
        return
    axis = rng.choice(clear)
    side = rng.choice((("left", "right"), ("top", "bottom"))[axis - 1])
    smaller = objects[one][axis] < objects[other][axis]
    answer = "yes" if smaller == (side in ("left", "top")) else "no"
    where = rng.choice(words.RELATIONS[side])
    yield _asked(about, words.RELATED, answer, "left of", rng, a=shown[one], b=shown[other], w=where)


def _before(about: str, shown: list[str], rng: random.Random) -> Iterator[Question]:
    """Whether one thing comes before another, each named first as often as not."""
    single = [place for place, kind in enumerate(shown) if kind and shown.count(kind) == 1]
    if len(single) >= 2:
        one, other = rng.sample(single, 2)
        answer = "yes" if one < other else "no"
        yield _asked(about, words.BEFORE, answer, "before", rng, a=shown[one], b=shown[other])


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


def question_rows(questions: Sequence[Question], visual: str, path: str) -> list[dict[str, Any]]:
    """Rows of an annotation file; `path` holds `{}` for the id."""
    return [
        {visual: path.format(one.about), "question": one.text, "answer": one.answer, "question_id": number,
         "answer_type": one.kind}
        for number, one in enumerate(questions)
    ]  # fmt: skip
