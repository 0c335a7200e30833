"""BLIP-2 pair by pair, written to be read and not to be quick: what the grouped version must equal.

Nothing of the package is used but the weights that it holds. Of transformers, only plain submodules (linears, norms,
the feed-forwards and the output blocks) are called; no attention and no layer.
"""

from __future__ import annotations

import pytest
import torch
from tiny_blip2 import SHAPES, tiny_blip2
from torch import Tensor, nn
from transformers import PreTrainedModel

from naive import adapter, attention, key_value
from tiny import randomise, tiny_texts
from uniadapter import add_adapter
from uniadapter.config import AdapterConfig
from uniadapter.model.adapter_set import AdapterSet
from uniadapter.model.encoding import encode_text, encode_visual, match, similarity

VIDEO = AdapterConfig(bottleneck=4, key_value=3, frame_aware=True, temporal_frames=3)
KINDS = [AdapterConfig(bottleneck=4, key_value=3), AdapterConfig(bottleneck=4, key_value=0, text=False), VIDEO]


def naive_vision(model: PreTrainedModel, picture: Tensor, active: AdapterSet) -> Tensor:
    """Last states [N, d] of one picture [3, H, W] of the model's own size."""
    vision = model.vision_model
    patches = vision.embeddings.patch_embedding(picture[None]).flatten(2)[0].T
    x = torch.cat([vision.embeddings.class_embedding[0], patches]) + vision.embeddings.position_embedding[0]
    for index, layer in enumerate(vision.encoder.layers):
        query, key, value = layer.self_attn.qkv(layer.layer_norm1(x)).chunk(3, dim=-1)
        x = x + layer.self_attn.projection(attention(query, key, value, layer.self_attn.num_heads))
        delta = adapter(active.vision_layers[index], x, "vision", active.config.scale) if active.config.vision else 0
        x = x + layer.mlp(layer.layer_norm2(x)) + delta
    return vision.post_layernorm(x)


def naive_qformer(
    model: PreTrainedModel, active: AdapterSet, queries: Tensor | None, text: Tensor | None, visual: Tensor | None,
    weights: Tensor | None = None,
) -> tuple[Tensor | None, Tensor | None]:  # fmt: skip
    """Queries [q, d] and a text's tokens [L, d], either of them None, through the Q-Former beside tokens [T, N, d]."""
    config, count = active.config, 0 if queries is None else len(queries)
    x = model.qformer.layernorm(torch.cat([part for part in (queries, text) if part is not None]))
    for index, layer in enumerate(model.qformer.encoder.layer):
        own, weighed = layer.attention.attention, active.layers[index]
        a = layer.attention.output(attention(own.query(x), own.key(x), own.value(x), own.num_attention_heads), x)
        outs = []
        if count:
            c = aq = a[:count]
            if index % model.config.qformer_config.cross_attention_frequency == 0:
                c = naive_cross(layer.crossattention, aq, visual, active, weights)
            out = layer.output_query(layer.intermediate_query(c), c)
            out = out + adapter(weighed, aq, "vision", config.scale) if config.text else out
            if config.cross and c is not aq:
                out = out + adapter(weighed, c, "cross", config.scale)
            outs.append(out)
        if text is not None:
            t = a[count:]
            out = layer.output(layer.intermediate(t), t)
            outs.append(out + adapter(weighed, t, "text", config.scale) if config.text else out)
        x = torch.cat(outs)
    return (x[:count] if count else None), (x[count:] if text is not None else None)


def naive_cross(
    block: nn.Module, a: Tensor, visual: Tensor, active: AdapterSet, weights: Tensor | None
) -> Tensor:  # fmt: skip
    """Cross-attention of queries [q, d] to tokens [T, N, d]."""
    cross, flat = block.attention, visual.flatten(0, 1)
    key, value = cross.key(flat), cross.value(flat)
    if active.config.key_value:
        key, value = key + key_value(active.key, flat), value + key_value(active.value, flat)
    if weights is not None:
        key = key.clone().unflatten(0, visual.shape[:2])
        for frame in range(len(visual)):  # the patches' keys; CLS, token 0 of each frame, is left alone
            key[frame, 1:] = key[frame, 1:] * weights[frame]
        key = key.flatten(0, 1)
    return block.output(attention(cross.query(a), key, value, cross.num_attention_heads), a)


def embedded(model: PreTrainedModel, ids: Tensor) -> Tensor:
    """Embeddings [L, d] of ids [L]."""
    table = model.embeddings
    return table.word_embeddings.weight[ids] + table.position_embeddings.weight[: len(ids)]


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def naive_scores(
    model: PreTrainedModel, active: AdapterSet, videos: Tensor, ids: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """Contrastive similarities [S, V] and matching logits [S, V, 2] of videos [V, T, 3, H, W] and texts [S, L]."""
    heads, config = active.heads, active.config
    itc, itm = [], []
    for row, real in zip(ids, mask, strict=True):
        tokens = row[: int(real.sum())]
        _, states = naive_qformer(model, active, None, embedded(model, tokens), None)
        feature = unit(heads.text_projection(states[0]))
        for video in videos:
            visual = torch.stack([naive_vision(model, frame, active) for frame in video])
            asked = [naive_qformer(model, active, model.query_tokens[0], None, frame[None])[0] for frame in visual]
            pooled = unit(heads.vision_projection(torch.stack(asked).mean(0)))
            itc.append(max(torch.dot(feature, query) for query in pooled))
            each = torch.stack([(unit(heads.vision_projection(one)) @ feature).max() for one in asked]).detach() / 4
            weights = each.exp() / each.exp().sum() * len(video) if config.frame_aware else None
            if config.temporal_frames:
                visual = visual + active.time[0][:, None]
            fused, _ = naive_qformer(model, active, model.query_tokens[0], embedded(model, tokens), visual, weights)
            itm.append(torch.stack([heads.itm_head(query) for query in fused]).mean(0))
    size = (len(ids), len(videos))
    return torch.stack(itc).view(size), torch.stack(itm).view(*size, 2)


def clips(count: int, frames: int) -> Tensor:
    """Random videos [V, T, 3, 32, 32]."""
    return torch.randn(count, frames, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double()


@pytest.mark.parametrize("sizes", SHAPES)
@pytest.mark.parametrize("config", KINDS, ids=["default", "cross", "video"])
def test_the_grouped_version_is_the_one_written_pair_by_pair(config: AdapterConfig, sizes: dict[str, int]) -> None:
    model = tiny_blip2(**sizes).double()
    built = add_adapter(model, config)
    randomise(built)
    videos, (ids, mask) = clips(2, 3), tiny_texts(3)
    pairs = torch.cartesian_prod(torch.arange(3), torch.arange(2))
    with torch.no_grad():
        itc, itm = naive_scores(model, built, videos, ids, mask)
        visuals, texts = encode_visual(model, videos), encode_text(model, ids, mask)
        grouped = match(model, texts, visuals, pairs).view(3, 2, 2)
    assert (similarity(model, texts.feature, visuals.feature) - itc).abs().max() < 1e-10
    assert (grouped - itm).abs().max() < 1e-10


@pytest.mark.parametrize("config", [KINDS[0], VIDEO], ids=["default", "video"])
def test_its_gradients_are_those_of_the_one_written_pair_by_pair(config: AdapterConfig) -> None:
    model = tiny_blip2().double()
    built = add_adapter(model, config)
    randomise(built)
    videos, (ids, mask) = clips(2, 3), tiny_texts(3)
    pairs = torch.cartesian_prod(torch.arange(3), torch.arange(2))
    direction = torch.randn(6, 2, generator=torch.Generator().manual_seed(0)).double()
    _, itm = naive_scores(model, built, videos, ids, mask)
    wanted = torch.autograd.grad((itm.flatten(0, 1) * direction).sum(), list(built.parameters()), allow_unused=True)
    texts, visuals = encode_text(model, ids, mask), encode_visual(model, videos)
    grouped = (match(model, texts, visuals, pairs) * direction).sum()
    found = torch.autograd.grad(grouped, list(built.parameters()), allow_unused=True)
    for (name, _), a, b in zip(built.named_parameters(), wanted, found, strict=True):
        assert (a is None or not a.any()) == (b is None or not b.any()), name
        assert a is None or b is None or (a - b).abs().max() < 1e-9, name
