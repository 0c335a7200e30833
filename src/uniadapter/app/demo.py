"""Demos on embedded data: zero-shot, UniAdapter with and without its fused part, and full fine-tuning in one table.

UniAdapter comes first, and its results are written and shown before the others are trained.
"""

from __future__ import annotations

import logging
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from uniadapter.app.demo_results import DemoResults, PhaseClock
from uniadapter.app.display import TrainingBar, logged_to, pair_bar, say
from uniadapter.app.parsing import read_config
from uniadapter.app.word_looks import with_word_looks
from uniadapter.config import RunConfig
from uniadapter.data.splits import RetrievalSplit
from uniadapter.errors import Interrupted
from uniadapter.evaluation.captioning import require_scorer
from uniadapter.files.assets import package_path
from uniadapter.report.examples import select_examples
from uniadapter.report.metrics import read_metrics
from uniadapter.report.page import PAGE
from uniadapter.report.tables import method_label, series_name
from uniadapter.runs.ablation import WITHOUT_FUSED_PART, has_fused_part, without_fused_part
from uniadapter.runs.results import MethodResult, measure, zero_shot
from uniadapter.runs.steps import ADAPTER, load_split, resolve_data, save_result, test_splits, train_split, write_config
from uniadapter.tasks.preparing import Prepared, prepare
from uniadapter.training.run_folder import exclusive_run_folder, existing_results, remove_replaced_weights

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Demo:
    """A demo.

    Args:
        data: name of the data in `metrics.json`.
        assets: folder of the assets that the data are made from; "" for none.
        configs: from method to the name of its config; "question_only" is UniAdapter on blank pictures.
        summary: first paragraph of the report.
        lr_without_fused: the learning rate that validation chose for UniAdapter without its fused part; 0 takes
            UniAdapter's.
    """

    data: str
    assets: str
    configs: dict[str, str]
    summary: str
    lr_without_fused: float = 0.0


DEMOS = {
    "scenes": Demo(
        "embedded scenes",
        "scenes",
        {"uniadapter": "scenes", "full_fine_tuning": "scenes_full"},
        "Scenes of 3-D emoji, a style that pre-training never saw, with the grammar 'a cat with a dog to its left', "
        "which it never read. Nearly every scene has a twin in which two things have changed places. Before: "
        "zero-shot, after: UniAdapter.",
        lr_without_fused=1e-2,
    ),
    "video": Demo(
        "embedded clips",
        "clips",
        {"uniadapter": "clips", "full_fine_tuning": "clips_full"},
        "Clips of animated emoji one after the other, each with a twin that shows the same in another order, for a "
        "base that was pre-trained on pictures. Before: zero-shot, after: UniAdapter.",
    ),
    "vqa": Demo(
        "embedded questions about scenes",
        "scenes",
        {"uniadapter": "vqa", "full_fine_tuning": "vqa_full", "question_only": "vqa"},
        "Questions about scenes of 3-D emoji, for a base that was pre-trained to answer questions about drawn ones. "
        "Before: zero-shot, after: UniAdapter. Question only: the same, trained and evaluated with a blank picture.",
        lr_without_fused=3e-2,
    ),
    "videoqa": Demo(
        "embedded questions about clips",
        "clips",
        {"uniadapter": "videoqa", "full_fine_tuning": "videoqa_full", "question_only": "videoqa"},
        "Questions about what comes first, what next and how often in clips, for a base that was pre-trained to answer "
        "questions about pictures. Before: zero-shot, after: UniAdapter. Question only: the same, trained and "
        "evaluated with blank frames.",
    ),
    "easy_vqa": Demo(
        "easy-VQA",
        "",
        {"uniadapter": "easy_vqa", "full_fine_tuning": "easy_vqa_full", "question_only": "easy_vqa"},
        "easy-VQA: questions that others made about single shapes. Before: zero-shot, after: UniAdapter. "
        "Question only: the same, trained and evaluated with a blank picture.",
    ),
    "caption": Demo(
        "embedded captions of scenes",
        "scenes",
        {"uniadapter": "caption", "full_fine_tuning": "caption_full"},
        "Captions that name every thing of a scene of 3-D emoji and say what is where, for a base that was pre-trained "
        "on shorter captions of drawn scenes. Before: zero-shot, after: UniAdapter.",
    ),
}


def demo_config(task: str, method: str, seed: int) -> RunConfig:
    """The config of a method on an embedded task."""
    config = read_config(package_path("configs") / f"{DEMOS[task].configs[method]}.yaml")
    data = replace(resolve_data(config.data), blank=method == "question_only")
    return replace(config, data=data, train=replace(config.train, seed=seed))


@dataclass(frozen=True)
class Arm:
    """A method, or a variant of one, that a demo trains and measures.

    Args:
        method: as in `metrics.json`.
        config: of its run.
        setting: name of the variant; "" for the method itself.
        saved: whether its weights are saved.
    """

    method: str
    config: RunConfig
    setting: str = ""
    saved: bool = True

    @property
    def series(self) -> str:
        """Name of its curves."""
        return series_name(self.method, self.setting)

    @property
    def label(self) -> str:
        """Name for people."""
        return method_label(self.series)


def demo_arms(task: str, seed: int) -> list[Arm]:
    """What a demo trains, in order: UniAdapter, the same without its fused part if it has one, then the others."""
    configs = {method: demo_config(task, method, seed) for method in DEMOS[task].configs}
    first = configs.pop("uniadapter")
    arms = [Arm("uniadapter", first)]
    if has_fused_part(first):
        less = without_fused_part(first)
        less = replace(less, train=replace(less.train, lr=DEMOS[task].lr_without_fused or less.train.lr))
        arms.append(Arm("uniadapter", less, WITHOUT_FUSED_PART, saved=False))
    return arms + [Arm(method, config, saved=not config.data.blank) for method, config in configs.items()]


def train_arm(
    arm: Arm, train: RetrievalSplit, tests: dict[str, RetrievalSplit], folder: Path, clock: PhaseClock
) -> tuple[Prepared, MethodResult]:
    """Train and measure one arm; its weights are saved in the folder, if they are to be saved."""
    started = time.perf_counter()
    prepared = prepare(arm.config)
    say(f"{arm.label}: {prepared.counts}")
    with TrainingBar(arm.label) as bar, clock.phase(f"{arm.label}: training"):
        trainer = train_split(prepared, train, arm.config, None, on_progress=bar)
    size = save_result(prepared, arm.config, folder) if arm.saved else 0
    with pair_bar(f"{arm.label}: measuring") as progress, clock.phase(f"{arm.label}: measuring"):
        found = measure(
            prepared, arm.config, tests, arm.method, started, size, trainer.history, progress, setting=arm.setting
        )
    return prepared, found


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

    The files are written after each method, so that a demo that is stopped leaves what was finished.

    Args:
        task: one of `DEMOS`.
        folder: of the run; gets `metrics.json`, `report.html` and the adapter.
        seed: of all random draws.

    Returns:
        The content of `metrics.json`.

    Raises:
        ConfigError: the folder contains a run that is not a demo, or another process writes to it.
        Interrupted: the demo was stopped; says what it leaves.
    """
    if task == "caption":
        require_scorer()  # fail before training, not after it
    again = holds_demo(folder)
    with exclusive_run_folder(folder, overwrite=again), logged_to(folder):
        if again:
            logger.info("%s holds an earlier demo, which this one replaces", folder)
        results = DemoResults(DEMOS[task].data, DEMOS[task].summary, folder, seed)
        try:
            return _run(results, demo_arms(task, seed))
        except (Interrupted, KeyboardInterrupt) as stop:
            signum = stop.signum if isinstance(stop, Interrupted) else signal.SIGINT
            raise Interrupted(folder if results.rows else None, None, signum, results.kept()) from None


def _run(results: DemoResults, arms: list[Arm]) -> dict[str, Any]:
    """The demo itself, once its folder is locked."""
    first, folder, clock = arms[0].config, results.folder, results.clock
    say(f"measured as it is: zero-shot; then trained and measured: {', then '.join(arm.label for arm in arms)}")
    say(f"results of UniAdapter come first; after each, they are in {folder / 'metrics.json'} and {folder / PAGE}")
    write_config(first, folder / "config.yaml")
    with clock.phase("data"):
        train, tests = load_split(first, "train"), test_splits(first)
    untrained = first.untrained()
    with pair_bar("zero-shot: measuring") as progress, clock.phase("zero-shot: measuring"):
        before = zero_shot(prepare(untrained), untrained, tests, progress)
    results.begin(first, [train, *tests.values()], before, [arm.label for arm in arms])
    for number, arm in enumerate(arms):
        prepared, found = train_arm(arm, train, tests, folder, clock)
        if not number:
            remove_replaced_weights(folder, ADAPTER)  # an earlier demo's fully fine-tuned model
            with clock.phase("examples"):
                chosen = select_examples(tests["test"], before.result, found.result, first.data.evaluation_frames)
                results.examples, results.looks_note = with_word_looks(chosen, prepared, None, arm.config)
        del prepared
        results.add(arm.series, found, [other.label for other in arms[number + 1 :]])
    say(f"the whole demo took {results.metrics['total_seconds']:.0f} s: {clock}")
    return results.metrics
