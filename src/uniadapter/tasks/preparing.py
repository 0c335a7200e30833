"""Load a base and prepare it for a method: adapters, those that train the base itself, or zero-shot."""

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
from uniadapter.model.baselines import prepare_baseline
from uniadapter.model.counting import ParameterCounts, count_parameters
from uniadapter.model.dispatch import backbone
from uniadapter.model.encoding import contrast_of
from uniadapter.model.families import families
from uniadapter.model.precision import round_frozen
from uniadapter.model.sets import active_settings, adapter_set
from uniadapter.model.settings import first_given

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
logger = logging.getLogger(__name__)


@dataclass
class Prepared:
    """A model prepared for a method.

    Args:
        model: in evaluation mode; the parameters to train have `requires_grad`.
        tokenizer: the base's.
        adapter: name of the adapter set that is trained; None for other methods and zero-shot.
        counts: of its parameters.
        answers: the list that answers are chosen from; empty until it is known.
        distributed: whether several processes evaluate together, each a share of the visuals.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    adapter: str | None
    counts: ParameterCounts
    answers: list[str] = field(default_factory=list)
    distributed: bool = False


def prepare(config: RunConfig, adapter_folder: Path | None = None) -> Prepared:
    """Load the base of a config, and add a new adapter or load one, as the method requires.

    A new adapter is initialised with `train.seed`, independently of the state of the random number generator.

    Args:
        config: of the run.
        adapter_folder: an adapter to load; None takes the config's method.

    Raises:
        ConfigError: base and config do not fit.
        CheckpointError: base or adapter cannot be loaded.
    """
    settings = config.model
    model = load_model(settings.base, config.task)
    tokenizer = load_tokenizer(settings.base)
    seen = backbone(model)
    sizes = BaseSizes(seen.layout.patch_size, seen.layout.positions, families()[seen.layout.family])
    for line in [*seen.config_warnings(), *check_fits(config, sizes)]:
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
        prepare_baseline(model, settings, config.train.seed)
    precision = config.evaluate.precision
    trained = settings.method != "none"  # else the model is only evaluated, and `train.precision` does not matter
    frozen = settings.method in ("uniadapter", "none")
    if precision in DTYPES and frozen and not (trained and config.train.precision != precision):
        round_frozen(model, DTYPES[precision])
    if settings.checkpoint_vision:
        seen.checkpoint_vision()
    if config.train.compile_vision:
        for layer in seen.vision_layers():  # layer by layer: the code is compiled once for all of them
            layer.compile()
    return Prepared(model, tokenizer, name, _counts(model, config), answers)


def _counts(model: PreTrainedModel, config: RunConfig) -> ParameterCounts:
    """Counts of parameters, with a learned temperature: the adapter's, or without adapters the loss's own."""
    objective, method = config.objective, config.model.method
    learns = objective.train_temperature and objective.contrastive and config.task == "retrieval"
    learns = learns and contrast_of(model, objective.loss) == "momentum"
    if learns and method == "uniadapter":
        adapter_set(model).learn_temperature(objective.temperature)
    counts = count_parameters(model)
    if learns and method not in ("uniadapter", "none"):
        return replace(counts, trainable=counts.trainable + 1, total=counts.total + 1)
    return counts


def image_size(prepared: Prepared, config: RunConfig) -> int:
    """Side of the pictures in pixels."""
    return config.model.image_size or backbone(prepared.model).layout.image_size


def normalisation(prepared: Prepared) -> Normalisation:
    """Normalisation and resizing of pictures: as the active adapter was trained with, else the base's."""
    stated, layout = active_settings(prepared.model), backbone(prepared.model).layout
    return Normalisation(
        first_given(stated.mean, layout.mean),
        first_given(stated.std, layout.std),
        first_given(stated.resampling, layout.resampling),
        first_given(stated.crop, layout.crop),
    )


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """A context manager for evaluation in a precision: "bf16", "fp16", or "no" for float32."""
    return torch.autocast(device.type, DTYPES.get(precision, torch.bfloat16), enabled=precision in DTYPES)
