"""What a split is, once read: visuals, texts and which belong together.

A visual is a picture or a video; from here on nothing asks which, since a picture is a video of one frame.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from uniadapter.data.media.images import Source


@dataclass
class RetrievalSplit:
    """Visuals and captions of one split.

    Args:
        name: "train", "val", "test" or the name of a further test set.
        visuals: the distinct pictures or videos, in the order of their first record: files, folders of frames,
            or rows of a dataset.
        visual_ids: the file's id for each visual.
        origins: the first record of each visual, for errors.
        texts: the cleaned captions, in file order; a training sample is a caption, and its id is its index
            here.
        text_visual: for each caption the index of its visual.
        skipped: what was left out, kind to count: captions and records one by one, visuals once each.
        noun: "pictures" or "videos"; "visuals" where there are both.
        notes: what else is to be known of the split: how many videos its list has, what was cut.
        lost: what of its visuals was left out, name to kind of fault: files that are not there or cannot be read.
        lost_texts: texts that were left out with them.
        said: what was said of it in the log, which is said once.
    """

    name: str
    visuals: list[Source] = field(default_factory=list)
    visual_ids: list[str | int] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    text_visual: list[int] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    noun: str = "pictures"
    notes: list[str] = field(default_factory=list)
    lost: dict[str, str] = field(default_factory=dict)
    lost_texts: int = 0
    said: set[str] = field(default_factory=set, repr=False)

    text_noun: ClassVar[str] = "captions"

    def once(self, what: str) -> bool:
        """Whether this is the first time that `what` is to be said of the split."""
        first = what not in self.said
        self.said.add(what)
        return first

    @property
    def visual_kind(self) -> Literal["image", "video"]:
        """What the field calls its visuals in metrics: "text_to_image", "video_to_text"."""
        return "video" if self.noun == "videos" else "image"

    def visual_texts(self) -> list[list[int]]:
        """For each visual the indices of its captions."""
        owned: list[list[int]] = [[] for _ in self.visuals]
        for text, visual in enumerate(self.text_visual):
            owned[visual].append(text)
        return owned

    def summary(self) -> str:
        """One line: how much there is, what is to be known of it, and what was left out."""
        parts = [f"{self.name}: {len(self.visuals)} {self.noun}, {len(self.texts)} {self.text_noun}", *self.notes]
        if self.skipped:
            parts.append("left out: " + ", ".join(f"{count} {kind}" for kind, count in sorted(self.skipped.items())))
        return "; ".join(parts)

    @property
    def over(self) -> str:
        """How much of what was asked for is there: what a metric is over."""
        visuals, texts = len(self.visuals), len(self.texts)
        return (
            f"{visuals} of {visuals + len(self.lost)} {self.noun} and "
            f"{texts} of {texts + self.lost_texts} {self.text_noun}"
        )

    def coverage(self) -> dict[str, Any]:
        """What a row of metrics is over: queries, gallery and, where visuals were left out, how many of how many."""
        there = {"queries": len(self.texts), "gallery": len(self.visuals)}
        return {**there, "skipped": len(self.lost), "over": self.over} if self.lost else there

    def left_out(self) -> dict[str, Any]:
        """What `metrics.json` says of the visuals that were left out: how many, which, and why."""
        return {"count": len(self.lost), "over": self.over, "faults": dict(self.skipped), "names": self.lost}

    def drop_visuals(self, dropped: set[int]) -> None:
        """Leave out visuals, and with them their texts."""
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
        """Leave out all texts but these."""
        self.texts = [self.texts[text] for text in kept]
        self.text_visual = [self.text_visual[text] for text in kept]
