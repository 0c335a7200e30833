"""Bases: found, checked before anything is made of them, in every dtype, with their tokenizers."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import BlipForImageTextRetrieval, BlipImageProcessor, BlipProcessor, PreTrainedModel

import uniadapter as ua
from squares import save_base
from tiny import TASK_MODELS, tiny_config, tiny_model
from uniadapter.app.cli import main
from uniadapter.errors import CheckpointError, ConfigError
from uniadapter.model.tokens import warn_of_truncation

PICTURE = Image.effect_noise((40, 32), 90).convert("RGB")
TASKS = ("retrieval", "vqa", "caption")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("bases") / "sound")


@pytest.fixture
def base(sound: Path, tmp_path: Path) -> Path:
    """A folder of a base, to be broken."""
    shutil.copytree(sound, tmp_path / "base")
    return tmp_path / "base"


def refusal(load: Callable[[str], object], base: Path | str) -> str:
    """The one line with which a base is refused."""
    with pytest.raises((CheckpointError, ConfigError)) as caught:
        load(str(base))
    line = str(caught.value)
    assert "\n" not in line
    assert len(line) <= 300
    assert str(base) in line
    return line


def described(base: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads((base / "config.json").read_text())
    changed = change(values)
    (base / "config.json").write_text(json.dumps(values if changed is None else changed))


def text(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda config: config["text_config"].update(values)


def vision(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda config: config["vision_config"].update(values)


CONFIGS: dict[str, Callable[[dict[str, Any]], object]] = {
    "a list": lambda config: [config],
    "nothing": lambda config: {},
    "another model": lambda config: config.update(model_type="clip"),
    "a number for a model": lambda config: config.update(model_type=5),
    "a list of texts": lambda config: config.update(text_config=[]),
    "no text": lambda config: config.update(text_config=None),
    "gigabytes of words": text(vocab_size=10**12),
    "no words": text(vocab_size=0),
    "half a layer": text(num_hidden_layers=1.5),
    "a thousand million layers": vision(num_hidden_layers=10**9),
    "null for a width": vision(hidden_size=None),
    "heads that do not divide": text(num_attention_heads=5),
    "no such activation": text(hidden_act="__import__"),
    "a picture without a patch": vision(image_size=8),
    "an endless picture": vision(image_size=[32, 32]),
    "[ENC] beyond the words": text(bos_token_id=63),
    "a negative epsilon": vision(layer_norm_eps=-1.0),
    "a projection of another width": lambda config: config.update(image_text_hidden_size=8),
    "another layer": text(num_hidden_layers=3),
    "no cross-attention": text(is_decoder="yes"),
}


@pytest.mark.parametrize("what", CONFIGS)
def test_a_config_of_no_blip_is_refused(base: Path, what: str) -> None:
    described(base, CONFIGS[what])
    refusal(ua.load_model, base)


@pytest.mark.parametrize("content", ["", "{", "[" * 100_000, '{"a": "\\ud83d"}', "\x00"])
def test_a_config_that_is_no_json_is_refused(base: Path, content: str) -> None:
    (base / "config.json").write_text(content)
    assert "config.json" in refusal(ua.load_model, base)
    refusal(ua.load_tokenizer, base)


def test_labels_without_end_are_left_alone(base: Path) -> None:
    """transformers would make a table of them, which took all memory."""
    described(base, lambda config: config.update(num_labels=10**9))
    assert ua.load_model(base).config.num_labels == 2


def weights(base: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(base / "model.safetensors")
    change(tensors)
    save_file(tensors, base / "model.safetensors")


QUERY = "text_encoder.encoder.layer.0.attention.self.query.weight"
WEIGHTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "none": (lambda base: (base / "model.safetensors").unlink(), "no weights"),
    "half of them": (lambda base: os.truncate(base / "model.safetensors", 5000), "model.safetensors"),
    "an empty file": (lambda base: os.truncate(base / "model.safetensors", 0), "model.safetensors"),
    "another width": (lambda base: weights(base, lambda t: t.update({QUERY: torch.zeros(32, 16)})), QUERY),
    "one missing": (lambda base: weights(base, lambda t: t.pop(QUERY)), QUERY),
    "whole numbers": (lambda base: weights(base, lambda t: t.update({QUERY: torch.zeros(32, 32).int()})), "I32"),
    "not a number": (lambda base: weights(base, lambda t: t[QUERY].fill_(float("nan"))), "NaN"),
}


@pytest.mark.parametrize("what", WEIGHTS)
def test_weights_of_another_model_are_refused(base: Path, what: str) -> None:
    damage, said = WEIGHTS[what]
    damage(base)
    assert said in refusal(ua.load_model, base)


@pytest.mark.parametrize(
    "content", [{"weight_map": {QUERY: "away.safetensors"}}, {"weight_map": {QUERY: "../x"}}, [], {}]
)
def test_an_index_that_points_nowhere_is_refused(base: Path, content: object) -> None:
    (base / "model.safetensors").rename(base / "renamed.safetensors")
    (base / "model.safetensors.index.json").write_text(json.dumps(content))
    assert "model.safetensors.index.json" in refusal(ua.load_model, base)


def test_shards_and_pickled_weights_are_read(base: Path, tmp_path: Path) -> None:
    tensors = load_file(base / "model.safetensors")
    expected = ua.base_hash(ua.load_model(base))
    (base / "model.safetensors").unlink()
    torch.save(tensors, base / "pytorch_model.bin")
    assert ua.base_hash(ua.load_model(base)) == expected
    BlipForImageTextRetrieval(tiny_config()).save_pretrained(tmp_path / "shards", max_shard_size="50KB")
    assert len(list((tmp_path / "shards").glob("*.safetensors"))) > 1
    ua.load_model(tmp_path / "shards")


def test_names_that_are_no_base(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uniadapter.checkpoints.bases.hub_in_reach", lambda: False)
    model = tiny_model()
    ua.add_adapter(model, ua.AdapterConfig(bottleneck=2, key_value=2))
    ua.save_adapter(model, tmp_path / "adapter", base=str(base))
    assert "Salesforce/blip" in refusal(ua.load_model, "https://huggingface.co/Salesforce/blip")
    assert "download" in refusal(ua.load_model, "https://example.org/model_base.pth")
    assert "no such folder" in refusal(ua.load_model, "some/where")
    assert "no such" in refusal(ua.load_model, tmp_path / "nowhere")
    assert "no such" in refusal(ua.load_model, tmp_path / "nowhere.pth")
    assert "adapter" in refusal(ua.load_model, tmp_path / "adapter")
    assert "folder" in refusal(ua.load_model, base / "model.safetensors")
    assert "config.json" in refusal(ua.load_model, tmp_path)
    for name in ("", "x" * 10_000, "a\0b"):
        with pytest.raises(CheckpointError):
            ua.load_model(name)


def test_home_is_expanded(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    loaded = ua.from_pretrained("~/base")
    ua.add_adapter(loaded.model, ua.AdapterConfig(bottleneck=2, key_value=2))
    ua.save_adapter(loaded.model, "~/adapter")
    assert (tmp_path / "adapter/uniadapter_config.json").is_file()
    assert ua.from_pretrained("~/adapter").base == "~/base"


@pytest.mark.parametrize(("said", "meant"), [
    ("captioning", "caption"), ("itm", "retrieval"), ("question-answering", "vqa"), ("visual_question_answering",
    "vqa"), ("Retrieval", "retrieval"), ("image-to-text", "caption"), ("capton", "caption"),
])  # fmt: skip
def test_a_task_by_another_name(said: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"'retrieval', 'vqa', 'caption': did you mean '{meant}'") as caught:
        ua.load_model("embedded", said)
    assert len(str(caught.value)) <= 300


def test_what_is_no_task_or_dtype() -> None:
    for task in ("nonsense!", "", None, 5):
        with pytest.raises(ConfigError, match="'retrieval', 'vqa', 'caption'"):
            ua.load_model("embedded", task)  # type: ignore[arg-type]
    for dtype in (torch.int8, "int4", None):
        with pytest.raises(ConfigError, match="bfloat16"):
            ua.load_model("embedded", dtype=dtype)  # type: ignore[arg-type]


def tokens(model: PreTrainedModel) -> torch.Tensor:
    return ua.image_features(model, [PICTURE]).tokens.float()


@pytest.mark.parametrize(("task", "dtype"), [
    ("retrieval", torch.bfloat16), ("retrieval", "fp16"), ("vqa", "bf16"), ("caption", torch.float16)
])  # fmt: skip
def test_half_precision_is_close_to_float32(task: str, dtype: torch.dtype | str) -> None:
    full, half = ua.load_model("embedded", task), ua.load_model("embedded", task, dtype)
    wanted = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(dtype, dtype)  # type: ignore[arg-type]
    assert {parameter.dtype for parameter in half.parameters()} == {wanted}
    assert {buffer.dtype for buffer in half.buffers()} == {torch.int64}
    assert torch.cosine_similarity(tokens(half), tokens(full), dim=-1).min() > 0.999
    if task == "retrieval":
        tokenizer = ua.load_tokenizer()
        found, expected = (ua.pair_scores(m, tokenizer, [PICTURE], ["a red box", "a dog"]) for m in (half, full))
        assert torch.allclose(found, expected, atol=0.02)


@pytest.mark.parametrize("cls", TASK_MODELS)
def test_half_precision_of_folders_and_of_pth(tmp_path: Path, cls: type[PreTrainedModel]) -> None:
    task = {name: task for task, name in zip(TASKS, TASK_MODELS, strict=True)}[cls]
    tiny_model(cls).save_pretrained(tmp_path / "base")
    full = ua.load_model(tmp_path / "base", task)
    for dtype in (torch.bfloat16, torch.float16):
        half = ua.load_model(tmp_path / "base", task, dtype)
        assert {parameter.dtype for parameter in half.parameters()} == {dtype}
        assert (tokens(half) - tokens(full)).abs().max() < 0.1
        half.save_pretrained(tmp_path / "half")  # a base that is stored in half precision
        again = ua.load_model(tmp_path / "half", task)
        assert {parameter.dtype for parameter in again.parameters()} == {torch.float32}


def test_a_base_that_shows_pictures_otherwise_is_said(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = base / "preprocessor_config.json"
    BlipImageProcessor().save_pretrained(base)
    ua.load_model(base)
    assert "preprocessor" not in caplog.text
    values = json.loads(file.read_text())
    for content in (
        json.dumps({**values, "image_mean": [0.5, 0.5, 0.5]}),
        json.dumps({**values, "resample": 2}),
        "[",
        "[]",
    ):
        file.write_text(content)
        caplog.clear()
        ua.load_model(base)
        assert str(file) in caplog.text


def test_what_does_not_fit_float16_is_said(base: Path) -> None:
    weights(base, lambda tensors: tensors[QUERY].fill_(1e6))
    ua.load_model(base)
    with pytest.raises(CheckpointError, match="float16"):
        ua.load_model(base, dtype="fp16")


def tokenizer_file(base: Path, change: Callable[[dict[str, Any]], object]) -> None:
    values = json.loads((base / "tokenizer.json").read_text())
    change(values)
    (base / "tokenizer.json").write_text(json.dumps(values))


def moved(base: Path, word: str, place: int) -> None:
    def change(values: dict[str, Any]) -> None:
        vocabulary = values["model"]["vocab"]
        other = next(name for name, number in vocabulary.items() if number == place)
        vocabulary[word], vocabulary[other] = place, vocabulary[word]
        for added in values["added_tokens"]:
            added["id"] = vocabulary[added["content"]]

    tokenizer_file(base, change)


def wordless(values: dict[str, Any]) -> None:
    vocabulary = values["model"]["vocab"]
    values["model"]["vocab"] = {
        word if word.startswith("[") else f"[unused{number + 100}]": number for word, number in vocabulary.items()
    }


def unframed(base: Path) -> None:
    tokenizer_file(base, lambda values: values.update(post_processor=None))
    values = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({**values, "tokenizer_class": "PreTrainedTokenizerFast"}))


TOKENIZERS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no files": (lambda base: (base / "tokenizer.json").unlink(), "no tokenizer"),
    "no json": (lambda base: (base / "tokenizer.json").write_text("{"), "tokenizer.json"),
    "a list": (lambda base: (base / "tokenizer.json").write_text("[]"), "tokenizer.json"),
    "another kind of json": (lambda base: (base / "tokenizer.json").write_text('{"a": 1}'), "tokenizer"),
    "broken settings": (lambda base: (base / "tokenizer_config.json").write_text("["), "tokenizer_config.json"),
    "no ordinary word": (lambda base: tokenizer_file(base, wordless), "[UNK]"),
    "more words than embeddings": (
        lambda base: tokenizer_file(base, lambda v: v["model"]["vocab"].update(more=64)), "embeddings for 64"),
    "padding elsewhere": (lambda base: moved(base, "[PAD]", 7), "[PAD]"),
    "its end elsewhere": (lambda base: moved(base, "[SEP]", 7), "[SEP]"),
    "[DEC] elsewhere": (lambda base: moved(base, "[DEC]", 20), "[DEC]"),
    "[ENC] elsewhere": (lambda base: moved(base, "[ENC]", 20), "[ENC]"),
    "nothing around a text": (unframed, "[CLS]"),
}  # fmt: skip


@pytest.mark.parametrize("what", TOKENIZERS)
def test_a_tokenizer_of_another_model_is_refused(base: Path, what: str) -> None:
    damage, said = TOKENIZERS[what]
    damage(base)
    assert said in refusal(ua.load_tokenizer, base)


def test_training_is_refused_without_a_tokenizer(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (base / "tokenizer.json").unlink()
    (tmp_path / "train.json").write_text(json.dumps([{"image": "a.png", "caption": "a red square"}]))
    PICTURE.save(tmp_path / "a.png")
    (tmp_path / "run.yaml").write_text(
        f"output: {tmp_path / 'run'}\nmodel: {{base: {base}}}\ndata: {{train: {tmp_path / 'train.json'}, workers: 0}}\n"
    )
    assert main(["train", str(tmp_path / "run.yaml")]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert str(base) in line
    assert "vocab.txt" in line
    assert not (tmp_path / "run/adapter").exists()


def test_words_that_become_unknown_are_counted(base: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = ua.load_tokenizer(base)
    assert warn_of_truncation(tokenizer, ["a red square", "a zebra", "the picture of a red square"], 6, "captions") == 1
    assert "1 of 3 captions have words" in caplog.text
    assert "1 of 3 captions are longer" in caplog.text
    caplog.clear()
    warn_of_truncation(tokenizer, ["a red square"], 6)
    assert not caplog.text


def test_padding_on_the_left_is_set_right(base: Path) -> None:
    values = json.loads((base / "tokenizer_config.json").read_text())
    (base / "tokenizer_config.json").write_text(json.dumps({**values, "padding_side": "left"}))
    tokenizer = ua.load_tokenizer(base)
    assert tokenizer.padding_side == "right"
    assert tokenizer(["a", "the red square"], padding=True).attention_mask[0][-1] == 0


def test_from_pretrained_has_all_that_belongs_together(base: Path, tmp_path: Path) -> None:
    model = ua.load_model(base)
    ua.add_adapter(model, ua.AdapterConfig(bottleneck=2, key_value=2))
    with torch.no_grad():
        for parameter in ua.adapter_set(model).parameters():
            parameter.add_(0.1)
    tokenizer = ua.load_tokenizer(base)
    expected = ua.pair_scores(model, tokenizer, [PICTURE], ["a red square"])
    ua.save_adapter(model, tmp_path / "run/adapter", settings=ua.InferenceSettings(max_tokens=9))
    for source in (tmp_path / "run/adapter", str(tmp_path / "run")):
        loaded = ua.from_pretrained(source)
        assert (loaded.base, loaded.task, loaded.adapter) == (str(base), "retrieval", tmp_path / "run/adapter")
        assert loaded.settings.max_tokens == 9
        assert torch.equal(ua.pair_scores(loaded.model, loaded.tokenizer, [PICTURE], ["a red square"]), expected)
        assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert ua.from_pretrained(base).adapter is None
    assert ua.from_pretrained(tmp_path / "run", trainable=True).model.num_parameters(only_trainable=True) > 0
    with pytest.raises(CheckpointError, match="not for vqa"):
        ua.from_pretrained(tmp_path / "run", task="vqa")
    with pytest.raises(CheckpointError, match="base itself"):
        ua.from_pretrained(base, base=base)
    other = save_base(tmp_path / "other", seed=1)
    with pytest.raises(CheckpointError, match="another base"):
        ua.from_pretrained(tmp_path / "run", base=other)


def test_forward_scores_pairs_as_pair_scores_does_with_fused_ids(base: Path) -> None:
    model, tokenizer = ua.load_model(base), ua.load_tokenizer(base)
    processor = BlipProcessor(BlipImageProcessor(size={"height": 32, "width": 32}), tokenizer)
    said = ["a red square", "the picture of a blue square"]
    inputs = processor(images=[PICTURE, PICTURE], text=said, padding=True, return_tensors="pt")
    expected = ua.pair_scores(model, tokenizer, [PICTURE], said)[:, 0]
    before = inputs["input_ids"].clone()
    with torch.no_grad():
        plain = model(**inputs).itm_score.softmax(-1)[:, 1]
        fused = model(**{**inputs, "input_ids": ua.fused_ids(model, inputs["input_ids"])}).itm_score.softmax(-1)[:, 1]
    assert torch.allclose(fused, expected, atol=1e-4)
    assert not torch.allclose(plain, expected, atol=1e-4)
    assert torch.equal(inputs["input_ids"], before)
