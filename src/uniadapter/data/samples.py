"""A picture or the frames of a video with the captions that go with it, and the faults met on the way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from uniadapter.data.batches import Load
from uniadapter.data.media.images import EvaluationTransform, TrainTransform
from uniadapter.data.media.records import DataError
from uniadapter.data.media.video import load_frames
from uniadapter.data.splits import RetrievalSplit
from uniadapter.errors import OnError
from uniadapter.processes.random_draws import AUGMENT, FRAMES, rng

# So many unreadable visuals in a row are a lost disk rather than a few broken files.
_TRIES = 64


@dataclass
class LoadedVisual:
    """One loaded visual and its samples.

    Args:
        pixels: float32 [T, 3, H, W]; None if it could not be had.
        visual: its index.
        rows: index of each sample.
        captions: cleaned text of each; empty where only visuals were asked for.
        faults: visuals that failed on the way to this one.
        short: it is a video with fewer frames than were wanted.
    """

    pixels: Tensor | None
    visual: int
    rows: list[int]
    captions: list[str] = field(default_factory=list)
    faults: list[DataError] = field(default_factory=list)
    short: bool = False


class TrainRows(Dataset[list[LoadedVisual]]):
    """Training samples: captions with their visual, augmented as a function of (seed, epoch, first of the group).

    Args:
        split: the visuals and captions.
        transform: RGB to pixels; all frames of a video are given the same draws.
        seed: of the augmentation and of a video's moments.
        on_error: "skip" puts the next readable samples in the place of a group whose visual cannot be read, as many
            as it has, each with its visual as if it stood alone; where there are too few, they are repeated.
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

    def __getitem__(self, load: Load) -> list[LoadedVisual]:
        """The samples of a load: one visual, or those that take the place of one that cannot be read."""
        faults: dict[int, DataError] = {}
        lead, wanted = load.group[0], slice(load.start, load.stop)
        shown = self._shown(load.epoch, lead, load.group[wanted], faults)
        if shown is not None:
            return [shown]
        # Of the whole group, so that both sides of one that was cut agree which of them is whose.
        found = self._next(load.epoch, lead, len(load.group), faults) if self.on_error == "skip" else []
        if not found:
            return [LoadedVisual(None, -1, [], faults=list(faults.values()))]
        every = [found[place % len(found)] for place in range(len(load.group))][wanted]
        return [replace(every[0], faults=list(faults.values())), *every[1:]]

    def _next(self, epoch: int, row: int, count: int, faults: dict[int, DataError]) -> list[LoadedVisual]:
        """The readable samples that follow a row, round the end, up to `count`."""
        found: list[LoadedVisual] = []
        for step in range(1, len(self)):
            if len(found) == count or len(faults) == _TRIES:
                break
            after = (row + step) % len(self)
            shown = self._shown(epoch, after, (after,), faults)
            if shown is not None:
                found.append(shown)
        return found

    def _shown(self, epoch: int, lead: int, rows: Sequence[int], faults: dict[int, DataError]) -> LoadedVisual | None:
        """The visual of these samples, drawn for `lead`; None with its fault noted if it cannot be read."""
        split, visual = self.split, self.split.text_visual[lead]
        if visual in faults:
            return None
        try:
            draw = rng(self.seed, FRAMES, epoch, lead)
            clip = load_frames(split.visuals[visual], split.origins[visual], self.frames, self.transform.at_least, draw)
            pixels = torch.stack([self.transform(f, rng(self.seed, AUGMENT, epoch, lead)) for f in clip])
        except DataError as error:
            faults[visual] = error
            return None
        pixels = _hidden(pixels) if self.blank else pixels
        return LoadedVisual(pixels, visual, list(rows), [split.texts[row] for row in rows], short=_is_short(clip))


class EvaluationVisuals(Dataset[LoadedVisual]):
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

    def __getitem__(self, index: int) -> LoadedVisual:
        """One visual."""
        try:
            clip = load_frames(
                self.split.visuals[index], self.split.origins[index], self.frames, self.transform.at_least
            )
        except DataError as error:
            return LoadedVisual(None, index, [index], faults=[error])
        pixels = torch.stack([self.transform(frame) for frame in clip])
        return LoadedVisual(_hidden(pixels) if self.blank else pixels, index, [index], short=_is_short(clip))


def _is_short(clip: Sequence[Image.Image]) -> bool:
    """Whether frames of a clip come twice; a picture, or a clip of one frame, stands still."""
    return 1 < len({id(frame) for frame in clip}) < len(clip)


def _hidden(pixels: Tensor) -> Tensor:
    """As many frames of the mean colour, which normalisation has made zero."""
    return torch.zeros_like(pixels)
