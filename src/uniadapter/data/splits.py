"""A split in memory: its visuals, its texts, and which text belongs to which visual.

A visual is a picture or a video; later code treats both alike, a picture being a video of one frame.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from uniadapter.data.media.images import VisualSource

FIRST_LOOK = 256  # visuals of a large training set that are looked at before training


def left_out_note(skipped: Mapping[str, int]) -> list[str]:
    """The part of a summary that says what was left out, given the number of each kind; none if nothing was."""
    counts = ", ".join(f"{count} {kind}" for kind, count in sorted(skipped.items()))
    return [f"left out: {counts}"] if counts else []


@dataclass(frozen=True)
class Sample:
    """A training sample.

    Args:
        visual: index of its picture or video.
        source: where to read that.
        origin: its record, for errors.
        text: the cleaned caption or question.
        answers: to a question, each with its weight; None for a caption.
    """

    visual: int
    source: VisualSource
    origin: str
    text: str
    answers: Mapping[str, float] | None = None


class TrainingSet(Protocol):
    """What training needs of its data: a `RetrievalSplit` in memory, or shards or a stream that fit in none."""

    @property
    def name(self) -> str:
        """For the log."""

    @property
    def noun(self) -> str:
        """What its visuals are: "pictures", "videos" or "visuals"."""

    @property
    def text_noun(self) -> str:
        """What its texts are: "captions" or "questions"."""

    @property
    def samples(self) -> int:
        """Number of samples of an epoch."""

    @property
    def visual_count(self) -> int:
        """Number of pictures or videos."""

    def sample(self, row: int) -> Sample:
        """A sample, by its index.

        Raises:
            DataError: it cannot be read.
        """

    def substitutes(self, row: int) -> Iterator[int]:
        """Samples that may take the place of one whose picture or video cannot be read, in order."""

    def visual_name(self, visual: int) -> tuple[str | int, str]:
        """The id of a visual, and the record where it stands."""

    def head(self, count: int) -> RetrievalSplit:
        """The whole set if it is in memory, else about so many of its visuals, for a first look."""

    def summary(self) -> str:
        """One line about its size."""

    def first_time(self, what: str) -> bool:
        """Whether this is the first call with `what`, so that a message is logged once."""


@dataclass
class RetrievalSplit:
    """Visuals and captions of one split.

    Args:
        name: "train", "val", "test" or the name of a further test set.
        visuals: the distinct pictures or videos, in the order of their first record: files, folders of frames,
            or rows of a dataset.
        visual_ids: the file's id of each visual.
        origins: the first record of each visual, for errors.
        texts: the cleaned captions, in file order; a training sample is a caption, its id the index here.
        text_visual: for each caption the index of its visual.
        skipped: kind of error to the number of captions, records or distinct visuals left out.
        errors: kind of error to the messages of the first ones.
        text_group: for each caption the `group` of its row, None if it has none; captions of different visuals with the
            same group are each other's hard negatives. Empty if no row has one.
        noun: "pictures", "videos" or, for a mix, "visuals".
        notes: further parts of the summary: length of the video list, number of truncated texts.
        lost: visuals that are missing or cannot be read, name to kind of error.
        lost_texts: number of texts left out with them.
        said: keys of log messages that were already logged.
    """

    name: str
    visuals: list[VisualSource] = field(default_factory=list)
    visual_ids: list[str | int] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    text_visual: list[int] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    errors: dict[str, list[str]] = field(default_factory=dict, repr=False)
    noun: str = "pictures"
    notes: list[str] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)
    lost_texts: int = 0
    said: set[str] = field(default_factory=set, repr=False)
    text_group: list[str | int | None] = field(default_factory=list)

    text_noun: ClassVar[str] = "captions"

    def first_time(self, what: str) -> bool:
        """Whether this is the first call with `what`, so that a message is logged once per split."""
        first = what not in self.said
        self.said.add(what)
        return first

    @property
    def visual_kind(self) -> Literal["image", "video"]:
        """The noun in names of metrics: "text_to_image", "video_to_text"."""
        return "video" if self.noun == "videos" else "image"

    @property
    def samples(self) -> int:
        """Number of texts."""
        return len(self.texts)

    @property
    def visual_count(self) -> int:
        """Number of pictures or videos."""
        return len(self.visuals)

    def sample(self, row: int) -> Sample:
        """The training sample of a text."""
        visual = self.text_visual[row]
        return Sample(visual, self.visuals[visual], self.origins[visual], self.texts[row])

    def substitutes(self, row: int) -> Iterator[int]:
        """The texts after one, starting over at the end."""
        return ((row + step) % len(self.texts) for step in range(1, len(self.texts)))

    def visual_name(self, visual: int) -> tuple[str | int, str]:
        """The id of a visual, and its first record."""
        return self.visual_ids[visual], self.origins[visual]

    def head(self, count: int) -> RetrievalSplit:
        """The split itself, which is in memory."""
        return self

    def visual_texts(self) -> list[list[int]]:
        """For each visual the indices of its captions."""
        texts: list[list[int]] = [[] for _ in self.visuals]
        for text, visual in enumerate(self.text_visual):
            texts[visual].append(text)
        return texts

    def summary(self) -> str:
        """One line with the split's size, notes, and what was left out."""
        parts = [f"{self.name}: {len(self.visuals)} {self.noun}, {len(self.texts)} {self.text_noun}", *self.notes]
        return "; ".join([*parts, *left_out_note(self.skipped)])

    @property
    def coverage_text(self) -> str:
        """How many of the listed visuals and texts were read: "98 of 100 pictures and 490 of 500 captions"."""
        visuals, texts = len(self.visuals), len(self.texts)
        return (
            f"{visuals} of {visuals + len(self.lost)} {self.noun} and "
            f"{texts} of {texts + self.lost_texts} {self.text_noun}"
        )

    def coverage(self) -> dict[str, Any]:
        """The fields of a metrics row: numbers of queries and gallery and, if visuals were left out, how many."""
        there = {"queries": len(self.texts), "gallery": len(self.visuals)}
        return {**there, "skipped": len(self.lost), "over": self.coverage_text} if self.lost else there

    def left_out(self) -> dict[str, Any]:
        """The entry "skipped" of `metrics.json`: the number, names and errors of the visuals left out."""
        return {"count": len(self.lost), "over": self.coverage_text, "faults": dict(self.skipped), "names": self.lost}

    def drop_visuals(self, dropped: set[int]) -> None:
        """Drop visuals and their texts.

        Args:
            dropped: indices of the visuals.
        """
        if not dropped:
            return
        kept = [index for index in range(len(self.visuals)) if index not in dropped]
        moved = {old: new for new, old in enumerate(kept)}
        self.visuals = [self.visuals[index] for index in kept]
        self.visual_ids = [self.visual_ids[index] for index in kept]
        self.origins = [self.origins[index] for index in kept]
        self.keep_texts([text for text, visual in enumerate(self.text_visual) if visual in moved])
        self.text_visual = [moved[visual] for visual in self.text_visual]

    def keep_texts(self, kept: Sequence[int]) -> None:
        """Drop all texts but these.

        Args:
            kept: indices of the texts, in order.
        """
        self.texts = [self.texts[text] for text in kept]
        self.text_visual = [self.text_visual[text] for text in kept]
        self.text_group = [self.text_group[text] for text in kept] if self.text_group else []
