"""Generated questions about the embedded scenes and clips: presence, number, position and order of emoji.

They are balanced against guessing without the picture: within a group of questions that look alike, no answer is more
frequent than the median answer. Emoji are named by their kind ("face", "vehicle"), from the groups of emojibase-data.
"""

from __future__ import annotations

import itertools
import json
import random
import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from uniadapter.embedded import question_templates as words
from uniadapter.files.assets import asset_path

MIN_DISTANCE = 16  # pixels between two centres, for one to count as left of or above the other


@dataclass(frozen=True)
class Question:
    """A question about one visual.

    Args:
        visual_id: id of the scene or clip.
        text: the question.
        answer: the correct answer.
        kind: question type, by which results are reported.
        group: questions that look alike without the picture; answers are balanced within a group.
    """

    visual_id: str
    text: str
    answer: str
    kind: str
    group: str


def read_kinds() -> dict[str, str]:
    """Hexcode to the kind of the emoji; emoji without a kind are absent, and no question is about them."""
    return json.loads((asset_path("scenes") / "kinds.json").read_text(encoding="utf-8"))


def scene_questions(scenes: Iterable[dict[str, Any]], kinds: dict[str, str], seed: str) -> list[Question]:
    """Questions about scenes.

    Args:
        scenes: from `emoji_scenes.read_specifications`.
        kinds: from `read_kinds`.
        seed: the same seed gives the same questions on every machine.
    """
    rng = random.Random(seed)
    found: list[Question] = []
    for scene in scenes:
        visual_id, shown = scene["id"], [kinds.get(code, "") for code, *_ in scene["objects"]]
        found.append(_question(visual_id, words.COUNT, words.NUMBERS[len(shown)], "how many", rng))
        found += _presence(visual_id, shown, kinds, words.ANY, words.MISSING, rng)
        found += _sides(visual_id, scene["objects"], shown, rng)
        found += _relation(visual_id, scene["objects"], shown, rng)
    return balance(found, rng)


def clip_questions(clips: Iterable[dict[str, Any]], kinds: dict[str, str], seed: str) -> list[Question]:
    """Questions about composed clips.

    Args:
        clips: from `emoji_clips.read_sequences`.
        kinds: from `read_kinds`.
        seed: the same seed gives the same questions on every machine.
    """
    rng = random.Random(seed)
    found: list[Question] = []
    for clip in clips:
        visual_id, shown = clip["id"], [kinds.get(code, "") for code in clip["parts"]]
        found.append(_question(visual_id, words.PARTS, words.NUMBERS[len(shown)], "how many", rng))
        found += _presence(visual_id, shown, kinds, words.APPEARS, (), rng)
        found += [
            _question(visual_id, wording, shown[place], "first or last", rng, group=f"end {place}")
            for wording, place in ((words.FIRST, 0), (words.LAST, -1))
            if shown[place]
        ]
        found += [
            _question(visual_id, words.NEXT, after, "after", rng, k=before)
            for before, after in itertools.pairwise(shown)
            if shown.count(before) == 1 and before and after
        ]
        found += _before(visual_id, shown, rng)
    return balance(found, rng)


def _question(
    visual_id: str, wordings: Sequence[str], answer: str, kind: str, rng: random.Random, group: str = "", **fill: str
) -> Question:
    return Question(visual_id, rng.choice(wordings).format(**fill), answer, kind, group or kind)


def _presence(
    visual_id: str, shown: list[str], kinds: dict[str, str], present: Sequence[str], missing: Sequence[str],
    rng: random.Random,
) -> Iterator[Question]:  # fmt: skip
    """One question about a kind that is present, and one about a kind that is absent."""
    absent = sorted(set(kinds.values()) - set(shown))
    for pool, there in ((sorted(set(shown) - {""}), True), (absent, False)):
        if pool:
            kind = rng.choice(pool)
            denied = bool(missing) and rng.random() < 0.3
            answer = "yes" if there != denied else "no"
            wordings = missing if denied else present
            yield _question(visual_id, wordings, answer, "is there", rng, group=f"is there {kind} {denied}", k=kind)


def _sides(visual_id: str, objects: list[list[Any]], shown: list[str], rng: random.Random) -> Iterator[Question]:
    """Which kind is furthest left, right, up and down, where that is unambiguous."""
    for side, axis, sign in (("left", 1, 1), ("right", 1, -1), ("top", 2, 1), ("bottom", 2, -1)):
        order = sorted(range(len(objects)), key=lambda row: sign * objects[row][axis])
        first, second = order[0], order[1]
        if shown[first] and abs(objects[first][axis] - objects[second][axis]) >= MIN_DISTANCE:
            where = rng.choice(words.SIDES[side])
            yield _question(visual_id, words.SIDE, shown[first], "what is where", rng, w=where)


def _relation(visual_id: str, objects: list[list[Any]], shown: list[str], rng: random.Random) -> Iterator[Question]:
    """Whether one emoji is on a side of another; the true side is asked with probability 1/2."""
    single = [row for row, kind in enumerate(shown) if kind and shown.count(kind) == 1]
    if len(single) < 2:
        return
    one, other = rng.sample(single, 2)
    clear = [axis for axis in (1, 2) if abs(objects[one][axis] - objects[other][axis]) >= MIN_DISTANCE]
    if not clear:
        return
    axis = rng.choice(clear)
    side = rng.choice((("left", "right"), ("top", "bottom"))[axis - 1])
    smaller = objects[one][axis] < objects[other][axis]
    answer = "yes" if smaller == (side in ("left", "top")) else "no"
    where = rng.choice(words.RELATIONS[side])
    yield _question(visual_id, words.RELATED, answer, "left of", rng, a=shown[one], b=shown[other], w=where)


def _before(visual_id: str, shown: list[str], rng: random.Random) -> Iterator[Question]:
    """Whether one emoji comes before another, in random order."""
    single = [place for place, kind in enumerate(shown) if kind and shown.count(kind) == 1]
    if len(single) >= 2:
        one, other = rng.sample(single, 2)
        answer = "yes" if one < other else "no"
        yield _question(visual_id, words.BEFORE, answer, "before", rng, a=shown[one], b=shown[other])


def balance(questions: list[Question], rng: random.Random) -> list[Question]:
    """Drop random questions until no answer of a group is more frequent than the group's median answer.

    Groups with only one answer are dropped, since it could be guessed without the picture.
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
    """Rows of an annotation file.

    Args:
        questions: to write.
        visual: field of the path: "image" or "video".
        path: with `{}` for the id.
    """
    return [
        {visual: path.format(one.visual_id), "question": one.text, "answer": one.answer, "question_id": number,
         "answer_type": one.kind}
        for number, one in enumerate(questions)
    ]  # fmt: skip
