"""Train from Python in one call, on files or data in memory: `uniadapter train` without its report."""

from __future__ import annotations

import logging
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.app.parsing import config_path, read_config
from uniadapter.checkpoints.adapters import add_adapter
from uniadapter.checkpoints.loading import load_model, load_tokenizer
from uniadapter.config import AdapterConfig, ConfigError, RunConfig
from uniadapter.data.in_memory import Data, make_split
from uniadapter.data.splits import RetrievalSplit, TrainingSet
from uniadapter.data.training_sets import make_training_set
from uniadapter.model.counting import count_parameters
from uniadapter.model.dispatch import adapter_store, task_of
from uniadapter.model.sets import active_adapter, adapter_names, select_adapter
from uniadapter.runs.steps import ADAPTER, evaluate_split, save_result, train_split, write_config
from uniadapter.tasks.preparing import Prepared
from uniadapter.training.run_folder import exclusive_run_folder
from uniadapter.training.trainer import Trainer

logger = logging.getLogger(__name__)

_RECIPES = {"retrieval": "pictures", "vqa": "questions", "caption": "captions"}


@dataclass(frozen=True)
class Trained:
    """The result of `train`.

    Args:
        model: with the trained adapter active, in evaluation mode.
        tokenizer: the base's.
        history: losses, learning rate and speed every `log_every` steps and after the last.
        folder: of the saved adapter, for `load_adapter`; None if nothing was saved.
        steps: number of optimiser steps.
        validation: main metric on the validation data, 0 to 100; None without such data.
        seconds: duration of training.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    history: list[dict[str, Any]]
    folder: Path | None
    steps: int
    validation: float | None
    seconds: float

    def __repr__(self) -> str:
        last = {key: value for key, value in (self.history or [{}])[-1].items() if key.endswith("loss")}
        told = "".join(f", {key}={value:.3g}" for key, value in last.items())
        return f"Trained({type(self.model).__name__}, steps={self.steps}{told}, folder={str(self.folder)!r})"


def train(
    model: PreTrainedModel | str,
    dataset: Data,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    validation: Data | None = None,
    adapter: AdapterConfig | str | None = None,
    output: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    task: str | None = None,
    config: RunConfig | None = None,
    epochs: int | None = None,
    max_steps: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    seed: int | None = None,
) -> Trained:
    """Train an adapter on pictures or videos with captions, or with questions and answers.

    Args:
        model: a task model of any family, or a base's name or path, as for `load_model`.
        dataset: an annotation file; a folder of pictures with its `metadata.jsonl` or a text beside each; tar shards
            or a stream, as in `data.train`; a Hugging Face `Dataset` or `IterableDataset`; a list of mappings (`image`
            and `caption`, or `image`, `question` and `answer`, other usual names too) or of tuples (picture, caption)
            or (picture, question, answer). A picture is a file, a Pillow image, an array or a tensor.
        tokenizer: the base's; None loads it by the model's `name_or_path`.
        validation: data to evaluate on, in the same forms; every `train.evaluate_every` epochs and after the last step.
        adapter: name of a set to train further, or the config of a new one; None trains the active set, or a new one
            with `config.model.adapter`.
        output: folder of the run, for checkpoints and the adapter; None saves nothing.
        overwrite: whether a run in `output` may be replaced.
        task: "retrieval", "vqa" or "caption", if `model` is a name; None means retrieval.
        config: of the run; None takes the package's config `pictures`, `questions` or `captions`.
        epochs: passes over the data; without `max_steps`, the number of steps is then not limited.
        max_steps: most optimiser steps.
        batch_size: samples in a step.
        lr: peak learning rate.
        seed: of all random draws.

    Returns:
        The model, the history, and the adapter's folder.

    Raises:
        ConfigError, DataError, CheckpointError, TypeError: one line that says what to do.

    Example:
        >>> rows = list(zip(pictures, ["a red box", "a blue box"]))
        >>> adapter = ua.AdapterConfig(bottleneck=4)
        >>> trained = ua.train(model, rows, adapter=adapter, max_steps=2, output=folder / "run")
        >>> trained.steps, trained.history[-1]["step"]
        (2, 2)
        >>> trained.folder == folder / "run" / "adapter"
        True
    """
    run = _run_config(model, task, config, epochs, max_steps, batch_size, lr, seed)
    loaded = load_model(run.model.base, run.task) if isinstance(model, str) else model
    in_memory = config is None and not isinstance(dataset, (str, os.PathLike))
    if in_memory:  # worker processes would each hold a copy
        run = replace(run, data=replace(run.data, workers=0))
    rows = make_training_set(dataset, run.task, run.data)
    val = None if validation is None else make_split(validation, run.task, run.data, "val")
    name = _adapter(loaded, adapter, run)
    folder = None if output is None else Path(output).expanduser()
    if folder is not None:
        run = replace(run, output=str(folder))
    tokens = load_tokenizer(run.model.base) if tokenizer is None else tokenizer
    started = time.perf_counter()
    with ExitStack() as held, active_adapter(loaded, name):
        if folder is not None:
            held.enter_context(exclusive_run_folder(folder, False, overwrite))
        prepared = Prepared(loaded, tokens, name, count_parameters(loaded))
        trainer = _train_and_save(prepared, rows, val, run, folder)
    return Trained(
        loaded, tokens, trainer.history, None if folder is None else folder / ADAPTER, trainer.step,
        trainer.weights_info.get("validation"), time.perf_counter() - started,
    )  # fmt: skip


def _train_and_save(
    prepared: Prepared, rows: TrainingSet, val: RetrievalSplit | None, run: RunConfig, folder: Path | None
) -> Trainer:
    """Train on `rows`, measuring on `val`; save config and adapter in `folder`, if there is one."""

    def validate(epoch: int) -> float:
        assert val is not None
        found = evaluate_split(prepared, val, run)
        logger.info("epoch %d validation %s", epoch, found.headline)
        return found.main

    trainer = train_split(prepared, rows, run, folder, validate=None if val is None else validate)
    if folder is not None and trainer.accelerator.is_main_process:
        write_config(run, folder / "config.yaml")
        save_result(prepared, run, folder)
    return trainer


def _run_config(
    model: PreTrainedModel | str,
    task: str | None,
    config: RunConfig | None,
    epochs: int | None,
    max_steps: int | None,
    batch_size: int | None,
    lr: float | None,
    seed: int | None,
) -> RunConfig:
    """The run's config: the given one or the task's, with the arguments of the call."""
    kind: Any = (task or (config.task if config else "retrieval")) if isinstance(model, str) else task_of(model)
    if kind not in _RECIPES:
        raise ConfigError(f"task is {kind!r}: it must be one of {', '.join(_RECIPES)}")
    if task is not None and task != kind:
        raise ConfigError(f"task is {task!r}, but a {type(model).__name__} is for {kind!r}: leave task out")
    run = config or read_config(config_path(_RECIPES[kind]))
    if run.model.method != "uniadapter":
        raise ConfigError(f"model.method is {run.model.method}: this trains adapters; use the command for the others")
    stated = {"epochs": epochs, "max_steps": max_steps, "batch_size": batch_size, "lr": lr, "seed": seed}
    changes: dict[str, Any] = {key: value for key, value in stated.items() if value is not None}
    if epochs is not None and max_steps is None:
        changes["max_steps"] = 0
    base = model if isinstance(model, str) else str(model.config.name_or_path or "unknown")
    return replace(run, task=kind, model=replace(run.model, base=base), train=replace(run.train, **changes))


def _adapter(model: PreTrainedModel, adapter: AdapterConfig | str | None, config: RunConfig) -> str:
    """Name of the set to train, which is added if necessary, and selected."""
    if isinstance(adapter, str) or (adapter is None and adapter_names(model) and adapter_store(model).name):
        name = adapter if isinstance(adapter, str) else str(adapter_store(model).name)
    else:
        taken = adapter_names(model)
        name = next(one for one in ("default", *(f"adapter_{n}" for n in range(1, 10**6))) if one not in taken)
        with torch.random.fork_rng():
            torch.manual_seed(config.train.seed)
            add_adapter(model, adapter or config.model.adapter, name)
    select_adapter(model, name)
    return name
