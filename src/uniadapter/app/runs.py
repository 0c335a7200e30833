"""A run from its config: load, adapt, train, measure, and leave a folder that says what happened."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError

from uniadapter.app.evaluation_folder import METHOD_KEY
from uniadapter.checkpoints.adapter_folder import save_adapter
from uniadapter.checkpoints.compatibility import training_warnings
from uniadapter.checkpoints.loading import quiet_transformers
from uniadapter.config import SPLITS, ConfigError, DataConfig, RunConfig
from uniadapter.data.loaders import train_loader
from uniadapter.data.splits import RetrievalSplit
from uniadapter.embedded import resolve
from uniadapter.errors import CheckpointError, DataError, lost_worker
from uniadapter.evaluation.rerank import Progress
from uniadapter.files.schema import write_yaml
from uniadapter.files.writing import WriteError, write_text, written_into
from uniadapter.model.counting import ParameterCounts
from uniadapter.model.sets import adapter_set, disable_adapter
from uniadapter.model.settings import InferenceSettings
from uniadapter.tasks import Result, task_for
from uniadapter.tasks.preparing import Prepared, image_size, normalisation
from uniadapter.training.divergence import Diverged
from uniadapter.training.resuming import made_with
from uniadapter.training.trainer import ProgressEvent, Trainer, make_accelerator

logger = logging.getLogger(__name__)

ADAPTER = "adapter"  # folders below a run's
MODEL = "model"


def resolve_data(config: DataConfig) -> DataConfig:
    """The same with `embedded:TASK/SPLIT` made ready and replaced by its file."""

    def file(name: str | None) -> str | None:
        return name and resolve(name)

    extra = {key: resolve(value) for key, value in config.extra_tests.items()}
    return replace(config, train=file(config.train), val=file(config.val), test=file(config.test), extra_tests=extra)


def load_split(config: RunConfig, which: str) -> RetrievalSplit:
    """A split by its field ("train", "val", "test") or by the name of a further test set."""
    path = getattr(config.data, which) if which in SPLITS else config.data.extra_tests.get(which)
    if path is None:
        raise ConfigError(f"data.{which} is not set: name an annotation file in the config or with --data.{which}")
    return task_for(config).load(path, config.data, which)


def evaluate_split(
    prepared: Prepared, split: RetrievalSplit, config: RunConfig, progress: Progress | None = None
) -> Result:
    """Measure the model as it stands on a split."""
    result = task_for(config).evaluate(prepared, split, config, progress)
    return replace(result, headline=f"{result.headline}, over {split.over}") if split.lost else result


def train_split(
    prepared: Prepared,
    split: RetrievalSplit,
    config: RunConfig,
    folder: Path | None = None,
    resume: bool = False,
    on_tick: Callable[[ProgressEvent], None] | None = None,
    on_epoch: Callable[[int], None] | None = None,
    accelerator: Accelerator | None = None,
    validate: Callable[[int], float] | None = None,
    started: float | None = None,
    on_first_write: Callable[[], None] | None = None,
) -> Trainer:
    """Train what `prepare` made trainable on a split; see `Trainer`.

    Raises:
        Diverged: the samples of the step are in the folder's `diverged.json`.
    """
    accelerator = accelerator or make_accelerator(config.train)
    prepared.model.to(accelerator.device)
    made = made_with(config, split, prepared.model) if folder is not None else {}
    task = task_for(config).training_loss(prepared, split, config)
    loader = train_loader(
        split,
        config.data,
        size=image_size(prepared, config),
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        pin_memory=accelerator.device.type == "cuda",
        normalisation=normalisation(prepared),
    )
    trainer = Trainer(
        task, loader, config.train, folder, accelerator, on_tick, on_epoch, validate, made, started, on_first_write
    )
    if accelerator.is_main_process:
        for line in training_warnings(config, len(split.texts), trainer.steps):
            logger.warning("%s", line)
    try:
        trainer.train(resume)
    except Diverged as error:
        if folder is not None and error.seen:
            raise error.with_file(error.write(folder, split)) from error
        raise
    except (RuntimeError, OSError, CheckpointError) as error:
        if (lost := lost_worker(error)) is not None:
            raise DataError(lost, "lost worker") from None
        raise
    finally:
        loader.close()
    task.release()
    if prepared.adapter is not None:  # asked right away, it is asked as it was trained
        adapter_set(prepared.model, prepared.adapter).settings = _settings(prepared, config)
    if loader.skipped:
        logger.warning("left out while training: %s", ", ".join(f"{n} {kind}" for kind, n in loader.skipped.items()))
    return trainer


def _settings(prepared: Prepared, config: RunConfig) -> InferenceSettings:
    shown = vars(normalisation(prepared))
    return InferenceSettings.of_run(config, image_size(prepared, config), prepared.answers, **shown)


def save_result(prepared: Prepared, config: RunConfig, folder: Path) -> int:
    """Save what was trained and return its size in bytes: an adapter folder, or a folder of transformers files."""
    if prepared.adapter is not None:
        settings = _settings(prepared, config)
        # Where version 0.1.0 looks for these two.
        extra: dict[str, Any] = {"frames": settings.frames}
        if prepared.answers:
            extra["answers"] = prepared.answers
        save_adapter(
            prepared.model, folder / ADAPTER, prepared.adapter, config.model.base, config.task, extra, settings
        )
        return (folder / ADAPTER / "adapter_model.safetensors").stat().st_size
    if config.model.method != "full":
        return 0
    setattr(prepared.model.config, METHOD_KEY, config.model.method_name)  # what is loaded from there says what it is
    try:
        with written_into(folder / MODEL) as temporary, quiet_transformers():
            prepared.model.save_pretrained(temporary, max_shard_size="1TB")  # one file, so that no old part stays
            prepared.tokenizer.save_pretrained(temporary)
    except (WriteError, SafetensorError) as error:
        raise CheckpointError(str(error)) from error
    return (folder / MODEL / "model.safetensors").stat().st_size


def metrics_row(
    method: str,
    counts: ParameterCounts | None,
    result: Result,
    size: int,
    seconds: float,
    **more: Any,
) -> dict[str, Any]:
    """One row of `metrics.json`; counts are zero for a method that trains nothing."""
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
    """What a method reached.

    Args:
        row: of `metrics.json`.
        result: on the test split.
        extra: on the further test sets, by name, with their rows.
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
) -> MethodResult:
    """Evaluate on the test split and on the further test sets; the first of `tests` is the main one."""
    counts = prepared.counts if prepared.counts.trainable and method != "zero_shot" else None
    main, *others = tests
    result = evaluate_split(prepared, tests[main], config, progress)
    # Transductive figures must never be taken for the others.
    variants = ["dual softmax (transductive)"] if config.evaluate.dual_softmax else []
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
    """Measure the bare base: the adapter, if there is one, is disabled for the time.

    A base that full fine-tuning left is called what it is, with all its weights counted as trained.
    """
    started = time.perf_counter()
    method: str = getattr(prepared.model.config, METHOD_KEY, "zero_shot")
    size = 0
    if method != "zero_shot":
        prepared = replace(prepared, counts=replace(prepared.counts, trainable=prepared.counts.total, adapter=0))
        size = sum(file.stat().st_size for file in Path(str(prepared.model.config.name_or_path)).glob("*.safetensors"))
    with disable_adapter(prepared.model):
        return measure(prepared, config, tests, method, started, size, progress=progress)


def test_splits(config: RunConfig) -> dict[str, RetrievalSplit]:
    """The test split and the further test sets, by name."""
    return {name: load_split(config, name) for name in ("test", *config.data.extra_tests)}


def write_config(config: RunConfig, file: Path) -> None:
    """Write a config as YAML that `train` and `evaluate` read back, in any working directory."""
    write_text(file, write_yaml(config.located().to_dict()))
