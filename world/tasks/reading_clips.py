"""An independent reading of what is said and asked of clips; see `reading`."""

from __future__ import annotations

import re
from itertools import pairwise

from world.tasks.reading import Pictured

N = r"<(\d)>"
TIMES = {"once": 1, "twice": 2, "thrice": 3}
WORDS = ("one", "two", "three", "four", "five")


def _skeleton(text: str, names: dict[str, list[str]]) -> tuple[str, list[str]]:
    return Pictured({"objects": [], "ground": ""}, names).skeleton(text)


def is_true(text: str, parts: list[str], names: dict[str, list[str]]) -> bool:
    """Whether a caption holds of a clip of these parts.

    Raises:
        ValueError: the grammar can't read it.
    """
    skeleton, order = _skeleton(text, names)
    skeleton = re.sub(r"^(?:a clip of |the film has )", "", skeleton)
    ends = re.fullmatch(rf"{N} (?:first and {N} last|at the start and {N} at the end)", skeleton)
    if ends:
        return parts[0] == order[int(ends[1])] and parts[-1] == order[int(ends[2] or ends[3])]
    often = re.fullmatch(rf"{N} (once|twice|thrice), (?:and {N} at the (end)|{N} first)", skeleton)
    if often:
        a, b = order[int(often[1])], order[int(often[3] or often[5])]
        return sum(part == a for part in parts) == TIMES[often[2]] and parts[-1 if often[4] else 0] == b
    following = re.fullmatch(rf"next after {N} comes {N}|{N} and next {N}", skeleton)
    if following:
        a, b = (order[int(number)] for number in following.groups() if number)
        return any(pair == (a, b) for pair in pairwise(parts))
    named = [order[int(number)] for number in re.findall(r"<(\d)>", skeleton)]
    left = set(re.sub(r"<\d>|,", " ", skeleton).split())
    if not named or left - {"first", "then", "and", "finally", "after", "before", "comes"}:
        raise ValueError(f"cannot read {text!r} (as {skeleton!r})")
    if re.fullmatch(rf"{N} after {N}", skeleton):
        named.reverse()
    place = -1
    for code in named:  # one after the other, each from where the last was found
        later = [number for number, part in enumerate(parts) if part == code and number > place]
        if not later:
            return False
        place = later[0]
    return True


def answer(text: str, parts: list[str], names: dict[str, list[str]]) -> str:
    """The right answer to a question about a clip of these parts; names are the first of each code.

    Raises:
        ValueError: the question can't be read, or has no clear answer.
    """
    skeleton, order = _skeleton(text, names)
    if re.fullmatch(rf"does {N} appear\?|is there {N} in the clip\?|do you see {N}\?", skeleton):
        return "yes" if order[0] in parts else "no"
    if re.fullmatch(r"what comes first\?|what is at the start\?|which thing appears first\?", text):
        return names[parts[0]][0]
    if re.fullmatch(r"what comes last\?|what is at the end\?|which thing appears last\?", text):
        return names[parts[-1]][0]
    if re.fullmatch(rf"how often does {N} appear\?|how many times do you see {N}\?", skeleton):
        return WORDS[parts.count(order[0]) - 1]
    before = re.fullmatch(rf"(?:does|is) {N} (?:come )?(before|after) {N}\?", skeleton)
    if before:
        a, b = parts.index(order[int(before[1])]), parts.index(order[int(before[3])])
        return "yes" if (a < b) == (before[2] == "before") else "no"
    aside = re.fullmatch(rf"(?:what|which thing) (?:comes|appears) (?:next )?(after|before) {N}\?", skeleton)
    if aside and parts.count(order[0]) == 1:
        place = parts.index(order[0]) + (1 if aside[1] == "after" else -1)
        if 0 <= place < len(parts):
            return names[parts[place]][0]
    raise ValueError(f"cannot read {text!r} (as {skeleton!r})")
