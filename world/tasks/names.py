"""What the tasks call things: names that can be told from one another and from the words of place and size."""

from __future__ import annotations

import random
from dataclasses import dataclass

from world.pictures.concepts import WorldConcept, read_concepts
from world.pictures.grounds import COLOURS
from world.texts.names import KINDS, NAMES
from world.texts.saying import article_of

USUAL = 0.7  # share of mentions by the first name
# A name with one of these words would read two ways.
GRAMMAR = {
    "big", "small", "large", "little", "top", "bottom", "left", "right", "middle", "one", "two", "three", "four",
    "first", "last", "end", "above", "below", "over", "under", "between", "next", "other", "only", *COLOURS,
}  # fmt: skip


@dataclass(frozen=True)
class Names:
    """Of the concepts that the tasks use.

    Args:
        of: names by code, the usual one first.
        bare: (code, name) of those that take no "a".
        kind: by code: "animal", "food" …; "" for what has none that people ask after.
        seen: codes that pre-training saw.
        novel: codes that it never saw.
    """

    of: dict[str, list[str]]
    bare: frozenset[tuple[str, str]]
    kind: dict[str, str]
    seen: list[str]
    novel: list[str]

    def said(self, code: str, rng: random.Random, adjective: str = "", article: str = "") -> str:
        """A mention with its article: "a cat", "an owl", "the cat", "fries", "a big cat".

        Args:
            code: of the concept.
            rng: of name and article.
            adjective: in front of the name.
            article: "a" or "the"; drawn, mostly "a", where it isn't given.
        """
        names = self.of[code]
        name = names[0] if rng.random() < USUAL else rng.choice(names)
        return self._with(code, name, adjective, article or ("the" if rng.random() < 0.15 else "a"))

    def usual(self, code: str, article: str = "a") -> str:
        """A mention by the usual name."""
        return self._with(code, self.of[code][0], "", article)

    def _with(self, code: str, name: str, adjective: str, article: str) -> str:
        words = f"{adjective} {name}".strip()
        if article == "the":
            return f"the {words}"
        return words if (code, name) in self.bare else f"{article_of(words)} {words}"


def task_names(concepts: list[WorldConcept] | None = None) -> Names:
    """Names of the world's concepts, without those that can be mistaken; a concept left without any is left out."""
    taken: list[set[str]] = []
    of: dict[str, list[str]] = {}
    bare: set[tuple[str, str]] = set()
    kind: dict[str, str] = {}
    seen: list[str] = []
    novel: list[str] = []
    for concept in concepts or read_concepts():
        kept = []
        for name in NAMES[concept.name].split("|"):
            words = set(name.removeprefix("*").split())
            if words & GRAMMAR or any(words <= other or other <= words for other in taken):
                continue
            kept.append(name.removeprefix("*"))
            if name.startswith("*"):
                bare.add((concept.code, kept[-1]))
        if not kept:
            continue
        taken += [set(name.split()) for name in kept]
        # "ice cream" is both: with an article and without
        of[concept.code] = list(dict.fromkeys(kept))
        kind[concept.code] = concept.kind if concept.kind in KINDS else ""
        (novel if concept.novel else seen).append(concept.code)
    return Names(of, frozenset(bare), kind, seen, novel)
