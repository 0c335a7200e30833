"""The steps of a run: load data, train, save; `method_results` evaluates."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import save_file

from uniadapter.checkpoints.adapter_folder import save_adapter
from uniadapter.checkpoints.compatibility import training_warnings
from uniadapter.checkpoints.loading import quiet_transformers
from uniadapter.config import SPLITS, ConfigError, DataConfig, RunConfig
from uniadapter.data.large_splits import LargeSplit
from uniadapter.data.loaders import TrainLoader, train_loader
from uniadapter.data.splits import RetrievalSplit, TrainingSet
from uniadapter.data.training_sets import is_large, open_large
from uniadapter.embedded import resolve_embedded
from uniadapter.errors import CheckpointError, DataError, worker_failure
from uniadapter.evaluation.rerank import Progress
from uniadapter.files.writing import WriteError, atomic_file, atomic_folder, write_text
from uniadapter.files.yaml_files import write_yaml
from uniadapter.model.baselines import merge_lora
from uniadapter.model.sets import adapter_set
from uniadapter.model.settings import InferenceSettings
from uniadapter.runs.folders import METHOD_KEY, TRAINED
from uniadapter.tasks import Result, task_for
from uniadapter.tasks.preparing import Prepared, image_size, normalisation
from uniadapter.training.divergence import Diverged
from uniadapter.training.resume import run_fingerprint
from uniadapter.training.sharding import ShardedBase
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
    if is_large(path):
        raise ConfigError(
            f"data.{which} is {path[:120]}: shards and streams are for training, evaluation needs all of its pictures "
            "at once: name an annotation file or a folder"
        )
    split = task_for(config).load(path, config.data, which)
    most = config.data.max_train_visuals
    if which == "train" and 0 < most < len(split.visuals):
        split.drop_visuals(set(range(most, len(split.visuals))))
        logger.info(
            "data.max_train_visuals: the first %d %s, %d %s", most, split.noun, len(split.texts), split.text_noun
        )
    return split


def load_training(config: RunConfig) -> TrainingSet:
    """Read the training split, or open the shards or the stream that `data.train` names.

    Raises:
        ConfigError: the config has no training data, or a setting that they do not allow.
        DataError: they are missing or broken.
    """
    name = config.data.train or ""
    return open_large(name, config.data, config.task) if is_large(name) else load_split(config, "train")


def evaluate_split(
    prepared: Prepared, split: RetrievalSplit, config: RunConfig, progress: Progress | None = None
) -> Result:
    """Evaluate a model on a split; `progress` is called with the number of items done and of all."""
    result = task_for(config).evaluate(prepared, split, config, progress)
    return replace(result, headline=f"{result.headline}, over {split.coverage_text}") if split.lost else result


def train_split(
    prepared: Prepared,
    split: TrainingSet,
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
    made = run_fingerprint(config, split, prepared.model) if folder is not None else {}
    sharded = ShardedBase(prepared.model, accelerator.device) if config.train.fsdp else None
    if sharded is not None and validate is not None:
        validate = sharded.gathered()(validate)
    prepared.model.to(accelerator.device)
    loss = task_for(config).training_loss(prepared, split, config)
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
        loss, loader, config.train, folder, accelerator, on_progress, on_epoch, validate, made, started, on_first_write
    )
    if accelerator.is_main_process:
        for line in training_warnings(config, split.samples, trainer.steps):
            logger.warning("%s", line)
    _run(trainer, loader, split, folder, resume)
    loss.release()
    if sharded is not None:
        sharded.gather()
    if prepared.adapter is not None:  # for inference with this model, without saving and loading
        adapter_set(prepared.model, prepared.adapter).settings = _settings(prepared, config)
    if loader.skipped:
        logger.warning("left out while training: %s", ", ".join(f"{n} {kind}" for kind, n in loader.skipped.items()))
    return trainer


def _run(trainer: Trainer, loader: TrainLoader, split: TrainingSet, folder: Path | None, resume: bool) -> None:
    """Train, close the loader, and turn failures of samples and worker processes into errors of one line."""
    try:
        trainer.train(resume)
    except Diverged as error:
        if folder is not None and error.samples:
            raise error.written(folder, split) from error
        raise
    except (RuntimeError, OSError, CheckpointError) as error:
        if (lost := worker_failure(error)) is not None:
            raise DataError(lost, "lost worker") from None
        raise
    finally:
        loader.close()
        if isinstance(split, LargeSplit):
            split.close()


def _settings(prepared: Prepared, config: RunConfig) -> InferenceSettings:
    shown = vars(normalisation(prepared))
    return InferenceSettings.of_run(config, image_size(prepared, config), prepared.answers, **shown)


def save_result(prepared: Prepared, config: RunConfig, folder: Path) -> int:
    """Save the adapter, or the model that another method has trained as a folder of transformers files.

    What a method trained of a model, without what it left alone, is saved too, as one file; that is its size. LoRA's
    changes are merged into the model, which has none afterwards.

    Args:
        prepared: the model.
        config: of the run.
        folder: of the run; gets a subfolder `adapter` or `model`, and for parts of a model `trained.safetensors`.

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
    if config.model.method == "none":
        return 0
    size = 0
    (folder / TRAINED).unlink(missing_ok=True)  # another run's, which this one replaces
    if config.model.method != "full":
        own = {name: one.detach().contiguous() for name, one in prepared.model.named_parameters() if one.requires_grad}
        with atomic_file(folder / TRAINED) as temporary:
            save_file(own, temporary, {"format": "pt", "method": config.model.method})
        size = (folder / TRAINED).stat().st_size
        merge_lora(prepared.model)
    setattr(prepared.model.config, METHOD_KEY, config.model.method_name)  # so that a loaded model tells its method
    try:
        with atomic_folder(folder / MODEL) as temporary, quiet_transformers():
            prepared.model.save_pretrained(temporary, max_shard_size="1TB")  # no shards, which might be left over
            prepared.tokenizer.save_pretrained(temporary)
    except (WriteError, SafetensorError) as error:
        raise CheckpointError(str(error)) from error
    return size or (folder / MODEL / "model.safetensors").stat().st_size


def test_splits(config: RunConfig) -> dict[str, RetrievalSplit]:
    """The test split and further test sets, by name."""
    return {name: load_split(config, name) for name in ("test", *config.data.extra_tests)}


def write_config(config: RunConfig, file: Path) -> None:
    """Write a config as YAML, with absolute paths, for `train` and `evaluate` to read."""
    write_text(file, write_yaml(config.with_absolute_paths().to_dict()))
