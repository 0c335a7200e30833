"""What is asked of an index: words and pictures, weighed, added and taken away.

The grammar is rclip's: terms are joined by " + " and " - ", with spaces on both sides, and may begin with a weight and
a colon: `dog + 0.5: ./park.jpg - night`. A term that begins like a path (`./`, `../`, `/`, `~/`) is a picture.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from uniadapter.errors import UsageError
from uniadapter.files.messages import shortened

LONGEST = 10_000  # characters of a query
_JOINTS = re.compile(r"\s([+-])\s")
_WEIGHT = re.compile(r"^(\d+(?:\.\d*)?|\.\d+)\s*:\s*")
_PATHS = ("./", "../", "/", "~/", ".\\", "..\\")


@dataclass(frozen=True)
class Term:
    """A part of a query.

    Args:
        weight: negative for what should not be there.
        text: the words; "" for a picture.
        picture: the file; None for words.
    """

    weight: float
    text: str = ""
    picture: Path | None = None


@dataclass(frozen=True)
class Query:
    """Terms, of which at least one is positive."""

    terms: tuple[Term, ...]

    @property
    def can_be_matched(self) -> bool:
        """Whether it is of words alone, none of them negative, so that the matching head can judge it."""
        return all(term.picture is None and term.weight > 0 for term in self.terms)


def picture_file(named: str) -> Path:
    """The picture that a term names.

    Raises:
        UsageError: there is none.
    """
    file = Path(named).expanduser()
    if not file.is_file():
        raise UsageError(f"{shortened(named, 200)}: no such picture")
    return file


def parse_query(text: str, picture: Callable[[str], Path] = picture_file) -> Query:
    """Read a query.

    Args:
        text: of the query.
        picture: finds the file that a term names as a picture, or raises.

    Raises:
        UsageError: it is empty, too long, or has only negative terms; or a picture does not exist.
    """
    if len(text) > LONGEST:
        raise UsageError(f"the query has {len(text):,} characters; at most {LONGEST:,} are read")
    signed = _JOINTS.split(f" {text} ")
    signs = ["+", *signed[1::2]]
    parts = [part.strip() for part in signed[::2]]
    if not parts[0] and len(parts) > 1:  # it begins with a sign
        signs, parts = signs[1:], parts[1:]
    terms = [_term(part, sign, picture) for sign, part in zip(signs, parts, strict=True)]
    if not any(term.weight > 0 for term in terms):
        raise UsageError("the query says only what should not be there: add what should be, as in 'dog - night'")
    return Query(tuple(terms))


def _term(part: str, sign: str, picture: Callable[[str], Path]) -> Term:
    found = _WEIGHT.match(part)
    weight = float(found[1]) if found else 1.0
    rest = part[found.end() :].strip() if found else part
    if not rest:
        raise UsageError("the query has an empty term: write words, or a picture as ./FILE")
    if not math.isfinite(weight) or not 0 < weight <= 100:
        raise UsageError(f"the weight {found[1] if found else weight} is not between 0 and 100")
    weight = -weight if sign == "-" else weight
    if rest.startswith(_PATHS):
        return Term(weight, picture=picture(rest))
    return Term(weight, rest)
