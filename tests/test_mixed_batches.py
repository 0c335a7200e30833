"""One forward pass whose rows use different sets gives each row what its set gives alone."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import BlipForConditionalGeneration, BlipForQuestionAnswering, PreTrainedModel

import uniadapter as ua
from tiny import randomise, tiny_model, tiny_texts
from uniadapter.model.decoding import question_context, rank_answers, text_nll, visual_context
from uniadapter.model.dispatch import decoding
from uniadapter.model.encoding import begin_fusion, encode_text, encode_visual, fuse_with_weights, match
from uniadapter.model.features import AnswerTree, Texts, Visuals

CONFIGS = {
    "a": ua.AdapterConfig(bottleneck=4, key_value=3, self_attention=3),
    "b": ua.AdapterConfig(bottleneck=6, key_value=0, vision=False, query_residual=False, frame_aware=True),
    "c": ua.AdapterConfig(bottleneck=5, key_value=2, cross=False, heads=False, temporal_frames=3),
    "d": ua.AdapterConfig(
        bottleneck=4, share="none", self_attention=5, frame_aware=True, frame_temperature=0.5, temporal_frames=5
    ),
}
NAMES = ["b", "a", None, "c", "a", "d", "b"]  # of the rows
ROWS = len(NAMES)
PIXELS = torch.randn(ROWS, 2, 3, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def model_of(cls: type[PreTrainedModel] | None = None) -> PreTrainedModel:
    model = (tiny_model(cls) if cls else tiny_model()).double()
    for seed, (name, config) in enumerate(CONFIGS.items()):
        randomise(ua.add_adapter(model, replace(config, scale=1.0), name), seed=seed + 1)
    return model


def one_by_one(model: PreTrainedModel, call: Callable[[int], Tensor]) -> Tensor:
    """The call for each row, alone, with the row's set."""
    parts = []
    for row, name in enumerate(NAMES):
        with ua.active_adapter(model, name):
            parts.append(call(row))
    return torch.cat(parts)


def close(mixed: Tensor, alone: Tensor) -> None:
    assert mixed.shape == alone.shape
    assert torch.allclose(mixed, alone, atol=1e-12), float((mixed - alone).abs().max())
    assert not torch.allclose(mixed[1], mixed[2]), "rows differ, else nothing is tested"


def encoded(model: PreTrainedModel) -> tuple[Texts, Visuals]:
    ids, mask = tiny_texts(ROWS)
    with ua.active_adapter(model, NAMES):
        return encode_text(model, ids, mask), encode_visual(model, PIXELS)


@torch.no_grad()
@pytest.mark.parametrize("chunk", [0, 1, 2, 5])
def test_visuals(chunk: int) -> None:
    model = model_of()
    with ua.active_adapter(model, NAMES):
        mixed = encode_visual(model, PIXELS, chunk)
    close(mixed.tokens, one_by_one(model, lambda row: encode_visual(model, PIXELS[row : row + 1]).tokens))
    close(mixed.feature, one_by_one(model, lambda row: encode_visual(model, PIXELS[row : row + 1]).feature))
    close(mixed.frames, one_by_one(model, lambda row: encode_visual(model, PIXELS[row : row + 1]).frames))


@torch.no_grad()
def test_texts() -> None:
    model, (ids, mask) = model_of(), tiny_texts(ROWS)
    with ua.active_adapter(model, NAMES):
        mixed = encode_text(model, ids, mask)
    close(
        mixed.feature,
        one_by_one(model, lambda row: encode_text(model, ids[row : row + 1], mask[row : row + 1]).feature),
    )


@torch.no_grad()
def test_pairs_in_any_order() -> None:
    model = model_of()
    texts, visuals = encoded(model)
    # Two texts of one set with one visual of it, and the reverse, in an order that packing changes.
    pairs = torch.tensor([[6, 0], [4, 1], [1, 1], [5, 5], [2, 2], [0, 6], [3, 3], [0, 0], [1, 4]])
    names = [NAMES[visual] for visual in pairs[:, 1].tolist()]
    with ua.active_adapter(model, names):
        mixed = match(model, texts, visuals, pairs)
        states, weights = fuse_with_weights(model, texts, visuals, pairs)
    with ua.active_adapter(model, NAMES):
        cache = begin_fusion(model, texts)
    with ua.active_adapter(model, names):
        assert torch.allclose(match(model, texts, visuals, pairs, cache), mixed, atol=1e-12)
    for row, name in enumerate(names):
        with ua.active_adapter(model, name):
            alone = match(model, texts, visuals, pairs[row : row + 1])
            own, shares = fuse_with_weights(model, texts, visuals, pairs[row : row + 1])
        length = int(texts.mask[pairs[row, 0]].sum())
        assert torch.allclose(mixed[row], alone[0], atol=1e-12), (row, name)
        assert torch.allclose(states[row, :length], own[0, :length], atol=1e-12)
        assert torch.allclose(weights[1][row, :, :length], shares[1][0, :, :length], atol=1e-12)


@torch.no_grad()
def test_a_visual_in_pairs_of_two_sets_is_refused() -> None:
    model = model_of()
    texts, visuals = encoded(model)
    with ua.active_adapter(model, ["a", "b"]), pytest.raises(ValueError, match=r"visual 1 is in pairs of a and of b"):
        match(model, texts, visuals, torch.tensor([[0, 1], [1, 1]]))


@torch.no_grad()
def test_questions_and_ranked_answers() -> None:
    model, (ids, mask) = model_of(BlipForQuestionAnswering), tiny_texts(ROWS)
    rows = torch.arange(ROWS)
    tree = AnswerTree.of([[62, 5, 3], [62, 5, 6, 3], [62, 9, 3], [62, 9, 8, 7, 3], [62, 11, 3]])
    with ua.active_adapter(model, NAMES):
        visuals = encode_visual(model, PIXELS)
        context = question_context(model, visuals, ids, mask, rows)
        chosen, nll = rank_answers(model, context, tree, 3)
        likelihood = text_nll(
            model, context, rows, tree.ids[:1].expand(ROWS, -1), (tree.ids[:1] > 0).long().expand(ROWS, -1)
        )

    def alone(row: int) -> tuple[Tensor, Tensor, Tensor]:
        one = slice(row, row + 1)
        own = question_context(model, visuals.select(one), ids[one], mask[one], torch.zeros(1, dtype=torch.long))
        ranked = rank_answers(model, own, tree, 3)
        return *ranked, text_nll(model, own, torch.zeros(1, dtype=torch.long), tree.ids[:1], (tree.ids[:1] > 0).long())

    assert torch.equal(chosen, one_by_one(model, lambda row: alone(row)[0]))
    close(nll, one_by_one(model, lambda row: alone(row)[1]))
    close(likelihood, one_by_one(model, lambda row: alone(row)[2]))


@torch.no_grad()
@pytest.mark.parametrize("beams", [1, 3])
def test_captions_by_beam_search(beams: int) -> None:
    model = model_of(BlipForConditionalGeneration)
    start = torch.tensor([[62, 7]])
    with ua.active_adapter(model, NAMES):
        visuals = encode_visual(model, PIXELS)
        context = visual_context(model, visuals)
        mixed = decoding(model).generate(start, context, beams, 9, 9)
    alone = one_by_one(
        model,
        lambda row: decoding(model).generate(start, visual_context(model, visuals.select([row])), beams, 9, 9),
    )
    assert torch.equal(mixed, alone)
    assert len({tuple(row) for row in mixed.tolist()}) > 2


@torch.no_grad()
def test_the_own_forward_of_transformers() -> None:
    model, (ids, mask) = model_of(), tiny_texts(ROWS)
    given = {"pixel_values": PIXELS[:, 0], "input_ids": ids, "attention_mask": mask}
    with ua.active_adapter(model, NAMES):
        mixed = model(**given).itm_score
    close(mixed, one_by_one(model, lambda row: model(**{k: v[row : row + 1] for k, v in given.items()}).itm_score))


def test_unknown_names_and_another_number_of_rows() -> None:
    model = model_of()
    with (
        pytest.raises(KeyError, match=r"no adapter named 'z': there is a, b, c, d"),
        ua.active_adapter(model, ["a", "z"]),
    ):
        pass
    with (
        ua.active_adapter(model, ["a", "b"]),
        pytest.raises(ValueError, match=r"2 adapters are named for a batch of 3"),
    ):
        encode_visual(model, PIXELS[:3, :1])
    with ua.active_adapter(model, ["a", "b"]), pytest.raises(ValueError, match=r"the rows of this batch use different"):
        ua.adapter_set(model)


def test_gradients_reach_each_set() -> None:
    model = model_of()
    for name in CONFIGS:
        ua.adapter_set(model, name).requires_grad_(True)
    with ua.active_adapter(model, NAMES):
        encode_visual(model, PIXELS).feature.square().sum().backward()
        mixed = {name: {n: p.grad for n, p in ua.adapter_set(model, name).named_parameters()} for name in CONFIGS}
    model.zero_grad()
    assert one_by_one(model, lambda row: encode_visual(model, PIXELS[row : row + 1]).feature).requires_grad
    one_by_one(model, lambda row: encode_visual(model, PIXELS[row : row + 1]).feature).square().sum().backward()
    for name in CONFIGS:
        for part, parameter in ua.adapter_set(model, name).named_parameters():
            found = mixed[name][part]
            expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            assert torch.allclose(torch.zeros_like(parameter) if found is None else found, expected, atol=1e-10), part


@torch.no_grad()
def test_threads_with_different_batches() -> None:
    model = model_of()
    batches = [["a"] * ROWS, NAMES, NAMES[::-1], [None] * ROWS]

    def features(names: list[str | None]) -> Tensor:
        with ua.active_adapter(model, names), torch.no_grad():
            return encode_visual(model, PIXELS).feature

    right = [features(names) for names in batches]
    with ThreadPoolExecutor(4) as pool:
        for _ in range(10):
            assert all(map(torch.equal, pool.map(features, batches), right))
