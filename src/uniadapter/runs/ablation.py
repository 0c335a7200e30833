"""Configs without a part of UniAdapter, at equal trainable parameters, so that a comparison is about the part alone."""

from __future__ import annotations

from dataclasses import replace

import torch

from uniadapter.checkpoints.loading import load_model
from uniadapter.config import AdapterConfig, ConfigError, RunConfig
from uniadapter.model.baselines import prepare_baseline
from uniadapter.model.dispatch import backbone

WITHOUT_FUSED_PART = "without the fused part"  # the `setting` of its rows in `metrics.json`
FUSED_PART_ALONE = "the fused part alone"


def has_fused_part(config: RunConfig) -> bool:
    """Whether a config trains adapters between the modalities: cross adapters or key/value adapters."""
    adapter = config.model.adapter
    return config.model.method == "uniadapter" and (adapter.cross or adapter.key_value > 0)


def without_fused_part(config: RunConfig) -> RunConfig:
    """The config without cross and key/value adapters; a wider bottleneck makes up for their parameters.

    Everything else is the same: the loss, reranking, frame-aware attention (which has no parameters) and the temporal
    embedding.

    Args:
        config: of a run with `model.method: uniadapter`.

    Raises:
        ConfigError: the config has neither, or no adapter beside them.
    """
    _require_fused_part(config)
    return with_equal_parameters(config, replace(_adapter(config), cross=False, key_value=0))


def fused_part_alone(config: RunConfig) -> RunConfig:
    """The config with cross and key/value adapters only; a wider bottleneck makes up for the others' parameters.

    Raises:
        ConfigError: the config has no cross adapters, which alone of the two have a bottleneck to widen.
    """
    _require_fused_part(config)
    return with_equal_parameters(config, replace(_adapter(config), vision=False, text=False))


def with_equal_parameters(config: RunConfig, adapter: AdapterConfig) -> RunConfig:
    """The config with another adapter, as `with_parameters_of` widens or narrows it.

    Args:
        config: of a run with `model.method: uniadapter`.
        adapter: which adapters there are; its `bottleneck` is replaced.

    Raises:
        ConfigError: nothing of the adapter depends on the bottleneck.
    """
    return with_parameters_of(replace(config, model=replace(config.model, adapter=adapter)), config)


def with_parameters_of(config: RunConfig, reference: RunConfig) -> RunConfig:
    """The config with the width at which it trains as many parameters as another one.

    The width is the adapters' bottleneck, or the rank of LoRA and DoRA. Heads, which all train, are counted with them.
    A width is a whole number, so the two numbers differ by half the parameters of one unit of it at most: about 1% in
    the configs of the embedded tasks.

    Args:
        config: of a run with adapters, LoRA or DoRA.
        reference: of the run to come up to.

    Raises:
        ConfigError: the method has no width, or nothing of it depends on the width.
    """
    wanted = trained_parameters(reference)
    one, two = (trained_parameters(_with_width(config, width)) for width in (1, 2))  # linear in the width
    if one == two:
        raise ConfigError("adapter: vision, text and cross are all off, so no bottleneck makes up for their parameters")
    return _with_width(config, max(1, 1 + round((wanted - one) / (two - one))))


def _with_width(config: RunConfig, width: int) -> RunConfig:
    model = config.model
    if model.method == "uniadapter":
        return replace(config, model=replace(model, adapter=replace(model.adapter, bottleneck=width)))
    if model.method in ("lora", "dora"):
        scale = model.lora.alpha / model.lora.r  # the same at every rank
        return replace(config, model=replace(model, lora=replace(model.lora, r=width, alpha=scale * width)))
    raise ConfigError(f"model.method is {model.method}, which has no width to choose for equal parameters")


def trained_parameters(config: RunConfig) -> int:
    """How many parameters a run trains, heads included; the random number generator stays as it is."""
    settings = config.model
    model = load_model(settings.base, config.task)
    if settings.method != "uniadapter":
        prepare_baseline(model, settings, 0)
        return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    with torch.random.fork_rng():
        built = backbone(model).new_set(settings.adapter).requires_grad_(True)
    return sum(parameter.numel() for parameter in built.parameters() if parameter.requires_grad)


def _adapter(config: RunConfig) -> AdapterConfig:
    return config.model.adapter


def _require_fused_part(config: RunConfig) -> None:
    if not has_fused_part(config):
        raise ConfigError("the config has no fused part to leave out: set adapter.cross or adapter.key_value")
