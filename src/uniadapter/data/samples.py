"""Datasets that load a picture or the frames of a video with its captions, inside DataLoader workers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from uniadapter.data.batches import LoadRequest
from uniadapter.data.layouts.records import DataError
from uniadapter.data.media.images import EvaluationTransform, TrainTransform
from uniadapter.data.media.video import load_frames
from uniadapter.data.splits import RetrievalSplit, Sample, TrainingSet
from uniadapter.errors import OnError
from uniadapter.processes.seeds import AUGMENT, FRAMES, derive_rng

# So many unreadable visuals in a row suggest a lost disk rather than a few broken files.
_MAX_UNREADABLE = 64


@dataclass
class LoadedVisual:
    """One loaded visual and its samples.

    Args:
        pixels: float32 [T, 3, H, W]; None if it could not be loaded.
        visual: its index in the split.
        rows: indices of its samples.
        captions: their cleaned texts; empty if only visuals are loaded.
        answers: of each question among them, with weights; empty without questions.
        errors: of visuals that this one replaces.
        short: it is a video with fewer frames than requested.
    """

    pixels: Tensor | None
    visual: int
    rows: list[int]
    captions: list[str] = field(default_factory=list)
    answers: list[Mapping[str, float]] = field(default_factory=list)
    errors: list[DataError] = field(default_factory=list)
    short: bool = False


class TrainDataset(Dataset[list[LoadedVisual]]):
    """Training samples: captions with their visual, augmented by a function of (seed, epoch, first of the group).

    Args:
        split: the visuals and captions.
        transform: RGB to pixels; all frames of a video get the same augmentation.
        seed: of augmentation and frame sampling.
        on_error: "skip" replaces the samples of an unreadable visual by as many readable samples that follow it, each
            with its own visual; if there are too few, they are repeated.
        frames: per video.
        blank: replace all frames by blank ones.
    """

    def __init__(
        self,
        split: TrainingSet,
        transform: TrainTransform,
        seed: int,
        on_error: OnError = "raise",
        frames: int = 1,
        blank: bool = False,
    ) -> None:
        self.split, self.transform, self.seed, self.on_error = split, transform, seed, on_error
        self.frames, self.blank = frames, blank

    def __len__(self) -> int:
        """Number of samples."""
        return self.split.samples

    def __getitem__(self, load: LoadRequest) -> list[LoadedVisual]:
        """The samples of a request: one visual, or the replacements of one that cannot be read."""
        errors: dict[int, DataError] = {}
        lead, wanted = load.group[0], slice(load.start, load.stop)
        loaded = self._load(load.epoch, lead, load.group[wanted], errors, load.sample)
        if loaded is not None:
            return [loaded]
        # Replace the whole group, so that both batches of a group that was split agree on the replacements.
        found = self._replacements(load.epoch, lead, len(load.group), errors) if self.on_error == "skip" else []
        if not found:
            return [LoadedVisual(None, -1, [], errors=list(errors.values()))]
        every = [found[place % len(found)] for place in range(len(load.group))][wanted]
        return [replace(every[0], errors=list(errors.values())), *every[1:]]

    def _replacements(self, epoch: int, row: int, count: int, errors: dict[int, DataError]) -> list[LoadedVisual]:
        """Up to `count` readable samples that follow a row, starting over at the end of the split."""
        found: list[LoadedVisual] = []
        for after in self.split.substitutes(row):
            if len(found) == count or len(errors) == _MAX_UNREADABLE:
                break
            loaded = self._load(epoch, after, (after,), errors)
            if loaded is not None:
                found.append(loaded)
        return found

    def _load(
        self, epoch: int, lead: int, rows: Sequence[int], errors: dict[int, DataError], given: Sample | None = None
    ) -> LoadedVisual | None:
        """The visual of these samples, with the augmentation of sample `lead`; None if it cannot be read."""
        failed = -1 - lead  # until its visual is known
        try:
            samples = [given] if given else [self.split.sample(row) for row in dict.fromkeys((lead, *rows))]
            failed = samples[0].visual
            if failed in errors:
                return None
            rng = derive_rng(self.seed, FRAMES, epoch, lead)
            clip = load_frames(samples[0].source, samples[0].origin, self.frames, self.transform.min_side, rng)
            pixels = torch.stack([self.transform(f, derive_rng(self.seed, AUGMENT, epoch, lead)) for f in clip])
        except DataError as error:
            errors[failed] = error
            return None
        pixels = _blank_like(pixels) if self.blank else pixels
        own = samples if lead in rows else samples[1:]
        texts, answers = [one.text for one in own], [one.answers for one in own if one.answers is not None]
        return LoadedVisual(pixels, failed, list(rows), texts, answers, short=_repeats_frames(clip))


class VisualDataset(Dataset[LoadedVisual]):
    """The visuals of a split, each once, in order.

    Args:
        split: the visuals.
        transform: RGB to pixels.
        frames: per video.
        blank: replace all frames by blank ones.
    """

    def __init__(
        self, split: RetrievalSplit, transform: EvaluationTransform, frames: int = 1, blank: bool = False
    ) -> None:
        self.split, self.transform, self.frames, self.blank = split, transform, frames, blank

    def __len__(self) -> int:
        """Number of visuals."""
        return len(self.split.visuals)

    def __getitem__(self, index: int) -> LoadedVisual:
        """One visual."""
        try:
            clip = load_frames(
                self.split.visuals[index], self.split.origins[index], self.frames, self.transform.min_side
            )
        except DataError as error:
            return LoadedVisual(None, index, [index], errors=[error])
        pixels = torch.stack([self.transform(frame) for frame in clip])
        return LoadedVisual(_blank_like(pixels) if self.blank else pixels, index, [index], short=_repeats_frames(clip))


def _repeats_frames(clip: Sequence[Image.Image]) -> bool:
    """Whether a clip repeats some of its frames; false for a picture, which repeats its only one."""
    return 1 < len({id(frame) for frame in clip}) < len(clip)


def _blank_like(pixels: Tensor) -> Tensor:
    """Frames of the mean colour, which is zero after normalisation."""
    return torch.zeros_like(pixels)
