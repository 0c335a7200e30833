"""What a run trained with travels in the adapter's folder, and is what Python's calls and the commands then use."""

from __future__ import annotations

import logging
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import uniadapter as ua
from tiny import randomise
from uniadapter.app.cli import main
from uniadapter.config import DataConfig, EvaluateConfig, ModelConfig, RunConfig, TrainConfig
from uniadapter.data.media.images import EvaluationTransform
from uniadapter.model.settings import _FIELDS, InferenceSettings, first_given
from uniadapter.model.tokens import prompt_length, with_prompt
from uniadapter.tasks.captioning import CaptionLoss

SMALL = ua.AdapterConfig(bottleneck=4, key_value=2)
MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return ua.load_tokenizer()


@pytest.fixture(scope="module")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pictures") / "gradient.png"
    Image.linear_gradient("L").convert("RGB").crop((0, 0, 200, 150)).save(file)
    return file


def loaded(task: str, folder: Path, settings: InferenceSettings) -> PreTrainedModel:
    """A base with an adapter from a folder that was saved with these settings."""
    model = ua.load_model("embedded", task)
    randomise(ua.add_adapter(model, SMALL), 0.1)
    ua.save_adapter(model, folder, settings=settings)
    fresh = ua.load_model("embedded", task)
    ua.load_adapter(fresh, folder)
    return fresh


def test_pictures_are_shown_as_the_adapter_was_trained(tmp_path: Path, picture: Path) -> None:
    stated = InferenceSettings(image_size=64, mean=MEAN, std=STD, resampling="nearest", frames=2)
    model = loaded("retrieval", tmp_path / "a", stated)
    found = ua.image_features(model, [picture])
    with Image.open(picture) as opened:
        pixels = EvaluationTransform(64, MEAN, STD, "nearest")(opened)
    with torch.no_grad():
        expected = ua.encode_visual(model, pixels[None, None].expand(1, 2, -1, -1, -1))
    assert torch.allclose(found.tokens, expected.tokens, atol=1e-6)
    asked = ua.image_features(model, [picture], frames=1, image_size=96)
    assert asked.tokens.shape[1:3] == (1, ua.image_features(ua.load_model(), [picture]).tokens.shape[2])
    with ua.disable_adapter(model):  # the bare base states nothing
        assert ua.image_features(model, [picture]).tokens.shape == asked.tokens.shape


def test_texts_are_cut_as_the_adapter_was_trained(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    model = loaded("retrieval", tmp_path / "a", InferenceSettings(max_tokens=6, max_words=3))
    text = "a red square and a blue ball"
    assert torch.equal(
        ua.text_features(model, tokenizer, [text]).feature, ua.text_features(model, tokenizer, ["a red square"]).feature
    )
    assert ua.text_features(model, tokenizer, [text], max_tokens=4).ids.shape[1] == 4


def test_questions_are_answered_from_the_adapters_list(
    tmp_path: Path, picture: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    model = loaded("vqa", tmp_path / "a", InferenceSettings(answers=("red", "blue", "green"), k=2))
    (found,) = ua.ask(model, tokenizer, picture, ["what color is it?"])
    assert len(found.ranked) == 2
    assert {answer for answer, _ in found.ranked} <= {"red", "blue", "green"}
    (asked,) = ua.ask(model, tokenizer, picture, ["what color is it?"], ["yes", "no", "red"])
    assert {answer for answer, _ in asked.ranked} == {"yes", "no", "red"}, "a list of the caller's is ranked in full"


def test_captions_are_written_as_the_adapter_was_trained(
    tmp_path: Path, picture: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    stated = InferenceSettings(prompt="this is", beams=1, longest=7, shortest=7)
    model = loaded("caption", tmp_path / "a", stated)
    (found,) = ua.caption(model, tokenizer, [picture])
    assert found == ua.caption(model, tokenizer, [picture], "this is", beams=1, longest=7, shortest=7)[0]
    (longer,) = ua.caption(model, tokenizer, [picture], longest=15, shortest=15)
    assert len(tokenizer(longer)["input_ids"]) > len(tokenizer(found)["input_ids"])


def test_a_run_records_everything_that_its_config_says() -> None:
    config = RunConfig(
        task="caption",
        model=ModelConfig(max_tokens=48, prompt="this is"),
        data=DataConfig(frames=2, eval_frames=5, max_words=9),
        evaluate=EvaluateConfig(k=7, beta=0.5, answers="generate", beams=2, longest=11, shortest=3),
    )
    made = InferenceSettings.of_run(config, 160, ["red"], MEAN, STD, "nearest", True)
    assert [one.name for one in fields(made) if getattr(made, one.name) is None] == []
    expected = {
        "image_size": 160,
        "mean": MEAN,
        "frames": 5,
        "prompt": "this is",
        "max_tokens": 48,
        "max_words": 9,
        "k": 7,
        "beta": 0.5,
    }
    assert expected.items() <= made.to_dict().items()
    assert set(_FIELDS) < {one.name for one in fields(InferenceSettings)}


@pytest.mark.parametrize(
    ("stated", "size", "frames"),
    [
        (None, 32, 4),  # what differs from its default counts as stated
        ((), 160, 8),
        (("model.image_size",), 32, 8),
        (("data.frames",), 160, 4),
        (("data.eval_frames",), 160, 4),
    ],
)
def test_what_the_user_states_goes_before_the_adapter(
    stated: tuple[str, ...] | None, size: int, frames: int, caplog: pytest.LogCaptureFixture
) -> None:
    config = RunConfig(model=ModelConfig(image_size=32), data=DataConfig(frames=4))
    with caplog.at_level(logging.INFO):
        found = InferenceSettings(image_size=160, frames=8, prompt="this is").applied(config, stated)
    assert found.model.image_size == size
    assert (found.data.eval_frames or found.data.frames) == frames
    assert found.model.prompt == "this is"
    lines = [record.getMessage() for record in caplog.records]
    (line,) = [line for line in lines if "image_size" in line]
    assert "32" in line
    assert "160" in line


def test_null_leaves_a_setting_to_the_adapter_even_where_it_is_written() -> None:
    config = RunConfig(model=ModelConfig(image_size=None))
    assert InferenceSettings(image_size=160).applied(config, ("model.image_size",)).model.image_size == 160


def test_a_prompt_and_a_caption_never_glue(tokenizer: PreTrainedTokenizerBase) -> None:
    for prompt in ("this is", "this is ", " this is  "):
        assert with_prompt(prompt, "a ball") == "this is a ball"
        given = prompt_length(tokenizer, prompt)
        whole = tokenizer(with_prompt(prompt, "a ball"))["input_ids"]
        assert whole[given:] == tokenizer("a ball")["input_ids"][1:]
    assert with_prompt(" ", "a ball") == "a ball"
    assert prompt_length(tokenizer, " ") == 1
    assert first_given(None, 0, 1) == 0


def test_a_prompt_that_leaves_no_room_is_refused(picture: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    model = ua.load_model("embedded", "caption")
    with pytest.raises(ValueError, match="longest is 20"):
        ua.caption(model, tokenizer, [picture], prompt="a picture of " * 8)
    with pytest.raises(ValueError, match="shortest is 9"):
        ua.caption(model, tokenizer, [picture], longest=8, shortest=9)
    with pytest.raises(ValueError, match="decoder takes 64"):
        ua.caption(model, tokenizer, [picture], longest=5000)
    with pytest.raises(ValueError, match=r"model\.max_tokens is 8"):
        CaptionLoss(model, tokenizer, ModelConfig(max_tokens=8), "a picture of " * 3)


def test_the_commands_ask_as_the_adapter_was_trained(
    tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = loaded("vqa", tmp_path / "a", InferenceSettings(image_size=64, answers=("red", "blue")))
    expected = ua.ask(model, ua.load_tokenizer(), picture, ["what color is it?"])[0].ranked
    assert main(["ask", str(picture), "what color is it?", "--adapter", str(tmp_path / "a")]) == 0
    said = capsys.readouterr().out
    assert f"{100 * expected[0][1]:5.1f}%  {expected[0][0]}" in said


def test_what_is_trained_at_another_size_is_asked_at_that_size(tmp_path: Path, picture: Path) -> None:
    config = RunConfig(
        task="vqa",
        model=ModelConfig(image_size=64, adapter=SMALL),
        data=DataConfig(workers=0),
        train=TrainConfig(epochs=1, batch_size=2),
    )
    rows = [(picture, "what is it?", word) for word in ("red", "blue")]
    trained = ua.train("embedded", rows, config=config, output=tmp_path / "run")
    fresh = ua.load_model("embedded", "vqa")
    built = ua.load_adapter(fresh, tmp_path / "run/adapter")
    assert (built.settings.image_size, built.settings.answers, built.settings.frames) == (64, ("red", "blue"), 1)
    assert ua.adapter_set(trained.model).settings == built.settings
    here, there = ua.image_features(fresh, picture), ua.image_features(fresh, picture, image_size=96)
    assert here.tokens.shape[2] < there.tokens.shape[2]
    assert ua.image_features(trained.model, picture).tokens.shape == here.tokens.shape


def test_a_fully_trained_model_is_saved_beside_what_is_there(tmp_path: Path) -> None:
    from uniadapter.runs.steps import save_result
    from uniadapter.tasks.preparing import prepare

    (tmp_path / "model").mkdir()
    (tmp_path / "model/thesis.tex").write_text("mine")
    config = RunConfig(output=str(tmp_path), model=ModelConfig(method="full"), train=TrainConfig())
    size = save_result(prepare(config), config, tmp_path)
    assert size == (tmp_path / "model/model.safetensors").stat().st_size > 10_000_000
    assert (tmp_path / "model/thesis.tex").read_text() == "mine"
    assert not [file.name for file in (tmp_path / "model").iterdir() if file.name.startswith(".")]
    assert ua.load_model(str(tmp_path / "model")).config.name_or_path == str(tmp_path / "model")
