"""Questions and captions of many requests in one batch: one visual pass for all tasks and adapters, then each task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from uniadapter.data.media.user_inputs import as_clips
from uniadapter.evaluation.blocks import rows_by
from uniadapter.evaluation.mode import evaluation_mode
from uniadapter.inference.features import picture_transform
from uniadapter.inference.predict import ask_each, caption
from uniadapter.model.dispatch import adapter_store, backbone
from uniadapter.model.encoding import encode_visual
from uniadapter.model.features import Visuals
from uniadapter.model.sets import active_adapter, adapter_set
from uniadapter.model.settings import first_given
from uniadapter.serve.adapters import Adapter

VIDEO_FRAMES = 4  # of a video, where the adapter has no number of its own


@dataclass(frozen=True)
class Job:
    """A question about a picture or video, or a caption of it.

    Args:
        path: of the file.
        video: whether it moves.
        adapter: that answers.
        question: None for a caption.
    """

    path: str
    video: bool
    adapter: Adapter
    question: str | None = None


@dataclass(frozen=True)
class Answer:
    """What an adapter says.

    Args:
        text: the answer or the caption.
        ranked: the most probable answers of a list, with their probabilities.
    """

    text: str
    ranked: tuple[tuple[str, float], ...] = ()


def run_jobs(jobs: Sequence[Job]) -> list[Answer | Exception]:
    """Answer a batch.

    Visuals of all tasks and adapters of one base go through its visual encoder together, each row with its own set.

    Returns:
        An answer for each job, or the error of that job alone.
    """
    results: dict[int, Answer | Exception] = {}
    pixels: dict[int, Tensor] = {}
    for row, job in enumerate(jobs):
        try:
            pixels[row] = _read(job)
        except Exception as error:  # of a file: the others go on
            results[row] = error
    rows = list(pixels)
    groups = rows_by([(_encoder(jobs[row].adapter.model), pixels[row].shape) for row in rows])
    for members in groups.values():
        some = [rows[member] for member in members]
        try:
            visuals = _visuals([jobs[row].adapter for row in some], torch.stack([pixels[row] for row in some]))
            for task_members in rows_by([id(jobs[row].adapter.model) for row in some]).values():
                texts = _texts([jobs[some[one]] for one in task_members], visuals.select(task_members))
                results.update(zip([some[one] for one in task_members], texts, strict=True))
        except Exception as error:
            results.update({row: error for row in some if row not in results})
    return [results[row] for row in range(len(jobs))]


def frames_of(adapter: Adapter, video: bool) -> int:
    """How many frames an adapter sees."""
    return first_given(adapter.settings.frames, VIDEO_FRAMES) if video else first_given(adapter.settings.frames, 1)


def visual_of(adapter: Adapter, path: str, video: bool) -> Visuals:
    """A picture or video as an adapter sees it, one row.

    Raises:
        DataError: it cannot be read.
    """
    return _visuals([adapter], _read(Job(path, video, adapter))[None])


def _read(job: Job) -> Tensor:
    """Normalised pixels [T, 3, S, S]."""
    (clip,) = as_clips(job.path)
    with active_adapter(job.adapter.model, job.adapter.part):
        transform = picture_transform(job.adapter.model)
    return torch.stack([transform(frame) for frame in clip.read(frames_of(job.adapter, job.video))])


def _encoder(model: PreTrainedModel) -> int:
    """Equal for models that share their visual encoder."""
    return id(next(iter(backbone(model).vision_layers()[-1].parameters())))


def _visuals(adapters: Sequence[Adapter], pixels: Tensor) -> Visuals:
    """Encode rows [B, T, 3, S, S] of models that share their visual encoder, each with its set."""
    model = adapters[0].model
    sets = [None if one.part is None else adapter_set(one.model, one.part) for one in adapters]
    with adapter_store(model).using_sets(sets, [one.name for one in adapters]), evaluation_mode(model):
        found = encode_visual(model, pixels.to(model.device))
    # Features are of that model's own projection, and none of these tasks reads them.
    return found


def _texts(jobs: Sequence[Job], visuals: Visuals) -> list[Answer]:
    """Answers or captions of jobs of one model."""
    first = jobs[0].adapter
    parts = [job.adapter.part for job in jobs]
    if first.task == "caption":
        return [Answer(text) for text in caption(first.model, first.tokenizer, visuals, adapter=parts)]
    questions = [str(job.question) for job in jobs]
    found = ask_each(first.model, first.tokenizer, visuals, questions, adapter=parts)
    return [Answer(one.answer, one.ranked) for one in found]
