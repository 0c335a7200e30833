"""Which words of an example are shown, in which layer, and that their maps are those of before and after training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from transformers import BlipForConditionalGeneration, BlipForImageTextRetrieval, BlipForQuestionAnswering

import uniadapter as ua
from squares import karpathy, save_pictures, save_tokenizer
from tiny import randomise, tiny_config
from uniadapter.app.cli import main
from uniadapter.app.word_looks import _Looks, chosen_layer, content_words, with_word_looks
from uniadapter.config import DataConfig, ModelConfig, RunConfig
from uniadapter.model.attention_maps import AttentionMap
from uniadapter.report import QueryExample, TextExample
from uniadapter.tasks.preparing import Prepared, prepare

KINDS = {
    "retrieval": BlipForImageTextRetrieval,
    "vqa": BlipForQuestionAnswering,
    "caption": BlipForConditionalGeneration,
}


def test_things_that_are_named_are_chosen_in_order_and_once() -> None:
    text = "three things , a dog to the left of a police officer and the dog , a car"
    words = text.split()
    named = [[words[place] for place in run] for run in content_words(words, 3)]
    assert named == [["dog"], ["police", "officer"], ["car"]]
    assert content_words(words, 2) == [[4], [10, 11]]
    assert content_words(["what", "is", "above", "it", "?"], 3) == []


def maps(*places: int) -> AttentionMap:
    """Each word looks at one patch of four."""
    patches = torch.zeros(len(places), 1, 2, 2)
    for word, place in enumerate(places):
        patches[word].view(-1)[place] = 1
    return AttentionMap(["w"] * len(places), patches, torch.ones(len(places), 1), torch.ones(1))


def test_the_layer_is_that_in_which_words_differ() -> None:
    example = QueryExample("q")
    same, apart = maps(0, 0, 0), maps(0, 1, 2)
    assert chosen_layer([_Looks(example, [[0], [1]], [same, apart, same], [same, apart, same])]) == 1
    assert chosen_layer([_Looks(example, [[0]], [same, apart, same], [same, apart, same])]) == 2
    one_differs = maps(0, 0, 3)
    assert chosen_layer([_Looks(example, [[0], [1]], [one_differs, same], [one_differs, apart])]) == 1


def prepared(folder: Path, task: str, frame_aware: bool = False) -> tuple[Prepared, RunConfig]:
    """A tiny base whose adapters have moved away from the identity."""
    torch.manual_seed(0)
    KINDS[task](tiny_config()).save_pretrained(folder)
    save_tokenizer(folder)
    adapter = ua.AdapterConfig(bottleneck=4, key_value=4, scale=1.0, frame_aware=frame_aware)
    config = RunConfig(task=task, model=ModelConfig(base=str(folder), adapter=adapter), data=DataConfig(frames=1))
    found = prepare(config)
    randomise(ua.adapter_set(found.model))
    return found, config


@pytest.mark.parametrize("task", ["retrieval", "vqa"])
def test_maps_are_those_of_before_and_after(tmp_path: Path, task: str) -> None:
    trained, config = prepared(tmp_path / "base", task)
    picture = tmp_path / save_pictures(tmp_path)[0]
    text = "the red square of a black picture"
    examples = [
        QueryExample(text, right=picture) if task == "retrieval" else TextExample(picture, text, [], [], [])
    ] * 2
    found, note = with_word_looks(examples, trained, None, config)
    assert [look.word for look in found[1].looks] == ["red square", "black"]
    assert "of 2 of the fused encoder" in note
    layer = int(note.partition("layer ")[2][0]) - 1
    for name, side in (("default", "after"), (None, "before")):
        with ua.active_adapter(trained.model, name):
            (expected,) = ua.attention_maps(trained.model, trained.tokenizer, picture, text, layer)
        for look, places in zip(found[0].looks, ([1, 2], [5]), strict=True):
            assert getattr(look, side) == pytest.approx(expected.patches[places].mean(0).numpy(), abs=1e-6)
    assert abs(found[0].looks[0].before - found[0].looks[0].after).max() > 1e-4
    other, _ = prepared(tmp_path / "other", task)
    apart, _ = with_word_looks(examples, trained, other, config)
    with ua.disable_adapter(trained.model):
        assert not torch.allclose(
            torch.from_numpy(apart[0].looks[0].before), torch.from_numpy(found[0].looks[0].before)
        )


def test_a_clip_has_shares_and_weights_of_its_frames(tmp_path: Path) -> None:
    trained, config = prepared(tmp_path / "base", "retrieval", frame_aware=True)
    save_pictures(tmp_path / "clip")
    config = replace(config, data=replace(config.data, frames=3))
    example = QueryExample("a red square", right=tmp_path / "clip")
    (found,), _ = with_word_looks([example], trained, None, config)
    assert found.looks[0].after.shape == (3, 2, 2)
    assert sum(found.looks[0].frames_after) == pytest.approx(1, abs=1e-5)
    visuals = ua.image_features(trained.model, [tmp_path / "clip"], 3)
    texts = ua.text_features(trained.model, trained.tokenizer, "a red square")
    similar = (visuals.frames[0] @ texts.feature[0]) / 4
    assert found.frame_weights == pytest.approx((3 * similar.softmax(0)).tolist(), abs=1e-6)
    plain = replace(config, model=replace(config.model, adapter=replace(config.model.adapter, frame_aware=False)))
    assert not with_word_looks([QueryExample("a red square", right=tmp_path / "clip")], trained, None, plain)[0][
        0
    ].frame_weights


def test_captions_and_blank_pictures_have_none(tmp_path: Path) -> None:
    trained, config = prepared(tmp_path / "base", "caption")
    caption = TextExample(tmp_path / "x.png", "", ["a red square"], [], [])
    assert with_word_looks([caption], trained, None, config) == ([caption], "")
    asking, config = prepared(tmp_path / "asking", "vqa")
    blank = replace(config, data=replace(config.data, blank=True))
    question = TextExample(tmp_path / "x.png", "a red square", [], [], [])
    assert with_word_looks([question], asking, None, blank) == ([question], "")
    assert with_word_looks([], asking, None, config) == ([], "")


def test_a_run_s_page_has_them(tmp_path: Path) -> None:
    import yaml

    files = karpathy(tmp_path, "flickr30k")
    torch.manual_seed(0)
    BlipForImageTextRetrieval(tiny_config()).save_pretrained(tmp_path / "base")
    save_tokenizer(tmp_path / "base")
    for file in files.values():
        rows = [{**row, "group": number // 2} for number, row in enumerate(json.loads(Path(file).read_text()))]
        Path(file).write_text(json.dumps(rows))
    run = {
        "output": str(tmp_path / "run"), "model": {"base": str(tmp_path / "base")},
        "data": {**files, "root": str(tmp_path), "workers": 0}, "objective": {"queue_size": 0},
        "train": {"max_steps": 1, "batch_size": 4}, "evaluate": {"k": 4},
    }  # fmt: skip
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(run))
    assert main(["train", str(tmp_path / "run.yaml")]) == 0
    page = (tmp_path / "run/report.html").read_text()
    assert "where words look in the right picture" in page
    assert "Colour shows where a word looks" in page
    assert '<li class="near">' in page
    assert (
        main(["train", str(tmp_path / "run.yaml"), "--model.method", "full", "--output", str(tmp_path / "full")]) == 0
    )
    assert "where words look in the right picture" in (tmp_path / "full/report.html").read_text()
