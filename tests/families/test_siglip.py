"""SigLIP's own traps: padding that is read, letters to lower, a nested head, and a second SigLIP that is not one."""

from __future__ import annotations

import json
import logging
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from tiny_models import PLACES, VOCABULARY, pixels, save_family, save_siglip_tokenizer, siglip_texts, tiny_siglip
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    AutoTokenizer,
    GemmaTokenizer,
    PreTrainedModel,
    Siglip2Config,
    Siglip2Model,
    SiglipConfig,
    SiglipModel,
)

import uniadapter as ua
from tiny import randomise
from uniadapter.config import AdapterConfig, ModelConfig, ObjectiveConfig
from uniadapter.errors import CheckpointError
from uniadapter.model.dispatch import backbone
from uniadapter.model.tokens import TokenBatch
from uniadapter.tasks.retrieval import RetrievalLoss
from uniadapter.training.loss import StepInfo


def adapted() -> PreTrainedModel:
    model = tiny_siglip()
    randomise(ua.add_adapter(model, AdapterConfig(bottleneck=4)))
    return model


def test_padding_is_read_and_its_mask_is_not() -> None:
    model = adapted()
    ids, mask = siglip_texts(4)
    found = backbone(model)
    with torch.no_grad():
        ours = found.encode_text(ids, mask).feature
        theirs = model.get_text_features(input_ids=ids).pooler_output
        masked = model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
        assert (ours - torch.nn.functional.normalize(theirs, dim=-1)).abs().max() < 1e-6
        assert (ours - torch.nn.functional.normalize(masked, dim=-1)).abs().max() > 1e-3
        assert torch.equal(found.encode_text(ids, torch.ones_like(mask)).feature, ours)
        other = ids.masked_fill(mask == 0, 5)
        assert (found.encode_text(other, mask).feature - ours).abs().max() > 1e-3


def test_shorter_texts_are_padded_to_all_places() -> None:
    model = adapted()
    ids, mask = siglip_texts(6)
    longest = int(mask.sum(1).max())
    assert longest < PLACES
    found = backbone(model)
    with torch.no_grad():
        whole = found.encode_text(ids, mask)
        short = found.encode_text(ids[:, :longest], mask[:, :longest])
    assert torch.equal(short.feature, whole.feature)
    assert torch.equal(short.ids, ids)
    assert torch.equal(short.mask, mask)
    assert len(found.encode_text(ids[:0], mask[:0])) == 0
    wrong = ids[:, :longest].masked_fill(mask[:, :longest] == 0, 7)
    for given, said in (
        ((wrong, mask[:, :longest]), "padded with token 7, where text_config.pad_token_id is 1"),
        ((torch.ones(1, PLACES + 1).long(), torch.ones(1, PLACES + 1).long()), f"the model takes {PLACES}"),
        ((ids, mask.flip(1)), "padded on the right"),
        ((ids, mask[:2]), r"ids and mask must both be \[S, L\]"),
    ):
        with pytest.raises(ValueError, match=said) as error:
            found.encode_text(*given)
        assert "\n" not in str(error.value)


def test_the_nested_head_keeps_its_key_and_is_no_part_of_the_base_s_hash() -> None:
    model = tiny_siglip()
    before = ua.base_hash(model)
    built = ua.add_adapter(model, AdapterConfig(bottleneck=4))
    assert sorted(built.heads) == ["text_head"]
    assert sorted(built.scalars) == ["logit_bias", "logit_scale"]
    assert "text_model.head.weight" in model.state_dict()
    ids, _ = siglip_texts(2)
    with torch.no_grad():
        bare = model.get_text_features(input_ids=ids).pooler_output
        built.heads["text_head"].bias.add_(1)
        assert (model.get_text_features(input_ids=ids).pooler_output - bare - 1).abs().max() < 1e-5
        with ua.disable_adapter(model):
            assert torch.equal(model.get_text_features(input_ids=ids).pooler_output, bare)
        model.text_model.head.bias.add_(1)
    assert ua.base_hash(model) == before


def test_scale_and_bias_are_the_set_s_own_and_learn() -> None:
    model = tiny_siglip()
    built = ua.add_adapter(model, AdapterConfig(bottleneck=4))
    loss = RetrievalLoss(model, None, ModelConfig(), ObjectiveConfig(matching=False))
    ids, mask = siglip_texts(4)
    which = torch.arange(4)
    found = loss.losses(pixels(4), TokenBatch(ids, mask), which, which, StepInfo(0, 0, 0, 1))["loss"]
    with torch.no_grad():
        theirs = model(input_ids=ids, pixel_values=pixels(4)[:, 0], return_loss=True).loss
    assert (found - theirs).abs() < 1e-5
    found.backward()
    for name in ("logit_scale", "logit_bias"):
        assert built.scalars[name].grad.abs() > 0
        assert getattr(model, name).grad is None


def test_the_second_siglip_s_tokenizer_is_made_to_read_as_it_was_trained(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its checkpoints name a tokenizer that keeps capitals and pads on the left, and configs that know another pad."""
    base = tmp_path / "base"
    tiny_siglip().save_pretrained(base)
    save_siglip_tokenizer(base, second=True)
    with caplog.at_level(logging.INFO, "uniadapter"):
        tokenizer = ua.load_tokenizer(base)
    assert "lower-cased" in caplog.text
    assert tokenizer.padding_side == "right"
    assert tokenizer("A RED Square").input_ids == tokenizer("a red square").input_ids
    assert tokenizer.unk_token_id not in tokenizer("A RED Square").input_ids
    model = ua.load_model(base)
    assert model.config.text_config.pad_token_id == 0
    texts = ["A red square", "the picture"]
    given = tokenizer(texts, padding="max_length", max_length=PLACES, return_tensors="pt").input_ids
    assert (given == 0).any()
    with torch.no_grad():
        theirs = SiglipModel.from_pretrained(base).get_text_features(input_ids=given).pooler_output
        ours = ua.text_features(model, tokenizer, texts).feature
    assert (ours - torch.nn.functional.normalize(theirs, dim=-1)).abs().max() < 1e-6
    tokenizer.save_pretrained(tmp_path / "again")
    model.save_pretrained(tmp_path / "again")
    assert ua.load_tokenizer(tmp_path / "again")("A RED").input_ids == tokenizer("a red").input_ids


def test_the_class_that_its_checkpoints_name_is_put_right(tmp_path: Path) -> None:
    """Gemma's: by default it pads on the left, and capitals are other tokens."""
    trained = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    trained.normalizer = normalizers.Replace(" ", "▁")
    trained.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    said = ["a red square", "the picture of a blue square", "A RED SQUARE"]
    trained.train_from_iterator(said, trainers.BpeTrainer(vocab_size=90, special_tokens=special))
    learnt = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in learnt["merges"]]
    GemmaTokenizer(vocab=learnt["vocab"], merges=merges, add_bos_token=False, add_eos_token=True).save_pretrained(
        tmp_path
    )
    tiny_siglip(vocab=len(learnt["vocab"])).save_pretrained(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert (type(theirs).__name__, theirs.padding_side) == ("GemmaTokenizer", "left")
    assert theirs("A RED SQUARE").input_ids != theirs("a red square").input_ids
    tokenizer = ua.load_tokenizer(tmp_path)
    assert (type(tokenizer).__name__, tokenizer.padding_side) == ("GemmaTokenizer", "right")
    assert tokenizer("A RED SQUARE").input_ids == theirs("a red square").input_ids
    assert ua.load_model(tmp_path).config.text_config.pad_token_id == 0


def test_packages_that_its_own_tokenizer_needs_are_named(tmp_path: Path) -> None:
    base = save_family(tmp_path / "base", "siglip")
    file = base / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "tokenizer_class": "SiglipTokenizer"}))
    if find_spec("sentencepiece") is not None:
        pytest.skip("they are installed")
    with pytest.raises(CheckpointError, match="pip install sentencepiece protobuf") as error:
        ua.load_tokenizer(base)
    assert "\n" not in str(error.value)
    assert ua.load_model(base).config.text_config.pad_token_id == 1, "the model is loaded all the same"


@pytest.mark.parametrize(
    ("template", "said"),
    [("$A", "puts no end token behind a text"), ("<bos> $A <eos>", "puts a start token before a text")],
)
def test_a_tokenizer_that_frames_a_text_otherwise_is_refused(tmp_path: Path, template: str, said: str) -> None:
    base = tmp_path / "base"
    tiny_siglip().save_pretrained(base)
    save_siglip_tokenizer(base, second=True)
    file = base / "tokenizer.json"
    values = json.loads(file.read_text())
    tokens = {"$A": {"Sequence": {"id": "A", "type_id": 0}}}
    single = [tokens.get(one, {"SpecialToken": {"id": one, "type_id": 0}}) for one in template.split()]
    special = {one: {"id": one, "ids": [values["model"]["vocab"][one]], "tokens": [one]} for one in ("<bos>", "<eos>")}
    values["post_processor"] = {**values["post_processor"], "single": single, "special_tokens": special}
    file.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=said) as error:
        ua.load_tokenizer(base)
    assert "\n" not in str(error.value)


def test_naflex_is_refused_with_the_reason(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Siglip2Config(
        vision_config={**sizes, "num_patches": 16, "patch_size": 8},
        text_config={**sizes, "vocab_size": VOCABULARY, "max_position_embeddings": PLACES},
    )
    model = Siglip2Model(config)
    with pytest.raises(TypeError, match="Siglip2Model cannot be adapted: SigLIP 2 NaFlex") as error:
        ua.add_adapter(model, AdapterConfig(bottleneck=4))
    assert "\n" not in str(error.value)
    model.save_pretrained(tmp_path)
    save_siglip_tokenizer(tmp_path)
    for load in (ua.load_model, ua.load_tokenizer):
        with pytest.raises(CheckpointError, match=r"config.json: SigLIP 2 NaFlex .* take one of fixed resolution"):
            load(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"vision_config": {"vision_use_head": False}}, "vision_use_head is false, so pictures have no feature"),
        ({"text_config": {"projection_size": 24}}, "projection_size is 24, and pictures' features are 32 wide"),
        ({"text_config": {"max_position_embeddings": 0}}, "max_position_embeddings"),
        ({"vision_config": {"num_channels": 1}}, "num_channels"),
        ({"vision_config": {"patch_size": 64}}, "pictures of 32 px are smaller than their patches"),
    ],
)
def test_a_config_that_does_not_fit_is_a_line(tmp_path: Path, change: dict, said: str) -> None:
    base = save_family(tmp_path / "base", "siglip")
    file = base / "config.json"
    values = json.loads(file.read_text())
    for key, value in change.items():
        values[key] = {**values[key], **value}
    file.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=said) as error:
        ua.load_model(base)
    assert "\n" not in str(error.value)


def test_pictures_are_shown_as_siglip_was_trained(tmp_path: Path) -> None:
    layout = backbone(ua.load_model(save_family(tmp_path / "base", "siglip"))).layout
    assert (layout.mean, layout.std, layout.contrast) == ((0.5,) * 3, (0.5,) * 3, "sigmoid")
    assert SiglipConfig().text_config.max_position_embeddings == 64
