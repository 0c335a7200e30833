"""A text and what its words mean: what the dense signals of pre-training are read from."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from world.texts.names import OWN, Lexicon


def article_of(word: str) -> str:
    """The article before a word: "an" or "a"."""
    return "an" if word[0] in "aeiou" and not word.startswith("uni") else "a"


@dataclass
class Saying:
    """A text word by word.

    Args:
        words: lower case; punctuation stands alone.
        named: the concept that each word is part of a name of, -1 for none.
        kinds: (place of a word, kind): the word names things of that kind ("animals").
        grounds: places of words that name a ground's colour.
        turns: (place of a word, a, b): the word says how concept a lies to concept b.
        spots: (place of a word, a): the word says where concept a lies.
        looks: (place of a word, a): the word asks for concept a.
    """

    words: list[str] = field(default_factory=list)
    named: list[int] = field(default_factory=list)
    kinds: list[tuple[int, str]] = field(default_factory=list)
    grounds: list[int] = field(default_factory=list)
    turns: list[tuple[int, int, int]] = field(default_factory=list)
    spots: list[tuple[int, int]] = field(default_factory=list)
    looks: list[tuple[int, int]] = field(default_factory=list)

    @property
    def text(self) -> str:
        """As one string."""
        return " ".join(self.words)

    def say(self, words: str) -> Saying:
        """Append words that name nothing."""
        self.words += words.split()
        self.named += [-1] * (len(self.words) - len(self.named))
        return self

    def name(self, concept: int, lexicon: Lexicon, rng: random.Random, article: str = "a") -> Saying:
        """Append a name of the concept, after "a" or "an", "the", or "" for none."""
        names = lexicon.names[concept]
        which = 0 if rng.random() < OWN else rng.randrange(len(names))
        if article == "a":
            article = "" if lexicon.bare[concept][which] else article_of(names[which][0])
        self.say(article)
        self.words += names[which]
        self.named += [concept] * len(names[which])
        return self

    def turn(self, words: str, key: str, a: int, b: int) -> Saying:
        """Append words of which `key` says how a lies to b."""
        self.turns.append((len(self.words) + words.split().index(key), a, b))
        return self.say(words)

    def kind(self, words: str, key: str, kind: str) -> Saying:
        """Append words of which `key` names a kind."""
        self.kinds.append((len(self.words) + words.split().index(key), kind))
        return self.say(words)

    def ground(self, words: str, colour: str) -> Saying:
        """Append words of which one is the ground's colour."""
        self.grounds.append(len(self.words) + words.split().index(colour))
        return self.say(words)

    def spot(self, words: str, keys: str, a: int) -> Saying:
        """Append words of which each of `keys` says where a lies."""
        parts = words.split()
        self.spots += [(len(self.words) + parts.index(key), a) for key in keys.split()]
        return self.say(words)
