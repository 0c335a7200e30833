"""The command `evaluate` as a Python function."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Collection
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from uniadapter import report
from uniadapter.app.commands import skipped, summaries
from uniadapter.app.display import console, logged_to, pair_bar, say
from uniadapter.checkpoints.adapter_folder import read_adapter_config
from uniadapter.checkpoints.compatibility import check_split
from uniadapter.config import RunConfig
from uniadapter.data.layouts.vqa_files import write_results
from uniadapter.data.questions import QuestionSplit
from uniadapter.data.splits import RetrievalSplit
from uniadapter.files.writing import write_text
from uniadapter.processes.distributed import reporting_lost_peers
from uniadapter.runs.folders import resolve_source, results_folder
from uniadapter.runs.results import measure, zero_shot
from uniadapter.runs.steps import evaluate_split, load_split, resolve_data
from uniadapter.tasks import Result
from uniadapter.tasks.answering import evalai_results
from uniadapter.tasks.preparing import prepare
from uniadapter.training.trainer import make_accelerator


@reporting_lost_peers()
def run_evaluation(
    config: RunConfig, adapter: Path | None = None, which: str = "test", stated: Collection[str] | None = None
) -> dict[str, Any]:
    """Evaluate a base, or a base with an adapter, on one split; in distributed evaluation, every process calls it.

    Args:
        config: base, data and evaluation settings.
        adapter: an adapter folder, a fully fine-tuned model's folder, or a run's; None evaluates the base.
        which: "train", "val", "test" or the name of a further test set.
        stated: keys of the config that the user wrote, such as "model.image_size", which take precedence over the
            adapter's settings. None takes those that differ from their default.

    Returns:
        The content of `metrics.json`, which is written to `config.output`, or to a subfolder if that contains other
        results; on all processes but the first, an empty dict.

    Raises:
        ConfigError, DataError, CheckpointError: one line that says what to do.
    """
    check_split(config, which)
    config, adapter = resolve_source(config, adapter)
    accelerator = make_accelerator(config.train)
    zero = config.untrained()
    if not accelerator.is_main_process:
        logging.getLogger("uniadapter").setLevel(logging.ERROR)
        zero = _with_adapter_settings(replace(zero, data=resolve_data(zero.data)), adapter, stated)
        _evaluate_share(zero, adapter, which, accelerator)
        return {}
    folder, digest = results_folder(zero, adapter, which, stated)
    with logged_to(folder, "evaluate.log"):
        config = _with_adapter_settings(replace(zero, data=resolve_data(zero.data)), adapter, stated)
        split = load_split(config, which)
        prepared = prepare(config, adapter)
        prepared.model.to(device=accelerator.device)  # type: ignore[call-arg]
        prepared.distributed = accelerator.num_processes > 1
        tests = {which: split}
        size = (adapter / "adapter_model.safetensors").stat().st_size if adapter else 0
        started = time.perf_counter()
        with pair_bar("reranking") as progress:
            if adapter is None:
                found = zero_shot(prepared, config, tests, progress)
            else:
                found = measure(prepared, config, tests, "uniadapter", started, size, progress=progress)
        metrics = {"task": config.task, "seed": config.train.seed, "base": config.model.base,
                   "adapter": str(adapter) if adapter else None, "split": which, "evaluation": digest,
                   "splits": summaries(split), **skipped(split), "rows": found.rows}  # fmt: skip
        report.write_metrics(folder / "metrics.json", metrics)
        write_predictions(split, found.result, folder)
        console.print(report.table(metrics))
        say(f"{found.result.headline}\n{folder / 'metrics.json'}")
        return metrics


def _with_adapter_settings(config: RunConfig, adapter: Path | None, stated: Collection[str] | None) -> RunConfig:
    """The config with the adapter's inference settings for fields that the user did not state."""
    return config if adapter is None else read_adapter_config(adapter).settings.applied(config, stated)


def _evaluate_share(config: RunConfig, adapter: Path | None, which: str, accelerator: Accelerator) -> None:
    """What all processes but the first do in `run_evaluation`: evaluate their share, without logs and files."""
    prepared = prepare(config, adapter)
    prepared.model.to(device=accelerator.device)  # type: ignore[call-arg]
    prepared.distributed = True
    evaluate_split(prepared, load_split(config, which), config)


def write_predictions(split: RetrievalSplit, result: Result, folder: Path) -> None:
    """Write `predictions.jsonl`, a line for each question or visual; for official VQA files, `vqa_results.json` too."""
    if isinstance(split, QuestionSplit):
        rows = [
            {"question_id": number, "question": text, **asdict(prediction)}
            for number, text, prediction in zip(split.question_ids, split.texts, result.detail, strict=True)
        ]
        if all(isinstance(number, int) for number in split.question_ids):
            write_results(folder / "vqa_results.json", evalai_results(split, result.detail))
    elif isinstance(result.detail, list):
        rows = [{"id": number, "caption": text} for number, text in zip(split.visual_ids, result.detail, strict=True)]
    else:
        return
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(folder / "predictions.jsonl", lines)
