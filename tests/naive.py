"""The equations of docs/method.md, one picture and one text at a time, written to be read and not to be quick.

Nothing of the package is used but the weights it holds. Of transformers, only plain submodules (linears, norms, the
feed-forward and the output blocks) are called; no attention and no layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from uniadapter.model.adapter_set import AdapterSet


def relu(x: Tensor) -> Tensor:
    return torch.clamp(x, min=0)


def adapter(
    layer: nn.Module,
    x: Tensor,
    use: str,
    scale: float,
    share: str = "all",
    activation: Callable[[Tensor], Tensor] = relu,
) -> Tensor:
    """A(x, use) for x [L, d]; a layer has one adapter, or of what shares no down-projection one for each use."""
    weights = layer[use] if share in ("up", "none") else layer
    normed = nn.functional.layer_norm(x, (x.shape[-1],), weights.norm.weight, weights.norm.bias, 1e-5)
    h = activation(normed @ weights.down.weight.T + weights.down.bias)
    if use == "vision":
        return scale * (h @ weights.up_vision.weight.T + weights.up_vision.bias)
    if use == "text":
        return scale * (h @ weights.up_text.weight.T + weights.up_text.bias)
    cross = h @ weights.up_cross.weight.T + weights.up_cross.bias
    text = 0.0
    if share in ("all", "up"):
        up_text = layer["text"].up_text if share == "up" and "text" in layer else weights.up_text
        text = h @ up_text.weight.T + up_text.bias
    norm = weights.norm_cross
    return scale * nn.functional.layer_norm(cross + text, (x.shape[-1],), norm.weight, norm.bias, 1e-5)


def key_value(weights: nn.Module, x: Tensor) -> Tensor:
    """What a key or value adapter adds for attended states x [K, d]."""
    down = x @ weights.down.weight.T + weights.down.bias
    return weights.scale * (down @ weights.up.weight.T + weights.up.bias)


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int, causal: bool = False) -> Tensor:
    """Softmax attention of [L, d] to [K, d], head by head; `causal`: row i to the first i + 1 alone."""
    width = query.shape[-1] // heads
    contexts = []
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        scores = query[:, part] @ key[:, part].T / math.sqrt(width)
        if causal:
            scores = scores.masked_fill(torch.ones_like(scores).triu(1).bool(), -math.inf)
        contexts.append(torch.softmax(scores, dim=-1) @ value[:, part])
    return torch.cat(contexts, dim=-1)


def frame_weights(text_feature: Tensor, frames: Tensor) -> Tensor:
    """The weight of each of T frames, [T], for one text."""
    raw = torch.stack([torch.dot(text_feature, frame) / 4 for frame in frames]).detach()
    return raw.exp() / raw.exp().sum() * len(frames)


def text_layer(model: PreTrainedModel, index: int, hidden: Tensor, visual: Tensor | None, active: AdapterSet | None,
               weights: Tensor | None = None, frames: int = 1, decoder: bool = False) -> Tensor:  # fmt: skip
    """A text layer's output [L, d] for hidden [L, d]; fused with visual [K, d] where that is given."""
    layer = (model.text_decoder.bert.encoder if decoder else model.text_encoder.encoder).layer[index]
    heads = model.config.text_config.num_attention_heads
    config = None if active is None else active.config
    apart = decoder and config is not None and config.decoder == "separate"
    own = layer.attention.self
    query, key, value = own.query(hidden), own.key(hidden), own.value(hidden)
    if config is not None and config.self_attention:
        added = (active.decoder_self_attention if apart else active.self_attention)[index]
        h = hidden @ added.down.weight.T + added.down.bias
        (q, q0), (k, k0), (v, v0) = zip(added.up.weight.chunk(3), added.up.bias.chunk(3), strict=True)
        query, key, value = query + h @ q.T + q0, key + h @ k.T + k0, value + h @ v.T + v0
    a = layer.attention.output(attention(query, key, value, heads, decoder), hidden)
    c = a
    if visual is not None:
        cross = layer.crossattention.self
        key, value = cross.key(visual), cross.value(visual)
        if config is not None and config.key_value:
            on_key = active.decoder_key if decoder else active.key
            on_value = active.decoder_value if decoder else active.value
            key, value = key + key_value(on_key, visual), value + key_value(on_value, visual)
        if weights is not None:
            key = key.clone().view(frames, -1, key.shape[-1])
            for frame in range(frames):  # the patches' keys; CLS, token 0 of each frame, is left alone
                key[frame, 1:] = key[frame, 1:] * weights[frame]
            key = key.flatten(0, 1)
        c = layer.crossattention.output(attention(cross.query(a), key, value, heads), a)
    out = layer.output(layer.intermediate(c), c)
    layers = None if active is None else active.decoder_layers if apart else active.layers
    if config is not None and config.text and (visual is None or config.query_residual):
        out = out + adapter(layers[index], a, "text", config.scale, config.share)
    if config is not None and config.cross and visual is not None:
        out = out + adapter(layers[index], c, "cross", config.scale, config.share)
    return out


def embed(model: PreTrainedModel, ids: Tensor, decoder: bool = False) -> Tensor:
    """Embeddings [L, d] of ids [L]."""
    table = (model.text_decoder.bert if decoder else model.text_encoder).embeddings
    return table.LayerNorm(table.word_embeddings.weight[ids] + table.position_embeddings.weight[: len(ids)])


def text(model: PreTrainedModel, ids: Tensor, active: AdapterSet | None) -> Tensor:
    """States [L, d] of one text alone, ids [L] without padding."""
    hidden = embed(model, ids)
    for index in range(len(model.text_encoder.encoder.layer)):
        hidden = text_layer(model, index, hidden, None, active)
    return hidden


def fuse(model: PreTrainedModel, ids: Tensor, text_feature: Tensor, tokens: Tensor, frames: Tensor,
         active: AdapterSet | None) -> Tensor:  # fmt: skip
    """States [L, d] of one text (ids [L], no padding) fused with one video's tokens [T, N, d]."""
    ids = ids.clone()
    ids[0] = model.config.text_config.bos_token_id + 1  # [ENC]
    weights = None
    if active is not None and active.config.temporal_frames:
        assert active.config.temporal_frames == len(tokens)
        tokens = tokens + active.time[0][:, None]
    if active is not None and active.config.frame_aware:
        weights = frame_weights(text_feature, frames)
    visual = tokens.flatten(0, 1)
    hidden = embed(model, ids)
    for index in range(len(model.text_encoder.encoder.layer)):
        hidden = text_layer(model, index, hidden, visual, active, weights, len(tokens))
    return hidden


def decode(model: PreTrainedModel, ids: Tensor, states: Tensor, active: AdapterSet | None) -> Tensor:
    """Last states [L, d] of the decoder for one text, ids [L] without padding, that attends to states [K, d]."""
    hidden = embed(model, ids, decoder=True)
    for index in range(len(model.text_decoder.bert.encoder.layer)):
        hidden = text_layer(model, index, hidden, states, active, decoder=True)
    return hidden


def visual(model: PreTrainedModel, picture: Tensor, active: AdapterSet | None) -> Tensor:
    """Last states [N, d] of one picture [3, H, W] of the model's own size."""
    vision = model.vision_model
    patches = vision.embeddings.patch_embedding(picture[None]).flatten(2)[0].T
    x = torch.cat([vision.embeddings.class_embedding[0], patches]) + vision.embeddings.position_embedding[0]
    layers = [] if active is None else active.vision_layers if len(active.vision_layers) else active.layers
    for index, layer in enumerate(vision.encoder.layers):
        query, key, value = layer.self_attn.qkv(layer.layer_norm1(x)).chunk(3, dim=-1)
        x = x + layer.self_attn.projection(attention(query, key, value, layer.self_attn.num_heads))
        delta = 0.0
        if active is not None and active.config.vision:
            delta = adapter(layers[index], x, "vision", active.config.scale, active.config.share)
        x = x + layer.mlp(layer.layer_norm2(x)) + delta
    return vision.post_layernorm(x)
