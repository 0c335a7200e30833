"""Re-typing the layers of transformers' BLIP, and what a set of adapters must know of it."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel
from transformers.models.blip.modeling_blip import BlipMLP
from transformers.models.blip.modeling_blip_text import BlipTextEncoder, BlipTextIntermediate

from uniadapter.model.adapter_set import BackboneShape
from uniadapter.model.blip.layers import (
    AdaptedTextAttention,
    AdaptedTextEncoder,
    AdaptedTextLayer,
    AdaptedVisionAttention,
    AdaptedVisionLayer,
    LeanIntermediate,
    LeanMLP,
)
from uniadapter.model.kernels.linear import BaseLinear
from uniadapter.model.store import AdaptedHead, AdapterStore, Role, retype


def text_stacks(model: nn.Module) -> dict[Role, BlipTextEncoder]:
    """The model's text stacks by role: `encoder`, `decoder`, or both."""
    stacks: dict[Role, BlipTextEncoder] = {}
    if hasattr(model, "text_encoder"):
        stacks["encoder"] = model.text_encoder.encoder
    if hasattr(model, "text_decoder"):
        stacks["decoder"] = model.text_decoder.bert.encoder
    return stacks


def backbone_shape(model: PreTrainedModel) -> BackboneShape:
    """The sizes that a set of adapters is built from."""
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


# What tells the three task classes apart, whatever is wrapped around them: parts that they must have, and must not.
_PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "retrieval": (("text_encoder", "text_proj", "itm_head"), ()),
    "vqa": (("text_encoder", "text_decoder"), ()),
    "caption": (("text_decoder",), ("text_encoder",)),
}


def task_of(model: nn.Module) -> str | None:
    """The task whose parts a model has, and none that the task lacks."""
    for task, (parts, without) in _PARTS.items():
        if all(hasattr(model, part) for part in parts) and not any(hasattr(model, part) for part in without):
            return task
    return None


def inject(model: PreTrainedModel, heads: dict[str, nn.Linear], store: AdapterStore) -> None:
    """Re-type the layers of every tower, and the heads; see `store.retype`."""
    for index, layer in enumerate(model.vision_model.encoder.layers):
        retype(layer, AdaptedVisionLayer, store, "vision", index)
        retype(layer.self_attn, AdaptedVisionAttention, store, "vision", index)
    for role, stack in text_stacks(model).items():
        retype(stack, AdaptedTextEncoder, store, role)
        for index, layer in enumerate(stack.layer):
            retype(layer, AdaptedTextLayer, store, role, index)
            retype(layer.attention.self, AdaptedTextAttention, store, role, index)
            retype(layer.crossattention.self, AdaptedTextAttention, store, role, index)
    for stack in (model.vision_model.encoder, *text_stacks(model).values()):
        for module in stack.modules():
            module.__class__ = _LEAN.get(type(module), type(module))
    for name, head in heads.items():
        if not head.weight.is_floating_point():  # a quantised one computes in its own way
            continue
        retype(head, AdaptedHead, store, "vision")
        head.name = name  # type: ignore[assignment]


_LEAN: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: BaseLinear,
    BlipMLP: LeanMLP,
    BlipTextIntermediate: LeanIntermediate,
}
