"""The methods that UniAdapter is compared with: they train the base's own weights, or PEFT's changes of them.

Each also trains the task's heads, as UniAdapter does. LoRA and DoRA are PEFT's own, on every linear layer of all
encoders and decoders.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from uniadapter.config import ConfigError, ModelConfig
from uniadapter.model.dispatch import adapter_store, backbone
from uniadapter.model.temporal import OWN, first_values, own_embedding


def prepare_baseline(model: PreTrainedModel, settings: ModelConfig, seed: int) -> None:
    """Set what a method trains of a base; adds LoRA's weights, and a temporal embedding where one is asked for.

    Args:
        model: the base, without adapters.
        settings: with `method`: "full", "last_layers", "bitfit", "heads", "lora", "dora", or "none" for nothing.
        seed: of LoRA's first weights; the random number generator stays as it is.

    Raises:
        ConfigError: PEFT is not installed, or the base has nothing that the method trains.
    """
    adapter_store(model)
    trains = settings.method != "none"
    if trains and settings.adapter.temporal_frames:
        own_embedding(model, first_values(model, settings.adapter.temporal_frames, settings.adapter.temporal_init))
    model.requires_grad_(settings.method == "full")
    if settings.method in ("lora", "dora"):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            _add_lora(model, settings)
    if trains:
        for parameter in _trained(model, settings):
            parameter.requires_grad_(True)
        if not any(parameter.requires_grad for parameter in model.parameters()):
            raise ConfigError(f"model.method is {settings.method}, and {type(model).__name__} has no heads to train")


def _trained(model: PreTrainedModel, settings: ModelConfig) -> Iterator[nn.Parameter]:
    """The base's own weights that a method trains."""
    seen = backbone(model)
    for head in seen.base_heads().values():
        yield from head.parameters()
    yield from seen.base_scalars().values()
    if settings.adapter.temporal_frames:
        yield model.get_parameter(OWN)
    if settings.method == "bitfit":
        yield from (parameter for name, parameter in model.named_parameters() if name.endswith("bias"))
    if settings.method == "last_layers":
        for layers in _stacks(model):
            for layer in list(layers)[-settings.last_layers :]:
                yield from layer.parameters()


def _stacks(model: PreTrainedModel) -> list[nn.ModuleList]:
    """The layers of each encoder and decoder."""
    found = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module)]
    if not found:
        raise ConfigError(f"{type(model).__name__} has no stacks of layers")
    return found


def _add_lora(model: PreTrainedModel, settings: ModelConfig) -> None:
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        install = 'pip install "uniadapter[bench]"'
        raise ConfigError(f"model.method is {settings.method}, which is PEFT's: {install}") from None
    layers = {id(module) for stack in _stacks(model) for module in stack.modules() if isinstance(module, nn.Linear)}
    targets = [name for name, module in model.named_modules() if id(module) in layers]
    own = settings.lora
    config = LoraConfig(
        r=own.r, lora_alpha=own.alpha, lora_dropout=own.dropout, target_modules=targets,
        use_dora=settings.method == "dora",
    )  # fmt: skip
    inject_adapter_in_model(config, model)


def merge_lora(model: PreTrainedModel) -> None:
    """Add LoRA's changes to the base's weights, and put the base's own layers back; nothing without LoRA."""
    for name, module in list(model.named_modules()):
        if _is_lora(module):
            module.merge(safe_merge=True)
            place, _, last = name.rpartition(".")
            setattr(model.get_submodule(place), last, module.get_base_layer())


def _is_lora(module: Any) -> bool:
    return hasattr(module, "lora_A") and hasattr(module, "get_base_layer")
