"""The methods that UniAdapter is compared with: what they train, and that a run is measured again from its files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import BlipForConditionalGeneration, PreTrainedModel

from families.tiny_blip2 import tiny_blip2
from families.tiny_models import clip_texts, siglip_texts, tiny_clip, tiny_siglip
from test_commands import base, write_run  # noqa: F401 - a fixture
from test_video_commands import own
from tiny import TASK_MODELS, tiny_model, tiny_texts
from uniadapter.app.cli import main
from uniadapter.config import ConfigError, LoraSettings, ModelConfig
from uniadapter.model.baselines import merge_lora, prepare_baseline
from uniadapter.model.counting import count_parameters
from uniadapter.model.dispatch import backbone
from uniadapter.model.encoding import encode_text, encode_visual, fuse

PARTIAL = ("last_layers", "bitfit", "heads", "lora", "dora")
FAMILIES = {"blip2": tiny_blip2, "clip": tiny_clip, "siglip": tiny_siglip}


def prepared(model: PreTrainedModel, method: str, **more: object) -> set[str]:
    """The names that a method trains."""
    prepare_baseline(model, ModelConfig(method=method, **more), 0)  # type: ignore[arg-type]
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def heads(model: PreTrainedModel) -> set[str]:
    """The names of the task's heads and of the loss's numbers."""
    seen = backbone(model)
    mine = {id(p) for head in seen.base_heads().values() for p in head.parameters()}
    mine |= {id(p) for p in seen.base_scalars().values()}
    return {name for name, p in model.named_parameters() if id(p) in mine}


@pytest.mark.parametrize("cls", TASK_MODELS)
def test_what_each_method_trains(cls: type) -> None:
    model = tiny_model(cls, vision_layers=3, text_layers=2)
    everything, own_heads = {name for name, _ in model.named_parameters()}, heads(model)
    methods = [one for one in (*PARTIAL, "full") if own_heads or one != "heads"]
    names = {method: prepared(tiny_model(cls, vision_layers=3, text_layers=2), method) for method in methods}
    assert names["full"] == everything
    assert names.get("heads", set()) == own_heads
    assert names["bitfit"] == own_heads | {name for name in everything if name.endswith("bias")}
    last = {name for name in everything if ".layers.2." in name or ".layer.1." in name}
    assert any("vision" in name for name in last)
    assert any("text" in name for name in last)
    assert names["last_layers"] == own_heads | last
    for method in ("lora", "dora"):
        changed = {name for name in names[method] if "lora_" in name}
        assert names[method] - changed == own_heads
        layers = {name.split(".lora_")[0] for name in changed}
        linear = {
            n
            for n, m in model.named_modules()
            if isinstance(m, torch.nn.Linear) and (".layers." in n or ".layer." in n)
        }
        assert layers == linear


def test_a_captioning_model_has_no_heads_to_train_alone() -> None:
    with pytest.raises(ConfigError, match="has no heads to train"):
        prepared(tiny_model(BlipForConditionalGeneration), "heads")


@pytest.mark.parametrize("method", PARTIAL)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_them(family: str, method: str) -> None:
    model = FAMILIES[family]()
    names = prepared(model, method)
    assert names >= heads(model)
    assert (names == heads(model)) == (method == "heads")
    counts = count_parameters(model)
    assert counts.total == count_parameters(FAMILIES[family]()).total
    assert counts.trainable == sum(p.numel() for p in model.parameters() if p.requires_grad)


def output(model: PreTrainedModel) -> Tensor:
    """Features and, where there is one, fused states."""
    frames = torch.randn(2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    texts = {"clip": clip_texts, "siglip": siglip_texts}.get(model.config.model_type, tiny_texts)(3)
    with torch.no_grad():
        visuals, said = encode_visual(model, frames), encode_text(model, *texts)
        parts = [visuals.feature, said.feature]
        if model.config.model_type == "blip":
            parts.append(fuse(model, said, visuals, torch.tensor([[0, 0], [1, 1], [2, 0]])))
    return torch.cat([part.flatten() for part in parts])


@pytest.mark.parametrize("method", ["lora", "dora"])
@pytest.mark.parametrize("family", ["blip", *FAMILIES])
def test_lora_starts_at_the_base_moves_it_and_merges(family: str, method: str) -> None:
    make = {"blip": tiny_model, **FAMILIES}[family]
    model = make()  # type: ignore[operator]
    before, keys = output(model), set(model.state_dict())
    prepared(model, method, lora=LoraSettings(r=2, alpha=6))
    torch.testing.assert_close(output(model), before)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    moved = output(model)
    assert (moved - before).abs().max() > 1e-3
    merge_lora(model)
    assert set(model.state_dict()) == keys
    torch.testing.assert_close(output(model), moved, atol=1e-4, rtol=1e-4)


def test_loras_first_weights_are_the_seeds_and_the_generator_stays() -> None:
    def drawn(seed: int) -> Tensor:
        model = tiny_model()
        torch.manual_seed(5)
        prepare_baseline(model, ModelConfig(method="lora"), seed)
        return torch.cat([p.flatten() for n, p in model.named_parameters() if "lora_A" in n] + [torch.rand(1)])

    one, again, other = drawn(0), drawn(0), drawn(1)
    assert torch.equal(one, again)
    assert not torch.equal(one[:-1], other[:-1])
    assert torch.equal(one[-1], other[-1])


@pytest.mark.parametrize("method", PARTIAL)
def test_a_run_is_saved_small_and_whole_and_measured_again(
    tmp_path: Path,
    base: Path,  # noqa: F811
    method: str,
) -> None:
    run = write_run(tmp_path, base, own(tmp_path), data={"frames": 2}, train={"epochs": 2, "lr": 3e-3})
    assert main(["train", str(run), "--model.method", method, "--model.lora.r", "2"]) == 0
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    rows = {row["method"]: row for row in metrics["rows"]}
    row = rows[method]
    small = tmp_path / "run/trained.safetensors"
    assert row["checkpoint_bytes"] == small.stat().st_size < (tmp_path / "run/model/model.safetensors").stat().st_size
    assert row["trainable_parameters"] == sum(one.numel() for one in load_file(small).values())
    whole, bare = load_file(tmp_path / "run/model/model.safetensors"), load_file(base / "model.safetensors")
    assert set(whole) == set(bare)
    assert any(not torch.equal(whole[name], bare[name]) for name in bare)
    again = ["--adapter", str(tmp_path / "run"), "--output", str(tmp_path / "again")]
    assert main(["evaluate", str(run), *again]) == 0
    measured = json.loads((tmp_path / "again/metrics.json").read_text())["rows"][0]
    for name in ("method", "text_to_video", "video_to_text", "trainable_parameters", "checkpoint_bytes"):
        assert measured[name] == row[name], name


def test_a_full_run_in_the_place_of_another_leaves_no_part_behind(tmp_path: Path, base: Path) -> None:  # noqa: F811
    run = write_run(tmp_path, base, own(tmp_path), train={"epochs": 1})
    assert main(["train", str(run), "--model.method", "bitfit"]) == 0
    assert (tmp_path / "run/trained.safetensors").exists()
    assert main(["train", str(run), "--model.method", "full", "--overwrite"]) == 0
    assert not (tmp_path / "run/trained.safetensors").exists()


@pytest.mark.parametrize(
    "values", [{"method": "adapters"}, {"last_layers": 0}, {"lora": {"r": 0}}, {"lora": {"dropout": 1.0}}]
)
def test_what_cannot_be(values: dict[str, object]) -> None:
    with pytest.raises(ConfigError):
        ModelConfig(**values)  # type: ignore[arg-type]
