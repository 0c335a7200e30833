"""A base, loaded and made ready for a method."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from uniadapter.checkpoints.adapters import add_adapter, load_adapter
from uniadapter.checkpoints.compatibility import BaseSizes, check_fits
from uniadapter.checkpoints.loading import load_model, load_tokenizer
from uniadapter.config import RunConfig
from uniadapter.data.media.images import Normalisation
from uniadapter.model.backbone import adopt, backbone
from uniadapter.model.counting import ParameterCounts, count_parameters
from uniadapter.model.encoding import contrast_of
from uniadapter.model.families import families
from uniadapter.model.precision import round_frozen
from uniadapter.model.sets import active_settings, adapter_set
from uniadapter.model.settings import first_given

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
        distributed: every process measures, each a share.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    adapter: str | None
    counts: ParameterCounts
    answers: list[str] = field(default_factory=list)
    distributed: bool = False


def prepare(config: RunConfig, adapter_folder: Path | None = None) -> Prepared:
    """Load the base and put in what the method trains, or the adapter of a folder.

    The adapter's start is drawn from `train.seed`, whatever was drawn before.
    """
    settings = config.model
    model = load_model(settings.base, config.task)
    tokenizer = load_tokenizer(settings.base)
    seen = backbone(model)
    sizes = BaseSizes(seen.layout.patch_size, seen.layout.positions, families()[seen.layout.family])
    for line in [*seen.oddities(), *check_fits(config, sizes)]:
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
    if settings.checkpoint_vision:
        seen.checkpoint_vision()
    if config.train.compile_vision:
        for layer in seen.vision_layers():  # one by one: compiled once for all
            layer.compile()
    return Prepared(model, tokenizer, name, _counts(model, config), answers)


def _counts(model: PreTrainedModel, config: RunConfig) -> ParameterCounts:
    """What trains, with the temperature where that learns: the adapter's, or in full fine-tuning the task's own."""
    objective, method = config.objective, config.model.method
    learns = objective.train_temperature and objective.contrastive and config.task == "retrieval"
    learns = learns and contrast_of(model, objective.loss) == "momentum"
    if learns and method == "uniadapter":
        adapter_set(model).learn_temperature(objective.temperature)
    counts = count_parameters(model)
    if learns and method == "full":
        return replace(counts, trainable=counts.trainable + 1, total=counts.total + 1)
    return counts


def image_size(prepared: Prepared, config: RunConfig) -> int:
    """Side of the pictures in pixels."""
    return config.model.image_size or backbone(prepared.model).layout.image_size


def normalisation(prepared: Prepared) -> Normalisation:
    """How pictures are shown: as the adapter in use was trained, or as the base wants to see them."""
    stated, layout = active_settings(prepared.model), backbone(prepared.model).layout
    return Normalisation(
        first_given(stated.mean, layout.mean),
        first_given(stated.std, layout.std),
        first_given(stated.resampling, layout.resampling),
    )


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """A context for evaluation in this precision."""
    return torch.autocast(device.type, DTYPES.get(precision, torch.bfloat16), enabled=precision in DTYPES)
