"""CLIP's own traps: the causal mask, two ways of finding the end of a text, a scale that learns, its tokenizer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_models import clip_texts, pixels, save_clip_tokenizer, save_family, tiny_clip
from transformers import AutoTokenizer, CLIPForImageClassification, CLIPTextModel, CLIPTokenizer, PreTrainedModel
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

import uniadapter as ua
from tiny import randomise
from uniadapter.config import AdapterConfig, ModelConfig, ObjectiveConfig
from uniadapter.data.media.images import EvaluationTransform
from uniadapter.errors import CheckpointError
from uniadapter.model.dispatch import backbone
from uniadapter.model.tokens import TokenBatch
from uniadapter.tasks.retrieval import RetrievalLoss
from uniadapter.training.loss import StepInfo


def adapted(**options: object) -> PreTrainedModel:
    model = tiny_clip(**options)  # type: ignore[arg-type]
    randomise(ua.add_adapter(model, AdapterConfig(bottleneck=4)))
    return model


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_no_token_of_a_text_sees_a_later_one(attention: str) -> None:
    """With and without a mask, in transformers' own forward and through the interface."""
    model = adapted(attention=attention)
    ids, _ = clip_texts(3)
    changed = ids.clone()
    changed[:, 6:8] = torch.tensor([5, 6])
    with torch.no_grad():
        for given in ({}, {"attention_mask": torch.ones_like(ids)}):
            before, after = (model.text_model(input_ids=one, **given).last_hidden_state for one in (ids, changed))
            assert torch.allclose(before[:, :6], after[:, :6], atol=1e-6)
            assert (before[:, 6] - after[:, 6]).abs().max() > 1e-3


@pytest.mark.parametrize("legacy", [False, True])
def test_a_text_s_feature_is_its_end_token_s(legacy: bool) -> None:
    """By its id, or in old configs by the greatest id of the text; padding, on either side, changes nothing."""
    model = adapted(legacy=legacy)
    ids, mask = clip_texts(5)
    if legacy:
        ids[mask == 0] = 1  # as whatever pads: the end token has the greatest id
    found = backbone(model)
    with torch.no_grad():
        theirs = model.get_text_features(input_ids=ids, attention_mask=mask).pooler_output
        ours = found.encode_text(ids, mask)
        assert (ours.feature - torch.nn.functional.normalize(theirs, dim=-1)).abs().max() < 1e-6
        place = ids.argmax(1) if legacy else (ids == 39).int().argmax(1)
        ends = model.text_projection(ours.states[torch.arange(5), place])
        assert (ours.feature - torch.nn.functional.normalize(ends, dim=-1)).abs().max() < 1e-6
        wide = [torch.nn.functional.pad(one, (0, 3)) for one in (ids, mask)]
        left = [torch.stack([row.roll(int((row_mask == 0).sum())) for row, row_mask in zip(one, mask, strict=True)])
                for one in (ids, mask)]  # fmt: skip
        for other in (wide, left):
            again = found.encode_text(*other)
            assert (again.feature - ours.feature).abs().max() < 1e-6
            assert again.ids.shape == ids.shape


def test_a_text_without_an_end_is_refused() -> None:
    found = backbone(tiny_clip())
    ids, mask = clip_texts(2)
    ids[1] = 5
    with pytest.raises(ValueError, match=r"a text has no end token \(39\), whose state is CLIP's feature"):
        found.encode_text(ids, mask)
    assert len(found.encode_text(ids[:0], mask[:0])) == 0


def test_models_of_a_part_are_refused() -> None:
    config = tiny_clip().config
    for model in (CLIPForImageClassification(config), CLIPTextModel(config.text_config)):
        with pytest.raises(TypeError, match="CLIP") as error:
            ua.add_adapter(model, AdapterConfig(bottleneck=4))
        assert "\n" not in str(error.value)


def test_the_scale_is_the_set_s_own_and_learns() -> None:
    model = tiny_clip()
    built = ua.add_adapter(model, AdapterConfig(bottleneck=4))
    loss = RetrievalLoss(model, None, ModelConfig(), ObjectiveConfig(matching=False))
    ids, mask = clip_texts(4)
    which = torch.arange(4)
    found = loss.losses(pixels(4), TokenBatch(ids, mask), which, which, StepInfo(0, 0, 0, 1))["loss"]
    with torch.no_grad():
        theirs = model(input_ids=ids, attention_mask=mask, pixel_values=pixels(4)[:, 0], return_loss=True).loss
    assert (found - theirs).abs() < 1e-5
    found.backward()
    assert built.scalars["logit_scale"].grad.abs() > 0
    assert model.logit_scale.grad is None
    assert loss.momentum is None
    assert loss.queue.size == 0
    with torch.no_grad():
        built.scalars["logit_scale"].fill_(50.0)  # CLIP clips the factor at 100
    capped = loss.losses(pixels(4), TokenBatch(ids, mask), which, which, StepInfo(0, 0, 0, 1))["loss"]
    assert capped.isfinite()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"text_config": {"eos_token_id": 5}}, "has its end token at 39, where the model has it at 5"),
        ({"projection_dim": None}, "projection_dim is None"),
        ({"vision_config": {"hidden_act": "nothing"}}, "hidden_act is 'nothing', which transformers lacks"),
        ({"vision_config": {"image_size": [32, 64]}}, "image_size"),
        ({"text_config": {"num_attention_heads": 5}}, "attention heads"),
    ],
)
def test_a_config_that_does_not_fit_is_a_line(tmp_path: Path, change: dict, said: str) -> None:
    base = save_family(tmp_path / "base", "clip")
    file = base / "config.json"
    values = json.loads(file.read_text())
    for key, value in change.items():
        values[key] = {**values[key], **value} if isinstance(value, dict) else value
    file.write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match=said) as error:
        ua.load_tokenizer(base)
    assert "\n" not in str(error.value)


def test_old_configs_take_the_greatest_id_for_the_end(tmp_path: Path) -> None:
    base = tmp_path / "base"
    tiny_clip(legacy=True).save_pretrained(base)
    save_clip_tokenizer(base)
    model, tokenizer = ua.load_model(base), ua.load_tokenizer(base)
    assert model.config.text_config.eos_token_id == 2
    assert ua.text_features(model, tokenizer, ["a red square", "the picture"]).feature.shape == (2, 16)
    tokenizer.add_tokens(["more"])
    tokenizer.save_pretrained(base)
    values = json.loads((base / "config.json").read_text())
    values["text_config"]["vocab_size"] = 41
    (base / "config.json").write_text(json.dumps(values))
    with pytest.raises(CheckpointError, match="where the model takes the greatest id for it"):
        ua.load_tokenizer(base)


@pytest.mark.parametrize("sides", [(40, 30), (30, 47), (32, 32), (200, 90)])
def test_a_picture_s_middle_is_shown_as_by_transformers_own_processor(tmp_path: Path, sides: tuple[int, int]) -> None:
    """To a level of 255, since it computes what is resized in other numbers; and the adapter's folder says so."""
    base = save_family(tmp_path / "base", "clip")
    generator = torch.Generator().manual_seed(0)
    pixels = (torch.rand(sides[1] // 4 + 1, sides[0] // 4 + 1, 3, generator=generator) * 255).byte().numpy()
    picture = Image.fromarray(pixels).resize(sides, Image.Resampling.BICUBIC)
    processor = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    theirs = processor(picture, return_tensors="pt").pixel_values[0]
    model = ua.load_model(base)
    layout = backbone(model).layout
    ours = EvaluationTransform(32, layout.mean, layout.std, layout.resampling, layout.crop)(picture)
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 1.5 / 255 / 0.26
    with torch.no_grad():
        expected = model.get_image_features(pixel_values=ours[None]).pooler_output
        seen = ua.image_features(model, picture)
    assert (seen.feature - torch.nn.functional.normalize(expected, dim=-1)).abs().max() < 1e-6
    ua.add_adapter(model, AdapterConfig(bottleneck=4))
    folder = ua.save_adapter(model, tmp_path / "adapter")
    assert json.loads((folder / "uniadapter_config.json").read_text())["inference"]["crop"] is True


def test_pictures_are_shown_as_the_base_s_processor_says(tmp_path: Path) -> None:
    base = save_family(tmp_path / "base", "clip")
    assert backbone(ua.load_model(base)).layout.mean[0] == pytest.approx(0.48145466)
    file = base / "preprocessor_config.json"
    file.write_text(json.dumps({"image_mean": [0.5, 0.5, 0.5], "resample": 2, "do_center_crop": True}))
    layout = backbone(ua.load_model(base)).layout
    assert (layout.mean, layout.resampling, layout.crop) == ((0.5, 0.5, 0.5), "bilinear", True)
    assert layout.std[0] == pytest.approx(0.26862954)
    file.write_text(json.dumps({"do_center_crop": False}))
    assert not backbone(ua.load_model(base)).layout.crop
    file.rename(base / "held.json")
    (base / "processor_config.json").write_text(json.dumps({"image_processor": {"image_std": [0.1, 0.2, 0.3]}}))
    assert backbone(ua.load_model(base)).layout.std == (0.1, 0.2, 0.3)
    (base / "processor_config.json").write_text(json.dumps({"image_processor": {"image_std": [0.1, 0.2]}}))
    with pytest.raises(CheckpointError, match="image_std") as error:
        ua.load_model(base)
    assert "\n" not in str(error.value)


def test_the_unknown_token_is_not_the_one_that_ends_every_text(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = save_family(tmp_path / "base", "clip")
    model, tokenizer = ua.load_model(base), ua.load_tokenizer(base)
    assert tokenizer.unk_token_id == tokenizer.eos_token_id
    ua.text_features(model, tokenizer, "a red square")
    assert "does not know" not in caplog.text
    ua.text_features(model, tokenizer, "a zebra")
    assert "does not know" in caplog.text
    assert AutoTokenizer.from_pretrained(base)("A Red").input_ids == tokenizer("a red").input_ids


def test_clip_s_own_tokenizer_class(tmp_path: Path) -> None:
    """Byte pairs, with start and end behind all others, as in OpenAI's."""
    said = ["a red square", "the picture of a blue square"] * 3
    learnt = json.loads(CLIPTokenizer().train_new_from_iterator(said, 300).backend_tokenizer.to_str())["model"]
    start, end = "<|startoftext|>", "<|endoftext|>"
    words = [word for word in sorted(learnt["vocab"], key=learnt["vocab"].get) if word not in (start, end)]
    vocabulary = {word: index for index, word in enumerate([*words, start, end])}
    merges = [tuple(pair) for pair in learnt["merges"]]
    CLIPTokenizer(vocab=vocabulary, merges=merges).save_pretrained(tmp_path)
    tiny_clip(vocab=len(vocabulary)).save_pretrained(tmp_path)
    model, tokenizer = ua.load_model(tmp_path), ua.load_tokenizer(tmp_path)
    assert type(tokenizer) is CLIPTokenizer
    assert tokenizer.eos_token_id == model.config.text_config.eos_token_id == len(vocabulary) - 1
    assert tokenizer("A RED square").input_ids == tokenizer("a red square").input_ids
    given = tokenizer(["a red square", "the"], padding=True, return_tensors="pt")
    with torch.no_grad():
        theirs = model.get_text_features(**given).pooler_output
        ours = ua.text_features(model, tokenizer, ["A red square", "the"]).feature
    assert (ours - torch.nn.functional.normalize(theirs, dim=-1)).abs().max() < 1e-6
