"""Captions for the scenes or clips of a split: each is true of its own, and of no other one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

CAPTIONS = 3


class Told(Protocol):
    """What a caption claims."""

    @property
    def codes(self) -> tuple[str, ...]:
        """The concepts that it names."""

    @property
    def kind(self) -> str:
        """What it tells."""


class Shown(Protocol):
    """A scene or a clip, with its captions and what each of them tells."""

    captions: list[str]
    about: list[str]


Claims = TypeVar("Claims", bound=Told)
Item = TypeVar("Item", bound=Shown)


def give_captions(
    items: Sequence[Item],
    codes_of: Callable[[Item], Iterable[str]],
    must: set[str],
    draw: Callable[[Item], Claims | None],
    might_be_true: Callable[[Claims, Item], bool],
    spell: Callable[[Claims], str],
    tries: int,
) -> None:
    """Give every scene or clip captions that no other one of the split could have.

    Args:
        items: of one split.
        codes_of: the concepts that one shows.
        must: concepts of which each caption names one; empty where it doesn't matter.
        draw: something true of one; None where none was found at once.
        might_be_true: whether it could be said of another one too.
        spell: puts it into words.
        tries: draws after which to give up.

    Raises:
        RuntimeError: of one no such captions were found.
    """
    showing: dict[str, set[int]] = {}
    for number, item in enumerate(items):
        for code in codes_of(item):
            showing.setdefault(code, set()).add(number)
    taken: set[str] = set()
    for number, item in enumerate(items):
        for _ in range(tries):
            if len(item.captions) == CAPTIONS:
                break
            told = draw(item)
            if told is None or (must and not must & set(told.codes)):
                continue
            rivals = set.intersection(*(showing[code] for code in told.codes)) - {number}
            if any(might_be_true(told, items[rival]) for rival in rivals):
                continue
            text = spell(told)
            if text not in taken:
                taken.add(text)
                item.captions.append(text)
                item.about.append(told.kind)
        if len(item.captions) < CAPTIONS:
            raise RuntimeError(f"{item}: no captions that are true of no other one")
