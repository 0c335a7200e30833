"""The tasks, by the name in a config's `task`: data, training loss and evaluation of each."""

from __future__ import annotations

from uniadapter.config import RunConfig
from uniadapter.tasks.answering import AnswerTask
from uniadapter.tasks.base import Result, Task
from uniadapter.tasks.captioning import CaptionTask
from uniadapter.tasks.retrieval import RetrievalTask

TASKS: dict[str, Task] = {"retrieval": RetrievalTask(), "vqa": AnswerTask(), "caption": CaptionTask()}

__all__ = ["TASKS", "Result", "Task", "task_for"]


def task_for(config: RunConfig) -> Task:
    """The task of a config."""
    return TASKS[config.task]
