"""The calls for users with a set for each row: on the embedded base with the adapters that are shipped."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

import uniadapter as ua
from squares import save_pictures
from tiny import randomise
from uniadapter.model.sets import adapter_set
from uniadapter.model.settings import InferenceSettings

Base = tuple[PreTrainedModel, PreTrainedTokenizerBase]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("pictures")
    return [str(folder / name) for name in save_pictures(folder)[:4]]


def with_two(shipped: str, config: ua.AdapterConfig | None = None) -> Base:
    """A shipped adapter, "own", and a random one, "other"."""
    loaded = ua.from_pretrained(f"embedded:{shipped}")
    model = loaded.model
    ua.remove_adapter(model)
    ua.load_adapter(model, loaded.adapter, "own")
    randomise(ua.add_adapter(model, config or ua.AdapterConfig(bottleneck=8, key_value=4), "other"), 0.05)
    return model, loaded.tokenizer


NAMES = ["other", "own", None, "own"]


def test_features_and_scores(pictures: list[str]) -> None:
    model, tokenizer = with_two("scenes")
    texts = ["a red square", "a blue square", "a dog", "two squares, one of them green"]
    visuals = ua.image_features(model, pictures, adapter=NAMES)
    encoded = ua.text_features(model, tokenizer, texts, adapter=NAMES)
    pairs = [(3, 3), (1, 1), (0, 0), (3, 1), (2, 2)]
    names = [NAMES[image] for _, image in pairs]
    scores = ua.pair_scores(model, tokenizer, pictures, texts, pairs, adapter=names)
    assert torch.equal(scores, ua.pair_scores(model, tokenizer, visuals, encoded, pairs, adapter=names))
    for row, name in enumerate(NAMES):
        with ua.active_adapter(model, name):
            assert torch.allclose(visuals.feature[row], ua.image_features(model, pictures[row]).feature[0], atol=1e-6)
            assert torch.allclose(
                encoded.feature[row], ua.text_features(model, tokenizer, texts[row]).feature[0], atol=1e-6
            )
    for (text, image), name, score in zip(pairs, names, scores.tolist(), strict=True):
        with ua.active_adapter(model, name):
            alone = ua.pair_scores(model, tokenizer, pictures[image], texts[text])
        assert score == pytest.approx(float(alone), abs=1e-6)
    with ua.active_adapter(model, NAMES):  # a block is as good as the argument
        assert torch.equal(ua.image_features(model, pictures).feature, visuals.feature)


def test_a_picture_in_pairs_of_two_sets(pictures: list[str]) -> None:
    model, tokenizer = with_two("scenes")
    with pytest.raises(ValueError, match=r"image 0 is in pairs of own and of other: give it once for each of them"):
        ua.pair_scores(model, tokenizer, pictures, ["a", "b"], [(0, 0), (1, 0)], adapter=["own", "other"])
    with pytest.raises(ValueError, match=r"adapter names 2 sets for 4 images"):
        ua.image_features(model, pictures, adapter=["own", "other"])
    with pytest.raises(KeyError, match=r"no adapter named 'nobody'"):
        ua.image_features(model, pictures[:1], adapter=["nobody"])


def test_settings_that_one_batch_cannot_have(pictures: list[str]) -> None:
    model, _ = with_two("scenes")
    adapter_set(model, "other").settings = InferenceSettings(image_size=64)
    with pytest.raises(ValueError, match=r"image_size is 96 for own and 64 for other, .* pass image_size="):
        ua.image_features(model, pictures[:2], adapter=["own", "other"])
    ua.image_features(model, pictures[:2], image_size=64, adapter=["own", "other"])
    adapter_set(model, "other").settings = InferenceSettings(frames=3)
    with pytest.raises(ValueError, match=r"frames is 1 for own and 3 for other, .* pass frames="):
        ua.image_features(model, pictures[:2], adapter=["own", "other"])
    assert ua.image_features(model, pictures[:2], frames=2, adapter=["own", "other"]).frames.shape[1] == 2


def test_questions_each_with_its_list_of_answers(pictures: list[str]) -> None:
    model, tokenizer = with_two("vqa")
    adapter_set(model, "other").settings = InferenceSettings(answers=("cat", "dog", "red thing"), answering="rank")
    asked = ["what is in the picture?", "is there a dog?", "how many things are there?", "is there a cat?"]
    found = ua.ask_each(model, tokenizer, pictures, asked, adapter=NAMES)
    for row, name in enumerate(NAMES):
        with ua.active_adapter(model, name):
            (alone,) = ua.ask(model, tokenizer, pictures[row], asked[row])
        assert found[row].answer == alone.answer
        assert [one for one, _ in found[row].ranked] == [one for one, _ in alone.ranked]
        assert [p for _, p in found[row].ranked] == pytest.approx([p for _, p in alone.ranked], abs=1e-5)
    assert len(found[0].ranked) == 3
    assert not found[2].ranked, "the base has no list and generates"
    about_one = ua.ask(model, tokenizer, pictures[0], asked, adapter=NAMES)
    again = ua.ask_each(model, tokenizer, [pictures[0]] * 4, asked, adapter=NAMES)
    assert [one.answer for one in about_one] == [one.answer for one in again]
    with pytest.raises(ValueError, match=r"there are 4 questions about 2 pictures"):
        ua.ask_each(model, tokenizer, pictures[:2], asked)


def test_captions_with_different_prompts(pictures: list[str]) -> None:
    model, tokenizer = with_two("caption")
    adapter_set(model, "other").settings = InferenceSettings(prompt="a drawing of ", beams=2, longest=12)
    found = ua.caption(model, tokenizer, pictures, adapter=NAMES)
    for row, name in enumerate(NAMES):
        with ua.active_adapter(model, name):
            assert ua.caption(model, tokenizer, pictures[row]) == [found[row]]


def test_no_pictures(tmp_path: Path) -> None:
    model, tokenizer = with_two("scenes")
    assert len(ua.image_features(model, [], adapter=[])) == 0
    assert len(ua.text_features(model, tokenizer, [], adapter=[])) == 0
