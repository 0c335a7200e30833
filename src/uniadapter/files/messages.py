"""Helpers for one-line error messages: shortening, and suggestions for misspelt names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MAX_MESSAGE = 300  # characters of an error message


def shortened(text: str, longest: int = MAX_MESSAGE) -> str:
    """`text` as one line of at most `longest` characters; an ellipsis marks a cut."""
    line = " ".join(text.split())
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def did_you_mean(given: str, known: Iterable[str]) -> str:
    """The suffix "; did you mean …?" with the most similar known name; "" if none is similar."""
    near = difflib.get_close_matches(given[:80], known, 1, 0.6)
    return f"; did you mean {near[0]}?" if near else ""


def suggestion(name: str, known: Iterable[str]) -> str:
    """The suffix of an error about an unknown name: the most similar known name, or else all of them."""
    known = list(known)
    return did_you_mean(name, known) or f"; there is {', '.join(known)}"


def first_line(error: BaseException) -> str:
    """The first line of an error's message; its type's name if the message is empty."""
    return next(iter(str(error).splitlines()), "") or type(error).__name__
