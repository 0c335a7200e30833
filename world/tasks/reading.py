"""An independent reading of the tasks' texts: a caption or question in, its truth or answer out.

Shares nothing with what composes them: names become placeholders, the rest is matched against a grammar of its own and
tested against the middles and sides of the things as they are written in the specification.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any

NUMBER = {"one": 1, "two": 2, "three": 3, "four": 4}
CLEAR, ASIDE = 18, 13  # pixels: between two things, and off the middle
_START = r"^(?:there is |a picture of |this picture has |the picture contains )"
_GROUND = r" (?:on an? (\w+) ground|in front of an? (\w+) background)$"
_SIDE = {
    "left of": (-1, 0), "right of": (1, 0), "above": (0, -1), "over": (0, -1), "higher than": (0, -1),
    "below": (0, 1), "under": (0, 1), "beneath": (0, 1), "underneath": (0, 1), "lower than": (0, 1),
}  # fmt: skip
N = r"<(\d)>"
OF = (
    r"((?:to the |on the )?(?:left|right) of|on the (?:left|right) side of|above|over|higher than|below|under"
    r"|beneath|underneath|lower than)"
)
ITS = r"((?:to|on) its (?:left|right)(?: side)?|(?:above|over|below|under|beneath) it)"
AT = r"((?:on|at) the (?:left|right)|(?:at|in) the (?:top|bottom)(?: left| right)?(?: corner)?)"


class Pictured:
    """A specification as a reader needs it.

    Args:
        row: "objects", "ground".
        names: by code.
    """

    def __init__(self, row: dict[str, Any], names: dict[str, list[str]]) -> None:
        self.objects = {code: (x, y, size) for code, x, y, size in row["objects"]}
        self.ground, self.names, self.count = row["ground"], names, len(self.objects)

    def skeleton(self, text: str) -> tuple[str, list[str]]:
        """A text with `<0>`, `<big 1>` … for what it names, and the codes by number; longest names first."""
        options = sorted(((n, code) for code, some in self.names.items() for n in some), key=lambda o: -len(o[0]))
        order: list[str] = []
        for name, code in options:
            if name not in text:
                continue
            pattern = rf"(?<![\w<])(?:(?:an?|the) )?(?:(big|small) )?{re.escape(name)}(?![\w>])"

            def mark(found: re.Match[str], code: str = code) -> str:
                if code not in order:
                    order.append(code)
                return f"<{found[1] + ' ' if found[1] else ''}{order.index(code)}>"

            text = re.sub(pattern, mark, text)
        return text, order

    def number(self, order: list[str]) -> bool:
        """Let numbers stand for these codes from here on; False where one of them isn't shown."""
        if any(code not in self.objects for code in order):
            return False
        self.objects |= {str(number): self.objects[code] for number, code in enumerate(order)}
        return True

    def aside(self, a: str, b: str, way: tuple[int, int]) -> bool:
        """Whether a lies that way of b, clearly."""
        (ax, ay, _), (bx, by, _) = self.objects[a], self.objects[b]
        return (ax - bx) * way[0] + (ay - by) * way[1] >= CLEAR

    def at(self, a: str, words: str) -> bool:
        """Whether a lies in all the parts of the picture that the words name."""
        x, y, _ = self.objects[a]
        away = {"left": 48 - x, "right": x - 48, "top": 48 - y, "bottom": y - 48}
        return all(value >= ASIDE for side, value in away.items() if side in words.split())

    def big(self, a: str, word: str) -> bool:
        """Whether a is as large, or small, as the word says."""
        side = self.objects[a][2]
        return side >= 42 if word == "big" else side <= 28


def way_of(words: str) -> tuple[int, int]:
    """The direction that a phrase tells."""
    words = words.replace("side of", "of").removesuffix(" it").replace("its left", "left of").replace("side", "")
    words = words.replace("its right", "right of")
    return next(way for key, way in _SIDE.items() if key in words)


Rule = Callable[..., bool]
RULES: list[tuple[re.Pattern[str], Rule]] = []


def _rule(pattern: str) -> Callable[[Rule], Rule]:
    def add(function: Rule) -> Rule:
        RULES.append((re.compile(pattern), function))
        return function

    return add


@_rule(rf"{N} (?:is )?{OF} {N}")
def _pair(p: Pictured, a: str, of: str, b: str) -> bool:
    return p.aside(a, b, way_of(of))


@_rule(rf"{N} (?:with|has) {N} {ITS}|{N} and, {ITS}, {N}")
def _with(p: Pictured, b: str, a: str, its: str, b2: str, its2: str, a2: str) -> bool:
    return p.aside(a or a2, b or b2, way_of(its or its2))


@_rule(rf"{N} (above|below) and to the (left|right) of {N}")
def _corner(p: Pictured, a: str, row: str, column: str, b: str) -> bool:
    return p.aside(a, b, way_of(row)) and p.aside(a, b, way_of(f"{column} of"))


@_rule(rf"{N} (above|below) {N} and to its (left|right)")
def _corner_its(p: Pictured, a: str, row: str, b: str, column: str) -> bool:
    return _corner(p, a, row, column, b)


@_rule(rf"{N} {OF} {N} and {OF} {N}")
def _each(p: Pictured, a: str, of: str, b: str, of2: str, c: str) -> bool:
    return p.aside(a, b, way_of(of)) and p.aside(a, c, way_of(of2))


@_rule(rf"{N} {OF} {N}, {N} {OF} {N}")
def _chain(p: Pictured, a: str, of: str, b: str, b2: str, of2: str, c: str) -> bool:
    return b == b2 and p.aside(a, b, way_of(of)) and p.aside(b, c, way_of(of2))


@_rule(rf"from (left|top) to (?:right|bottom) {N}, {N} and {N}")
def _line(p: Pictured, start: str, a: str, b: str, c: str) -> bool:
    way = (-1, 0) if start == "left" else (0, -1)
    return p.aside(a, b, way) and p.aside(b, c, way)


@_rule(rf"{N}, {N} and {N} from (left|top) to (?:right|bottom)")
def _line_behind(p: Pictured, a: str, b: str, c: str, start: str) -> bool:
    return _line(p, start, a, b, c)


@_rule(rf"{N} (?:on the left|at the (top)), {N} in the middle and {N} (?:on the right|at the bottom)")
def _middle(p: Pictured, a: str, top: str, b: str, c: str) -> bool:
    return _line(p, top or "left", a, b, c)


@_rule(rf"{N} between {N} and {N}")
def _between(p: Pictured, b: str, a: str, c: str) -> bool:
    return any(_line(p, start, *ends) for start in ("left", "top") for ends in ((a, b, c), (c, b, a)))


@_rule(r"<(big|small) (\d)> (?:and|next to) <(big|small) (\d)>")
def _sizes(p: Pictured, one: str, a: str, two: str, b: str) -> bool:
    return p.big(a, one) and p.big(b, two)


@_rule(rf"(?:only )?{N}(?: alone| and no other thing)?(?:, {AT})?")
def _only(p: Pictured, a: str, at: str | None) -> bool:
    return p.count == 1 and p.at(a, at or "")


Truth = Callable[[Pictured], bool]


def _placed(text: str) -> Truth | None:
    """Of `<0> at the top left, <1> …`; None where the text isn't such a list."""
    parts = [re.fullmatch(rf"{N} {AT}", part) for part in re.split(r", | and ", text)]
    if not all(parts):
        return None
    return lambda p: all(p.at(found[1], found[2]) for found in parts if found)


def _grouped(text: str) -> Truth | None:
    """Of `<0> and <1> above <2>` and the like: groups in order along one axis, each in order along the other."""
    group = r"(<\d>(?: and <\d>)*)"
    found = re.fullmatch(rf"{group} (?:to the (left|right) of|(above|below)) {group}", text)
    ends = re.fullmatch(rf"{group} (?:on the left|at the (top)) and {group} (?:on the right|at the bottom)", text)
    if found:
        groups, said = [found[1], found[4]], found[2] or found[3]
        groups = groups[::-1] if said in ("right", "below") else groups
        across = said in ("left", "right")
    elif ends:
        groups, across = [ends[1], ends[3]], ends[2] is None
    else:
        return None
    one, two = (re.findall(r"\d", some) for some in groups)
    way, other = ((-1, 0), (0, -1)) if across else ((0, -1), (-1, 0))
    inside = [(a, b) for some in (one, two) for a, b in pairwise(some)]

    def truth(p: Pictured) -> bool:
        return all(p.aside(a, b, way) for a in one for b in two) and all(p.aside(a, b, other) for a, b in inside)

    return truth


def _ruled(text: str) -> Truth | None:
    for pattern, rule in RULES:
        match = pattern.fullmatch(text)
        if match:
            return lambda p: rule(p, *match.groups())
    return None


def is_true(text: str, row: dict[str, Any], names: dict[str, list[str]]) -> bool:
    """Whether a caption or reference holds of a scene.

    Args:
        text: to read.
        row: the scene's specification.
        names: of all concepts, by code. One that is named and not shown makes the text false.

    Raises:
        ValueError: the grammar can't read it.
    """
    picture = Pictured(row, names)
    skeleton, order = picture.skeleton(text)
    skeleton = re.sub(_START, "", skeleton)
    ground, counted = re.search(_GROUND, skeleton), re.match(r"(\w+) things: ", skeleton)
    skeleton = skeleton[counted.end() if counted else 0 : ground.start() if ground else None]
    truth = _ruled(skeleton) or _placed(skeleton) or _grouped(skeleton)
    if truth is None:
        raise ValueError(f"cannot read {text!r} (as {skeleton!r})")
    if ground and (ground[1] or ground[2]) != picture.ground:
        return False
    if counted and NUMBER[counted[1]] != picture.count:
        return False
    return picture.number(order) and truth(picture)
