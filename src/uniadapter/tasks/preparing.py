"""A base, loaded and made ready for a method."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.checkpoints.adapter_folder import load_adapter
from uniadapter.checkpoints.loading import check_config, load_model, load_tokenizer
from uniadapter.config import RunConfig
from uniadapter.config.fitting import BaseSizes, check_fits
from uniadapter.model.blip.inject import adopt
from uniadapter.model.precision import round_frozen
from uniadapter.model.sets import Counts, adapter_set, add_adapter, count_parameters

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
logger = logging.getLogger(__name__)


@dataclass
class Prepared:
    """A base, made ready for a method.

    Args:
        model: in evaluation mode, with what is to be trained trainable.
        tokenizer: the base's.
        adapter: name of the set that is trained; None for full fine-tuning and zero-shot.
        counts: of its parameters.
        answers: the list that questions are answered from, once it is known.
        together: every process measures, each a share.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    adapter: str | None
    counts: Counts
    answers: list[str] = field(default_factory=list)
    together: bool = False


def prepare(config: RunConfig, adapter_folder: Path | None = None) -> Prepared:
    """Load the base and put in what the method trains, or the adapter of a folder.

    The adapter's start is drawn from `train.seed`, whatever was drawn before.
    """
    settings = config.model
    model = load_model(settings.base, config.task)
    tokenizer = load_tokenizer(settings.base)
    for line in [*check_config(model), *check_fits(config, BaseSizes.of(model.config))]:
        logger.warning("%s: %s", settings.base, line)
    name: str | None = None
    answers: list[str] = []
    if adapter_folder is not None:
        answers = list(load_adapter(model, adapter_folder, trainable=True).settings.answers or ())
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
    precision = config.evaluate.precision
    trained = settings.method != "none"  # else it is measured only, whatever training would take
    if precision in DTYPES and settings.method != "full" and not (trained and config.train.precision != precision):
        round_frozen(model, DTYPES[precision])
    if settings.checkpoint_vision:  # the non-reentrant kind: the other loses the adapters' gradients over a frozen base
        model.vision_model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    if config.train.compile_vision:
        for layer in model.vision_model.encoder.layers:  # one by one: compiled once for all
            layer.compile()
    return Prepared(model, tokenizer, name, _counts(model, config), answers)


def _counts(model: PreTrainedModel, config: RunConfig) -> Counts:
    """What trains, with the temperature where that learns: the adapter's, or in full fine-tuning the task's own."""
    objective, method = config.objective, config.model.method
    learns = objective.train_temperature and objective.contrastive and config.task == "retrieval"
    if learns and method == "uniadapter":
        adapter_set(model).learn_temperature(objective.temperature)
    counts = count_parameters(model)
    if learns and method == "full":
        return replace(counts, trainable=counts.trainable + 1, total=counts.total + 1)
    return counts


def image_size(prepared: Prepared, config: RunConfig) -> int:
    """Side of the pictures in pixels."""
    return config.model.image_size or int(prepared.model.config.vision_config.image_size)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """A context for evaluation in this precision."""
    return torch.autocast(device.type, DTYPES.get(precision, torch.bfloat16), enabled=precision in DTYPES)
