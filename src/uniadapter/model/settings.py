"""Inference settings: everything besides the weights that an adapter's outputs depend on, such as the image size.

They are saved in the adapter's folder and loaded with it, so that Python calls and commands use the settings of
training. An argument of the caller takes precedence; a setting that neither states is the base's.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal, TypeVar

from pydantic import Field

from uniadapter.config import RunConfig

logger = logging.getLogger(__name__)

T = TypeVar("T")
Level = Annotated[float, Field(ge=-255, le=255)]
Spread = Annotated[float, Field(ge=0.001, le=255)]
Resampling = Literal["nearest", "box", "bilinear", "hamming", "bicubic", "lanczos"]

# From setting to the field of `RunConfig` that it comes from.
_FIELDS = {
    "image_size": "model.image_size",
    "max_tokens": "model.max_tokens",
    "prompt": "model.prompt",
    "max_words": "data.max_words",
    "frames": "data.eval_frames",
    "k": "evaluate.k",
    "beta": "evaluate.beta",
    "answering": "evaluate.answers",
    "beams": "evaluate.beams",
    "longest": "evaluate.longest",
    "shortest": "evaluate.shortest",
}


@dataclass(frozen=True)
class InferenceSettings:
    """How pictures, questions and captions are prepared, and how answers are found. None leaves a setting unstated.

    Args:
        image_size: side of the square pictures in pixels.
        mean: of each channel, subtracted from pixels in [0, 1].
        std: of each channel; pixels are divided by it after the subtraction.
        resampling: Pillow's name of the filter that pictures are resized with.
        crop: the middle square of a picture is shown, rather than the whole picture squeezed to a square.
        frames: number of frames taken of a video.
        max_tokens: most tokens of a text; longer ones are truncated.
        max_words: most words of a text, applied before `max_tokens`.
        prompt: what captions start with.
        answers: the list that answers are chosen from.
        answering: "rank" chooses from that list, "generate" lets the decoder write.
        k: candidates that are scored in full, by the matching head or the answer decoder; 0 as in `RunConfig`.
        beta: weight of the contrastive similarity that is added to the matching score.
        beams: number of beams of beam search.
        longest: most tokens of a generated caption, prompt included.
        shortest: fewest tokens, counted likewise.
    """

    image_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    mean: tuple[Level, Level, Level] | None = None
    std: tuple[Spread, Spread, Spread] | None = None
    resampling: Resampling | None = None
    crop: bool | None = None
    frames: Annotated[int, Field(ge=1, le=1024)] | None = None
    max_tokens: Annotated[int, Field(ge=2, le=8192)] | None = None
    max_words: Annotated[int, Field(ge=1)] | None = None
    prompt: str | None = None
    answers: tuple[str, ...] | None = None
    answering: Literal["rank", "generate"] | None = None
    k: Annotated[int, Field(ge=0)] | None = None
    beta: Annotated[float, Field(ge=0, le=1_000_000)] | None = None
    beams: Annotated[int, Field(ge=1, le=100)] | None = None
    longest: Annotated[int, Field(ge=1, le=8192)] | None = None
    shortest: Annotated[int, Field(ge=0)] | None = None

    @classmethod
    def of_run(
        cls,
        config: RunConfig,
        image_size: int,
        answers: Collection[str] = (),
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        resampling: Resampling | None = None,
        crop: bool | None = None,
    ) -> InferenceSettings:
        """The settings that a run trains with.

        Args:
            config: of the run.
            image_size: side of its pictures in pixels.
            answers: the list that its answers are chosen from.
            mean: of each channel, subtracted from pixels.
            std: of each channel; pixels are divided by it.
            resampling: Pillow's name of the filter that pictures are resized with.
            crop: the middle square of a picture is shown, rather than the whole picture squeezed to a square.
        """
        values = {name: _value(config, name) for name in _FIELDS}
        return cls(
            **{**values, "image_size": image_size},
            mean=mean,
            std=std,
            resampling=resampling,
            crop=crop,
            answers=tuple(answers) or None,
        )

    def to_dict(self) -> dict[str, Any]:
        """The stated settings as plain values."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def applied(self, config: RunConfig, stated: Collection[str] | None = None) -> RunConfig:
        """A config with these settings for the fields that its user did not state; the log names each difference.

        Args:
            config: of an evaluation.
            stated: keys that the user wrote ("model.image_size"); None takes those that differ from their default.
        """
        plain = RunConfig()
        for name, key in _FIELDS.items():
            own, asked = getattr(self, name), _value(config, name)
            if own is None or own == asked:
                continue
            keys = {key, "data.frames"} if name == "frames" else {key}
            wanted = keys & set(stated) if stated is not None else asked != _value(plain, name)
            if wanted and asked is not None:  # a written null leaves a setting unstated
                logger.info("%s is %r, as the config says; the adapter was trained with %r", key, asked, own)
                continue
            section, _, inner = key.partition(".")
            config = replace(config, **{section: replace(getattr(config, section), **{inner: own})})
            logger.info("%s is %r, as the adapter was trained; the config left it at %r", key, own, asked)
        return config


NO_SETTINGS = InferenceSettings()


def first_given(*values: T | None) -> T:
    """The first value that is not None, of the caller's, the adapter's and the default."""
    return next(value for value in values if value is not None)


def _value(config: RunConfig, name: str) -> Any:
    if name == "frames":
        return config.data.evaluation_frames
    section, _, inner = _FIELDS[name].partition(".")
    return getattr(getattr(config, section), inner)
