"""Demos on embedded data: zero-shot, UniAdapter and full fine-tuning in one table; for questions, question-only too."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from uniadapter.app.commands import finish_report, skipped, summaries
from uniadapter.app.display import TrainingBar, logged_to, pair_bar, say
from uniadapter.app.method_results import MethodResult, measure, zero_shot
from uniadapter.app.parsing import read_config
from uniadapter.app.runs import load_split, resolve_data, save_result, test_splits, train_split, write_config
from uniadapter.config import RunConfig
from uniadapter.data.splits import RetrievalSplit
from uniadapter.evaluation.captioning import require_scorer
from uniadapter.files.assets import package_path
from uniadapter.report.examples import select_examples
from uniadapter.report.metrics import read_metrics
from uniadapter.tasks.preparing import prepare
from uniadapter.training.run_folder import exclusive_run_folder, existing_results

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Demo:
    """A demo.

    Args:
        data: name of the data in `metrics.json`.
        assets: folder of the assets that the data are made from; "" for none.
        configs: from method to the name of its config; "question_only" is UniAdapter on blank pictures.
        summary: first paragraph of the report.
    """

    data: str
    assets: str
    configs: dict[str, str]
    summary: str


DEMOS = {
    "scenes": Demo(
        "embedded scenes",
        "scenes",
        {"uniadapter": "scenes", "full_fine_tuning": "scenes_full"},
        "Scenes of 3-D emoji, never seen in pre-training; before: zero-shot, after: UniAdapter.",
    ),
    "video": Demo(
        "embedded clips",
        "clips",
        {"uniadapter": "clips", "full_fine_tuning": "clips_full"},
        "Clips of animated emoji one after the other, for a base that was pre-trained on pictures; before: zero-shot, "
        "after: UniAdapter.",
    ),
    "vqa": Demo(
        "embedded questions about scenes",
        "scenes",
        {"uniadapter": "vqa", "full_fine_tuning": "vqa_full", "question_only": "vqa"},
        "Questions about scenes of 3-D emoji, for a base that was trained to answer questions about drawn ones; "
        "before: zero-shot, after: UniAdapter. Question only: the same, trained and evaluated with a blank picture.",
    ),
    "videoqa": Demo(
        "embedded questions about clips",
        "clips",
        {"uniadapter": "videoqa", "full_fine_tuning": "videoqa_full", "question_only": "videoqa"},
        "Questions about what follows what in clips, for a base that was trained to answer questions about pictures; "
        "before: zero-shot, after: UniAdapter. Question only: the same, trained and evaluated with blank frames.",
    ),
    "easy_vqa": Demo(
        "easy-VQA",
        "",
        {"uniadapter": "easy_vqa", "full_fine_tuning": "easy_vqa_full", "question_only": "easy_vqa"},
        "easy-VQA: questions that others made about single shapes; before: zero-shot, after: UniAdapter. "
        "Question only: the same, trained and evaluated with a blank picture.",
    ),
    "caption": Demo(
        "embedded captions of scenes",
        "scenes",
        {"uniadapter": "caption", "full_fine_tuning": "caption_full"},
        "Captions of scenes of 3-D emoji; before: zero-shot, after: UniAdapter.",
    ),
}


def demo_config(task: str, method: str, seed: int) -> RunConfig:
    """The config of a method on an embedded task."""
    config = read_config(package_path("configs") / f"{DEMOS[task].configs[method]}.yaml")
    data = replace(resolve_data(config.data), blank=method == "question_only")
    return replace(config, data=data, train=replace(config.train, seed=seed))


def run_method(
    method: str, config: RunConfig, train: RetrievalSplit, tests: dict[str, RetrievalSplit], folder: Path | None
) -> MethodResult:
    """Train and evaluate one method; its weights are saved in `folder`, if there is one."""
    started = time.perf_counter()
    prepared = prepare(config)
    say(f"{method}: {prepared.counts}")
    with TrainingBar(method) as bar:
        trainer = train_split(prepared, train, config, None, on_progress=bar)
    size = save_result(prepared, config, folder) if folder is not None else 0
    with pair_bar(f"{method}: measuring") as progress:
        return measure(prepared, config, tests, method, started, size, trainer.history, progress)


def holds_demo(folder: Path) -> bool:
    """Whether a folder contains the results of a demo, perhaps of an interrupted one, and no other run."""
    found = existing_results(folder)
    if not found or {"checkpoint.pt", "history.jsonl"} & set(found) or not (folder / "config.yaml").is_file():
        return False
    if "metrics.json" not in found:
        return True
    try:
        return read_metrics(folder / "metrics.json").more.get("data") in {demo.data for demo in DEMOS.values()}
    except (OSError, ValueError):
        return False


def run_demo(task: str, folder: Path, seed: int = 0) -> dict[str, Any]:
    """Adapt the embedded BLIP to an embedded task by each method, and report the results.

    Args:
        task: one of `DEMOS`.
        folder: of the run; gets `metrics.json`, `report.html` and the adapter.
        seed: of all random draws.

    Returns:
        The content of `metrics.json`.

    Raises:
        ConfigError: the folder contains a run that is not a demo, or another process writes to it.
    """
    started = time.perf_counter()
    if task == "caption":
        require_scorer()  # fail before training, not after it
    again = holds_demo(folder)
    with exclusive_run_folder(folder, overwrite=again), logged_to(folder):
        if again:
            logger.info("%s holds an earlier demo, which this one replaces", folder)
        demo = DEMOS[task]
        configs = {method: demo_config(task, method, seed) for method in demo.configs}
        first = configs["uniadapter"]
        write_config(first, folder / "config.yaml")
        train, tests = load_split(first, "train"), test_splits(first)
        untrained = replace(first, model=replace(first.model, method="none"))
        with pair_bar("zero-shot: measuring") as progress:
            before = zero_shot(prepare(untrained), untrained, tests, progress)
        found = {
            method: run_method(method, config, train, tests, None if config.data.blank else folder)
            for method, config in configs.items()
        }
        rows = [*before.rows, *(row for method in found.values() for row in method.rows)]
        metrics = {
            "task": first.task,
            "seed": seed,
            "base": first.model.base,
            "data": demo.data,
            "splits": summaries(train, *tests.values()),
            **skipped(*tests.values()),
            "total_seconds": round(time.perf_counter() - started, 1),
            "rows": rows,
        }
        examples = select_examples(tests["test"], before.result, found["uniadapter"].result)
        history = {method: done.history for method, done in found.items()}
        finish_report(folder, metrics, history, examples, demo.summary)
        say(f"the whole demo took {metrics['total_seconds']:.0f} s")
        return metrics
