"""One sample of a split: a caption with its picture or the frames of its video, and the faults met on the way."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.utils.data import Dataset

from uniadapter.config import OnError
from uniadapter.data.images import EvaluationTransform, TrainTransform
from uniadapter.data.records import DataError
from uniadapter.data.splits import RetrievalSplit
from uniadapter.data.video import load_frames
from uniadapter.draws import AUGMENT, FRAMES, rng

# So many unreadable visuals in a row are a lost disk rather than a few broken files.
_TRIES = 64


@dataclass
class Sample:
    """One loaded sample.

    Args:
        pixels: float32 [T, 3, H, W]; None if it could not be had.
        caption: cleaned text.
        visual: index of the picture.
        row: index of the sample.
        faults: pictures that failed on the way to this one.
    """

    pixels: Tensor | None
    caption: str
    visual: int
    row: int
    faults: list[DataError] = field(default_factory=list)


class TrainRows(Dataset[Sample]):
    """Training samples: a caption with its visual, augmented as a function of (seed, epoch, sample).

    Args:
        split: the visuals and captions.
        transform: RGB to pixels; all frames of a video are given the same draws.
        seed: of the augmentation and of a video's moments.
        on_error: "skip" puts the next readable sample in the place of one whose visual cannot be read.
        frames: of a video.
        blank: hide what is to be seen.
    """

    def __init__(
        self,
        split: RetrievalSplit,
        transform: TrainTransform,
        seed: int,
        on_error: OnError = "raise",
        frames: int = 1,
        blank: bool = False,
    ) -> None:
        self.split, self.transform, self.seed, self.on_error = split, transform, seed, on_error
        self.frames, self.blank = frames, blank

    def __len__(self) -> int:
        """Number of captions."""
        return len(self.split.texts)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """The sample for (epoch, index)."""
        epoch, row = key
        split, faults = self.split, dict[int, DataError]()
        for _ in range(len(self)):
            visual = split.text_visual[row]
            if visual not in faults:
                try:
                    draw = rng(self.seed, FRAMES, epoch, row)
                    clip = load_frames(
                        split.visuals[visual], split.origins[visual], self.frames, self.transform.at_least, draw
                    )
                    pixels = torch.stack([self.transform(f, rng(self.seed, AUGMENT, epoch, row)) for f in clip])
                    pixels = _hidden(pixels) if self.blank else pixels
                    return Sample(pixels, split.texts[row], visual, row, list(faults.values()))
                except DataError as error:
                    faults[visual] = error
                if self.on_error == "raise" or len(faults) == _TRIES:
                    break
            row = (row + 1) % len(self)
        return Sample(None, "", -1, row, list(faults.values()))


class EvaluationVisuals(Dataset[Sample]):
    """The visuals of a split, once each, in order.

    Args:
        split: the visuals.
        transform: RGB to pixels.
        frames: of a video.
        blank: hide what is to be seen.
    """

    def __init__(
        self, split: RetrievalSplit, transform: EvaluationTransform, frames: int = 1, blank: bool = False
    ) -> None:
        self.split, self.transform, self.frames, self.blank = split, transform, frames, blank

    def __len__(self) -> int:
        """Number of visuals."""
        return len(self.split.visuals)

    def __getitem__(self, index: int) -> Sample:
        """One visual."""
        try:
            clip = load_frames(
                self.split.visuals[index], self.split.origins[index], self.frames, self.transform.at_least
            )
        except DataError as error:
            return Sample(None, "", index, index, [error])
        pixels = torch.stack([self.transform(frame) for frame in clip])
        return Sample(_hidden(pixels) if self.blank else pixels, "", index, index)


def _hidden(pixels: Tensor) -> Tensor:
    """As many frames of the mean colour, which normalisation has made zero."""
    return torch.zeros_like(pixels)
