"""Errors and advice in one line: no longer than a terminal shows, with the name that was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_MESSAGE = 300  # characters of an error


def shortened(text: str, longest: int = MAX_MESSAGE) -> str:
    """A text in one line of at most `longest` characters; what is cut away is marked by an ellipsis."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """Advice, "; did you mean …?", with the most similar of what is known; nothing where none is similar."""
    near = difflib.get_close_matches(given[:80], known, 1, 0.6)
    return f"; did you mean {near[0]}?" if near else ""


def names_like(name: str, known: Iterable[str]) -> str:
    """Advice on a name that is none of those known: the most similar one, or all of them."""
    known = list(known)
    return did_you_mean(name, known) or f"; there is {', '.join(known)}"


def first_line(error: BaseException) -> str:
    """An error's first line, or its kind where it has no words."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
