"""Clips of two to five animations behind one another, some of which come again; captions of order and number.

A caption is true of its clip, and false of every other clip of its split: also of its twin, which shows the same in
another order.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Any

from world.tasks.names import Names
from world.tasks.telling import give_captions

SPLITS = {"train": 1600, "val": 120, "test": 400, "test_novel": 100}
LENGTHS = ((2, 3, 4, 5), (0.2, 0.3, 0.25, 0.25))
TIMES = ("once", "twice", "thrice")
LISTS = {
    2: ("<0>, then <1>", "first <0>, then <1>", "<1> after <0>", "<0> before <1>", "after <0> comes <1>"),
    3: ("<0>, then <1>, then <2>", "first <0>, then <1> and finally <2>", "<0>, <1> and then <2>"),
    4: ("<0>, then <1>, then <2>, then <3>", "first <0>, then <1>, then <2> and finally <3>"),
    5: ("<0>, then <1>, then <2>, then <3>, then <4>", "first <0>, then <1>, <2>, <3> and finally <4>"),
}
ENDS = ("<0> first and <1> last", "<0> at the start and <1> at the end")
NEXT = ("next after <0> comes <1>", "<0> and next <1>")
OFTEN = ("<0> {}, and <1> at the end", "<0> {}, <1> first")
WEIGHTS = {"all": 0.3, "order": 0.3, "ends": 0.15, "next": 0.15, "often": 0.1}
OPENERS = ("", "", "a clip of ", "the film has ")


@dataclass
class Clip:
    """A specification.

    Args:
        id: its name, also that of its file.
        parts: codes in order.
        partner: the clip with the same parts in another order.
        captions: texts.
        about: what each caption tells: "all" parts in order, the "order" of some, the "ends", what is "next", or how
            "often".
    """

    id: str
    parts: list[str]
    partner: str | None = None
    captions: list[str] = field(default_factory=list)
    about: list[str] = field(default_factory=list)

    def row(self) -> dict[str, Any]:
        """As written to disk."""
        return {"id": self.id, "parts": self.parts, "partner": self.partner, "captions": self.captions,
                "about": self.about}  # fmt: skip


@dataclass(frozen=True)
class Told:
    """What a caption claims; `frame` names concepts by number.

    Args:
        frame: the wording.
        codes: by number.
        kind: of `Clip.about`.
        times: how often the first comes; 0 if that isn't said.
    """

    frame: str
    codes: tuple[str, ...]
    kind: str
    times: int = 0

    def true_of(self, parts: list[str]) -> bool:
        """Whether it is true of a clip of these parts."""
        if self.times:
            a, b = self.codes
            return parts.count(a) == self.times and parts[-1 if "end" in self.frame else 0] == b
        if self.kind == "ends":
            return (parts[0], parts[-1]) == self.codes
        if self.kind == "next":
            return self.codes in pairwise(parts)
        rest = iter(parts)
        return all(code in rest for code in self.codes)


def shuffled(parts: list[str], rng: random.Random) -> list[str]:
    """In an order in which nothing follows itself."""
    while True:
        order = rng.sample(parts, len(parts))
        if all(a != b for a, b in pairwise(order)):
            return order


def drawn(length: int, rng: random.Random) -> list[int]:
    """How often each of a clip's concepts comes."""
    if length == 5 and rng.random() < 0.5:
        return [3, 1, 1]
    # of three parts with one twice there is one order alone
    if length >= 4 and rng.random() < 0.5:
        return [2] + [1] * (length - 2)
    return [1] * length


def draw_clips(total: int, seen: list[str], novel: list[str], rng: random.Random, split: str) -> list[Clip]:
    """Clips without captions; each is followed by its twin.

    Args:
        total: how many, an even number.
        seen: concepts.
        novel: concepts of which each clip shows one; empty where there is none.
        rng: of all draws.
        split: what ids begin with.
    """
    out: list[Clip] = []
    met: Counter[frozenset[str]] = Counter()
    while len(out) < total:
        times = drawn(rng.choices(*LENGTHS)[0], rng)
        hands = []
        for _ in range(100):
            hand = rng.sample(seen, len(times) - bool(novel)) + ([rng.choice(novel)] if novel else [])
            rng.shuffle(hand)
            hands.append((sum(met[frozenset(pair)] for pair in combinations(hand, 2)), hand))
        # concepts that have met least, so that few words tell a clip from the others
        hand = min(hands, key=lambda found: found[0])[1]
        for pair in combinations(hand, 2):
            met[frozenset(pair)] += 1 if len(hand) > 2 else 100  # a clip of two has nothing else to be told by
        parts = shuffled([code for code, count in zip(hand, times, strict=True) for _ in range(count)], rng)
        other = shuffled(parts, rng)
        while other == parts:
            other = shuffled(parts, rng)
        first, second = (Clip(f"{split}-{len(out) + more:04d}", p) for more, p in enumerate((parts, other)))
        first.partner, second.partner = second.id, first.id
        out += [first, second]
    return out


def tell(clip: Clip, kind: str, rng: random.Random) -> Told | None:
    """Something true of a clip, of this kind; None where it isn't to be had."""
    parts = clip.parts
    single = [code for code in parts if parts.count(code) == 1]
    if kind == "all":
        return Told(rng.choice(LISTS[len(parts)]), tuple(parts), kind)
    if kind == "order":
        some = single[:] if len(single) < 3 else [single[i] for i in sorted(rng.sample(range(len(single)), 2))]
        return Told(rng.choice(LISTS[2]), tuple(some), kind) if len(some) == 2 else None
    if kind == "ends":
        return Told(rng.choice(ENDS), (parts[0], parts[-1]), kind) if parts[0] != parts[-1] else None
    if kind == "next":
        place = rng.randrange(len(parts) - 1)
        return Told(rng.choice(NEXT), (parts[place], parts[place + 1]), kind)
    frame = rng.choice(OFTEN)
    b = parts[-1 if "end" in frame else 0]
    a = rng.choice(parts)
    return Told(frame, (a, b), kind, parts.count(a)) if a != b else None


def spelled(told: Told, names: Names, rng: random.Random) -> str:
    """In words; what comes again is called the same, with "the"."""
    seed, met = rng.random(), set()
    frame = told.frame.replace("{}", TIMES[told.times - 1]) if told.times else told.frame
    if told.kind == "all" and frame.startswith("<"):
        frame = rng.choice(OPENERS) + frame

    def mention(match: re.Match[str]) -> str:
        code = told.codes[int(match[1])]
        article = "the" if code in met else ""
        met.add(code)
        return names.said(code, random.Random(f"{seed} {code}"), article=article)

    return re.sub(r"<(\d)>", mention, frame)


def caption(clips: list[Clip], names: Names, must: set[str], rng: random.Random) -> None:
    """Give every clip captions that are true of it and of no other clip of the split.

    Args:
        clips: of one split.
        names: of things.
        must: concepts of which each caption names one; empty where it doesn't matter.
        rng: of all draws.

    Raises:
        RuntimeError: of a clip no such captions were found.
    """

    def draw(clip: Clip) -> Told | None:
        told = tell(clip, rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0], rng)
        return told if told is not None and told.true_of(clip.parts) else None

    give_captions(
        clips,
        lambda clip: clip.parts,
        must,
        draw,
        lambda told, other: told.true_of(other.parts),
        lambda told: spelled(told, names, rng),
        tries=2000,
    )
