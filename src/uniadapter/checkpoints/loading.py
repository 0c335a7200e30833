"""Load a base model and its tokenizer: from the hub, a folder, one of BLIP's `.pth` files, or this package."""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from uniadapter.checkpoints.bases import EMBEDDED, locate_base
from uniadapter.checkpoints.loader import loader_of
from uniadapter.checkpoints.weights import check_finite, check_shapes, expected_shapes, open_weights
from uniadapter.errors import CheckpointError, ConfigError
from uniadapter.files.messages import first_line
from uniadapter.model import temporal

logger = logging.getLogger(__name__)

TASKS = ("retrieval", "vqa", "caption")
_SYNONYMS = {
    "itm": "retrieval", "itc": "retrieval", "matching": "retrieval", "search": "retrieval",
    "image-text-retrieval": "retrieval", "image-text-matching": "retrieval", "text-to-image": "retrieval",
    "qa": "vqa", "question-answering": "vqa", "visual-question-answering": "vqa", "videoqa": "vqa", "ask": "vqa",
    "captioning": "caption", "captions": "caption", "image-captioning": "caption", "image-to-text": "caption",
    "generation": "caption", "conditional-generation": "caption",
}  # fmt: skip
_DTYPES = {
    "float32": torch.float32, "fp32": torch.float32, "bfloat16": torch.bfloat16, "bf16": torch.bfloat16,
    "float16": torch.float16, "fp16": torch.float16,
}  # fmt: skip


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within the block transformers shows no progress bars and no table of unexpected keys."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


@contextmanager
def errors_about(path: Path | str) -> Iterator[None]:
    """Within the block, messages of `CheckpointError` and `ConfigError` get the file's name as a prefix."""
    try:
        yield
    except (CheckpointError, ConfigError) as error:
        if str(error).startswith(str(path)):
            raise
        raise CheckpointError(f"{path}: {error}") from error


def task_name(task: str) -> str:
    """A task's name, checked.

    Raises:
        ConfigError: there is no such task; suggests one.
    """
    if isinstance(task, str) and task in TASKS:
        return task
    said = str(task).lower().replace("_", "-").replace(" ", "-")
    known = {**{name: name for name in TASKS}, **_SYNONYMS}
    near = difflib.get_close_matches(said, known, 1)
    meant = f": did you mean {known[near[0]]!r}?" if near else ""
    have = ", ".join(repr(name) for name in TASKS)
    raise ConfigError(f"there is no task {str(task)[:60]!r}, only {have}{meant}")


def load_model(
    base: str | Path = EMBEDDED, task: str = "retrieval", dtype: torch.dtype | str = torch.float32
) -> PreTrainedModel:
    """Load a task model of any family.

    Args:
        base: hub id, local folder, `.pth` file of BLIP, or "embedded" for the small BLIP in this package.
        task: "retrieval", "vqa" or "caption"; selects the class in transformers.
        dtype: of the weights: float32, or bfloat16 or float16 for half the memory.

    Returns:
        The model, without adapters, in evaluation mode.

    Raises:
        CheckpointError: the base cannot be read, or lacks weights that this task's class needs; names the file.
        ConfigError: there is no such task or dtype.

    Example:
        >>> type(ua.load_model("embedded", "caption")).__name__
        'BlipForConditionalGeneration'
    """
    task, dtype, base = task_name(task), dtype_of(dtype), str(base)
    path = locate_base(base)
    with errors_about(base):
        loader = loader_of(path)
        cls = loader.class_of(task)
        if path.is_dir():
            for line in loader.warnings(path):
                logger.warning("%s", line)
            config, weights = loader.read_config(path), open_weights(path)
            shapes, load = weights.shapes, weights.load
        else:
            config, state = loader.read_original(path, base)
            shapes, load = {name: tuple(tensor.shape) for name, tensor in state.items()}, lambda: state
        fresh = check_shapes(base, cls, config, shapes, loader.optional_modules, loader.tied(config))
        model = build_model(base, cls, config, state := load(), dtype)
        if temporal.OWN in state:
            temporal.own_embedding(model, state[temporal.OWN])
    if fresh:
        logger.warning("%s has no %s: starting from a random one, to be trained", base, ", ".join(fresh))
    loader.finish(model, path, base)
    return model


def dtype_of(dtype: torch.dtype | str) -> torch.dtype:
    """A dtype, given as itself or by name.

    Raises:
        ConfigError: it is no floating-point dtype that weights can have.
    """
    found = _DTYPES.get(dtype.removeprefix("torch.")) if isinstance(dtype, str) else dtype
    if found not in (*_DTYPES.values(), torch.float64):
        raise ConfigError(f"dtype is {str(dtype)[:40]!r}: weights are float32, bfloat16 or float16")
    return found


def build_model(
    base: str, cls: type[PreTrainedModel], config: PreTrainedConfig, state: Mapping[str, Tensor], dtype: torch.dtype
) -> PreTrainedModel:
    """Build a model from weights whose shapes have been checked, in evaluation mode; buffers keep their dtype.

    Args:
        base: name of the base, for errors and as `config.name_or_path`.
        cls: class of transformers.
        config: of the model.
        state: weights by name; those that the model lacks are ignored.
        dtype: of the weights.

    Raises:
        CheckpointError: the model could not be built, or a weight is NaN or infinite.
    """
    try:
        with quiet_transformers():
            known = expected_shapes(cls, config)
            wanted = {name: tensor for name, tensor in state.items() if name in known}
            model = cls.from_pretrained(None, config=config, state_dict=wanted, dtype=dtype)
    except Exception as error:  # whatever the checks have not caught
        raise CheckpointError(f"{base}: no {cls.__name__} could be made of it ({first_line(error)})") from error
    check_finite(base, model)
    model.config.name_or_path = base
    return model.eval()


def load_tokenizer(base: str | Path = EMBEDDED) -> PreTrainedTokenizerBase:
    """Load a base's tokenizer; for BLIP, BERT's with [DEC] and [ENC] added.

    Args:
        base: as for `load_model`.

    Raises:
        CheckpointError: there is none, it is broken, or it is another model's: its ids do not fit the embeddings, or
            ordinary words become [UNK]. Says which file to put where; a `vocab.txt` works offline.

    Example:
        >>> ua.load_tokenizer("embedded").tokenize("a red car")
        ['a', 'red', 'car']
    """
    base = str(base)
    with errors_about(base), quiet_transformers():
        path = locate_base(base)
        return loader_of(path).tokenizer(path, base)
