"""Which set is active belongs to a thread or task: many of them ask one model with different adapters at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import BlipForConditionalGeneration, PreTrainedModel

import uniadapter as ua
from tiny import randomise, tiny_model, tiny_texts
from uniadapter.model.encoding import encode_visual

PIXELS = torch.randn(1, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
CALLS = 40


def two_sets(cls: type[PreTrainedModel] | None = None) -> PreTrainedModel:
    model = tiny_model(cls) if cls else tiny_model()
    for seed, name in enumerate(("a", "b")):
        randomise(ua.add_adapter(model, ua.AdapterConfig(bottleneck=4, key_value=3), name), seed=seed + 1)
    return model


@torch.no_grad()
def features(model: PreTrainedModel) -> Tensor:
    return encode_visual(model, PIXELS).feature


def slowed(model: PreTrainedModel) -> PreTrainedModel:
    """The same, giving way between its layers, so that threads meet in the middle of a forward pass."""
    for layer in model.vision_model.encoder.layers:
        layer.register_forward_pre_hook(lambda module, given: time.sleep(0.0005))
    return model


def wrong(model: PreTrainedModel, call: Callable[[str | None], Tensor]) -> int:
    """How many of the calls of two threads, each with its own set, and of one with the bare base, are wrong."""
    right = {name: call(name) for name in ("a", "b", None)}
    assert not torch.allclose(right["a"], right["b"])
    start = threading.Barrier(3)

    def many(name: str | None) -> int:
        start.wait()
        return sum(not torch.equal(call(name), right[name]) for _ in range(CALLS))

    with ThreadPoolExecutor(3) as pool:
        return sum(pool.map(many, right))


def test_threads_with_two_adapters_never_get_each_others() -> None:
    model = slowed(two_sets())

    def call(name: str | None) -> Tensor:
        with ua.active_adapter(model, name) if name else ua.disable_adapter(model):
            return features(model)

    assert wrong(model, call) == 0
    assert torch.equal(features(model), call("b")), "the selected set is what it was"


def test_a_call_names_its_adapter() -> None:
    model, picture = slowed(two_sets()), torch.rand(3, 32, 32)
    model.train()  # threads that overlap agree on evaluation mode too
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.5

    def call(name: str | None) -> Tensor:
        if name:
            return ua.image_features(model, picture, adapter=name).feature
        with ua.disable_adapter(model):
            return ua.image_features(model, picture).feature

    assert wrong(model, call) == 0
    assert model.training
    assert torch.equal(ua.image_features(model, picture).feature, call("b"))
    with pytest.raises(KeyError, match="there is a, b"):
        ua.image_features(model, picture, adapter="c")


@pytest.mark.parametrize("task", ["retrieval", "vqa", "caption"])
def test_every_prediction_takes_an_adapter(task: str) -> None:
    model, tokenizer, picture = ua.load_model("embedded", task), ua.load_tokenizer(), torch.rand(3, 96, 96)
    for seed, name in enumerate(("a", "b")):
        randomise(ua.add_adapter(model, ua.AdapterConfig(bottleneck=4, key_value=4), name), scale=0.5, seed=seed)
    calls: dict[str, list[Callable[..., Any]]] = {
        "retrieval": [
            lambda **more: ua.text_features(model, tokenizer, "a red box", **more).feature.tolist(),
            lambda **more: ua.pair_scores(model, tokenizer, picture, "a red box", **more).tolist(),
        ],
        "vqa": [lambda **more: ua.ask(model, tokenizer, picture, "what?", ["red", "box", "two"], **more)],
        "caption": [lambda **more: ua.caption(model, tokenizer, picture, **more)],
    }
    for call in calls[task]:
        with ua.active_adapter(model, "a"):
            within = call()
        assert call(adapter="a") == within
        if task != "caption":  # two random sets may write the same
            assert call(adapter="b") == call() != within


def test_threads_that_ask_a_fresh_model_first_re_type_it_once() -> None:
    for _ in range(5):
        model = tiny_model()
        expected = features(tiny_model())
        start = threading.Barrier(4)

        def first(_: int, model: PreTrainedModel = model, start: threading.Barrier = start) -> Tensor:
            start.wait()
            return features(model)

        with ThreadPoolExecutor(4) as pool:
            assert all(torch.equal(found, expected) for found in pool.map(first, range(4)))
        stores = {id(module.store) for module in model.modules() if hasattr(module, "store")}
        assert len(stores) == 1


def test_threads_share_a_tokenizer() -> None:
    """Whose truncation and padding are settings of its own, changed by every call."""
    model, tokenizer = ua.load_model(), ua.load_tokenizer()
    texts = [["a red box"], ["a blue star on the left of a long list of other things " * 2] * 8]
    right = [ua.text_features(model, tokenizer, some, max_tokens=12).feature for some in texts]

    def many(which: int) -> int:
        again = (ua.text_features(model, tokenizer, texts[which], max_tokens=12).feature for _ in range(15))
        return sum(not torch.equal(found, right[which]) for found in again)

    with ThreadPoolExecutor(2) as pool:
        assert sum(pool.map(many, (0, 1))) == 0


def test_asynchronous_tasks_keep_their_own() -> None:
    model = two_sets()
    right = {}
    for name in ("a", "b"):
        with ua.active_adapter(model, name):
            right[name] = features(model)

    async def ask(name: str) -> int:
        bad = 0
        with ua.active_adapter(model, name):
            for _ in range(CALLS // 4):
                await asyncio.sleep(0)
                bad += not torch.equal(features(model), right[name])
        return bad

    async def both() -> int:
        return sum(await asyncio.gather(ask("a"), ask("b")))

    assert asyncio.run(both()) == 0


@pytest.mark.parametrize("reentrant", [False, True])
def test_layers_computed_again_use_the_set_of_their_forward_pass(reentrant: bool) -> None:
    """In the backward pass the block has ended, and autograd may run it in a thread of its own."""
    model = two_sets(BlipForConditionalGeneration)
    for parameter in model.parameters():  # the reentrant kind wants inputs with gradients
        parameter.requires_grad_(True)
    ids, mask = tiny_texts(1)

    def gradients() -> dict[str, Tensor]:
        model.zero_grad()
        with ua.active_adapter(model, "a"):
            if reentrant:  # which wants all tensors with gradients as positional arguments, and text layers have others
                loss = model.vision_model(pixel_values=PIXELS[0]).last_hidden_state.square().sum()
            else:
                loss = model(pixel_values=PIXELS[0], input_ids=ids, attention_mask=mask, labels=ids).loss
        backward = threading.Thread(target=loss.backward)
        backward.start()
        backward.join()
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    model.train()
    expected = gradients()
    assert not any(name.startswith("uniadapters.b.") for name in expected)
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": reentrant})
    found = gradients()
    assert not any(name.startswith("uniadapters.b.") for name in found)
    seen = [n for n in expected if n.startswith("uniadapters.a.")]
    assert len(seen) > 8
    for name in seen:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_where_a_name_is_asked_the_active_set_is_meant() -> None:
    model = two_sets()
    assert ua.adapter_set(model) is ua.adapter_set(model, "b")
    with ua.active_adapter(model, "a"):
        assert ua.adapter_set(model) is ua.adapter_set(model, "a")
    with ua.disable_adapter(model), pytest.raises(KeyError, match="no adapter is active: name one of a, b"):
        ua.adapter_set(model)
    with ua.active_adapter(model, "a"):
        ua.remove_adapter(model)
        # Re-typed layers may round otherwise than transformers' own; a set would change much more.
        assert torch.allclose(features(model), features(tiny_model()), atol=1e-6), "the set of the block is gone"
    assert ua.adapter_names(model) == ["b"]
    with ua.disable_adapter(model):
        assert ua.adapter_set(model) is ua.adapter_set(model, "b"), "there is no other"
    ua.remove_adapter(model)
    with pytest.raises(KeyError, match="there is none"):
        ua.adapter_set(model)
