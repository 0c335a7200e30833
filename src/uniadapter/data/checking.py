"""What a local copy of a split holds: every picture or video is decoded, every text is looked at."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from uniadapter.config import DataConfig
from uniadapter.data.look_alikes import Look, look_of
from uniadapter.data.media.images import VisualSource
from uniadapter.data.media.pyav_reader import DecodingError
from uniadapter.data.media.video import load_frames, looks_like_video
from uniadapter.data.media.whole_video import WholeVideo, look_through
from uniadapter.data.published_counts import Published
from uniadapter.data.questions import QuestionSplit
from uniadapter.data.splits import RetrievalSplit
from uniadapter.errors import DataError

_LOOKS = 5  # frames that say how a video looks
_SIDE = 64  # pixels that a side is decoded to at least
_TINY = 32  # a picture with a shorter side shows little
_SHORT = 1.0  # seconds
_PLACEHOLDER = 3  # files with the same picture, as sites send one for all that are gone
_LOST = "\ufffd"  # what a decoder writes for bytes that it cannot read
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
        looks: of each readable visual, in the split's order; None of an unreadable one.
        names: of the visuals, in the same order.
        notes: what reading the file has told: texts that were shortened, values that were converted.
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
    notes: list[str] = field(default_factory=list)

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

    @property
    def is_as_made(self) -> bool:
        """Whether the texts are those that its authors gave it, as far as the size tells."""
        return self.published is not None and not self.differs

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        keys = ("name", "file", "visuals", "texts", "damage", "numbers", "notes")
        values = {key: getattr(self, key) for key in keys}
        return {**values, "published": self.published and vars(self.published), "differs": self.differs}


def check_split_content(
    split: RetrievalSplit,
    file: str,
    size: Published | None,
    data: DataConfig,
    done: Done | None = None,
    answers: frozenset[str] | None = None,
) -> SplitFacts:
    """Decode every visual of a split, of a video every frame, and look at its texts.

    Args:
        split: read with `on_error: skip`, so that it knows what is missing.
        file: its annotations.
        size: that it should have.
        data: `frames`, `eval_frames` and `workers` are used.
        done: called with the number of visuals done and of all.
        answers: the list that is chosen from, lower case; None if there is none.
    """
    facts = SplitFacts(split.name, file, split.noun, split.text_noun, len(split.visuals), len(split.texts), size)
    facts.notes = list(split.notes)
    for name, kind in split.lost.items():
        facts.damage.setdefault(kind, []).append(name)
    for kind, count in split.skipped.items():
        named = facts.damage.setdefault(kind, list(split.errors.get(kind, [])))
        named += ["a record"] * (count - len(named))
    frames = data.frames if split.name == "train" else data.evaluation_frames
    _look_at_visuals(split, facts, frames, data.workers, done)
    _look_at_texts(split, facts)
    if isinstance(split, QuestionSplit):
        _look_at_answers(split, facts, answers)
    return facts


@dataclass(frozen=True)
class _Seen:
    """What was found in a visual: its look, its shorter side, the whole video, whether a run's frames repeat."""

    look: Look
    side: int
    video: WholeVideo | None
    repeats: bool

    def faults(self, frames: int) -> list[str]:
        """Kinds of damage, for a run that takes so many frames."""
        video = self.video or WholeVideo(None, ends_early=False, decoded=None)
        broken = video.ends_early or video.is_broken_inside
        return [
            kind
            for kind, there in (
                ("one colour", self.look.uniform),
                (f"smaller than {_TINY} px", self.side < _TINY),
                (f"shorter than {_SHORT:g} s", video.seconds is not None and video.seconds < _SHORT),
                ("ends before the length that it states", video.ends_early),
                ("frames that cannot be decoded", video.is_broken_inside),
                (f"fewer than {frames} frames", self.repeats and not broken),
            )
            if there
        ]


def _look_at(source: VisualSource, origin: str, frames: int) -> _Seen | DataError:
    """Decode a visual, of a video every frame."""
    try:
        clip = load_frames(source, origin, max(frames, 1), min_side=_SIDE)
        moving = isinstance(source, Path) and looks_like_video(source)
        seen = load_frames(source, origin, _LOOKS, min_side=_SIDE) if moving else clip[:1]
        whole = look_through(source) if moving and isinstance(source, Path) and source.is_file() else None
    except DataError as error:
        return error
    except DecodingError as error:
        return DataError(f"{origin}: {error.reason}", error.kind)
    return _Seen(look_of(*seen), min(seen[0].size), whole, moving and len({id(one) for one in clip}) < len(clip))


def _look_at_visuals(split: RetrievalSplit, facts: SplitFacts, frames: int, workers: int, done: Done | None) -> None:
    facts.names = [str(source) for source in split.visuals]
    seconds: list[float] = []
    with ThreadPoolExecutor(max(1, workers)) as pool:
        every = pool.map(
            lambda index: _look_at(split.visuals[index], split.origins[index], frames), range(len(split.visuals))
        )
        for index, seen in enumerate(every):
            known = not isinstance(seen, DataError)
            facts.looks.append(seen.look if known else None)
            for kind in seen.faults(frames) if known else [seen.kind]:
                facts.damage.setdefault(kind, []).append(facts.names[index])
            if known and seen.video and seen.video.seconds is not None:
                seconds.append(seen.video.seconds)
            if done is not None:
                done(index + 1, len(split.visuals))
    lost = {index for index, look in enumerate(facts.looks) if look is None}
    facts.visuals -= len(lost)
    facts.texts -= sum(visual in lost for visual in split.text_visual)
    if seconds:
        facts.numbers["seconds"] = spread(seconds)
    _look_for_placeholders(facts)


def _look_for_placeholders(facts: SplitFacts) -> None:
    """Note files that show exactly the same."""
    same: dict[tuple[int, bytes], list[str]] = {}
    for name, look in zip(facts.names, facts.looks, strict=True):
        if look is not None and not look.uniform:
            same.setdefault((look.hash, look.small.tobytes()), []).append(name)
    again = [name for names in same.values() if len(names) >= _PLACEHOLDER for name in names]
    if again:
        facts.damage[f"the same as {_PLACEHOLDER - 1} others or more"] = again


def _look_at_texts(split: RetrievalSplit, facts: SplitFacts) -> None:
    facts.numbers[f"{split.text_noun} of one"] = spread([len(rows) for rows in split.visual_texts()])
    facts.numbers["words"] = spread([len(text.split()) for text in split.texts])
    pairs = Counter(zip(split.texts, split.text_visual, strict=True))
    again = sorted(text for (text, _), count in pairs.items() for _ in range(count - 1))
    _note(facts, f"{split.text_noun} given twice for one", again)
    _note(facts, f"{split.text_noun} with characters lost in decoding", [one for one in split.texts if _LOST in one])
    owners: dict[str, set[int]] = {}
    for text, visual in zip(split.texts, split.text_visual, strict=True):
        owners.setdefault(text, set()).add(visual)
    facts.numbers[f"{split.text_noun} shared by several"] = sum(len(found) > 1 for found in owners.values())


def _note(facts: SplitFacts, kind: str, texts: list[str]) -> None:
    """Note texts as damaged; of a split that is as its authors made it, only how many."""
    if texts and facts.is_as_made:
        facts.numbers[kind] = len(texts)
    elif texts:
        facts.damage[kind] = texts


def _look_at_answers(split: QuestionSplit, facts: SplitFacts, listed: frozenset[str] | None) -> None:
    facts.numbers["distinct answers"] = len({answer for found in split.answers for answer in found})
    unanswered = [str(split.question_ids[n]) for n, one in enumerate(split.answers) if not one]
    answered = len(split.texts) - len(unanswered)
    if unanswered and (answered or split.name == "train"):
        facts.damage["no answer"] = unanswered
    elif unanswered:
        facts.numbers["without answers"] = len(unanswered)
    counts = Counter(map(str, split.question_ids))
    _note(facts, "question ids given twice", [number for number, count in counts.items() if count > 1])
    if listed is None or not answered:
        return
    inside = sum(not listed.isdisjoint(found) for found in split.answers)
    facts.numbers["questions with an answer of the list"] = inside
    if not inside:
        facts.damage["no question has an answer of the list"] = ["all"]


def spread(values: list[float] | list[int]) -> dict[str, float]:
    """The least, the median and the most of some numbers."""
    return {"least": min(values), "median": statistics.median(values), "most": max(values)}
