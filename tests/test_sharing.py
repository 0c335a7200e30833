"""What the adapters of a layer share, and the same without: how much is built, saved and trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BlipForQuestionAnswering

from test_checkpoint import scores
from tiny import TASK_MODELS, randomise, tiny_model
from uniadapter.checkpoints.adapter_folder import save_adapter
from uniadapter.checkpoints.adapters import add_adapter, load_adapter
from uniadapter.config import AdapterConfig, ConfigError
from uniadapter.model.adapter import UniAdapter
from uniadapter.model.adapter_set import AdapterSet
from uniadapter.model.counting import count_parameters
from uniadapter.model.sets import active_adapter, add_momentum, select_adapter, update_momentum
from uniadapter.model.shape import BackboneShape

SHARES = ("all", "down", "up", "none")
d, r = 32, 4
NORM, DOWN, UP = 2 * d, d * r + r, r * d + d


def built(share: str, shape: BackboneShape | None = None, **more: Any) -> AdapterSet:
    """The adapters alone."""
    config = AdapterConfig(**{"bottleneck": r, "key_value": 0, "heads": False, "share": share, **more})
    return AdapterSet(config, shape or BackboneShape(1, d, 1, d), {})


@pytest.mark.parametrize(
    ("share", "size"),
    [
        ("all", NORM + DOWN + 3 * UP + NORM),
        ("down", NORM + DOWN + 3 * UP + NORM),
        ("up", 3 * (NORM + DOWN + UP) + NORM),
        ("none", 3 * (NORM + DOWN + UP) + NORM),
    ],
)
def test_sizes(share: str, size: int) -> None:
    assert built(share).adapter_parameters() == size
    cross_alone = built(share, vision=False, text=False).adapter_parameters()
    own_text_up = UP if share in ("all", "up") else 0
    assert cross_alone == NORM + DOWN + UP + NORM + own_text_up, "W_text is there if cross reads it, whoever owns it"


@pytest.mark.parametrize("share", SHARES)
def test_cross_depends_on_the_text_up_projection_only_where_it_is_reused(share: str) -> None:
    adapters = built(share)
    randomise(adapters)
    x = torch.randn(3, d)
    cross, text = adapters.adapter("encoder", 0, "cross"), adapters.adapter("encoder", 0, "text")
    assert cross is not None
    assert text is not None
    assert (cross is text) == (share in ("all", "down"))
    before = cross(x, "cross")
    with torch.no_grad():
        text.up_text.weight.add_(torch.randn_like(text.up_text.weight))
    assert torch.equal(cross(x, "cross"), before) == (share in ("down", "none"))


@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("cls", TASK_MODELS)
def test_starts_at_the_base_exactly_whatever_is_shared(cls: type, share: str) -> None:
    adapters = add_adapter(tiny_model(cls), AdapterConfig(bottleneck=r, share=share))  # type: ignore[arg-type]
    x = torch.randn(3, d)
    for use in ("vision", "text", "cross"):
        adapter = adapters.adapter("encoder", 0, use)  # type: ignore[arg-type]
        if adapter is not None:
            assert not adapter(x, use).any()  # type: ignore[arg-type]


@pytest.mark.parametrize("share", SHARES)
def test_saved_and_loaded(tmp_path: Path, share: str) -> None:
    model = tiny_model()
    config = AdapterConfig(bottleneck=r, key_value=2, share=share, query_residual=False)  # type: ignore[arg-type]
    randomise(add_adapter(model, config))
    expected = scores(model)  # type: ignore[arg-type]
    fresh = tiny_model()
    loaded = load_adapter(fresh, save_adapter(model, tmp_path / "a"))
    assert loaded.config == config
    assert torch.equal(scores(fresh), expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("share", SHARES)
def test_the_momentum_copy_reuses_its_own_text_up_projection(share: str) -> None:
    model = tiny_model()
    adapters = add_adapter(model, AdapterConfig(bottleneck=r, share=share))  # type: ignore[arg-type]
    randomise(adapters)
    add_momentum(model)
    with active_adapter(model, "momentum"):
        expected = scores(model)  # type: ignore[arg-type]
    randomise(adapters, seed=1)
    with active_adapter(model, "momentum"):
        assert torch.equal(scores(model), expected)  # type: ignore[arg-type]
    update_momentum(model, 0.0)
    with active_adapter(model, "momentum"):
        moved = scores(model)  # type: ignore[arg-type]
    torch.testing.assert_close(moved, scores(model))  # type: ignore[arg-type]


def test_the_norm_of_cross_adapters_can_stay_as_it_starts() -> None:
    model = tiny_model(BlipForQuestionAnswering)
    config = AdapterConfig(bottleneck=r, init="released", train_norm_cross=False)
    adapters = add_adapter(model, config)
    norms = {id(p) for m in adapters.modules() if isinstance(m, UniAdapter) for p in m.norm_cross.parameters()}
    frozen = {id(p) for p in adapters.parameters() if not p.requires_grad}
    assert frozen == norms
    counted = count_parameters(model).trainable
    select_adapter(model, None)
    select_adapter(model, "default")
    assert {id(p) for p in adapters.parameters() if not p.requires_grad} == norms, "selected again"
    other = add_adapter(model, AdapterConfig(bottleneck=r, init="released"), "other")
    assert count_parameters(model).trainable == counted + sum(
        p.numel() for m in other.modules() if isinstance(m, UniAdapter) for p in m.norm_cross.parameters()
    )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"train_norm_cross": False}, "set init to released"),
        ({"share": "none", "factor": 4}, "set adapter.factor to 0"),
        ({"share": "up", "factor": 4}, "set adapter.factor to 0"),
        ({"share": "some"}, "share"),
    ],
)
def test_what_cannot_be(values: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        AdapterConfig(**values)


def test_the_plan_says_what_is_shared() -> None:
    assert built("all").plan() == ["layer 0: one adapter each for vision, text and cross-attention, r = 4"]
    none = built("none", query_residual=False).plan()
    assert none[0] == "layer 0: an adapter for each of vision, text and cross-attention, r = 4"
    assert none[1] == "cross-attention does not reuse the text up-projection"
    assert none[2].startswith("no query residual")
