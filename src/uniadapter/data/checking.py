"""What a local copy of a split holds: every picture or video is decoded, every text is looked at."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uniadapter.data.look_alikes import Look, look_of
from uniadapter.data.media.video import load_frames, looks_like_video
from uniadapter.data.media.video_decoding import clip_seconds
from uniadapter.data.published_counts import Published
from uniadapter.data.questions import QuestionSplit
from uniadapter.data.splits import RetrievalSplit
from uniadapter.errors import DataError

_SIDE = 64  # pixels that a side is decoded to at least
_TINY = 32  # a picture with a shorter side shows little
_SHORT = 1.0  # seconds
Done = Callable[[int, int], None]


@dataclass
class SplitFacts:
    """What was found in a split.

    Args:
        name: of the split.
        file: its annotations.
        noun: "pictures", "videos" or "visuals".
        text_noun: "captions" or "questions".
        visuals: that can be read.
        texts: with them.
        published: the size that the split should have; None if it is not a known one.
        damage: kind of damage to the files, records or texts that have it.
        numbers: distributions and counts, by what they are of.
        looks: of each readable visual's middle frame, in the split's order; None of an unreadable one.
        names: of the visuals, in the same order.
    """

    name: str
    file: str
    noun: str
    text_noun: str
    visuals: int
    texts: int
    published: Published | None = None
    damage: dict[str, list[str]] = field(default_factory=dict)
    numbers: dict[str, Any] = field(default_factory=dict)
    looks: list[Look | None] = field(default_factory=list, repr=False)
    names: list[str] = field(default_factory=list, repr=False)

    @property
    def differs(self) -> str:
        """How the size differs from the published one; "" if it doesn't."""
        if self.published is None:
            return ""
        parts = []
        for noun, have, want in (
            (self.noun, self.visuals, self.published.visuals), (self.text_noun, self.texts, self.published.texts),
        ):  # fmt: skip
            if want and have != want:
                parts.append(f"{have:,} {noun} of {want:,}")
        return ", ".join(parts) + (f" ({self.published.note})" if parts and self.published.note else "")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        keys = ("name", "file", "visuals", "texts", "damage", "numbers")
        values = {key: getattr(self, key) for key in keys}
        return {**values, "published": self.published and vars(self.published), "differs": self.differs}


def check_split_content(
    split: RetrievalSplit, file: str, size: Published | None, frames: int, workers: int, done: Done | None = None
) -> SplitFacts:
    """Decode every visual of a split, and look at its texts.

    Args:
        split: read with `on_error: skip`, so that it knows what is missing.
        file: its annotations.
        size: that it should have.
        frames: that a run takes of a video.
        workers: threads that decode.
        done: called with the number of visuals done and of all.
    """
    facts = SplitFacts(split.name, file, split.noun, split.text_noun, len(split.visuals), len(split.texts), size)
    for name, kind in split.lost.items():
        facts.damage.setdefault(kind, []).append(name)
    for kind, count in split.skipped.items():
        known = len(facts.damage.get(kind, []))
        if count > known:
            facts.damage.setdefault(kind, []).extend(["a record"] * (count - known))
    _look_at_visuals(split, facts, frames, workers, done)
    _look_at_texts(split, facts)
    return facts


def _look_at_visuals(split: RetrievalSplit, facts: SplitFacts, frames: int, workers: int, done: Done | None) -> None:
    seconds: list[float] = []

    def look(index: int) -> tuple[Look, int, float | None, bool] | DataError:
        source, origin = split.visuals[index], split.origins[index]
        try:
            clip = load_frames(source, origin, max(frames, 1), min_side=_SIDE)
            moving = isinstance(source, Path) and looks_like_video(source)
            length = clip_seconds(source) if moving and isinstance(source, Path) and source.is_file() else None
        except DataError as error:
            return error
        middle = clip[len(clip) // 2]
        return look_of(middle), min(middle.size), length, moving and len({id(one) for one in clip}) < len(clip)

    facts.names = [str(source) for source in split.visuals]
    with ThreadPoolExecutor(max(1, workers)) as pool:
        for index, found in enumerate(pool.map(look, range(len(split.visuals)))):
            name = facts.names[index]
            if isinstance(found, DataError):
                facts.looks.append(None)
                facts.damage.setdefault(found.kind, []).append(name)
            else:
                seen, side, length, repeats = found
                facts.looks.append(seen)
                seconds += [] if length is None else [length]
                for kind, there in (
                    ("one colour", seen.uniform), (f"smaller than {_TINY} px", side < _TINY),
                    (f"shorter than {_SHORT:g} s", length is not None and length < _SHORT),
                    (f"fewer than {frames} frames", repeats),
                ):  # fmt: skip
                    if there:
                        facts.damage.setdefault(kind, []).append(name)
            if done is not None:
                done(index + 1, len(split.visuals))
    lost = {index for index, look in enumerate(facts.looks) if look is None}
    facts.visuals -= len(lost)
    facts.texts -= sum(visual in lost for visual in split.text_visual)
    if seconds:
        facts.numbers["seconds"] = spread(seconds)


def _look_at_texts(split: RetrievalSplit, facts: SplitFacts) -> None:
    facts.numbers[f"{split.text_noun} of one"] = spread([len(rows) for rows in split.visual_texts()])
    facts.numbers["words"] = spread([len(text.split()) for text in split.texts])
    pairs = Counter(zip(split.texts, split.text_visual, strict=True))
    again = sorted(text for (text, _), count in pairs.items() for _ in range(count - 1))
    if again:
        facts.damage[f"{split.text_noun} given twice for one"] = again
    owners: dict[str, set[int]] = {}
    for text, visual in zip(split.texts, split.text_visual, strict=True):
        owners.setdefault(text, set()).add(visual)
    facts.numbers[f"{split.text_noun} shared by several"] = sum(len(found) > 1 for found in owners.values())
    if isinstance(split, QuestionSplit):
        answers = Counter(answer for found in split.answers for answer in found)
        facts.numbers["distinct answers"] = len(answers)
        unanswered = sum(not found for found in split.answers)
        if unanswered and split.name == "train":
            facts.damage["no answer"] = [str(split.question_ids[n]) for n, one in enumerate(split.answers) if not one]
        elif unanswered:
            facts.numbers["without answers"] = unanswered


def spread(values: list[float] | list[int]) -> dict[str, float]:
    """The least, the median and the most of some numbers."""
    return {"least": min(values), "median": statistics.median(values), "most": max(values)}
