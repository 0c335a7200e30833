"""Evaluate a method, or the base without training, on all test sets, for `metrics.json`."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from uniadapter.checkpoints.weights import elements
from uniadapter.config import RunConfig
from uniadapter.data.splits import RetrievalSplit
from uniadapter.evaluation.rerank import Progress
from uniadapter.model.counting import ParameterCounts
from uniadapter.model.sets import disable_adapter
from uniadapter.runs.folders import METHOD_KEY, TRAINED
from uniadapter.runs.steps import evaluate_split
from uniadapter.tasks import Result
from uniadapter.tasks.preparing import Prepared

BEST_ON_TEST = "weights chosen on test"  # the setting of rows made with `train.keep: best_on_test`


def metrics_row(
    method: str,
    counts: ParameterCounts | None,
    result: Result,
    size: int,
    seconds: float,
    **more: Any,
) -> dict[str, Any]:
    """One row of `metrics.json`.

    Args:
        method: its name.
        counts: of parameters; None, for zero-shot, gives zeros.
        result: of the evaluation.
        size: of the saved weights in bytes.
        seconds: of training and evaluation.
        **more: further fields.
    """
    return {
        "method": method,
        "trainable_parameters": counts.trainable if counts else 0,
        "trainable_percent": round(counts.trainable_percent, 4) if counts else 0.0,
        "trainable_percent_without_embeddings": (
            round(counts.trainable_percent_without_embeddings, 4) if counts else 0.0
        ),
        "adapter_percent": round(counts.adapter_percent, 4) if counts else 0.0,
        "checkpoint_bytes": size,
        "seconds": round(seconds, 1),
        **result.scores,
        **more,
    }


@dataclass
class MethodResult:
    """The results of a method.

    Args:
        row: of `metrics.json`.
        result: on the test split.
        extra: row and result on each further test set, by name.
        history: losses over steps.
    """

    row: dict[str, Any]
    result: Result
    extra: dict[str, tuple[dict[str, Any], Result]]
    history: list[dict[str, float | int]]

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows, the main test set's first."""
        return [self.row, *(row for row, _ in self.extra.values())]


def measure(
    prepared: Prepared,
    config: RunConfig,
    tests: dict[str, RetrievalSplit],
    method: str,
    started: float,
    size: int = 0,
    history: list[dict[str, float | int]] | None = None,
    progress: Progress | None = None,
    setting: str = "",
) -> MethodResult:
    """Evaluate on the test split and on further test sets.

    Args:
        prepared: the model.
        config: of the run.
        tests: test sets by name; the first is the main one.
        method: its name in `metrics.json`.
        started: `time.perf_counter()` at the start of the run.
        size: of the saved weights in bytes.
        history: losses over steps.
        progress: called with the number of items done and of all.
        setting: name of the variant of the method; "" for the method itself.
    """
    counts = prepared.counts if prepared.counts.trainable and method != "zero_shot" else None
    main, *others = tests
    result = evaluate_split(prepared, tests[main], config, progress)
    # Transductive results must be marked as such.
    variants = [setting] if setting else []
    variants += ["dual softmax (transductive)"] if config.evaluate.dual_softmax else []
    variants += [BEST_ON_TEST] if counts is not None and config.train.keep == "best_on_test" else []
    variants += ["blank pictures"] if config.data.blank and method != "question_only" else []
    more = {"setting": ", ".join(variants)} if variants else {}
    seconds = time.perf_counter() - started
    row = metrics_row(method, counts, result, size, seconds, **tests[main].coverage(), **more)
    extra = {}
    for name in others:
        found = evaluate_split(prepared, tests[name], config, progress)
        more["test_set"] = name
        extra[name] = (metrics_row(method, counts, found, size, seconds, **tests[name].coverage(), **more), found)
    return MethodResult(row, result, extra, history or [])


def zero_shot(
    prepared: Prepared, config: RunConfig, tests: dict[str, RetrievalSplit], progress: Progress | None = None
) -> MethodResult:
    """Evaluate the base; an adapter is disabled meanwhile.

    A base that another method has trained is named as such in the results, with its own number of trained weights.
    """
    started = time.perf_counter()
    method: str = getattr(prepared.model.config, METHOD_KEY, "zero_shot")
    size = 0
    if method != "zero_shot":
        folder = Path(str(prepared.model.config.name_or_path))
        trained, size = prepared.counts.total, sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        if (file := folder.parent / TRAINED).exists() and method != "full_fine_tuning":
            trained, size = elements(file), file.stat().st_size
        prepared = replace(prepared, counts=replace(prepared.counts, trainable=trained, adapter=0))
    with disable_adapter(prepared.model):
        return measure(prepared, config, tests, method, started, size, progress=progress)
