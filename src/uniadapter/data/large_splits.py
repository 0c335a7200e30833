"""Training data that fit neither into memory nor on a disk: what shards and streams have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Literal

from uniadapter.config import DataConfig
from uniadapter.data.questions import QuestionSplit, answer_weights
from uniadapter.data.shard_texts import Text, TextReader
from uniadapter.data.shards.index import Holds
from uniadapter.data.splits import RetrievalSplit, Sample, left_out_note
from uniadapter.data.text import clean_caption, clean_question

TaskName = Literal["retrieval", "vqa", "caption"]


class LargeSplit(ABC):
    """A training set whose samples are read one by one; see `TrainingSet`.

    Args:
        name: "train".
        holds: what texts it has.
        noun: "pictures", "videos" or "visuals".
        digest: a hash of its content or, of a stream, of what it is called.
    """

    def __init__(self, name: str, holds: Holds, noun: str, digest: str) -> None:
        self.name, self.holds, self.noun, self.digest = name, holds, noun, digest
        self.skipped: dict[str, int] = {}
        self._said: set[str] = set()

    @property
    def text_noun(self) -> str:
        """What its texts are: "captions" or "questions"."""
        return self.holds

    def first_time(self, what: str) -> bool:
        """Whether this is the first call with `what`, so that a message is logged once."""
        first = what not in self._said
        self._said.add(what)
        return first

    @property
    @abstractmethod
    def samples(self) -> int:
        """Number of samples of an epoch."""

    @property
    @abstractmethod
    def visual_count(self) -> int:
        """Number of pictures or videos."""

    @abstractmethod
    def sample(self, row: int) -> Sample:
        """A sample, by its index."""

    @abstractmethod
    def substitutes(self, row: int) -> Iterator[int]:
        """Samples that may take the place of one that cannot be read, in order."""

    @abstractmethod
    def visual_name(self, visual: int) -> tuple[str | int, str]:
        """The id of a visual, and the record where it stands."""

    @abstractmethod
    def first_samples(self) -> Iterator[Sample]:
        """The samples from the beginning on; those that cannot be read are left out."""

    def close(self) -> None:  # noqa: B027  # most have nothing to give back
        """Give back what is held on this machine's disk, after training."""

    def head(self, count: int) -> RetrievalSplit:
        """A split of the first `count` visuals."""
        visuals: dict[int, int] = {}
        split = QuestionSplit(self.name) if self.holds == "questions" else RetrievalSplit(self.name)
        split.noun = self.noun
        for one in self.first_samples():
            if one.visual not in visuals:
                if len(visuals) == count:
                    break
                visuals[one.visual] = len(visuals)
                split.visuals.append(one.source)
                split.visual_ids.append(self.visual_name(one.visual)[0])
                split.origins.append(one.origin)
            split.texts.append(one.text)
            split.text_visual.append(visuals[one.visual])
        return split

    def summary(self) -> str:
        """One line with the set's size, and what was left out."""
        parts = [f"{self.name}: {self.visual_count:,} {self.noun}, {self.samples:,} {self.text_noun}{self._where()}"]
        return "; ".join([*parts, *left_out_note(self.skipped)])

    def _where(self) -> str:
        """What follows the size in the summary."""
        return ""


def text_reader(task: str, config: DataConfig) -> TextReader:
    """Reads the texts that a task trains on."""
    clean: Callable[[str, int], str] = clean_question if task == "vqa" else clean_caption
    return TextReader("questions" if task == "vqa" else "captions", clean, config.fields, config.max_words)


def as_sample(visual: int, source: Any, origin: str, text: Text, holds: Holds) -> Sample:
    """The training sample of a text."""
    answers = answer_weights(text.answers, text.weight) if holds == "questions" else None
    return Sample(visual, source, origin, text.text, answers)
