"""What `evaluate` does, for Python and for the command line alike."""

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
from uniadapter.app.evaluation_folder import resolve_source, results_folder
from uniadapter.app.runs import evaluate_split, load_split, measure, resolve_data, zero_shot
from uniadapter.checkpoints.adapter_folder import read_adapter_config
from uniadapter.checkpoints.compatibility import check_split
from uniadapter.config import RunConfig
from uniadapter.data.layouts.vqa_files import write_results
from uniadapter.data.questions import QuestionSplit
from uniadapter.data.splits import RetrievalSplit
from uniadapter.files.writing import write_text
from uniadapter.processes.distributed import losing_peers
from uniadapter.tasks import Result
from uniadapter.tasks.answering import evalai_results
from uniadapter.tasks.preparing import prepare
from uniadapter.training.trainer import make_accelerator


@losing_peers()
def run_evaluation(
    config: RunConfig, adapter: Path | None = None, which: str = "test", stated: Collection[str] | None = None
) -> dict[str, Any]:
    """Measure a base, or a base with an adapter, on one split.

    Args:
        config: base, data and protocol.
        adapter: an adapter folder, a folder that full fine-tuning wrote, or a run's; None measures the base.
        which: "train", "val", "test" or the name of a further test set.
        stated: keys of the config that its user wrote, such as "model.image_size": they go before what the adapter was
            trained with. None takes those that are not at their default.

    Returns:
        The `metrics.json` that is written to `config.output`, or to a folder of its own below where results of
        something else stand there.
    """
    check_split(config, which)
    config, adapter = resolve_source(config, adapter)
    accelerator = make_accelerator(config.train)
    bare = replace(config, model=replace(config.model, method="none"))
    if not accelerator.is_main_process:
        logging.getLogger("uniadapter").setLevel(logging.ERROR)
        bare = _as_trained(replace(bare, data=resolve_data(bare.data)), adapter, stated)
        _take_part(bare, adapter, which, accelerator)
        return {}
    folder, digest = results_folder(bare, adapter, which, stated)
    with logged_to(folder, "evaluate.log"):
        config = _as_trained(replace(bare, data=resolve_data(bare.data)), adapter, stated)
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


def _as_trained(config: RunConfig, adapter: Path | None, stated: Collection[str] | None) -> RunConfig:
    """The config with what it leaves open as the adapter was trained."""
    return config if adapter is None else read_adapter_config(adapter).settings.applied(config, stated)


def _take_part(config: RunConfig, adapter: Path | None, which: str, accelerator: Accelerator) -> None:
    """What the other processes do in `run_evaluation`: the first one's work on their share, without a word."""
    prepared = prepare(config, adapter)
    prepared.model.to(device=accelerator.device)  # type: ignore[call-arg]
    prepared.distributed = True
    evaluate_split(prepared, load_split(config, which), config)


def write_predictions(split: RetrievalSplit, result: Result, folder: Path) -> None:
    """Write what was answered or written, a line a question or visual; of official VQA files also EvalAI's file."""
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
