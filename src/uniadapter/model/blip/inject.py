"""Give the layers of transformers' BLIP their adapted classes, and tell the sizes that adapters are built from."""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel
from transformers.models.blip.modeling_blip import BlipMLP
from transformers.models.blip.modeling_blip_text import BlipTextEncoder, BlipTextIntermediate

from uniadapter.model.blip.layers import (
    AdaptedTextAttention,
    AdaptedTextEncoder,
    AdaptedTextLayer,
    AdaptedVisionAttention,
    AdaptedVisionLayer,
    FusedGeluIntermediate,
    FusedGeluMLP,
)
from uniadapter.model.kernels.linear import replace_linears
from uniadapter.model.shape import BackboneShape
from uniadapter.model.store import AdapterStore, Role, adapt_heads, set_adapted_class


def text_stacks(model: nn.Module) -> dict[Role, BlipTextEncoder]:
    """The model's text transformers by role: "encoder", "decoder" or both."""
    stacks: dict[Role, BlipTextEncoder] = {}
    if hasattr(model, "text_encoder"):
        stacks["encoder"] = model.text_encoder.encoder
    if hasattr(model, "text_decoder"):
        stacks["decoder"] = model.text_decoder.bert.encoder
    return stacks


def backbone_shape(model: PreTrainedModel) -> BackboneShape:
    """The sizes that an adapter set is built from."""
    vision, text = model.config.vision_config, model.config.text_config
    stacks = text_stacks(model)
    source = 0
    if "decoder" in stacks:  # an answer decoder attends to the question's states, a caption decoder to visual tokens
        source = text.hidden_size if "encoder" in stacks else vision.hidden_size
    return BackboneShape(
        vision_layers=vision.num_hidden_layers,
        vision_width=vision.hidden_size,
        text_layers=text.num_hidden_layers,
        text_width=text.hidden_size,
        encoder="encoder" in stacks,
        decoder_source=source,
        attends_itself=True,
    )


# Submodules that a model of each task has, and those it must not have; this holds for wrapped models too.
_PARTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "retrieval": (("text_encoder", "text_proj", "itm_head"), ()),
    "vqa": (("text_encoder", "text_decoder"), ()),
    "caption": (("text_decoder",), ("text_encoder",)),
}


def task_of(model: nn.Module) -> str | None:
    """The task of a model, by its submodules: "retrieval", "vqa" or "caption"; None if it is none of these."""
    for task, (parts, without) in _PARTS.items():
        if all(hasattr(model, part) for part in parts) and not any(hasattr(model, part) for part in without):
            return task
    return None


def inject(model: PreTrainedModel, heads: dict[str, nn.Linear], store: AdapterStore) -> None:
    """Replace the classes of the visual and textual layers and of the heads; see `store.set_adapted_class`.

    Args:
        model: a BLIP of transformers.
        heads: its own heads by name.
        store: the model's adapter sets.
    """
    for index, layer in enumerate(model.vision_model.encoder.layers):
        set_adapted_class(layer, AdaptedVisionLayer, store, "vision", index)
        set_adapted_class(layer.self_attn, AdaptedVisionAttention, store, "vision", index)
    for role, stack in text_stacks(model).items():
        set_adapted_class(stack, AdaptedTextEncoder, store, role)
        for index, layer in enumerate(stack.layer):
            set_adapted_class(layer, AdaptedTextLayer, store, role, index)
            set_adapted_class(layer.attention.self, AdaptedTextAttention, store, role, index)
            set_adapted_class(layer.crossattention.self, AdaptedTextAttention, store, role, index)
    text = text_stacks(model).values()
    faster = {BlipMLP: FusedGeluMLP, BlipTextIntermediate: FusedGeluIntermediate}
    replace_linears(model.vision_model.encoder, *text, others=faster)
    adapt_heads(heads, store)
