"""The base's text encoder, written out: texts alone, and texts fused with cached visual tokens, several a canvas.

The same computation as transformers' `BlipTextModel`, which reads neither the scores of its cross-attention nor the
states between its layers. Linear layers see no padding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import BlipForImageTextRetrieval

from world.stages.blip import blip_config
from world.stages.vision import HEADS, WIDTH
from world.texts.vocabulary import make_tokenizer

ENC = 6  # id of the token that a fused text begins with


@dataclass
class Fused:
    """States of fused texts.

    Args:
        layers: states after each layer [B, T, L, 192].
        scores: of the cross-attention of each layer before the softmax [B, heads, T, L, N].
    """

    layers: list[Tensor]
    scores: list[Tensor]

    @property
    def first(self) -> Tensor:
        """The first token's last state [B, T, 192]."""
        return self.layers[-1][:, :, 0]


def build(std: float = 0.05) -> BlipForImageTextRetrieval:
    """A fresh base of BLIP's shape; matrices of the text layers are drawn with `std`."""
    model = BlipForImageTextRetrieval(blip_config(make_tokenizer()))
    for name, parameter in model.text_encoder.named_parameters():
        if parameter.ndim == 2 and ".layer." in name:
            nn.init.normal_(parameter, std=std)
    return model


def split(states: Tensor) -> Tensor:
    """[..., L, d] → [..., heads, L, d / heads]."""
    return states.unflatten(-1, (HEADS, -1)).transpose(-2, -3)


def attended(query: Tensor, key: Tensor, value: Tensor, padding: Tensor | None) -> tuple[Tensor, Tensor]:
    """Context [..., L, d] and the scores [..., heads, L, K] of heads' attention; `padding` is added to the scores."""
    scores = split(query) @ split(key).transpose(-1, -2) / math.sqrt(WIDTH // HEADS)
    if padding is not None:
        scores = scores + padding
    return (scores.softmax(-1).to(query.dtype) @ split(value)).transpose(-2, -3).flatten(-2), scores


class Packed:
    """Texts without their padding.

    Args:
        mask: [S, L], 1 for words.
    """

    def __init__(self, mask: Tensor) -> None:
        self.shape = mask.shape
        self.real = mask.flatten().nonzero()[:, 0]
        self.padding = (1.0 - mask[:, None, None, :].float()) * -1e4

    def pack(self, states: Tensor) -> Tensor:
        """[S, L, d] → [words, d]."""
        return states.flatten(0, 1).index_select(0, self.real)

    def pad(self, states: Tensor) -> Tensor:
        """[words, d] → [S, L, d], zero where there is padding."""
        out = states.new_zeros(self.shape.numel(), states.shape[-1])
        return out.index_copy(0, self.real, states).view(*self.shape, -1)


def self_attention(layer: nn.Module, states: Tensor, packed: Packed) -> Tensor:
    """A layer's first part [words, d]."""
    inner = layer.attention.self
    query, key, value = (packed.pad(part(states)) for part in (inner.query, inner.key, inner.value))
    context, _ = attended(query, key, value, packed.padding)
    return layer.attention.output(packed.pack(context), states)


def fuse(model: BlipForImageTextRetrieval, ids: Tensor, mask: Tensor, visual: Tensor) -> Fused:
    """Texts fused with the canvases that they belong to.

    Args:
        model: the base.
        ids: T texts a canvas [B, T, L]; their first token is replaced by [ENC].
        mask: [B, T, L].
        visual: tokens [B, N, 192].
    """
    canvases, texts, length = ids.shape
    ids = ids.clone()
    ids[..., 0] = ENC
    packed = Packed(mask.flatten(0, 1))
    states = packed.pack(model.text_encoder.embeddings(input_ids=ids.flatten(0, 1)))
    layers, scores = [], []
    for layer in model.text_encoder.encoder.layer:
        own = self_attention(layer, states, packed)
        cross = layer.crossattention.self
        query = packed.pad(cross.query(own)).view(canvases, texts * length, -1)
        context, score = attended(query, cross.key(visual), cross.value(visual), None)
        crossed = layer.crossattention.output(packed.pack(context.view(canvases * texts, length, -1)), own)
        states = layer.output(layer.intermediate(crossed), crossed)
        scores.append(score.view(canvases, HEADS, texts, length, -1))
        layers.append(packed.pad(states).view(canvases, texts, length, -1))
    return Fused(layers, scores)


def text_feature(model: BlipForImageTextRetrieval, ids: Tensor, mask: Tensor) -> Tensor:
    """Unit-length features [S, e] of texts alone [S, L]."""
    packed = Packed(mask)
    states = packed.pack(model.text_encoder.embeddings(input_ids=ids))
    for layer in model.text_encoder.encoder.layer:
        own = self_attention(layer, states, packed)
        states = layer.output(layer.intermediate(own), own)
    return nn.functional.normalize(model.text_proj(packed.pad(states)[:, 0]).float(), dim=-1)


def visual_feature(model: BlipForImageTextRetrieval, tokens: Tensor) -> Tensor:
    """Unit-length features [V, e] of canvases' tokens [V, N, 192]."""
    return nn.functional.normalize(model.vision_proj(tokens[:, 0]).float(), dim=-1)


def margin(model: BlipForImageTextRetrieval, fused: Fused) -> Tensor:
    """How much more the texts belong to their canvases than not [B, T], in logits."""
    logits = model.itm_head(fused.first).float()
    return logits[..., 1] - logits[..., 0]


@torch.no_grad()
def start_words(model: BlipForImageTextRetrieval, heads: dict[str, Tensor], words: dict[int, Tensor]) -> None:
    """Words begin as what names their patches, cross-attention as looking for what is alike, and contrast with both.

    Args:
        model: fresh from `build`.
        heads: of the first stage: "patch.weight" [C + 1, 192] and "canvas.weight" [C, 192].
        words: from `word_starts`.
    """
    table = model.text_encoder.embeddings.word_embeddings.weight
    for number, row in words.items():
        table[number] = 0.06 * row
    turn = torch.linalg.qr(torch.randn(WIDTH, WIDTH))[0]
    for layer in model.text_encoder.encoder.layer[:2]:
        layer.crossattention.self.query.weight.copy_(1.2 * turn)
        layer.crossattention.self.key.weight.copy_(1.2 * turn)
    rows = unit_rows(heads["patch.weight"][:-1])
    canvas = heads["canvas.weight"].float()
    seen = turn[: model.text_proj.out_features] @ (rows.t() @ (canvas - canvas.mean(0)))
    model.vision_proj.weight.copy_(0.05 * seen / seen.std())
    model.text_proj.weight.copy_(3 * turn[: model.text_proj.out_features])


def unit_rows(weight: Tensor) -> Tensor:
    """Rows [C, d] around their mean, of unit variance each."""
    centred = weight.float() - weight.float().mean(0)
    return centred / centred.std(1, keepdim=True)
