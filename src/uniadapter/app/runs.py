"""The steps of a run: load data, train, save, evaluate."""

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
from uniadapter.embedded import resolve_embedded
from uniadapter.errors import CheckpointError, DataError, worker_failure
from uniadapter.evaluation.rerank import Progress
from uniadapter.files.writing import WriteError, atomic_folder, write_text
from uniadapter.files.yaml_files import write_yaml
from uniadapter.model.counting import ParameterCounts
from uniadapter.model.sets import adapter_set, disable_adapter
from uniadapter.model.settings import InferenceSettings
from uniadapter.tasks import Result, task_for
from uniadapter.tasks.preparing import Prepared, image_size, normalisation
from uniadapter.training.divergence import Diverged
from uniadapter.training.resume import run_fingerprint
from uniadapter.training.trainer import ProgressEvent, Trainer, make_accelerator

logger = logging.getLogger(__name__)

ADAPTER = "adapter"  # folders below a run's
MODEL = "model"


def resolve_data(config: DataConfig) -> DataConfig:
    """The config with `embedded:TASK/SPLIT` replaced by files, which are created if necessary."""

    def file(name: str | None) -> str | None:
        return name and resolve_embedded(name)

    extra = {key: resolve_embedded(value) for key, value in config.extra_tests.items()}
    return replace(config, train=file(config.train), val=file(config.val), test=file(config.test), extra_tests=extra)


def load_split(config: RunConfig, which: str) -> RetrievalSplit:
    """Read a split.

    Args:
        config: of the run.
        which: "train", "val", "test" or the name of a further test set.

    Raises:
        ConfigError: the config has no file for it.
        DataError: the file is missing or broken.
    """
    path = getattr(config.data, which) if which in SPLITS else config.data.extra_tests.get(which)
    if path is None:
        raise ConfigError(f"data.{which} is not set: name an annotation file in the config or with --data.{which}")
    return task_for(config).load(path, config.data, which)


def evaluate_split(
    prepared: Prepared, split: RetrievalSplit, config: RunConfig, progress: Progress | None = None
) -> Result:
    """Evaluate a model on a split; `progress` is called with the number of items done and of all."""
    result = task_for(config).evaluate(prepared, split, config, progress)
    return replace(result, headline=f"{result.headline}, over {split.coverage_text}") if split.lost else result


def train_split(
    prepared: Prepared,
    split: RetrievalSplit,
    config: RunConfig,
    folder: Path | None = None,
    resume: bool = False,
    on_progress: Callable[[ProgressEvent], None] | None = None,
    on_epoch: Callable[[int], None] | None = None,
    accelerator: Accelerator | None = None,
    validate: Callable[[int], float] | None = None,
    started: float | None = None,
    on_first_write: Callable[[], None] | None = None,
) -> Trainer:
    """Train a prepared model on a split.

    Args:
        prepared: the model.
        split: the training data.
        config: of the run.
        folder: for checkpoints; None writes none.
        resume: continue from the checkpoint in `folder`.
        on_progress: called with a `ProgressEvent` every `train.log_every` steps.
        on_epoch: called after each epoch and after the last step, with the number of epochs done or begun.
        accelerator: to use; None makes one by the config.
        validate: evaluates after an epoch, given its index, and returns the main metric, 0 to 100.
        started: `time.perf_counter()` at the start of the run.
        on_first_write: called on the first process before anything is written into the folder.

    Returns:
        The trainer, after training.

    Raises:
        Diverged: a loss is NaN or infinite; the samples of the step are in the folder's `diverged.json`.
        DataError: a worker process that loads data was killed.
    """
    accelerator = accelerator or make_accelerator(config.train)
    prepared.model.to(accelerator.device)
    made = run_fingerprint(config, split, prepared.model) if folder is not None else {}
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
        task, loader, config.train, folder, accelerator, on_progress, on_epoch, validate, made, started, on_first_write
    )
    if accelerator.is_main_process:
        for line in training_warnings(config, len(split.texts), trainer.steps):
            logger.warning("%s", line)
    try:
        trainer.train(resume)
    except Diverged as error:
        if folder is not None and error.samples:
            raise error.with_file(error.write(folder, split)) from error
        raise
    except (RuntimeError, OSError, CheckpointError) as error:
        if (lost := worker_failure(error)) is not None:
            raise DataError(lost, "lost worker") from None
        raise
    finally:
        loader.close()
    task.release()
    if prepared.adapter is not None:  # for inference with this model, without saving and loading
        adapter_set(prepared.model, prepared.adapter).settings = _settings(prepared, config)
    if loader.skipped:
        logger.warning("left out while training: %s", ", ".join(f"{n} {kind}" for kind, n in loader.skipped.items()))
    return trainer


def _settings(prepared: Prepared, config: RunConfig) -> InferenceSettings:
    shown = vars(normalisation(prepared))
    return InferenceSettings.of_run(config, image_size(prepared, config), prepared.answers, **shown)


def save_result(prepared: Prepared, config: RunConfig, folder: Path) -> int:
    """Save the adapter, or the fully fine-tuned model as a folder of transformers files.

    Args:
        prepared: the model.
        config: of the run.
        folder: of the run; gets a subfolder `adapter` or `model`.

    Returns:
        The size of the weights in bytes; 0 if nothing was trained.

    Raises:
        CheckpointError: the folder cannot be written.
    """
    if prepared.adapter is not None:
        settings = _settings(prepared, config)
        # Version 0.1.0 reads these two from `extra`.
        extra: dict[str, Any] = {"frames": settings.frames}
        if prepared.answers:
            extra["answers"] = prepared.answers
        save_adapter(
            prepared.model, folder / ADAPTER, prepared.adapter, config.model.base, config.task, extra, settings
        )
        return (folder / ADAPTER / "adapter_model.safetensors").stat().st_size
    if config.model.method != "full":
        return 0
    setattr(prepared.model.config, METHOD_KEY, config.model.method_name)  # so that a loaded model tells its method
    try:
        with atomic_folder(folder / MODEL) as temporary, quiet_transformers():
            prepared.model.save_pretrained(temporary, max_shard_size="1TB")  # no shards, which might be left over
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
    """
    counts = prepared.counts if prepared.counts.trainable and method != "zero_shot" else None
    main, *others = tests
    result = evaluate_split(prepared, tests[main], config, progress)
    # Transductive results must be marked as such.
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
    """Evaluate the base; an adapter is disabled meanwhile.

    A fully fine-tuned base is named as such in the results, with all weights counted as trained.
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
    """The test split and further test sets, by name."""
    return {name: load_split(config, name) for name in ("test", *config.data.extra_tests)}


def write_config(config: RunConfig, file: Path) -> None:
    """Write a config as YAML, with absolute paths, for `train` and `evaluate` to read."""
    write_text(file, write_yaml(config.with_absolute_paths().to_dict()))
