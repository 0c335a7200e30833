"""BLIP-2 from folders of transformers files: what loads, and what is refused in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_blip2 import tiny_blip2
from tokenizers import AddedToken
from transformers import AutoTokenizer, Blip2ForImageTextRetrieval

from squares import save_tokenizer
from uniadapter.checkpoints.loading import load_model, load_tokenizer
from uniadapter.errors import CheckpointError, ConfigError
from uniadapter.model.encoding import encode_text


@pytest.fixture
def base(tmp_path: Path) -> Path:
    tiny_blip2().save_pretrained(tmp_path / "tiny-blip2")
    save_tokenizer(tmp_path / "tiny-blip2")
    return tmp_path / "tiny-blip2"


def change(base: Path, **values: Any) -> None:
    """Set values of `config.json`; a mapping is merged into what stands there."""
    file = base / "config.json"
    config = json.loads(file.read_text())
    for key, value in values.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    file.write_text(json.dumps(config))


def test_a_folder_loads_as_it_was_saved(base: Path) -> None:
    model, saved = load_model(base), Blip2ForImageTextRetrieval.from_pretrained(base)
    assert type(model) is Blip2ForImageTextRetrieval
    assert not model.training
    for (name, a), (_, b) in zip(model.state_dict().items(), saved.state_dict().items(), strict=True):
        assert torch.equal(a, b), name
    assert load_tokenizer(base)("a red square").input_ids == [2, 5, 10, 6, 3]


def test_heads_may_be_missing_and_are_said_to_be_random(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    weights = load_file(base / "model.safetensors")
    save_file({k: v for k, v in weights.items() if not k.startswith("itm_head")}, base / "model.safetensors")
    load_model(base)
    assert "has no itm_head: starting from a random one" in caplog.text


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"qformer_config": {"use_qformer_text_input": False}}, "use_qformer_text_input is false"),
        ({"qformer_config": {"num_attention_heads": 5}}, "5 attention heads, which do not divide its hidden_size"),
        ({"vision_config": {"num_hidden_layers": 10**9}}, "num_hidden_layers"),
        ({"qformer_config": {"hidden_act": "none_such"}}, "none_such"),
        ({"qformer_config": {"pad_token_id": 64}}, "beyond the 64 words"),
        ({"vision_config": {"image_size": 8}}, "smaller than their patches"),
        ({"num_query_tokens": "many"}, "num_query_tokens"),
        ({"qformer_config": {"hidden_size": 64}}, "has the shape"),
        ({"num_query_tokens": 7}, "query_tokens has the shape"),
    ],
)
def test_a_config_that_is_none_of_its_weights_is_refused_in_a_line(
    base: Path, changed: dict[str, Any], said: str
) -> None:
    change(base, **changed)
    with pytest.raises(CheckpointError, match=said) as caught:
        load_model(base)
    assert "\n" not in str(caught.value)
    assert str(base) in str(caught.value)


@pytest.mark.parametrize("damage", ["missing", "nan", "cut"])
def test_damaged_weights_are_refused_in_a_line(base: Path, damage: str) -> None:
    file = base / "model.safetensors"
    weights = load_file(file)
    if damage == "missing":
        del weights["qformer.encoder.layer.1.intermediate.dense.weight"]
    weights["query_tokens"][0, 0, 0] = float("nan") if damage == "nan" else 0
    save_file(weights, file)
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    said = {"missing": "lacks 1 tensors", "nan": "query_tokens holds NaN", "cut": "is it complete"}[damage]
    with pytest.raises(CheckpointError, match=said) as caught:
        load_model(base)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("task", ["vqa", "caption"])
def test_tasks_that_need_a_decoder_are_refused(base: Path, task: str) -> None:
    with pytest.raises((CheckpointError, ConfigError), match=f"BLIP-2 has no model for {task}"):
        load_model(base, task)


def test_a_processors_image_token_behind_the_words_is_no_word_of_a_text(base: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(base)
    tokenizer.add_tokens([AddedToken("<image>", normalized=False, special=True)], special_tokens=True)
    assert tokenizer("<image>").input_ids == [2, 64, 3]
    tokenizer.save_pretrained(base)
    loaded = load_tokenizer(base)
    ids = loaded("a red <image> square", return_tensors="pt")
    assert int(ids["input_ids"].max()) < 64
    encode_text(load_model(base), ids["input_ids"], ids["attention_mask"])


def test_a_foreign_tokenizer_is_refused(base: Path) -> None:
    save_tokenizer(base, 80)
    with pytest.raises(CheckpointError, match="has 80 words, where the model has embeddings for 64"):
        load_tokenizer(base)
    for file in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (base / file).unlink(missing_ok=True)
    with pytest.raises(CheckpointError, match=r"has no tokenizer: put the vocab.txt of bert-base-uncased there"):
        load_tokenizer(base)
