"""Configs without a part of UniAdapter, at equal trainable parameters, so that a comparison is about the part alone."""

from __future__ import annotations

from dataclasses import replace

import torch
from transformers import PreTrainedModel

from uniadapter.checkpoints.loading import load_model
from uniadapter.config import AdapterConfig, ConfigError, RunConfig
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
    """The config with another adapter, its bottleneck chosen for the number of parameters nearest to the old one's.

    Heads, which both train, are counted with them. A bottleneck is a whole number, so the two numbers differ by half
    the parameters of one unit of it at most: about 1% in the configs of the embedded tasks.

    Args:
        config: of a run with `model.method: uniadapter`.
        adapter: which adapters there are; its `bottleneck` is replaced.

    Raises:
        ConfigError: nothing of the adapter depends on the bottleneck.
    """
    model = load_model(config.model.base, config.task)
    wanted = _parameters(model, _adapter(config))
    one, two = (_parameters(model, replace(adapter, bottleneck=width)) for width in (1, 2))  # linear in the width
    if one == two:
        raise ConfigError("adapter: vision, text and cross are all off, so no bottleneck makes up for their parameters")
    bottleneck = max(1, 1 + round((wanted - one) / (two - one)))
    return replace(config, model=replace(config.model, adapter=replace(adapter, bottleneck=bottleneck)))


def _adapter(config: RunConfig) -> AdapterConfig:
    return config.model.adapter


def _require_fused_part(config: RunConfig) -> None:
    if not has_fused_part(config):
        raise ConfigError("the config has no fused part to leave out: set adapter.cross or adapter.key_value")


def _parameters(model: PreTrainedModel, adapter: AdapterConfig) -> int:
    """Parameters of an adapter set for a model, heads included; the random number generator stays as it is."""
    with torch.random.fork_rng():
        return sum(parameter.numel() for parameter in backbone(model).new_set(adapter).parameters())
