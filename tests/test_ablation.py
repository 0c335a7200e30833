"""Configs without a part of UniAdapter have as many trainable parameters, and nothing else is changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from uniadapter.app.demo import DEMOS, demo_config
from uniadapter.config import AdapterConfig, ConfigError, RunConfig
from uniadapter.model.sets import adapter_set
from uniadapter.runs.ablation import (
    fused_part_alone,
    has_fused_part,
    with_equal_parameters,
    without_fused_part,
)
from uniadapter.tasks.preparing import prepare

Change = Callable[[RunConfig], RunConfig]
BOTH = AdapterConfig(bottleneck=20, key_value=16, scale=1.0)


def config_of(task: str, adapter: AdapterConfig = BOTH) -> RunConfig:
    config = RunConfig(task=task)
    return replace(config, model=replace(config.model, adapter=adapter))


@pytest.mark.parametrize("task", ("retrieval", "vqa", "caption"))
@pytest.mark.parametrize("change", (without_fused_part, fused_part_alone))
def test_the_parameters_are_equal(task: str, change: Change) -> None:
    whole = config_of(task)
    part = change(whole)
    numbers = [prepare(one).counts.trainable for one in (whole, part)]
    one_unit = prepare(with_wider(part)).counts.trainable - numbers[1]
    assert abs(numbers[1] - numbers[0]) <= one_unit / 2
    assert part.model.adapter.bottleneck > whole.model.adapter.bottleneck


def with_wider(config: RunConfig) -> RunConfig:
    adapter = config.model.adapter
    return replace(config, model=replace(config.model, adapter=replace(adapter, bottleneck=adapter.bottleneck + 1)))


def test_without_the_fused_part_only_the_adapters_change() -> None:
    whole = config_of("retrieval", replace(BOTH, frame_aware=True, temporal_frames=4))
    part = without_fused_part(whole)
    expected = replace(whole.model.adapter, cross=False, key_value=0, bottleneck=part.model.adapter.bottleneck)
    assert part == replace(whole, model=replace(whole.model, adapter=expected))
    built = adapter_set(prepare(part).model)
    assert not hasattr(built, "encoder_key")
    assert built.adapter("encoder", 0, "cross") is None
    assert built.adapter("encoder", 0, "text") is not None


def test_the_fused_part_alone_has_no_other_adapters() -> None:
    built = adapter_set(prepare(fused_part_alone(config_of("retrieval"))).model)
    assert built.adapter("encoder", 0, "cross") is not None
    assert built.adapter("encoder", 0, "text") is None
    assert built.adapter("vision", 0, "vision") is None


@pytest.mark.parametrize("task", DEMOS)
def test_the_demos_compare_at_nearly_equal_parameters(task: str) -> None:
    if task == "easy_vqa":
        pytest.importorskip("easy_vqa")
    config = demo_config(task, "uniadapter", 0)
    if not has_fused_part(config):
        pytest.skip("nothing to leave out")
    numbers = [prepare(one).counts.trainable for one in (config, without_fused_part(config))]
    assert abs(numbers[1] / numbers[0] - 1) < 0.011


def test_random_draws_are_not_moved() -> None:
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    without_fused_part(config_of("retrieval"))
    assert torch.equal(torch.rand(3), expected)


def test_a_config_without_a_fused_part_is_refused() -> None:
    bare = config_of("retrieval", AdapterConfig(cross=False, key_value=0))
    assert not has_fused_part(bare)
    with pytest.raises(ConfigError, match="no fused part to leave out"):
        without_fused_part(bare)
    whole = config_of("retrieval")
    assert not has_fused_part(replace(whole, model=replace(whole.model, method="full")))


def test_nothing_to_widen_is_refused() -> None:
    only_keys = AdapterConfig(vision=False, text=False, cross=False, key_value=16)
    with pytest.raises(ConfigError, match="no bottleneck"):
        with_equal_parameters(config_of("retrieval"), only_keys)
