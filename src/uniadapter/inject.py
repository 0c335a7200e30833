"""The seam: the only file that knows the insides of transformers' BLIP layers.

Injecting re-types the existing layers to the subclasses below. Their weights stay where they are, so the base's
state-dict keys do not change; adapters are owned by the model under one name each and reached by unregistered links.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.blip.modeling_blip import BlipAttention, BlipEncoderLayer
from transformers.models.blip.modeling_blip_text import BlipTextEncoder, BlipTextLayer, BlipTextSelfAttention

from uniadapter.adapter import AdapterSet, BackboneShape, UniAdapter, Use
from uniadapter.attention import attend_to, lowered
from uniadapter.config import AdapterConfig
from uniadapter.grouping import Packing

Role = Literal["vision", "encoder", "decoder"]

OWNER = "uniadapters"  # attribute of the model that owns the sets; its keys are never saved with the base
HEADS = ("vision_proj", "text_proj", "itm_head")


class Link:
    """What every re-typed module of one model points at: the named sets, and which one is active.

    A plain object, so that torch does not register the sets a second time under each layer.
    """

    def __init__(self, sets: nn.ModuleDict) -> None:
        self.sets = sets
        self.name: str | None = None
        self.base_sha256: str | None = None  # of the base as it was loaded, where its weights were rounded since

    @property
    def active(self) -> AdapterSet | None:
        """The set in use, or None for the bare base."""
        return None if self.name is None else self.sets[self.name]  # type: ignore[return-value]


def _wants_weights(module: nn.Module, kwargs: dict[str, Any]) -> bool:
    """Whether attention weights are asked for, by the call or by the config as transformers allows."""
    return bool(kwargs.get("output_attentions", getattr(module.config, "output_attentions", False)))


class _Linked:
    """What the re-typed modules share: a link, a role and a layer index."""

    link: Link
    role: Role
    index: int

    def _adapter(self, use: Use) -> UniAdapter | None:
        active = self.link.active
        return None if active is None else active.adapter(self.role, self.index, use)


class AdaptedVisionAttention(_Linked, BlipAttention):
    """BLIP's visual self-attention, through fused attention."""

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """As `BlipAttention`: states [B, N, d] to states [B, N, d] and the weights, if asked for."""
        query, key, value = self._heads(self.qkv(hidden_states))
        dropout = self.dropout.p if self.training else 0.0
        context, weights = attend_to(query, key, value, None, dropout, _wants_weights(self, kwargs))
        return self.projection(context), weights

    def first(self, hidden_states: Tensor) -> Tensor:
        """What `forward` gives for the class token alone, [B, d]; nobody else asks."""
        hidden, width = lowered(hidden_states), hidden_states.shape[-1]
        weight, bias = self.qkv.weight, self.qkv.bias
        (query,) = self._heads(nn.functional.linear(hidden[:, :1], weight[:width], bias[:width]))
        key, value = self._heads(nn.functional.linear(hidden, weight[width:], bias[width:]))
        context, _ = attend_to(query, key, value, None, self.dropout.p if self.training else 0.0)
        return self.projection(context[:, 0])

    def _heads(self, states: Tensor) -> Tensor:
        """[B, N, k d] to [k, B, H, N, d_h]."""
        return states.unflatten(-1, (-1, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)


class AdaptedVisionLayer(_Linked, BlipEncoderLayer):
    """BLIP's visual layer; the adapter stands beside the MLP and reads the states before their second norm."""

    def forward(self, hidden_states: Tensor, **kwargs: Any) -> Tensor:
        """As `BlipEncoderLayer`: x <- x + mlp(norm2 x) + A(x, vision), [B, N, d]."""
        return self.adapt(*self.base(hidden_states, **kwargs))

    def base(self, hidden_states: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """What no adapter of this layer changes: x after the attention, and x + mlp(norm2 x)."""
        x = hidden_states + self.self_attn(self.layer_norm1(hidden_states), **kwargs)[0]
        return x, x + self.mlp(self.layer_norm2(x))

    def adapt(self, x: Tensor, out: Tensor) -> Tensor:
        """Of `base`'s, the layer's output."""
        adapter = self._adapter("vision")
        return out if adapter is None else out + adapter(x, "vision")

    def first(self, hidden_states: Tensor) -> Tensor:
        """What `forward` gives for the class token alone, [B, d]."""
        x = hidden_states[:, 0] + self.self_attn.first(self.layer_norm1(hidden_states))
        return self.adapt(x, x + self.mlp(self.layer_norm2(x)))


class AdaptedTextAttention(_Linked, BlipTextSelfAttention):
    """BLIP's text attention, self or cross, through SDPA; cross-attention obeys its mask, which the original loses."""

    def heads(self, states: Tensor) -> Tensor:
        """Split [B, L, d] into [B, H, L, d_h]."""
        return states.unflatten(-1, (self.num_attention_heads, self.attention_head_size)).transpose(1, 2)

    def keys_values(
        self, states: Tensor, key_delta: Tensor | None = None, value_delta: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Keys and values [B, H, K, d_h] of attended states [B, K, d]; deltas come after the projection."""
        key, value = self.key(states), self.value(states)
        key = key if key_delta is None else key + key_delta
        value = value if value_delta is None else value + value_delta
        return self.heads(key), self.heads(value)

    def forward(  # noqa: D102 - transformers' interface
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_hidden_states: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        key_delta: Tensor | None = None,
        value_delta: Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        cross = encoder_hidden_states is not None
        states = encoder_hidden_states if cross else hidden_states
        if past_key_values is None:
            key, value = self.keys_values(states, key_delta, value_delta)
        else:
            key, value = self._cached(past_key_values, cross, states, key_delta, value_delta)
        dropout = self.dropout.p if self.training else 0.0
        mask = encoder_attention_mask if cross else attention_mask
        return attend_to(self.heads(self.query(hidden_states)), key, value, mask, dropout, _wants_weights(self, kwargs))

    def _cached(
        self, cache: Any, cross: bool, states: Tensor, key_delta: Tensor | None, value_delta: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Keys and values with an `EncoderDecoderCache`: cross-attention's are projected once and kept."""
        part = cache.cross_attention_cache if cross else cache.self_attention_cache
        if cross and cache.is_updated.get(self.layer_idx):
            layer = part.layers[self.layer_idx]
            return layer.keys, layer.values
        key, value = part.update(*self.keys_values(states, key_delta, value_delta), self.layer_idx)
        if cross:
            cache.is_updated[self.layer_idx] = True
        return key, value


class AdaptedTextLayer(_Linked, BlipTextLayer):
    """BLIP's text layer in three pieces, so that `backbone.fuse` can put pairs between them.

    Text alone: FFN(a) + A(a, text) with a the self-attention's output. Fused: c = cross-attention(a), then
    FFN(c) + A(a, text) + A(c, cross); the first delta is the paper's query residual.
    """

    def attend_self(self, hidden: Tensor, packing: Packing, mask: Tensor | None, first: bool = False) -> Tensor:
        """Self-attention with its residual and norm.

        Args:
            hidden: states of N tokens of S texts, [N, d].
            packing: how they stand.
            mask: additive, broadcastable to [S, 1, L, L], or None.
            first: compute the first token of each text alone, [S, d].
        """
        attention: AdaptedTextAttention = self.attention.self
        asking = hidden[packing.firsts] if first else hidden
        once = lowered(hidden)
        key, value = (attention.heads(packing.pad(part(once))) for part in (attention.key, attention.value))
        query = attention.query(lowered(asking) if first else once)
        query = attention.heads(query[:, None] if first else packing.pad(query))
        dropout = attention.dropout.p if self.training else 0.0
        context, _ = attend_to(query, key, value, mask, dropout)
        return self.attention.output(context[:, 0] if first else packing.pack(context), asking)

    def residual(self, attended: Tensor) -> Tensor | None:
        """A(a, text) for self-attention outputs [..., d], or None without that adapter."""
        adapter = self._adapter("text")
        return None if adapter is None else adapter(attended, "text")

    def finish(self, crossed: Tensor, residual: Tensor | None, fused: bool) -> Tensor:
        """FFN(c) + A(a, text) + A(c, cross) if fused, else FFN(a) + A(a, text)."""
        out = self.feed_forward_chunk(crossed)
        if residual is not None:
            out = out + residual
        adapter = self._adapter("cross") if fused else None
        return out if adapter is None else out + adapter(crossed, "cross")

    def forward(  # noqa: D102 - transformers' interface
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        past_key_values: Any = None,
        key_delta: Tensor | None = None,
        value_delta: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        # `BlipTextAttention.forward` drops keyword arguments and the encoder's mask, so its two parts are called here.
        context, _ = self.attention.self(hidden_states, attention_mask, past_key_values=past_key_values, **kwargs)
        attended = self.attention.output(context, hidden_states)
        residual = self.residual(attended)
        if encoder_hidden_states is None:
            return self.finish(attended, residual, fused=False)
        context, _ = self.crossattention.self(
            attended,
            encoder_hidden_states=encoder_hidden_states,
            encoder_attention_mask=encoder_attention_mask,
            past_key_values=past_key_values,
            key_delta=key_delta,
            value_delta=value_delta,
            **kwargs,
        )
        return self.finish(self.crossattention.output(context, attended), residual, fused=True)


class AdaptedTextEncoder(_Linked, BlipTextEncoder):
    """BLIP's stack of text layers; computes the key/value deltas once for all of them.

    It does so from `encoder_hidden_states` itself, because `generate` hands on no keyword argument of ours.
    """

    def deltas(self, states: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """What the key/value adapters add for attended states [B, K, d]."""
        active = self.link.active
        assert self.role != "vision"  # a text stack is linked as encoder or decoder
        return (None, None) if active is None else active.key_value(self.role, states)

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """As `BlipTextEncoder`, [B, L, d] to [B, L, d]."""
        states = kwargs.get("encoder_hidden_states")
        if states is not None:
            kwargs["key_delta"], kwargs["value_delta"] = self.deltas(states)
        return super().forward(hidden_states, *args, **kwargs)


class AdaptedHead(_Linked, nn.Linear):
    """A head of the base that gives way to the active set's copy of it."""

    name: str

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Linear`, [..., d] to [..., out]."""
        active = self.link.active
        if active is not None and self.name in active.heads:
            return active.heads[self.name](input)
        return super().forward(input)


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


def _retype(module: nn.Module, cls: type[nn.Module], link: Link, role: Role, index: int = 0) -> None:
    module.__class__ = cls
    module.link, module.role, module.index = link, role, index  # type: ignore[assignment]


def adopt(model: PreTrainedModel) -> Link:
    """Re-type the model's layers, once; no weight moves, and without a set the outputs are the base's.

    Even a model without adapters gains by it: SDPA, and cross-attention masks that are obeyed.
    """
    if OWNER in model._modules:
        return model._uniadapter_link  # type: ignore[return-value]
    backbone_shape(model)
    sets = nn.ModuleDict()
    link = Link(sets)
    for index, layer in enumerate(model.vision_model.encoder.layers):
        _retype(layer, AdaptedVisionLayer, link, "vision", index)
        _retype(layer.self_attn, AdaptedVisionAttention, link, "vision", index)
    for role, stack in text_stacks(model).items():
        _retype(stack, AdaptedTextEncoder, link, role)
        for index, layer in enumerate(stack.layer):
            _retype(layer, AdaptedTextLayer, link, role, index)
            _retype(layer.attention.self, AdaptedTextAttention, link, role, index)
            _retype(layer.crossattention.self, AdaptedTextAttention, link, role, index)
    for name, head in base_heads(model).items():
        _retype(head, AdaptedHead, link, "vision")
        head.name = name  # type: ignore[assignment]
    setattr(model, OWNER, sets)
    model._uniadapter_link = link
    return link


_ORIGINAL: dict[type[nn.Module], type[nn.Module]] = {
    AdaptedVisionLayer: BlipEncoderLayer,
    AdaptedVisionAttention: BlipAttention,
    AdaptedTextEncoder: BlipTextEncoder,
    AdaptedTextLayer: BlipTextLayer,
    AdaptedTextAttention: BlipTextSelfAttention,
    AdaptedHead: nn.Linear,
}


def restore(model: PreTrainedModel) -> None:
    """Undo `adopt`: every layer has its original type again and no trace is left."""
    for module in model.modules():
        if type(module) in _ORIGINAL:
            module.__class__ = _ORIGINAL[type(module)]
            for name in ("link", "role", "index", "name"):
                module.__dict__.pop(name, None)
    if OWNER in model._modules:
        delattr(model, OWNER)
        del model._uniadapter_link


def base_heads(model: nn.Module) -> dict[str, nn.Linear]:
    """The base's own heads by name: projections and matching head, where the task model has them."""
    return {name: getattr(model, name) for name in HEADS if isinstance(getattr(model, name, None), nn.Linear)}


@contextmanager
def active_adapter(model: PreTrainedModel, name: str | None) -> Iterator[None]:
    """Within the block the set `name` is in use (None: the bare base); what is trainable does not change."""
    link = adopt(model)
    if name is not None and name not in link.sets:
        raise KeyError(f"no adapter named {name!r}: there is {', '.join(link.sets) or 'none'}")
    before, link.name = link.name, name
    try:
        yield
    finally:
        link.name = before if before in link.sets else None  # it may have been removed meanwhile


def new_adapter_set(model: PreTrainedModel, config: AdapterConfig) -> AdapterSet:
    """A fresh set for this model, on the device and in the dtype of its weights, not yet injected."""
    reference = model.vision_model.post_layernorm.weight
    built = AdapterSet(config, backbone_shape(model), base_heads(model))
    return built.to(device=reference.device, dtype=reference.dtype)
