"""What an adapter must be asked with: everything besides its weights that changes a number at inference.

It is written into the adapter's folder and attached to the set that is loaded from there, so that Python's calls and
the commands show and ask as training did. What a caller says goes before it; what it leaves open is the base's.
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
    """How pictures, texts and answers reach the model. None leaves a setting open.

    Args:
        image_size: side of the square pictures in pixels.
        mean: of each channel, subtracted from pixels in [0, 1].
        std: of each channel, divided by afterwards.
        resampling: filter of the resizing.
        frames: of a video.
        max_tokens: texts are cut to at most this many tokens.
        max_words: and before that to this many words.
        prompt: what captions start with.
        answers: the list that questions are answered from.
        answering: by ranking that list, or by writing.
        k: candidates that are scored in full: by the matching head, or of the list of answers; 0 as in `RunConfig`.
        beta: weight of the contrastive similarity beside the matching score.
        beams: of the search, where texts are written.
        longest: tokens of a written caption with its prompt, at most.
        shortest: the same, at least.
    """

    image_size: Annotated[int, Field(ge=1, le=4096)] | None = None
    mean: tuple[Level, Level, Level] | None = None
    std: tuple[Spread, Spread, Spread] | None = None
    resampling: Resampling | None = None
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
    ) -> InferenceSettings:
        """What a run trains for.

        Args:
            config: the run's.
            image_size: the side in pixels that it showed pictures at.
            answers: the list that its questions were answered from.
            mean: of each channel, subtracted from pixels.
            std: of each channel, divided by.
            resampling: filter of the resizing.
        """
        values = {name: _value(config, name) for name in _FIELDS}
        return cls(
            **{**values, "image_size": image_size},
            mean=mean,
            std=std,
            resampling=resampling,
            answers=tuple(answers) or None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, without those that are left open."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def applied(self, config: RunConfig, stated: Collection[str] | None = None) -> RunConfig:
        """A run's config with these settings in the place of what it leaves open.

        The log says which; and where both state a value, which of them is taken.

        Args:
            config: of an evaluation.
            stated: keys that its user wrote ("model.image_size"); None takes those that are not at their default.
        """
        plain = RunConfig()
        for name, key in _FIELDS.items():
            own, asked = getattr(self, name), _value(config, name)
            if own is None or own == asked:
                continue
            keys = {key, "data.frames"} if name == "frames" else {key}
            wanted = keys & set(stated) if stated is not None else asked != _value(plain, name)
            if wanted and asked is not None:  # null, even where it is written, leaves a setting open
                logger.info("%s is %r, as the config says; the adapter was trained with %r", key, asked, own)
                continue
            section, _, inner = key.partition(".")
            config = replace(config, **{section: replace(getattr(config, section), **{inner: own})})
            logger.info("%s is %r, as the adapter was trained; the config left it at %r", key, own, asked)
        return config


NO_SETTINGS = InferenceSettings()


def first(*values: T | None) -> T:
    """The first that is not None: what the caller says, then the adapter, then the default."""
    return next(value for value in values if value is not None)


def _value(config: RunConfig, name: str) -> Any:
    if name == "frames":
        return config.data.eval_frames or config.data.frames
    section, _, inner = _FIELDS[name].partition(".")
    return getattr(getattr(config, section), inner)
