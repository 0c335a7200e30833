"""What people might say of a whole scene: five references each, for the captioning task.

All things are named. Things side by side are named from left to right, and things above one another from top to bottom;
so a reference is false of the scene's twin.
"""

from __future__ import annotations

import random
import re
from itertools import pairwise

from world.tasks.claims import GAP
from world.tasks.names import Names
from world.tasks.scene import Scene, Thing

REFERENCES = 5
ONE = ("<0>", "only <0>", "<0> alone", "<0> and no other thing")
ROW = (
    "<a> to the left of <b>",
    "<a> to the left of <b>",
    "<b> to the right of <a>",
    "<a> on the left and <b> on the right",
)
ROWS = ("<a> above <b>", "<a> above <b>", "<b> below <a>", "<a> at the top and <b> at the bottom")
LINES = {
    "x": ("from left to right <0>, <1> and <2>", "<0>, <1> and <2> from left to right",
          "<0> on the left, <1> in the middle and <2> on the right"),
    "y": ("from top to bottom <0>, <1> and <2>", "<0>, <1> and <2> from top to bottom",
          "<0> at the top, <1> in the middle and <2> at the bottom"),
}  # fmt: skip


def split(things: list[Thing], axis: str) -> list[list[Thing]]:
    """Groups along an axis, with a clear gap between them; each in order along the other one."""
    ordered = sorted(things, key=lambda thing: getattr(thing, axis))
    groups = [[ordered[0]]]
    for before, thing in pairwise(ordered):
        if getattr(thing, axis) - getattr(before, axis) >= GAP:
            groups.append([])
        groups[-1].append(thing)
    other = "y" if axis == "x" else "x"
    return [sorted(group, key=lambda thing: getattr(thing, other)) for group in groups]


def frames(scene: Scene) -> tuple[list[str], tuple[str, ...]]:
    """Codes in the order in which they are numbered, and the wordings that fit the scene."""
    things = scene.things
    if len(things) == 1:
        return [things[0].code], ONE
    rows, columns = split(things, "y"), split(things, "x")
    for groups, axis in ((columns, "x"), (rows, "y")):
        if len(things) == 3 and len(groups) == 3 and len(rows if axis == "x" else columns) == 1:
            return [group[0].code for group in groups], LINES[axis]
    groups, wordings = (rows, ROWS) if len(rows) == 2 else (columns, ROW)
    codes = [thing.code for group in groups for thing in group]
    first = " and ".join(f"<{number}>" for number in range(len(groups[0])))
    second = " and ".join(f"<{number}>" for number in range(len(groups[0]), len(codes)))
    return codes, tuple(words.replace("<a>", first).replace("<b>", second) for words in wordings)


def refer(scenes: list[Scene], names: Names, rng: random.Random) -> None:
    """Give every scene its references; the first is in the usual wording and names."""
    for scene in scenes:
        codes, wordings = frames(scene)
        scene.references = [_spelled(wordings[0], codes, names, None)]
        for attempt in range(100):
            if len(scene.references) == REFERENCES:
                break
            text = _spelled(rng.choice(wordings), codes, names, rng)
            # things with one name each can't be named in five ways
            if text not in scene.references or attempt > 30:
                scene.references.append(text)


def _spelled(wording: str, codes: list[str], names: Names, rng: random.Random | None) -> str:
    def mention(match: re.Match[str]) -> str:
        code = codes[int(match[1])]
        return names.said(code, rng, article="a") if rng else names.usual(code)

    return re.sub(r"<(\d)>", mention, wording)
