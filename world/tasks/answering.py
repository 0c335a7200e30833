"""An independent answer to the tasks' questions, from the specification alone; see `reading`."""

from __future__ import annotations

import re
from typing import Any

from world.tasks.reading import Pictured

WORDS = ("one", "two", "three", "four")
WAY = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "higher": (0, -1), "below": (0, 1), "under": (0, 1)}
N = r"<(\d)>"
OF = r"(?:to the )?(left|right|above|higher|below|under)(?: of| than)?"
NEAR = 8  # pixels from which a thing is somewhat to a side


def answer(text: str, row: dict[str, Any], names: dict[str, list[str]], kinds: dict[str, str]) -> str:
    """The right answer.

    Args:
        text: the question.
        row: the scene's specification.
        names: by code, the usual one first.
        kinds: by code, as the questions call them in the singular.

    Raises:
        ValueError: the question can't be read, or has no clear answer.
    """
    picture = Pictured(row, names)
    skeleton, order = picture.skeleton(text)
    there = re.fullmatch(rf"(?:is there|do you see|does this picture contain) {N}\?|is {N} in the picture\?", skeleton)
    if there:
        return "yes" if order[0] in picture.objects else "no"
    if re.fullmatch(r"how many things .*\?|count the things\.", text):
        return WORDS[picture.count - 1]
    counted = re.fullmatch(r"how many (\w+) (?:are there|do you see)\?", text)
    if counted:
        return WORDS[sum(_of_kind(kinds[code], counted[1]) for code in picture.objects) - 1]
    if not picture.number(order):
        raise ValueError(f"{text!r} asks of something that isn't there")
    related = re.fullmatch(rf"(?:is|do you see) {N} {OF} {N}\?", skeleton)
    if related:
        a, way, b = related.groups()
        here, there_ = picture.aside(a, b, WAY[way]), picture.aside(b, a, WAY[way])
        if here == there_:
            raise ValueError(f"{text!r}: neither yes nor no")
        return "yes" if here else "no"
    what = re.fullmatch(rf"(?:what is|what do you see|which thing is) {OF} {N}\?", skeleton)
    if what:
        return names[_lying(picture, *what.groups())][0]
    either = re.fullmatch(rf"is the thing {OF} {N} an? (\w+) or an? (\w+)\?", skeleton)
    either = either or re.fullmatch(rf"{OF} {N} there is what: an? (\w+) or an? (\w+)\?", skeleton)
    if either:
        way, b, *two = either.groups()
        kind = kinds[_lying(picture, way, b)]
        if kind in two:
            return kind
    raise ValueError(f"cannot read {text!r} (as {skeleton!r})")


def _of_kind(one: str, several: str) -> bool:
    return several in (one, f"{one}s", {"garment": "clothes", "person": "people"}.get(one))


def _lying(picture: Pictured, way: str, b: str) -> str:
    """The only code that lies that way of b."""
    across, down = WAY[way]
    x, y, _ = picture.objects[b]
    found = [
        code
        for code, (cx, cy, _) in picture.objects.items()
        if not code.isdigit() or len(code) > 1
        if (cx - x) * across + (cy - y) * down >= NEAR
    ]
    if len(found) != 1:
        raise ValueError(f"{len(found)} things lie {way} of it")
    return found[0]
