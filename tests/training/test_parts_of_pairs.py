"""Contrast and matching in parts: the step of the whole batch, in less memory; on one process and on several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from one_batch import CASES, COUNT, Case, Step, assert_steps_close, make_loss, one_step
from torch import Tensor, nn
from transformers import BlipForImageTextRetrieval

from tiny import tiny_config, tiny_model
from uniadapter.config import ObjectiveConfig
from uniadapter.objectives import row_blocks
from uniadapter.tasks import in_parts

PAIRED = {name: case for name, case in CASES.items() if case.task == "retrieval"}


@pytest.fixture(autouse=True)
def blocks_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where there are few columns, so that tiny batches have several blocks of similarities."""
    monkeypatch.setattr(row_blocks, "SIMILARITIES", 0)


@pytest.fixture(scope="module")
def whole() -> dict[str, Step]:
    return {name: one_step(case) for name, case in PAIRED.items()}


@pytest.mark.parametrize("name", PAIRED)
@pytest.mark.parametrize("at_once", [1, 2, 3, COUNT])
def test_parts_have_the_losses_and_gradients_of_the_whole(name: str, at_once: int, whole: dict[str, Step]) -> None:
    found = one_step(PAIRED[name], at_once=at_once)
    assert_steps_close(found, whole[name], 1e-12 if at_once == COUNT else 1e-10)


def dropping(case: Case) -> Any:
    """The loss of a model that drops out."""
    config = tiny_config()
    config.text_config.hidden_dropout_prob = config.text_config.attention_probs_dropout_prob = 0.2
    config.vision_config.attention_dropout = 0.2
    model = tiny_model(BlipForImageTextRetrieval)
    model.load_state_dict((other := BlipForImageTextRetrieval(config)).state_dict() | model.state_dict())
    other.load_state_dict(model.state_dict())
    return make_loss(case, other)


def test_dropout_is_the_same_when_a_part_is_computed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the gradients of the same parts all at once, which keep what they have computed."""
    case = PAIRED["both"]
    found = one_step(case, at_once=2, loss=dropping(case))

    def kept(model: nn.Module, function: Callable[..., Any], *tensors: Tensor) -> Any:
        return function(*tensors)

    for place in (in_parts, row_blocks):
        monkeypatch.setattr(place, "recomputed", kept)
    assert_steps_close(found, one_step(case, at_once=2, loss=dropping(case)), 1e-12)
    assert abs(found.losses[0]["loss"] - one_step(case, at_once=2).losses[0]["loss"]) > 1e-3


def kept_bytes(case: Case, at_once: int) -> int:
    """Of all that a forward pass keeps for the backward pass, weights and pixels aside."""
    torch.manual_seed(0)
    loss = make_loss(case)
    weights = {p.untyped_storage().data_ptr() for p in loss.parameters()}
    held: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and tensor.shape[-2:] != (32, 32):
            held[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        one_step(case, at_once=at_once, loss=loss)
    return sum(held.values())


def test_what_is_kept_for_the_backward_pass_is_small() -> None:
    case = Case(objective=ObjectiveConfig(matching=False, queue_size=0))
    assert kept_bytes(case, 2) < 0.05 * kept_bytes(case, 0)
    both = Case(objective=ObjectiveConfig(queue_size=0))
    assert kept_bytes(both, 2) < 0.15 * kept_bytes(both, 0)


def test_no_more_go_through_the_model_at_once_than_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    encoded, matched = [], []
    encode, match = in_parts.encode_visual, in_parts.match

    def spy_encode(model: Any, frames: Tensor, *rest: Any) -> Any:
        encoded.append(len(frames))
        return encode(model, frames, *rest)

    def spy_match(model: Any, texts: Any, visuals: Any, pairs: Tensor) -> Tensor:
        matched.append((len(visuals), len(pairs)))
        return match(model, texts, visuals, pairs)

    monkeypatch.setattr(in_parts, "encode_visual", spy_encode)
    monkeypatch.setattr(in_parts, "match", spy_match)
    one_step(PAIRED["both"], at_once=3)
    assert sorted(encoded) == [1, 1, 3, 3, 3, 3]  # each part forwards, and once more backwards
    assert max(visuals for visuals, _ in matched) <= 3
    assert max(pairs for _, pairs in matched) <= 9
    assert sum(pairs for _, pairs in matched) == 2 * 3 * COUNT
