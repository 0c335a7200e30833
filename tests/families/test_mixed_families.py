"""A batch whose rows use different sets, in every family; `test_mixed_batches` has BLIP's in detail."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from tiny_blip2 import tiny_blip2
from tiny_models import BUILDERS, TEXTS, pixels
from torch import Tensor
from transformers import PreTrainedModel

import uniadapter as ua
from tiny import randomise, tiny_texts
from uniadapter.model.dispatch import fuses
from uniadapter.model.encoding import encode_text, encode_visual, match

NAMES = ["b", "a", None, "b"]
KNOWN: dict[str, tuple[Callable[..., PreTrainedModel], Callable[..., tuple[Tensor, Tensor]]]] = {
    **{name: (BUILDERS[name], TEXTS[name]) for name in BUILDERS},
    "blip2": (tiny_blip2, tiny_texts),
}


@torch.no_grad()
@pytest.mark.parametrize("family", KNOWN)
def test_each_row_has_what_its_set_gives_alone(family: str) -> None:
    build, texts_of = KNOWN[family]
    model, (ids, mask) = build().eval().double(), texts_of(len(NAMES))
    configs = {
        "a": ua.AdapterConfig(bottleneck=4, key_value=3, temporal_frames=2 if family == "blip2" else 0),
        "b": ua.AdapterConfig(bottleneck=6, heads=False),
    }
    for seed, (name, config) in enumerate(configs.items()):
        randomise(ua.add_adapter(model, config, name), 0.1, seed=seed + 1)
    frames = pixels(len(NAMES), 2, model.config.vision_config.image_size).double()
    every = torch.arange(len(NAMES))[:, None].expand(-1, 2)
    with ua.active_adapter(model, NAMES):
        visuals, texts = encode_visual(model, frames), encode_text(model, ids, mask)
        scores = match(model, texts, visuals, every) if fuses(model) else torch.zeros(len(NAMES), 2)
    assert not torch.allclose(visuals.feature[0], visuals.feature[3], atol=1e-3)
    for row, name in enumerate(NAMES):
        own = slice(row, row + 1)
        with ua.active_adapter(model, name):
            visual, text = encode_visual(model, frames[own]), encode_text(model, ids[own], mask[own])
            assert torch.allclose(visuals.feature[own], visual.feature, atol=1e-6)
            assert torch.allclose(texts.feature[own], text.feature, atol=1e-6)
            if fuses(model):
                assert torch.allclose(scores[own], match(model, text, visual, every[:1]), atol=1e-6)
