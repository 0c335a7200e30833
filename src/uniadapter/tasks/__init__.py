"""The kinds of runs, by the `task` of their config."""

from __future__ import annotations

from uniadapter.config import RunConfig
from uniadapter.tasks.answering import AnswerTask
from uniadapter.tasks.base import Result, Task
from uniadapter.tasks.captioning import CaptionTask
from uniadapter.tasks.retrieval import RetrievalTask

TASKS: dict[str, Task] = {"retrieval": RetrievalTask(), "vqa": AnswerTask(), "caption": CaptionTask()}

__all__ = ["TASKS", "Result", "Task", "task_for"]


def task_for(config: RunConfig) -> Task:
    """What a config's `task` names."""
    return TASKS[config.task]
