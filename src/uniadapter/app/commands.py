"""The command `train` as a Python function."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from uniadapter import report
from uniadapter.app.display import TrainingBar, console, logged_to, pair_bar, say
from uniadapter.app.trackers import tracking
from uniadapter.app.word_looks import with_word_looks
from uniadapter.checkpoints.compatibility import remaining_embedded_splits
from uniadapter.config import ConfigError, RunConfig
from uniadapter.data.shards.places import lost_shards
from uniadapter.data.splits import RetrievalSplit, TrainingSet
from uniadapter.processes.distributed import check_on_rank0, gather_list, reporting_lost_peers
from uniadapter.report.examples import select_examples
from uniadapter.runs.results import measure, zero_shot
from uniadapter.runs.self_check import check_pairs
from uniadapter.runs.steps import (
    ADAPTER,
    MODEL,
    evaluate_split,
    load_split,
    load_training,
    resolve_data,
    save_result,
    test_splits,
    train_split,
    write_config,
)
from uniadapter.tasks.preparing import Prepared, prepare
from uniadapter.training.progress import ProgressEvent
from uniadapter.training.run_folder import can_resume, exclusive_run_folder, remove_replaced_weights
from uniadapter.training.run_state import left_out_by_all
from uniadapter.training.stopping import raising_interrupted
from uniadapter.training.trainer import Trainer, make_accelerator

logger = logging.getLogger(__name__)


def run_training(
    config: RunConfig, resume: bool = False, overwrite: bool = False, resume_or_start: bool = False
) -> dict[str, Any]:
    """Train, save, evaluate and report one run; in distributed training, every process calls it.

    Args:
        config: of the run; without `data.test`, nothing is evaluated at the end.
        resume: continue from the checkpoint in `config.output`.
        overwrite: replace a run in `config.output`: each of its files when the new one is complete.
        resume_or_start: `resume` if there is a checkpoint, else start a new run.

    Returns:
        The content of the run's `metrics.json`; on all processes but the first, an empty dict.

    Raises:
        ConfigError, DataError, CheckpointError: one line that says what to do.
        Interrupted: the process received a signal, or its time is up; the training state is saved.
    """
    if config.model.method == "none":
        raise ConfigError("model.method is none, which trains nothing: use `evaluate`, or set uniadapter or full")
    if config.train.keep == "best" and not config.data.val:
        raise ConfigError("train.keep is best, which the validation split decides: set data.val, or train.keep last")
    if config.train.keep == "best_on_test" and not config.data.test:
        raise ConfigError("train.keep is best_on_test, and there is no test split: set data.test")
    if resume_or_start and (resume or overwrite):
        raise ConfigError("--resume_or_start decides by itself: leave out --resume and --overwrite")
    folder = Path(config.output)
    with reporting_lost_peers(), ExitStack() as held, raising_interrupted(folder):
        accelerator = make_accelerator(config.train)
        if resume_or_start:
            resume = gather_list([can_resume(folder)])[0]  # as the first process sees it
        check_on_rank0(lambda: held.enter_context(exclusive_run_folder(folder, resume, overwrite, resume_or_start)))
        if accelerator.is_main_process:
            held.enter_context(logged_to(folder))
        else:  # only rank 0 logs and writes
            logging.getLogger("uniadapter").setLevel(logging.ERROR)
        return _train_and_measure(config, folder, resume, overwrite, accelerator)


def _train_and_measure(
    config: RunConfig, folder: Path, resume: bool, overwrite: bool, accelerator: Accelerator
) -> dict[str, Any]:
    """`run_training`, once the run's folder is locked."""
    started = time.perf_counter()
    write = partial(write_config, config, folder / "config.yaml")
    if accelerator.is_main_process and not (resume or overwrite):
        write()
    for line in remaining_embedded_splits(config):
        logger.warning("%s", line)
    config = replace(config, data=resolve_data(config.data))
    train = load_training(config)
    tests = test_splits(config) if config.data.test else {}
    val = _validation_split(config, tests)
    prepared = prepare(config)
    prepared.distributed = accelerator.num_processes > 1

    if accelerator.is_main_process and not resume:
        prepared.model.to(accelerator.device)  # type: ignore[arg-type]
        check_pairs(prepared, train, config)

    trainer = _train_with_bars(prepared, train, val, config, folder, resume, accelerator, started, write)
    started -= trainer.seconds_before
    size = save_result(prepared, config, folder) if accelerator.is_main_process else 0
    if size and overwrite:
        remove_replaced_weights(folder, MODEL if prepared.adapter is None else ADAPTER)
    metrics: dict[str, Any] = {"task": config.task, "seed": config.train.seed, "base": config.model.base,
               "splits": summaries(train, *tests.values()), **skipped(*tests.values()), "kept": trainer.weights_info,
               **({"skipped_steps": len(trainer.skipped)} if len(trainer.skipped) else {}),
               **trained_without(trainer),
               "rows": []}  # fmt: skip
    examples: list[report.QueryExample | report.TextExample] = []
    looks_note = ""
    name = config.model.method_name
    logger.info("saved to %s (%.2f MB), the weights after step %d", folder, size / 1e6, trainer.weights_info["step"])
    if tests:
        with pair_bar("reranking") as progress:
            after = measure(prepared, config, tests, name, started, size, trainer.history, progress)
            base = _base_of(prepared, config)
            before = zero_shot(base, config, tests, progress)
        metrics["rows"] = [*before.rows, *after.rows]
    if not accelerator.is_main_process:
        return {}
    if tests:
        chosen = select_examples(tests["test"], before.result, after.result, config.data.evaluation_frames)
        examples, looks_note = with_word_looks(chosen, prepared, None if base is prepared else base, config)
    finish_report(folder, metrics, {name: trainer.history}, examples, str(prepared.counts), looks_note)
    return metrics


def _train_with_bars(
    prepared: Prepared,
    train: TrainingSet,
    val: RetrievalSplit | None,
    config: RunConfig,
    folder: Path,
    resume: bool,
    accelerator: Accelerator,
    started: float,
    write: Callable[[], None],
) -> Trainer:
    """Train, shown on the terminal and by the trackers of the first process; `write` comes before the first file."""
    main = accelerator.is_main_process
    with (
        TrainingBar(config.model.method) if main else nullcontext() as bar,
        tracking(config, folder) if main else nullcontext() as tracked,
    ):

        def show(event: ProgressEvent) -> None:
            for one in (bar, tracked):
                if one is not None:
                    one(event)

        def validate(epoch: int) -> float:
            assert val is not None
            found = evaluate_split(prepared, val, config)
            logger.info("epoch %d %s %s", epoch, "validation" if val.name == "val" else val.name, found.headline)
            if tracked is not None:
                tracked.validated(found.main)
            return found.main

        if main:
            say(str(prepared.counts))
        return train_split(
            prepared, train, config, folder, resume, show, accelerator=accelerator, started=started,
            validate=validate if val is not None else None, on_first_write=write,
        )  # fmt: skip


def _validation_split(config: RunConfig, tests: dict[str, RetrievalSplit]) -> RetrievalSplit | None:
    """What is evaluated while training: the validation split, if there is one, or what `train.keep` says."""
    if config.train.keep == "best_on_test":
        logger.warning("train.keep is best_on_test: the test split chooses the weights, and its figures are marked")
        return tests["test"]
    return load_split(config, "val") if config.data.val else None


def summaries(*splits: TrainingSet) -> dict[str, str]:
    """From the name of each split to a summary of its content and of what was left out."""
    return {split.name: split.summary().partition(": ")[2] for split in splits}


def skipped(*splits: RetrievalSplit) -> dict[str, dict[str, Any]]:
    """Pictures and videos that were left out, by split, as an entry of `metrics.json`; empty if there are none."""
    lost = {split.name: split.left_out() for split in splits if split.lost}
    return {"skipped": lost} if lost else {}


def trained_without(trainer: Trainer) -> dict[str, Any]:
    """What training left out, as an entry of `metrics.json`; empty if that is nothing. All processes must call it."""
    found = left_out_by_all(trainer.loader)
    if not found:
        return {}
    lost = lost_shards(found)
    return {"trained_without": {"faults": dict(Counter(found.values())), **({"shards": lost} if lost else {})}}


def _base_of(prepared: Prepared, config: RunConfig) -> Prepared:
    """The base without training: the same model if an adapter was trained, else loaded again."""
    if prepared.adapter is not None:
        return prepared
    fresh = prepare(config.untrained())
    fresh.model.to(device=prepared.model.device)  # type: ignore[call-arg]
    fresh.distributed = prepared.distributed
    return fresh


def finish_report(
    folder: Path,
    metrics: dict[str, Any],
    history: dict[str, list[dict[str, float | int]]],
    examples: Sequence[report.QueryExample | report.TextExample],
    summary: str,
    looks_note: str = "",
    thumbnails: report.Thumbnails | None = None,
) -> None:
    """Write `metrics.json`, the training curves and the HTML report, and print the table.

    Args:
        folder: of the run.
        metrics: the content of `metrics.json`.
        history: losses over steps, by method.
        examples: shown in the report.
        summary: the report's first paragraph.
        looks_note: how the examples' pictures of attention were made.
        thumbnails: keeps the pictures for the next page with the same examples.
    """
    report.write_metrics(folder / "metrics.json", metrics)
    if any(history.values()):
        report.curves(history, folder / "curves.png")
    page = report.write_report(
        folder, metrics, examples, history=history, summary=summary, looks_note=looks_note, thumbnails=thumbnails
    )
    if metrics["rows"]:
        console.print(report.table(metrics))
    say(f"{folder / 'metrics.json'}\n{page}")
