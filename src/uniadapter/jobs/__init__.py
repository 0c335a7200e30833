"""The kinds of runs, by the `task` of their config."""

from __future__ import annotations

from uniadapter.config import RunConfig
from uniadapter.jobs.answering import AnswerJob
from uniadapter.jobs.base import Job, Result
from uniadapter.jobs.captioning import CaptionJob
from uniadapter.jobs.retrieval import RetrievalJob

JOBS: dict[str, Job] = {"retrieval": RetrievalJob(), "vqa": AnswerJob(), "caption": CaptionJob()}

__all__ = ["JOBS", "Job", "Result", "job_of"]


def job_of(config: RunConfig) -> Job:
    """What a config's `task` names."""
    return JOBS[config.task]
