"""Attention maps: the weights of `fuse`'s own attention, with every adapter in them, by word, patch and frame."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import BlipForConditionalGeneration, BlipForQuestionAnswering, PreTrainedModel

import uniadapter as ua
from squares import COLOURS, save_base, save_tokenizer
from tiny import randomise, tiny_model, tiny_texts
from uniadapter.model.attention_maps import attention_by_layer, mean_map
from uniadapter.model.encoding import encode_text, encode_visual, fuse, fuse_with_weights
from uniadapter.model.features import Texts, Visuals
from uniadapter.model.frame_attention import frame_weights

PAIRS = torch.tensor([[3, 1], [0, 0], [1, 1], [0, 1], [4, 0], [1, 1]])


def adapted(**config: object) -> PreTrainedModel:
    """A tiny BLIP with every adapter of its set moved away from the identity."""
    model = tiny_model()
    ua.add_adapter(model, ua.AdapterConfig(bottleneck=4, key_value=4, scale=1.0, **config))  # type: ignore[arg-type]
    randomise(ua.adapter_set(model))
    return model


def encoded(model: PreTrainedModel, frames: int = 3) -> tuple[Texts, Visuals]:
    torch.manual_seed(1)
    return encode_text(model, *tiny_texts(5)), encode_visual(model, torch.randn(2, frames, 3, 32, 32))


@pytest.mark.parametrize("config", [{}, {"frame_aware": True}, {"temporal_frames": 3}])
@torch.no_grad()
def test_the_explicit_way_gives_the_states_of_the_fused_one(config: dict[str, object]) -> None:
    model = adapted(**config)
    texts, visuals = encoded(model)
    states, weights = fuse_with_weights(model, texts, visuals, PAIRS)
    real = texts.mask[PAIRS[:, 0]].bool()
    expected = fuse(model, texts, visuals, PAIRS)
    assert (states[real] - expected[real]).abs().max() < 1e-5
    assert len(weights) == 2
    for one in weights:
        assert one.shape == (len(PAIRS), 4, 7, 3, 5)
        assert one.transpose(1, 2)[real].sum((-1, -2)) == pytest.approx(1.0, abs=1e-5)


@torch.no_grad()
def first_layer_by_hand(model: PreTrainedModel, ids: Tensor, tokens: Tensor, weights: Tensor | None) -> Tensor:
    """The first layer's cross-attention weights [H, L, K] of one text [L] and one visual's tokens [T, N, d]."""
    layer = model.text_encoder.encoder.layer[0]
    hidden = model.text_encoder.embeddings(input_ids=ids[None])
    attended = layer.attention.output(layer.attention.self(hidden)[0], hidden)
    attention, visual = layer.crossattention.self, tokens.flatten(0, 1)[None]
    key = attention.key(visual) + ua.adapter_set(model).key(visual)
    if weights is not None:
        factor = weights[:, None].repeat(1, tokens.shape[1])
        factor[:, 0] = 1
        key = key * factor.flatten()[None, :, None]
    query, key = (attention.split_heads(one)[0] for one in (attention.query(attended), key))
    return torch.softmax(query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5, -1)


@pytest.mark.parametrize("frame_aware", [False, True])
@torch.no_grad()
def test_key_adapters_and_frame_weights_are_in_the_weights(frame_aware: bool) -> None:
    model = adapted(frame_aware=frame_aware)
    texts, visuals = encoded(model)
    _, weights = fuse_with_weights(model, texts, visuals, PAIRS)
    own = frame_weights(texts.feature[3:4], visuals.frames[1:2])[0] if frame_aware else None
    length = int(texts.mask[3].sum())
    ids = ua.fused_ids(model, texts.ids[3:4])[0, :length]
    expected = first_layer_by_hand(model, ids, visuals.tokens[1], own)
    found = weights[0][0, :, :length].flatten(2)
    assert torch.allclose(found, expected, atol=1e-6)
    with ua.disable_adapter(model):
        _, bare = fuse_with_weights(model, texts, visuals, PAIRS)
    assert (bare[0][0, :, :length].flatten(2) - expected).abs().max() > 1e-3


@torch.no_grad()
def test_a_map_has_the_words_shares_and_the_frame_weights_of_the_scores(tmp_path: Path) -> None:
    from transformers import BertTokenizerFast

    save_tokenizer(tmp_path)
    tokenizer = BertTokenizerFast.from_pretrained(tmp_path)
    model = adapted(frame_aware=True)
    texts, visuals = encoded(model)
    tokens = tokenizer(["a red square", "the picture of a blue square"], padding=True, return_tensors="pt")
    texts = encode_text(model, tokens["input_ids"], tokens["attention_mask"])
    pairs = torch.tensor([[1, 0], [0, 1]])
    _, weights = fuse_with_weights(model, texts, visuals, pairs)
    both = attention_by_layer(model, tokenizer, texts, visuals, pairs)
    blue, red = both[0][1], both[1][1]
    assert blue.words == ["the", "picture", "of", "a", "blue", "square"]
    assert red.words == ["a", "red", "square"]
    assert red.patches.shape == (3, 3, 2, 2)
    assert torch.allclose(red.patches[1].flatten(1), weights[1][1, :, 2, :, 1:].mean(0), atol=1e-6)
    assert torch.allclose(red.frames.sum(1), torch.ones(3), atol=1e-5)
    assert torch.equal(red.frame_weights, frame_weights(texts.feature[:1], visuals.frames[1:])[0])
    assert red.frame_weights.mean() == pytest.approx(1.0, abs=1e-6)
    mean = mean_map(both[1])
    assert torch.allclose(mean.patches, (both[1][0].patches + red.patches) / 2, atol=1e-6)
    assert torch.allclose(mean.frames, (both[1][0].frames + red.frames) / 2, atol=1e-6)
    with pytest.raises(ValueError, match="at least one pair"):
        fuse_with_weights(model, texts, visuals, pairs[:0])


def test_a_word_of_several_tokens_has_their_mean(tmp_path: Path) -> None:
    tokenizer, model = ua.load_tokenizer(), ua.load_model()
    picture = torch.rand(3, 96, 96)
    word = next(word for word in ("unfathomable", "zebraish", "boxy", "lionlike") if len(tokenizer.tokenize(word)) > 1)
    (found,) = ua.attention_maps(model, tokenizer, picture, f"a {word}", layer=0)
    assert found.words == ["a", word]
    visuals, texts = ua.image_features(model, picture), ua.text_features(model, tokenizer, f"a {word}")
    with torch.no_grad():
        weights = fuse_with_weights(model, texts, visuals, torch.tensor([[0, 0]]))[1][0][0].mean(0)
    last = int(texts.mask.sum()) - 1
    by_layer = [ua.attention_maps(model, tokenizer, picture, f"a {word}", layer)[0].patches for layer in (0, 1, -1)]
    (mean,) = ua.attention_maps(model, tokenizer, picture, f"a {word}")
    assert torch.allclose(mean.patches, sum(by_layer) / 3, atol=1e-6)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="layers 0 to 2"):
        ua.attention_maps(model, tokenizer, picture, f"a {word}", layer=3)
    assert torch.allclose(found.patches[1].flatten(), weights[2:last, 0, 1:].mean(0), atol=1e-6)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_base(tmp_path_factory.mktemp("base"))


def test_questions_too_and_by_the_name_of_an_adapter(base: Path) -> None:
    tokenizer = ua.load_tokenizer(base)
    model = tiny_model(BlipForQuestionAnswering)
    ua.add_adapter(model, ua.AdapterConfig(bottleneck=4, key_value=4, frame_aware=True), "mine")
    randomise(ua.adapter_set(model))
    ua.select_adapter(model, None)
    clip = [torch.full((3, 32, 32), value / 255) for value in COLOURS["pink"]]
    bare, mine = (
        ua.attention_maps(model, tokenizer, clip, ["the red square?", "a square?"], frames=3, adapter=name)
        for name in (None, "mine")
    )
    assert [one.words for one in mine] == [["the", "red", "square", "[UNK]"], ["a", "square", "[UNK]"]]
    assert mine[0].patches.shape == (4, 3, 2, 2)
    assert not torch.allclose(bare[0].patches, mine[0].patches)
    assert mine[0].frame_weights.tolist() == [1, 1, 1]  # a question has no feature to weigh frames by
    assert ua.attention_maps(model, tokenizer, clip[0], []) == []


def test_what_has_no_map_is_refused_in_one_line(base: Path) -> None:
    tokenizer, picture = ua.load_tokenizer(base), torch.rand(3, 32, 32)
    with pytest.raises(TypeError, match=r"^BlipForConditionalGeneration has no fused encoder.*$"):
        ua.attention_maps(tiny_model(BlipForConditionalGeneration), tokenizer, picture, "a square")
    with pytest.raises(ValueError, match="one picture, and was given 2"):
        ua.attention_maps(tiny_model(), tokenizer, ua.image_features(tiny_model(), [picture] * 2), "a square")
