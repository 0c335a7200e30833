"""Attention with the projections on the queries equals attention to projected keys and values."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import uniadapter.model.blip.fusion
from tiny import randomise, tiny_model, tiny_texts
from uniadapter.checkpoints.adapters import add_adapter
from uniadapter.config import AdapterConfig
from uniadapter.model.encoding import encode_text, encode_visual, fuse
from uniadapter.model.kernels.absorbed import absorbed_attention, absorbing_is_cheaper


@pytest.mark.parametrize("with_deltas", [False, True])
@pytest.mark.parametrize("weighed", [False, True])
def test_it_is_attention_to_keys_and_values(with_deltas: bool, weighed: bool) -> None:
    torch.manual_seed(0)
    rows, heads, width, size, tokens, source = 3, 4, 5, 8, 11, 24
    key, value = nn.Linear(source, heads * size).double(), nn.Linear(source, heads * size).double()
    query, visual = torch.randn(rows, heads, width, size).double(), torch.randn(rows, tokens, source).double()
    deltas = tuple(torch.randn(rows, tokens, heads * size).double() if with_deltas else None for _ in range(2))
    factor = torch.rand(rows, 1, width, tokens).double() if weighed else torch.ones(1).double()

    def split(states: Tensor, delta: Tensor | None) -> Tensor:
        states = states if delta is None else states + delta
        return states.view(rows, tokens, heads, size).transpose(1, 2)

    with torch.no_grad():
        keys, values = split(key(visual), deltas[0]), split(value(visual), deltas[1])
        scores = query @ keys.transpose(2, 3) * size**-0.5 * factor
        expected = torch.softmax(scores, dim=-1) @ values
        change = (lambda s: s * factor) if weighed else None
        found = absorbed_attention(query, visual, (key.weight, key.bias), (value.weight, value.bias), deltas, change)
    assert (found - expected).abs().max() < 1e-12


def test_it_pays_for_few_queries_alone() -> None:
    assert absorbing_is_cheaper(13, 577, 768, 12), "one caption of COCO's length and one picture"
    assert not absorbing_is_cheaper(5 * 13, 577, 768, 12)
    assert absorbing_is_cheaper(13, 8 * 197, 768, 12)
    assert not absorbing_is_cheaper(13, 13, 768, 12), "nothing to save on a visual of few tokens"


@pytest.mark.parametrize("read", ["first", "all"])
@pytest.mark.parametrize("frame_aware", [False, True])
def test_fuse_is_the_same_either_way(frame_aware: bool, read: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model().double()
    randomise(add_adapter(model, AdapterConfig(bottleneck=4, key_value=4, frame_aware=frame_aware)))
    ids, mask = tiny_texts(5)
    pairs = torch.tensor([[0, 0], [1, 1], [2, 1], [3, 2], [4, 0], [4, 2], [0, 2]])
    frames = torch.randn(3, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    found = []
    with torch.no_grad():
        visuals, texts = encode_visual(model, frames), encode_text(model, ids, mask)
        for way in (True, False):
            monkeypatch.setattr(uniadapter.model.blip.fusion, "absorbing_is_cheaper", lambda *_, way=way: way)
            found.append(fuse(model, texts, visuals, pairs, read))
    real = mask[pairs[:, 0]].bool() if read == "all" else slice(None)
    assert (found[0] - found[1])[real].abs().max() < 1e-10
    assert not torch.equal(*found), "two ways were taken"


def test_training_projects(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backward pass would cost more than the forward pass saves."""
    model = tiny_model()
    add_adapter(model, AdapterConfig(bottleneck=4))
    monkeypatch.setattr(uniadapter.model.blip.fusion, "absorbed_attention", None)
    monkeypatch.setattr(uniadapter.model.blip.fusion, "absorbing_is_cheaper", lambda *_: True)
    visuals, texts = encode_visual(model, torch.randn(1, 1, 3, 32, 32)), encode_text(model, *tiny_texts(1))
    assert fuse(model, texts, visuals, torch.tensor([[0, 0]])).requires_grad
