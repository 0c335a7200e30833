"""Clips of two to four animations behind one another, with captions that say what comes after what.

A caption names all parts in order, as DiDeMo's paragraphs do, or only some of them, as MSR-VTT's sentences do. It is
true of no other clip of its split: two concepts meet in one clip only and, in another order, in its twin; a concept
that is named alone is in one clip only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from world.check import skeleton_of
from world.compose import STARTS, Composer

CAPTIONS = 3
COUNTS = ([2, 3, 4], [0.35, 0.4, 0.25])  # of parts, and how often
TWINS = 0.2  # share of starts that are followed by the same parts in another order
ALONE = 4  # one concept in so many is in one clip only
# A name with one of these words would read two ways.
ORDER_WORDS = {"then", "after", "before", "first", "finally", "followed", "last", "next", "end"}
TEMPLATES = {
    1: ["{0}", "{0}", "a clip of {0}", "{0} for a moment", "at some point {0}"],
    2: ["{0}, then {1}", "{0} followed by {1}", "first {0}, then {1}", "{1} after {0}", "{0} before {1}",
        "{0} and then {1}", "after {0} comes {1}"],
    3: ["{0}, then {1}, then {2}", "first {0}, then {1} and finally {2}", "{0} followed by {1} and then {2}",
        "{0}, {1} and then {2}", "after {0} comes {1}, and {2} at the end"],
    4: ["{0}, then {1}, then {2}, then {3}", "first {0}, then {1}, then {2} and finally {3}",
        "{0} followed by {1}, {2} and then {3}", "{0}, {1}, {2} and at the end {3}"],
}  # fmt: skip


@dataclass
class Sequence:
    """A clip: what it shows, in order, and what is said of it.

    Args:
        id: its name, also that of its file.
        parts: hexcodes, in order.
        captions: texts.
        named: for each caption the hexcodes that it names, in the order in which they come.
        partner: the clip with the same parts in another order.
    """

    id: str
    parts: list[str]
    captions: list[str] = field(default_factory=list)
    named: list[list[str]] = field(default_factory=list)
    partner: str | None = None

    def row(self) -> dict[str, object]:
        """As written to disk."""
        return {"id": self.id, "parts": self.parts, "captions": self.captions, "named": self.named,
                "partner": self.partner}  # fmt: skip


def in_order(named: list[str], parts: list[str]) -> bool:
    """Whether a clip shows all that is named, in that order."""
    rest = iter(parts)
    return all(code in rest for code in named)


def read_back(text: str, names: dict[str, list[str]]) -> list[str]:
    """What a caption says comes after what, by a grammar of its own: hexcodes in order.

    Raises:
        ValueError: words are left that mean nothing.
    """
    skeleton, order = skeleton_of(text, names)
    places = [int(number) for number in re.findall(r"<(\d+)>", skeleton)]
    words = set(re.sub(r"<\d+>", "", skeleton).replace(",", " ").split())
    known = {"then", "followed", "by", "first", "and", "finally", "after", "before", "comes", "at", "the", "end", "a",
             "clip", "of", "for", "moment", "some", "point"}  # fmt: skip
    if not places or words - known:
        raise ValueError(f"cannot read {text!r} (as {skeleton!r})")
    if re.fullmatch(r"<\d+> after <\d+>", skeleton):
        places.reverse()
    return [order[place] for place in places]


class Sequencer:
    """Draws the clips of one split."""

    def __init__(self, split: str, codes: list[str], names: dict[str, list[str]], seed: int) -> None:
        order = Composer(f"clips {split} alone", codes, names, seed).rng.sample(sorted(codes), len(codes))
        self.alone, shared = order[: len(codes) // ALONE], order[len(codes) // ALONE :]
        self.composer = Composer(f"clips {split}", shared, names, seed)
        self.rng, self.names, self.split = self.composer.rng, names, split

    def sequences(self, total: int) -> list[Sequence]:
        """`total` clips with captions; twins follow one another."""
        out: list[Sequence] = []
        alone = list(self.alone)
        every = max(2, total // (len(alone) + 1))
        while len(out) < total:
            count = self.rng.choices(*COUNTS)[0]
            if alone and len(out) % every == 0:
                parts = [alone.pop(), *self.composer.deal(count - 1)]
                self.rng.shuffle(parts)
                out.append(Sequence(f"{self.split}-{len(out):04d}", parts))
                continue
            first = Sequence(f"{self.split}-{len(out):04d}", self.composer.deal(count))
            out.append(first)
            if len(out) < total and self.rng.random() < TWINS:
                other = list(first.parts)
                while other == first.parts:
                    self.rng.shuffle(other)
                twin = Sequence(f"{self.split}-{len(out):04d}", other, partner=first.id)
                first.partner = twin.id
                out.append(twin)
        by_id = {s.id: s for s in out}
        taken: set[str] = set()
        for sequence in out:
            twin_parts = by_id[sequence.partner].parts if sequence.partner else None
            self.caption(sequence, twin_parts, taken)
        return out

    def caption(self, sequence: Sequence, twin: list[str] | None, taken: set[str]) -> None:
        """Give a clip its captions: of all parts in order, and of some."""
        parts = sequence.parts
        some = [parts[i : i + n] for n in (2, 3) for i in range(len(parts) - n + 1) if n < len(parts)]
        some = [named for named in some if twin is None or not in_order(named, twin)]
        lonely = [[code] for code in parts if code in self.alone]
        options = [[parts], lonely or some or [parts], some or [parts]]
        for choices in options:
            for _ in range(1000):
                named = self.rng.choice(choices)
                text = self.spell(named)
                if text not in taken and read_one_way(text, named, {c: self.names[c] for c in parts}):
                    break
            else:
                raise RuntimeError(f"{sequence}: no caption of {choices}")
            taken.add(text)
            sequence.captions.append(text)
            sequence.named.append(named)

    def spell(self, named: list[str]) -> str:
        """Names in one of the wordings."""
        words = []
        for code in named:
            options = self.names[code]
            words.append(
                self.composer.with_article(options[0] if self.rng.random() < 0.5 else self.rng.choice(options))
            )
        template = self.rng.choice(TEMPLATES[len(named)])
        start = self.rng.choice(STARTS) if template.startswith("{0}") and len(named) == 1 else ""
        return start + template.format(*words)


def read_one_way(text: str, named: list[str], names: dict[str, list[str]]) -> bool:
    """Whether the caption can be read, and says what was meant."""
    try:
        return read_back(text, names) == named
    except ValueError:
        return False


def hard_captions(sequences: list[Sequence]) -> dict[str, int]:
    """How many captions only order, or only a part that the middle frame doesn't show, tells from another clip.

    The middle frame lies in the middle part, of two or four parts in the later of the two middle ones.
    """
    by_id = {s.id: s for s in sequences}
    middle = {s.id: s.parts[len(s.parts) // 2] for s in sequences}
    order = more = 0
    for sequence in sequences:
        twin = by_id.get(sequence.partner or "")
        for named in sequence.named:
            order += twin is not None and set(named) <= set(twin.parts)
            more += any(code != middle[sequence.id] for code in named)
    return {"captions": sum(len(s.named) for s in sequences), "told_by_order_only": order,
            "name_what_the_middle_frame_does_not_show": more,
            "name_one_part": sum(len(n) == 1 for s in sequences for n in s.named),
            "name_all_parts": sum(len(n) == len(s.parts) for s in sequences for n in s.named)}  # fmt: skip
