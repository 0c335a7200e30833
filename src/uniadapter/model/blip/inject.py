"""The seam: the only folder that knows the insides of transformers' BLIP.

Injecting re-types the existing layers to the subclasses in `layers.py`. Their weights stay where they are, so that the
base's state-dict keys do not change; the model owns adapters under one name each, reached by unregistered links.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.models.blip.modeling_blip import BlipAttention, BlipEncoderLayer, BlipMLP
from transformers.models.blip.modeling_blip_text import (
    BlipTextEncoder,
    BlipTextIntermediate,
    BlipTextLayer,
    BlipTextSelfAttention,
)

from uniadapter.config import AdapterConfig
from uniadapter.model.adapter import AdapterSet, BackboneShape
from uniadapter.model.blip.layers import (
    AdaptedHead,
    AdaptedTextAttention,
    AdaptedTextEncoder,
    AdaptedTextLayer,
    AdaptedVisionAttention,
    AdaptedVisionLayer,
    AdapterStore,
    LeanIntermediate,
    LeanMLP,
    Role,
)
from uniadapter.model.kernels.linear import BaseLinear

OWNER = "uniadapters"  # attribute of the model that owns the sets; its keys are never saved with the base
_lock = threading.Lock()
HEADS = ("vision_proj", "text_proj", "itm_head")


def bare(model: nn.Module) -> PreTrainedModel:
    """The model itself, where it came in PEFT's wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator,return-value]


def text_stacks(model: nn.Module) -> dict[Role, BlipTextEncoder]:
    """The model's text stacks by role: `encoder`, `decoder`, or both."""
    stacks: dict[Role, BlipTextEncoder] = {}
    if hasattr(model, "text_encoder"):
        stacks["encoder"] = model.text_encoder.encoder
    if hasattr(model, "text_decoder"):
        stacks["decoder"] = model.text_decoder.bert.encoder
    return stacks


def backbone_shape(model: PreTrainedModel) -> BackboneShape:
    """The sizes an adapter set is built from; a model that is no BLIP raises `TypeError`."""
    if not hasattr(model, "vision_model") or not text_stacks(model):
        raise TypeError(
            f"{type(model).__name__} is not one of transformers' BLIP task models: use BlipForImageTextRetrieval, "
            "BlipForQuestionAnswering or BlipForConditionalGeneration"
        )
    vision, text = model.config.vision_config, model.config.text_config
    stacks = text_stacks(model)
    source = 0
    if "decoder" in stacks:  # an answer decoder reads the question's states, a caption decoder the picture's
        source = text.hidden_size if "encoder" in stacks else vision.hidden_size
    return BackboneShape(
        vision_layers=vision.num_hidden_layers,
        vision_width=vision.hidden_size,
        text_layers=text.num_hidden_layers,
        text_width=text.hidden_size,
        encoder="encoder" in stacks,
        decoder_source=source,
    )


# What tells the three task classes apart, whatever is wrapped around them: stacks and heads that they must have.
_TASKS: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "retrieval": ("BlipForImageTextRetrieval", ("text_encoder", "text_proj", "itm_head"), ()),
    "vqa": ("BlipForQuestionAnswering", ("text_encoder", "text_decoder"), ()),
    "caption": ("BlipForConditionalGeneration", ("text_decoder",), ("text_encoder",)),
}


def _fits(model: nn.Module, task: str) -> bool:
    _, parts, without = _TASKS[task]
    return all(hasattr(model, part) for part in parts) and not any(hasattr(model, part) for part in without)


def task_of(model: nn.Module) -> str:
    """What a task model is for: "retrieval", "vqa" or "caption"; another model raises `TypeError`."""
    found = next((task for task in _TASKS if _fits(model, task)), None)
    if found is None:
        raise TypeError(
            f"{type(model).__name__} is not one of transformers' BLIP task models: use BlipForImageTextRetrieval, "
            "BlipForQuestionAnswering or BlipForConditionalGeneration"
        )
    return found


def require_task(model: nn.Module, task: str, what: str) -> None:
    """Refuse a model of another task.

    Args:
        model: any model.
        task: "retrieval", "vqa" or "caption".
        what: the function that needs it.

    Raises:
        TypeError: names the class that is needed and how to load it.
    """
    if _fits(model, task):
        return
    needed, *_ = _TASKS[task]
    base = getattr(getattr(model, "config", None), "name_or_path", "") or "BASE"
    raise TypeError(
        f"{what} needs a {needed}, not a {type(model).__name__}: load it by load_model({str(base)[-100:]!r}, {task!r})"
    )


def _retype(module: nn.Module, cls: type[nn.Module], store: AdapterStore, role: Role, index: int = 0) -> None:
    module.__class__ = cls
    module.store, module.role, module.index = store, role, index  # type: ignore[assignment]


def adopt(model: PreTrainedModel) -> AdapterStore:
    """Re-type the model's layers, once; no weight moves, and without a set the outputs are the base's.

    Even a model without adapters gains by it: SDPA, and cross-attention masks that are obeyed.
    """
    model = bare(model)
    if OWNER not in model._modules:
        with _lock:  # of threads that ask a model first at the same time, one re-types it
            if OWNER not in model._modules:
                _adopt(model)
    return model._uniadapter_store  # type: ignore[return-value]


def _adopt(model: PreTrainedModel) -> None:
    backbone_shape(model)
    sets = nn.ModuleDict()
    store = AdapterStore(sets)
    for index, layer in enumerate(model.vision_model.encoder.layers):
        _retype(layer, AdaptedVisionLayer, store, "vision", index)
        _retype(layer.self_attn, AdaptedVisionAttention, store, "vision", index)
    for role, stack in text_stacks(model).items():
        _retype(stack, AdaptedTextEncoder, store, role)
        for index, layer in enumerate(stack.layer):
            _retype(layer, AdaptedTextLayer, store, role, index)
            _retype(layer.attention.self, AdaptedTextAttention, store, role, index)
            _retype(layer.crossattention.self, AdaptedTextAttention, store, role, index)
    for stack in (model.vision_model.encoder, *text_stacks(model).values()):
        for module in stack.modules():
            module.__class__ = _LEAN.get(type(module), type(module))
    for name, head in base_heads(model).items():
        if not head.weight.is_floating_point():  # a quantised one computes in its own way
            continue
        _retype(head, AdaptedHead, store, "vision")
        head.name = name  # type: ignore[assignment]
    model._uniadapter_store = store
    setattr(model, OWNER, sets)  # last: it says that all is in place


_LEAN: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: BaseLinear,
    BlipMLP: LeanMLP,
    BlipTextIntermediate: LeanIntermediate,
}
_ORIGINAL: dict[type[nn.Module], type[nn.Module]] = {
    AdaptedVisionLayer: BlipEncoderLayer,
    AdaptedVisionAttention: BlipAttention,
    AdaptedTextEncoder: BlipTextEncoder,
    AdaptedTextLayer: BlipTextLayer,
    AdaptedTextAttention: BlipTextSelfAttention,
    AdaptedHead: nn.Linear,
    **{lean: original for original, lean in _LEAN.items()},
}


def restore(model: PreTrainedModel) -> None:
    """Undo `adopt`: every layer has its original type again and no trace is left."""
    model = bare(model)
    for module in model.modules():
        if type(module) in _ORIGINAL:
            module.__class__ = _ORIGINAL[type(module)]
            for name in ("store", "role", "index", "name"):
                module.__dict__.pop(name, None)
    if OWNER in model._modules:
        delattr(model, OWNER)
        del model._uniadapter_store


def base_heads(model: nn.Module) -> dict[str, nn.Linear]:
    """The base's own heads by name: projections and matching head, where the task model has them."""
    return {name: getattr(model, name) for name in HEADS if isinstance(getattr(model, name, None), nn.Linear)}


@contextmanager
def active_adapter(model: PreTrainedModel, name: str | None) -> Iterator[None]:
    """Within the block the set `name` is active (None: the bare base), in this thread or asynchronous task alone.

    What is trainable does not change, nor which set is selected; a thread that is started within begins with that one.

    Example:
        >>> for name in ("boxes", "stars"):
        ...     _ = ua.add_adapter(model, ua.AdapterConfig(bottleneck=4), name)
        >>> with ua.active_adapter(model, "boxes"):
        ...     ua.adapter_set(model) is ua.adapter_set(model, "boxes")
        True
        >>> ua.adapter_set(model) is ua.adapter_set(model, "stars")
        True
    """
    store = adopt(model)
    if name is not None and name not in store.sets:
        raise KeyError(f"no adapter named {name!r}: there is {', '.join(store.sets) or 'none'}")
    with store.using(name):
        yield


def new_adapter_set(model: PreTrainedModel, config: AdapterConfig) -> AdapterSet:
    """A fresh set for this model, on the device of its weights, not yet injected.

    It is in float32 whatever half precision the base is in, or small updates would vanish in rounding.
    """
    reference = model.vision_model.post_layernorm.weight
    built = AdapterSet(config, backbone_shape(model), base_heads(model))
    dtype = torch.float64 if reference.dtype == torch.float64 else torch.float32
    return built.to(device=reference.device, dtype=dtype)
