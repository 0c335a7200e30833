"""Other people's parts on the same model: PEFT's LoRA, bitsandbytes' layers, transformers' Trainer."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn
from transformers import BlipForConditionalGeneration, BlipForQuestionAnswering, PreTrainedModel

from tiny import randomise, tiny_model, tiny_texts
from uniadapter.checkpoints.adapter_folder import save_adapter
from uniadapter.checkpoints.adapters import add_adapter, load_adapter
from uniadapter.config import AdapterConfig, ConfigError
from uniadapter.errors import CheckpointError
from uniadapter.model.encoding import encode_text, encode_visual, match
from uniadapter.model.identity import base_hash, identity_of
from uniadapter.model.sets import adapter_names, adapter_set, remove_adapter, select_adapter

CONFIG = AdapterConfig(bottleneck=4, key_value=4)


def scores(model: PreTrainedModel) -> Tensor:
    frames = torch.randn(2, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return match(
            model, encode_text(model, *tiny_texts(2)), encode_visual(model, frames), torch.tensor([[0, 0], [1, 1]])
        )


class Wrapped(nn.Module):
    """A layer as PEFT's tuners put it around one of the base's: the base's below `base_layer`, its own beside it."""

    def __init__(self, base_layer: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.lora_A = nn.ModuleDict({"default": nn.Linear(base_layer.in_features, 2, bias=False)})

    def forward(self, x: Tensor) -> Tensor:
        return self.base_layer(x)


def wrap(model: PreTrainedModel, *names: str) -> None:
    """Put such layers around the base's of these names, as PEFT finds them: anywhere in the model."""
    for path, module in list(model.named_modules()):
        if path.split(".")[-1] in names:
            outer = model.get_submodule(path.rpartition(".")[0])
            setattr(outer, path.split(".")[-1], Wrapped(module))  # type: ignore[arg-type]


def test_layers_around_the_bases_leave_hash_and_adapter_as_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    model = tiny_model()
    expected = base_hash(model), identity_of(model)
    built = add_adapter(model, CONFIG)
    randomise(built)
    before = scores(model)
    assert not {"query", "key", "value"} & {name.split(".")[-1] for name, _ in built.named_modules()}
    wrap(model, "query", "value", "qkv")
    assert (base_hash(model), identity_of(model)) == expected
    assert torch.allclose(scores(model), before, atol=1e-6)
    with caplog.at_level(logging.WARNING):
        save_adapter(model, tmp_path / "a")
    assert "lora_A" in caplog.text
    fresh = tiny_model()
    load_adapter(fresh, tmp_path / "a")
    assert torch.allclose(scores(fresh), before, atol=1e-6)
    with torch.no_grad():  # and a change of the base's own is still seen
        model.vision_model.encoder.layers[0].self_attn.qkv.base_layer.weight[0, 0] += 0.1
    assert base_hash(model) != expected[0]


def test_what_others_train_goes_on_training() -> None:
    model = tiny_model()
    add_adapter(model, CONFIG)
    wrap(model, "qkv")
    select_adapter(model, "default")
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[0] for name in trained} == {"uniadapters", "vision_model"}
    assert all("lora_A" in name for name in trained if name.startswith("vision_model"))


def test_foreign_layers_within_an_adapter_are_refused(tmp_path: Path) -> None:
    model = tiny_model()
    add_adapter(model, CONFIG)
    wrap(model, "down")
    with pytest.raises(CheckpointError, match="exclude_modules"):
        save_adapter(model, tmp_path / "a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize("targets", [["query", "value"], ["qkv"], ["query", "key", "value", "dense"]])
def test_lora_beside_uniadapter(tmp_path: Path, targets: list[str]) -> None:
    peft = pytest.importorskip("peft")
    model = tiny_model(BlipForQuestionAnswering)
    expected = base_hash(model)
    randomise(add_adapter(model, CONFIG))
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=targets))
    assert base_hash(model) == base_hash(wrapped) == expected
    assert adapter_names(wrapped) == ["default"]
    frames = torch.randn(1, 1, 3, 32, 32)
    assert torch.equal(encode_visual(wrapped, frames).tokens, encode_visual(model, frames).tokens)
    save_adapter(wrapped, tmp_path / "a")
    load_adapter(tiny_model(BlipForQuestionAnswering), tmp_path / "a")


def test_files_keep_the_names_that_they_had(tmp_path: Path) -> None:
    model = tiny_model(BlipForQuestionAnswering)
    randomise(add_adapter(model, CONFIG))
    save_adapter(model, tmp_path / "a")
    with safe_open(tmp_path / "a/adapter_model.safetensors", "pt") as file:
        names = set(file.keys())
    stems = {"key", "value", "decoder_key", "decoder_value"}
    assert {f"{stem}.{part}" for stem in stems for part in ("down.weight", "up.bias", "scale")} <= names
    twin = tiny_model(BlipForQuestionAnswering)
    add_adapter(twin, CONFIG)
    twin.load_state_dict(model.state_dict())  # and so does torch's own way
    for ours, theirs in zip(adapter_set(twin).parameters(), adapter_set(model).parameters(), strict=True):
        assert torch.equal(ours, theirs)


class Quantised(nn.Linear):
    """A linear layer whose weight is kept in 8 bits, as bitsandbytes keeps it."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__(linear.in_features, linear.out_features)
        self.scale = float(linear.weight.detach().abs().max()) / 127
        self.weight = nn.Parameter((linear.weight / self.scale).round().to(torch.int8), requires_grad=False)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype) * self.scale, self.bias)


def quantise(model: PreTrainedModel, *kept: str) -> PreTrainedModel:
    for path, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and path not in kept:
            setattr(model.get_submodule(path.rpartition(".")[0]), path.split(".")[-1], Quantised(module))
    return model


HEADS = ("vision_proj", "text_proj", "itm_head")


def test_on_a_quantised_base_adapters_work_where_the_heads_are_whole(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="llm_int8_skip_modules"):
        add_adapter(quantise(tiny_model()), CONFIG)
    headless = quantise(tiny_model())
    add_adapter(headless, AdapterConfig(bottleneck=4, key_value=4, heads=False))
    assert scores(headless).isfinite().all()
    model = quantise(tiny_model(), *HEADS)
    randomise(add_adapter(model, CONFIG), 0.1)
    with pytest.raises(ValueError, match="quantised"):
        base_hash(model)
    save_adapter(model, tmp_path / "on8")
    assert json.loads((tmp_path / "on8/uniadapter_config.json").read_text())["base_model_sha256"] is None
    whole = tiny_model()
    load_adapter(whole, tmp_path / "on8")
    assert (scores(whole) - scores(model)).abs().max() < 0.1
    save_adapter(whole, tmp_path / "whole")
    load_adapter(quantise(tiny_model(), *HEADS), tmp_path / "whole")
    for folder in ("on8", "whole"):  # biases and norms tell another base
        with pytest.raises(CheckpointError, match="another base"):
            load_adapter(quantise(tiny_model(seed=1), *HEADS), tmp_path / folder)


def test_save_pretrained_saves_the_adapters_beside_the_base(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = tiny_model()
    randomise(add_adapter(model, CONFIG))
    model.save_pretrained(tmp_path / "out")
    assert "load_adapter" in caplog.text
    fresh = type(model).from_pretrained(tmp_path / "out").eval()
    assert adapter_names(fresh) == []
    load_adapter(fresh, tmp_path / "out/uniadapters/default")
    assert torch.equal(scores(fresh), scores(model))
    remove_adapter(model)
    model.save_pretrained(tmp_path / "bare")
    assert not (tmp_path / "bare/uniadapters").exists()


def test_transformers_trainer_keeps_the_adapter(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from transformers import Trainer, TrainingArguments

    def adapted() -> PreTrainedModel:
        model = tiny_model(BlipForConditionalGeneration)
        add_adapter(model, CONFIG)
        return model

    ids, mask = tiny_texts(4)
    pixels = torch.randn(4, 3, 32, 32)
    rows = [
        {"pixel_values": pixels[i], "input_ids": ids[i], "attention_mask": mask[i], "labels": ids[i]} for i in range(4)
    ]
    arguments = TrainingArguments(
        str(tmp_path / "run"), per_device_train_batch_size=2, max_steps=2, save_steps=2, learning_rate=1e-2,
        report_to=[], use_cpu=True, disable_tqdm=True,
    )  # fmt: skip
    model = adapted()
    Trainer(model=model, args=arguments, train_dataset=rows).train()  # type: ignore[arg-type]
    checkpoint = tmp_path / "run/checkpoint-2"
    trained = adapter_set(model).state_dict()
    fresh = tiny_model(BlipForConditionalGeneration)
    for name, value in load_adapter(fresh, checkpoint / "uniadapters/default").state_dict().items():
        assert torch.equal(value, trained[name]), name
    caplog.clear()
    Trainer(model=adapted(), args=arguments, train_dataset=rows).train(str(checkpoint))  # type: ignore[arg-type]
    assert "holds no adapter" in caplog.text
