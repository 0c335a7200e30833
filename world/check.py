"""An independent reading of scene captions: text in, truth out.

Shares nothing with ``relations.py``: a caption is reduced to placeholders, matched against a
small grammar of its own, and tested against the centres of the objects that it names.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import pairwise

Point = tuple[float, float]

_OF = {
    r"(?:to the |on the )?left (?:side )?of": (-1, 0),
    r"(?:to the |on the )?right (?:side )?of": (1, 0),
    r"above and to the left of|to the upper left of": (-1, -1),
    r"above and to the right of|to the upper right of": (1, -1),
    r"below and to the left of|to the lower left of": (-1, 1),
    r"below and to the right of|to the lower right of": (1, 1),
    r"above|over|higher than": (0, -1),
    r"below|under|beneath|underneath|lower than": (0, 1),
}
_ITS = {
    r"(?:above|over) it to the left": (-1, -1),
    r"(?:above|over) it to the right": (1, -1),
    r"(?:below|under) it to the left": (-1, 1),
    r"(?:below|under) it to the right": (1, 1),
    r"(?:to|on) its left(?: side)?": (-1, 0),
    r"(?:to|on) its right(?: side)?": (1, 0),
    r"(?:above|over) it": (0, -1),
    r"(?:below|under|beneath|underneath) it": (0, 1),
}
_PLACE = {
    r"(?:at|in) the (?:top|upper) left(?: corner)?": (-1, -1),
    r"(?:at|in) the (?:top|upper) right(?: corner)?": (1, -1),
    r"(?:at|in) the (?:bottom|lower) left(?: corner)?": (-1, 1),
    r"(?:at|in) the (?:bottom|lower) right(?: corner)?": (1, 1),
    r"(?:on|at) the left(?: side)?": (-1, 0),
    r"(?:on|at) the right(?: side)?": (1, 0),
    r"at the top|in the upper part": (0, -1),
    r"at the bottom|in the lower part": (0, 1),
}


def _union(table: dict[str, tuple[int, int]]) -> str:
    return "(" + "|".join(f"(?:{k})" for k in table) + ")"


def _meaning(table: dict[str, tuple[int, int]], phrase: str) -> tuple[int, int]:
    for pattern, direction in table.items():
        if re.fullmatch(pattern, phrase):
            return direction
    raise ValueError(f"no meaning for {phrase!r}")


OF, ITS, PLACE, N = _union(_OF), _union(_ITS), _union(_PLACE), r"<(\d)>"


def towards(a: Point, b: Point, direction: tuple[int, int]) -> bool:
    """Whether ``a`` lies in ``direction`` of ``b``, clearly."""
    dx, dy = a[0] - b[0], a[1] - b[1]
    if 0 not in direction:
        return dx * direction[0] >= 12 and dy * direction[1] >= 12
    along, across = (dx * direction[0], dy) if direction[0] else (dy * direction[1], dx)
    return along >= 12 and along > abs(across)


def placed(a: Point, direction: tuple[int, int]) -> bool:
    """Whether ``a`` lies on a side (or in a corner) of a 96-pixel canvas, clearly."""
    return all((v - 48) * d >= 12 for v, d in zip(a, direction, strict=True) if d)


def _of(phrase: str, a: Point, b: Point) -> bool:
    return towards(a, b, _meaning(_OF, phrase))


def _its(phrase: str, a: Point, b: Point) -> bool:
    return towards(a, b, _meaning(_ITS, phrase))


def _ordered(points: list[Point], axis: int) -> bool:
    steps = [q[axis] - p[axis] for p, q in pairwise(points)]
    return all(s >= 12 for s in steps)


def _rule(pattern: str) -> Callable[[Callable], Callable]:
    def add(function: Callable) -> Callable:
        RULES.append((re.compile(pattern), function))
        return function

    return add


RULES: list[tuple[re.Pattern[str], Callable[..., bool]]] = []
AXIS = {"left": 0, "right": 0, "top": 1, "bottom": 1}


@_rule(rf"{N} (?:is )?{OF} {N}")
def _pair(p: dict[str, Point], a: str, of: str, b: str) -> bool:
    return _of(of, p[a], p[b])


@_rule(rf"{N}(?: with|, and) {N} {ITS}")
def _with(p: dict[str, Point], b: str, a: str, its: str) -> bool:
    return _its(its, p[a], p[b])


@_rule(rf"{N} {OF} {N} and {N}")
def _both(p: dict[str, Point], a: str, of: str, b: str, c: str) -> bool:
    return _of(of, p[a], p[b]) and _of(of, p[a], p[c])


@_rule(rf"{N} {OF} {N} and {OF} {N}")
def _each(p: dict[str, Point], a: str, of: str, b: str, of2: str, c: str) -> bool:
    return _of(of, p[a], p[b]) and _of(of2, p[a], p[c])


@_rule(rf"{N} with {N} {ITS} and {N} {ITS}")
def _surrounded(p: dict[str, Point], a: str, b: str, its: str, c: str, its2: str) -> bool:
    return _its(its, p[b], p[a]) and _its(its2, p[c], p[a])


@_rule(rf"{N} {OF} {N}, {N} {OF} {N}")
def _chain(p: dict[str, Point], a: str, of: str, b: str, b2: str, of2: str, c: str) -> bool:
    return b == b2 and _of(of, p[a], p[b]) and _of(of2, p[b], p[c])


@_rule(rf"from (left|top) to (?:right|bottom) {N}, {N} and {N}")
def _from(p: dict[str, Point], start: str, a: str, b: str, c: str) -> bool:
    return _ordered([p[a], p[b], p[c]], AXIS[start])


@_rule(rf"{N}, {N} and {N} from (left|right|top|bottom) to (?:left|right|top|bottom)")
def _to(p: dict[str, Point], a: str, b: str, c: str, start: str) -> bool:
    order = [p[a], p[b], p[c]]
    return _ordered(order if start in ("left", "top") else order[::-1], AXIS[start])


@_rule(rf"{N} between {N} {PLACE} and {N} {PLACE}")
def _between(p: dict[str, Point], b: str, a: str, at: str, c: str, at2: str) -> bool:
    axis = 0 if _meaning(_PLACE, at)[0] else 1
    return (
        placed(p[a], _meaning(_PLACE, at))
        and placed(p[c], _meaning(_PLACE, at2))
        and _ordered([p[a], p[b], p[c]], axis)
    )


@_rule(rf"{N} {PLACE}, {N} in the middle and {N} {PLACE}")
def _middle(p: dict[str, Point], a: str, at: str, b: str, c: str, at2: str) -> bool:
    return _between(p, b, a, at, c, at2)


@_rule(rf"{N} and {N} (above|below|left of|right of) {N} and {N}")
def _blocks(p: dict[str, Point], a: str, b: str, of: str, c: str, d: str) -> bool:
    direction = _meaning(_OF, of)
    axis = 0 if direction[0] else 1
    sign = direction[axis]
    return all((p[i][axis] - p[j][axis]) * sign >= 12 for i in (a, b) for j in (c, d))


@_rule(rf"{N} and {N} {PLACE}, {N} and {N} {PLACE}")
def _halves(p: dict[str, Point], a: str, b: str, at: str, c: str, d: str, at2: str) -> bool:
    one, two = _meaning(_PLACE, at), _meaning(_PLACE, at2)
    return all(placed(p[i], one) for i in (a, b)) and all(placed(p[i], two) for i in (c, d))


def _listed(skeleton: str, points: dict[str, Point]) -> bool | None:
    """``<0> at the top, <1> on the left`` or ``at the top <0> and …``, of any length."""
    parts = re.split(r", | and (?=<|at |on |in )", skeleton)
    truths = []
    for part in parts:
        after = re.fullmatch(rf"{N} {PLACE}", part)
        before = re.fullmatch(rf"{PLACE} {N}", part)
        if after:
            truths.append(placed(points[after[1]], _meaning(_PLACE, after[2])))
        elif before:
            truths.append(placed(points[before[2]], _meaning(_PLACE, before[1])))
        else:
            return None
    return all(truths)


def skeleton_of(caption: str, names: dict[str, list[str]]) -> tuple[str, list[str]]:
    """Caption with names (hexcode → names) replaced by ``<i>``, and the hexcodes by number."""
    options = [(name, code) for code, all_names in names.items() for name in all_names]
    order: list[str] = []
    text = caption
    marks: dict[str, str] = {}
    for name, code in sorted(options, key=lambda o: -len(o[0])):
        pattern = rf"(?<![\w<'])(?:(?:an?|the) )?{re.escape(name)}(?![\w'>])"
        if re.search(pattern, text):
            if code not in marks:
                marks[code] = f"<{len(order)}>"
                order.append(code)
            text = re.sub(pattern, marks[code], text)
    text = re.sub(r"^(?:there is |we see |a picture of |a scene with |the picture shows )", "", text)
    return text, order


def is_true(caption: str, objects: dict[str, Point], names: dict[str, list[str]]) -> bool:
    """Whether ``caption`` holds of the objects (hexcode → centre).

    A caption that names something that isn't there is false; one that the grammar can't read
    is an error.
    """
    skeleton, order = skeleton_of(caption, names)
    if any(code not in objects for code in order):
        return False
    points = {str(i): objects[code] for i, code in enumerate(order)}
    listed = _listed(skeleton, points)
    if listed is not None:
        return listed
    for pattern, rule in RULES:
        match = pattern.fullmatch(skeleton)
        if match:
            return rule(points, *match.groups())
    raise ValueError(f"cannot read {caption!r} (as {skeleton!r})")
