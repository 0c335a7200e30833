"""Padding on the left gives what padding on the right gives; a mask with holes, or that is none, is refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from transformers import BlipForQuestionAnswering

import uniadapter as ua
from tiny import tiny_model, tiny_texts
from uniadapter.model.blip.decoder import decode, question_context, text_nll
from uniadapter.model.decoding import decoder_tokens
from uniadapter.model.encoding import encode_text, encode_visual, fuse
from uniadapter.model.features import Texts
from uniadapter.model.tokens import tokenize


def to_the_left(ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The same texts, padded on the left."""
    moved = [torch.roll(row, int(len(row) - keep.sum())) for row, keep in zip(ids, mask, strict=True)]
    return torch.stack(moved), mask.flip(1)


@pytest.mark.parametrize("kind", [torch.long, torch.bool, torch.float32])
@torch.no_grad()
def test_padding_on_the_left_gives_what_padding_on_the_right_gives(kind: torch.dtype) -> None:
    model = tiny_model()
    ids, mask = tiny_texts(5)
    left, left_mask = to_the_left(ids, mask)
    assert not torch.equal(left, ids)
    right, other = encode_text(model, ids, mask.to(kind)), encode_text(model, left, left_mask.to(kind))
    assert torch.equal(right.feature, other.feature)
    assert torch.equal(right.ids, other.ids)
    assert torch.equal(other.mask.sum(1), mask.sum(1))
    visuals = encode_visual(model, torch.randn(2, 1, 3, 32, 32))
    pairs = torch.cartesian_prod(torch.arange(5), torch.arange(2))
    assert torch.equal(fuse(model, right, visuals, pairs, "first"), fuse(model, other, visuals, pairs, "first"))


@torch.no_grad()
def test_questions_and_answers_too() -> None:
    model = tiny_model(BlipForQuestionAnswering)
    (ids, mask), (said, said_mask) = tiny_texts(4, seed=1), tiny_texts(4, seed=2)
    visuals, rows = encode_visual(model, torch.randn(2, 1, 3, 32, 32)), torch.tensor([0, 1, 0, 1])
    context = question_context(model, visuals, ids, mask, rows)
    other = question_context(model, visuals, *to_the_left(ids, mask), rows)
    assert torch.equal(context.states, other.states)
    one = torch.arange(4)
    expected = text_nll(model, context, one, said, said_mask)
    assert torch.equal(text_nll(model, context, one, *to_the_left(said, said_mask)), expected)
    with pytest.raises(ValueError, match="padded on the right"):
        decode(model, context, one, *to_the_left(said, said_mask))


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ([1, 1, 0, 1, 1, 0, 0], "has holes"),
        ([0, 1, 0, 1, 1, 1, 1], "has holes"),
        ([0, 0, 0, 0, 0, 0, 0], "without any token"),
        ([0, 0, 0, 0, -9, -9, -9], "1 for tokens and 0 for padding"),
        ([2, 1, 1, 1, 0, 0, 0], "1 for tokens and 0 for padding"),
    ],
)
def test_what_is_no_mask_is_refused(row: list[int], said: str) -> None:
    ids, mask = tiny_texts(3)
    mask[1] = torch.tensor(row)
    with pytest.raises(ValueError, match=said):
        encode_text(tiny_model(), ids, mask)


def test_texts_that_the_model_has_no_positions_for_are_refused() -> None:
    ids = torch.full((2, 60), 5)
    with pytest.raises(ValueError, match="60 tokens: the model takes 40"):
        encode_text(tiny_model(), ids, torch.ones_like(ids))
    with pytest.raises(ValueError, match=r"must both be \[S, L\]"):
        encode_text(tiny_model(), ids, torch.ones(2, 59))


def test_texts_made_by_hand_are_not_read_askew() -> None:
    model = tiny_model()
    ids, mask = to_the_left(*tiny_texts(3))
    texts = Texts(ids, mask, torch.zeros(*ids.shape, 32), torch.zeros(3, 16))
    visuals = encode_visual(model, torch.randn(1, 1, 3, 32, 32))
    with pytest.raises(ValueError, match="encode_text gives such"):
        fuse(model, texts, visuals, torch.tensor([[0, 0], [1, 0]]))


def test_a_tokenizer_that_pads_on_the_left_does_no_harm() -> None:
    model, tokenizer, texts = ua.load_model(), ua.load_tokenizer(), ["a box", "a red box and a ball"]
    captioner = ua.load_model(task="caption")
    expected, start = ua.text_features(model, tokenizer, texts), decoder_tokens(tokenizer, captioner, texts, 20)
    tokenizer.padding_side = "left"
    assert torch.equal(ua.text_features(model, tokenizer, texts).feature, expected.feature)
    assert torch.equal(decoder_tokens(tokenizer, captioner, texts, 20).ids, start.ids)
    left = tokenizer(texts, padding=True, return_tensors="pt")
    assert int(left["attention_mask"][0, 0]) == 0
    with torch.no_grad():
        found = encode_text(model, left["input_ids"], left["attention_mask"])
    assert torch.allclose(found.feature, expected.feature, atol=1e-6)
    assert torch.equal(tokenize(tokenizer, texts, 20).ids, expected.ids)
