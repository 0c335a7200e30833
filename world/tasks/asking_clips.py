"""Questions about the clips: what comes first, last, after and before what, and how often.

Balanced as `asking` says.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from world.tasks.asking import Question, balanced, in_order, present
from world.tasks.names import Names
from world.tasks.sequences import Clip
from world.texts.names import NUMBERS

APPEARS = ("does {a} appear?", "is there {a} in the clip?", "do you see {a}?")
FIRST = ("what comes first?", "what is at the start?", "which thing appears first?")
LAST = ("what comes last?", "what is at the end?", "which thing appears last?")
AFTER = ("what comes next after {a}?", "which thing comes after {a}?")
BEFORE = ("what comes before {a}?", "which thing appears before {a}?")
OFTEN = ("how often does {a} appear?", "how many times do you see {a}?")
ORDER = ("does {a} come before {b}?", "is {a} before {b}?", "does {b} come after {a}?")


def ask(clips: list[Clip], names: Names, rng: random.Random) -> list[Question]:
    """All questions about the clips of a split.

    Args:
        clips: of one split.
        names: of things.
        rng: of all draws.
    """
    shown = {clip.id: clip.parts for clip in clips}
    found = [*present(shown, APPEARS, "appears", names, rng), *_ordered(clips, names, rng)]
    often: list[Question] = []
    seen = set(names.seen)
    for clip in clips:
        found += _named(clip, names, seen, rng)
        often += _often(clip, names, rng)
    found += balanced(often, rng)
    return in_order(found, shown)


def _ordered(clips: list[Clip], names: Names, rng: random.Random) -> Iterator[Question]:
    """What comes before what: the same asked of both twins, in which it's the other way round."""
    by_id = {clip.id: clip for clip in clips}
    for clip in clips:
        if clip.partner is None or clip.id > clip.partner:
            continue
        twin = by_id[clip.partner]
        single = [code for code in clip.parts if clip.parts.count(code) == 1]
        pairs = [(a, b) for a in single for b in single if twin.parts.index(a) > twin.parts.index(b)]
        pairs = [(a, b) for a, b in pairs if clip.parts.index(a) < clip.parts.index(b)]
        if not pairs:
            continue
        pair = rng.choice(pairs)
        answers = ("yes", "no") if rng.random() < 0.5 else ("no", "yes")
        a, b = pair if answers[0] == "yes" else pair[::-1]
        said = {"a": names.said(a, rng, article="the"), "b": names.said(b, rng, article="the")}
        text = rng.choice(ORDER).format(**said)
        for about, answer in zip((clip, twin), answers, strict=True):
            yield Question(about.id, text, answer, "before or after")


def _named(clip: Clip, names: Names, seen: set[str], rng: random.Random) -> Iterator[Question]:
    """What comes first or last, and what comes after or before something; answered by usual names."""
    place = rng.choice((0, -1))
    if clip.parts[place] in seen:
        text = rng.choice(LAST if place else FIRST)
        yield Question(clip.id, text, names.of[clip.parts[place]][0], "last" if place else "first")
    single = [number for number, code in enumerate(clip.parts) if clip.parts.count(code) == 1]
    step = rng.choice((1, -1))
    fit = [n for n in single if 0 <= n + step < len(clip.parts) and clip.parts[n + step] in seen]
    if fit and len(clip.parts) > 2:
        number = rng.choice(fit)
        said = names.said(clip.parts[number], rng, article="the")
        text = rng.choice(AFTER if step > 0 else BEFORE).format(a=said)
        answer = names.of[clip.parts[number + step]][0]
        yield Question(clip.id, text, answer, "after" if step > 0 else "before")


def _often(clip: Clip, names: Names, rng: random.Random) -> Iterator[Question]:
    """How often something comes."""
    for code in sorted(set(clip.parts)):
        text = rng.choice(OFTEN).format(a=names.said(code, rng, article="a"))
        yield Question(clip.id, text, NUMBERS[clip.parts.count(code) - 1], "how often", "how often")
