"""A run from its config: load, adapt, train, measure, and leave a folder that says what happened."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from accelerate import Accelerator
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.adapters import Counts, adapter_set, add_adapter, count_parameters, disable_adapter
from uniadapter.checkpoint import load_adapter, save_adapter, written_atomically
from uniadapter.config import ConfigError, DataConfig, RunConfig
from uniadapter.data.loaders import train_loader, visual_loader
from uniadapter.data.retrieval import RetrievalSplit, load_retrieval
from uniadapter.embedded import prepare_scenes
from uniadapter.evaluation.rerank import Progress
from uniadapter.evaluation.retrieval import RetrievalResult, evaluate_retrieval
from uniadapter.inject import adopt
from uniadapter.loading import check_config, load_model, load_tokenizer
from uniadapter.tasks.retrieval import RetrievalTask
from uniadapter.trainer import Tick, Trainer, make_accelerator

logger = logging.getLogger(__name__)

ADAPTER = "adapter"  # folders below a run's
MODEL = "model"
SCENES = "embedded:"


@dataclass
class Prepared:
    """A base, made ready for a method.

    Args:
        model: in evaluation mode, with what is to be trained trainable.
        tokenizer: the base's.
        adapter: name of the set that is trained; None for full fine-tuning and zero-shot.
        counts: of its parameters.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    adapter: str | None
    counts: Counts


def cache_folder() -> Path:
    """Where rendered data goes: $UNIADAPTER_CACHE, or the user's cache."""
    chosen = os.environ.get("UNIADAPTER_CACHE")
    if chosen:
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "uniadapter"


def resolve_data(config: DataConfig) -> DataConfig:
    """The same with `embedded:NAME` splits rendered and replaced by their files."""
    named = [config.train, config.val, config.test, *config.extra_tests.values()]
    if not any(name and name.startswith(SCENES) for name in named):
        return config
    root = prepare_scenes(cache_folder())

    def path(name: str | None) -> str | None:
        if name is None or not name.startswith(SCENES):
            return name
        file = root / f"{name.removeprefix(SCENES)}.json"
        if not file.is_file():
            have = ", ".join(sorted(p.stem for p in root.glob("*.json")))
            raise ConfigError(f"data: there is no embedded split {name.removeprefix(SCENES)!r}; there is {have}")
        return str(file)

    extra = {key: path(value) or value for key, value in config.extra_tests.items()}
    return replace(
        config, train=path(config.train), val=path(config.val), test=path(config.test), extra_tests=extra,
        root=str(root / "images"),
    )  # fmt: skip


def prepare(config: RunConfig, adapter_folder: Path | None = None) -> Prepared:
    """Load the base and put in what the method trains, or the adapter of a folder.

    The adapter's start is drawn from `train.seed`, whatever was drawn before.
    """
    settings = config.model
    model = load_model(settings.base, config.task)
    tokenizer = load_tokenizer(settings.base)
    for line in check_config(model):
        logger.warning("%s: %s", settings.base, line)
    name: str | None = None
    if adapter_folder is not None:
        load_adapter(model, adapter_folder, trainable=True)
        name = "default"
    elif settings.method == "uniadapter":
        with torch.random.fork_rng():
            torch.manual_seed(config.train.seed)
            add_adapter(model, settings.adapter)
        name = "default"
        for line in adapter_set(model).plan():
            logger.info("%s", line)
    else:
        adopt(model)
        model.requires_grad_(settings.method == "full")
    if settings.checkpoint_vision:  # the non-reentrant kind: the other loses the adapters' gradients over a frozen base
        model.vision_model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if config.train.compile_vision:
        model.vision_model.compile()
    return Prepared(model, tokenizer, name, count_parameters(model))


def image_size(prepared: Prepared, config: RunConfig) -> int:
    """Side of the pictures in pixels."""
    return config.model.image_size or int(prepared.model.config.vision_config.image_size)


def load_split(config: DataConfig, which: str) -> RetrievalSplit:
    """A split by its field ("train", "val", "test") or by the name of a further test set."""
    path = config.extra_tests.get(which) or getattr(config, which, None)
    if path is None:
        raise ConfigError(f"data.{which} is not set: name an annotation file in the config or with --data.{which}")
    return load_retrieval(path, config, which)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """A context for evaluation in this precision."""
    kinds = {"bf16": torch.bfloat16, "fp16": torch.float16}
    return torch.autocast(device.type, kinds.get(precision, torch.bfloat16), enabled=precision in kinds)


def evaluate_split(
    prepared: Prepared, split: RetrievalSplit, config: RunConfig, progress: Progress | None = None
) -> RetrievalResult:
    """Measure the model as it stands on a split."""
    loader = visual_loader(split, config.data, size=image_size(prepared, config), batch_size=config.evaluate.batch_size)
    precision = autocast(config.evaluate.precision, prepared.model.device)
    return evaluate_retrieval(
        prepared.model, prepared.tokenizer, split, loader, config.model, config.evaluate, precision, progress
    )


def train_split(
    prepared: Prepared,
    split: RetrievalSplit,
    config: RunConfig,
    folder: Path | None = None,
    resume: bool = False,
    on_tick: Callable[[Tick], None] | None = None,
    on_epoch: Callable[[int], None] | None = None,
    accelerator: Accelerator | None = None,
) -> Trainer:
    """Train what `prepare` made trainable on a split."""
    accelerator = accelerator or make_accelerator(config.train)
    torch.manual_seed(config.train.seed + accelerator.process_index)  # dropout; all else is drawn by sample
    prepared.model.to(accelerator.device)
    task = RetrievalTask(
        prepared.model, prepared.tokenizer, config.model, config.objective, prepared.adapter, config.train.seed
    )
    loader = train_loader(
        split,
        config.data,
        size=image_size(prepared, config),
        batch_size=config.train.batch_size,
        seed=config.train.seed,
        rank=accelerator.process_index,
        world=accelerator.num_processes,
        pin_memory=accelerator.device.type == "cuda",
    )
    trainer = Trainer(task, loader, config.train, folder, accelerator, on_tick, on_epoch)
    try:
        trainer.train(resume)
    finally:
        loader.close()
    if loader.skipped:
        logger.warning("left out while training: %s", ", ".join(f"{n} {kind}" for kind, n in loader.skipped.items()))
    return trainer


def save_result(prepared: Prepared, config: RunConfig, folder: Path, extra: dict[str, Any] | None = None) -> int:
    """Save what was trained and return its size in bytes: an adapter folder, or a folder of transformers files."""
    if prepared.adapter is not None:
        save_adapter(prepared.model, folder / ADAPTER, prepared.adapter, config.model.base, config.task, extra)
        return (folder / ADAPTER / "adapter_model.safetensors").stat().st_size
    if config.model.method != "full":
        return 0
    with written_atomically(folder / MODEL) as temporary:
        prepared.model.save_pretrained(temporary)
        prepared.tokenizer.save_pretrained(temporary)
    return sum(file.stat().st_size for file in (folder / MODEL).glob("*.safetensors"))


def metrics_row(
    method: str,
    counts: Counts | None,
    result: RetrievalResult,
    size: int,
    seconds: float,
    visual: Literal["image", "video"] = "image",
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
        f"text_to_{visual}": result.text_to_visual,
        f"{visual}_to_text": result.visual_to_text,
        **more,
    }


@dataclass
class Finished:
    """What a method reached.

    Args:
        row: of `metrics.json`.
        result: on the test split.
        extra: on the further test sets, by name, with their rows.
        history: losses over steps.
    """

    row: dict[str, Any]
    result: RetrievalResult
    extra: dict[str, tuple[dict[str, Any], RetrievalResult]]
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
) -> Finished:
    """Evaluate on the test split and on the further test sets; the first of `tests` is the main one."""
    counts = prepared.counts if prepared.counts.trainable and method != "zero_shot" else None
    main, *others = tests
    result = evaluate_split(prepared, tests[main], config, progress)
    # Transductive figures must never be taken for the others.
    more = {"setting": "dual softmax (transductive)"} if config.evaluate.dual_softmax else {}
    seconds = time.perf_counter() - started
    row = metrics_row(method, counts, result, size, seconds, tests[main].visual_kind, **more)
    extra = {}
    for name in others:
        found = evaluate_split(prepared, tests[name], config, progress)
        more["test_set"] = name
        extra[name] = (metrics_row(method, counts, found, size, seconds, tests[name].visual_kind, **more), found)
    return Finished(row, result, extra, history or [])


def zero_shot(
    prepared: Prepared, config: RunConfig, tests: dict[str, RetrievalSplit], progress: Progress | None = None
) -> Finished:
    """Measure the bare base: the adapter, if there is one, is disabled for the time."""
    started = time.perf_counter()
    with disable_adapter(prepared.model):
        return measure(prepared, config, tests, "zero_shot", started, progress=progress)


def test_splits(config: DataConfig) -> dict[str, RetrievalSplit]:
    """The test split and the further test sets, by name."""
    return {name: load_split(config, name) for name in ("test", *config.extra_tests)}


def write_config(config: RunConfig, file: Path) -> None:
    """Write a config as YAML that `train` reads back."""
    values = asdict(config)
    values["data"]["scale"] = list(config.data.scale)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(yaml.safe_dump(values, sort_keys=False))


def outcome(right: Tensor) -> Tensor:
    """Whether each query's right item came first, from its rank: what the paired bootstrap compares."""
    return (right == 1).float()
