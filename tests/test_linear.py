"""Linear layers by oneDNN equal torch's own, with gradients, and are taken for frozen float32 on a CPU alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation

import uniadapter.model.blip.fusion
from tiny import tiny_model, tiny_texts
from uniadapter.checkpoints.adapters import add_adapter
from uniadapter.config import AdapterConfig
from uniadapter.model.dispatch import adapter_store, restore
from uniadapter.model.encoding import encode_text, encode_visual, fuse, visual_feature
from uniadapter.model.kernels import linear as kernels
from uniadapter.model.kernels.linear import BaseLinear, frozen_linear, linear_then_activation

pytestmark = pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="torch without oneDNN")


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """As on a processor where oneDNN is preferred; the shapes of states that it was called for."""
    calls: list[tuple[int, ...]] = []
    real = kernels._by_onednn

    def spied(states: Tensor, *rest: Any) -> Tensor:
        calls.append(tuple(states.shape))
        return real(states, *rest)

    monkeypatch.setattr(kernels, "prefers_onednn", lambda: True)
    monkeypatch.setattr(kernels, "_by_onednn", spied)
    return calls


@pytest.mark.parametrize("shape", [(5,), (1, 24), (7, 24), (3, 5, 24), (2, 3, 5, 24)])
@pytest.mark.parametrize("with_bias", [True, False])
def test_it_is_torchs_linear_and_its_gradient(shape: tuple[int, ...], with_bias: bool, taken: list) -> None:
    torch.manual_seed(0)
    width = shape[-1]
    weight, bias = torch.randn(17, width), torch.randn(17) if with_bias else None
    outputs, gradients = [], []
    for way in (frozen_linear, nn.functional.linear):
        states = torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_()
        out = way(states, weight, bias)
        (out * torch.arange(17)).sum().backward()
        outputs.append(out.detach())
        gradients.append(states.grad)
    assert outputs[0].shape == (*shape[:-1], 17)
    assert torch.allclose(*outputs, atol=1e-5)
    assert torch.allclose(*gradients, atol=1e-4)
    assert len(taken) == 2, "once forward, once backward"


def test_slices_and_transposed_states(taken: list) -> None:
    torch.manual_seed(0)
    states, weight, bias = torch.randn(24, 2, 6).permute(1, 2, 0)[:, ::2], torch.randn(30, 24)[5:20], torch.randn(15)
    assert torch.allclose(frozen_linear(states, weight, bias), nn.functional.linear(states, weight, bias), atol=1e-5)
    assert taken


def test_a_gradient_of_a_gradient(taken: list) -> None:
    states, weight = torch.randn(3, 4, requires_grad=True), torch.randn(5, 4)
    (first,) = torch.autograd.grad(frozen_linear(states, weight).pow(2).sum(), states, create_graph=True)
    (second,) = torch.autograd.grad(first.sum(), states)
    assert torch.allclose(second, (2 * weight.t() @ weight).sum(0).expand(3, 4), atol=1e-5)


def test_what_is_left_to_torch(taken: list, monkeypatch: pytest.MonkeyPatch) -> None:
    states, weight, bias = torch.randn(3, 4), torch.randn(5, 4), torch.randn(5)
    frozen_linear(states.double(), weight.double(), bias.double())
    frozen_linear(states[:0], weight, bias)
    frozen_linear(states, weight.clone().requires_grad_(), bias)
    frozen_linear(states, weight, bias.clone().requires_grad_())
    with torch.autocast("cpu", torch.bfloat16):
        assert frozen_linear(states, weight, bias).dtype == torch.bfloat16
    monkeypatch.setattr(kernels, "prefers_onednn", lambda: False)
    frozen_linear(states, weight, bias)
    assert not taken


def test_weights_that_are_trained_get_their_gradient(taken: list) -> None:
    model = tiny_model()
    adapter_store(model)
    layer = model.vision_model.encoder.layers[0].mlp.fc1
    layer(torch.randn(2, 32)).sum().backward()
    assert layer.weight.grad is not None
    assert not taken


def test_the_bases_linears_go_that_way_and_come_back(taken: list) -> None:
    model = tiny_model()
    add_adapter(model)
    layer = model.vision_model.encoder.layers[0]
    linears = (layer.mlp.fc1, layer.mlp.fc2, layer.self_attn.qkv, layer.self_attn.projection)
    assert all(type(one) is BaseLinear for one in linears)
    layer(torch.randn(1, 5, 32))
    assert len(taken) == 4
    restore(model)
    assert all(type(one) is nn.Linear for one in linears)


@pytest.mark.parametrize(
    ("text", "expected"), [("vendor_id : AuthenticAMD", True), ("vendor_id : GenuineIntel", False)]
)
def test_which_processors(text: str, expected: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_processor", lambda: text)
    asked = kernels.prefers_onednn.__wrapped__()
    assert asked == (expected and torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_activation_is_applied_where_it_is_computed(dtype: torch.dtype, taken: list) -> None:
    torch.manual_seed(0)
    states, linear = torch.randn(3, 5, 24), BaseLinear(24, 17).requires_grad_(False).to(dtype)
    with torch.no_grad(), torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        out = linear_then_activation(states, linear, GELUActivation())
        expected = nn.functional.gelu(linear(states).float())
    assert out.dtype == dtype
    assert out.shape == (3, 5, 17)
    assert torch.allclose(out.float(), expected, atol=1e-5 if dtype == torch.float32 else 2e-2)
    assert len(taken) == 1 + (dtype == torch.float32)  # in half precision torch's own linear goes there by itself


def test_an_activation_apart(taken: list, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a gradient, in float64, without oneDNN, or if it is no exact GELU."""
    linear = BaseLinear(24, 17).requires_grad_(False)
    states = torch.randn(3, 24)
    expected = nn.functional.gelu(nn.functional.linear(states, linear.weight, linear.bias))
    assert torch.allclose(linear_then_activation(states, linear, GELUActivation()), expected, atol=1e-5)
    with torch.no_grad():
        assert torch.allclose(linear_then_activation(states, linear, nn.ReLU()), linear(states).relu(), atol=1e-5)
        double = linear_then_activation(states.double(), linear.double(), GELUActivation())
        assert torch.allclose(double.float(), expected, atol=1e-5)
        monkeypatch.setattr(kernels, "has_onednn", lambda: False)
        lower = BaseLinear(24, 17).requires_grad_(False).bfloat16()
        before = len(taken)
        linear_then_activation(states.bfloat16(), lower, GELUActivation())
    assert len(taken) == before


class Doubled(BaseLinear):
    """What PEFT does to a layer: another one in its place, whose `weight` is not all that it does."""

    def forward(self, input: Tensor) -> Tensor:
        """Twice the base's."""
        return 2 * super().forward(input)


@pytest.mark.parametrize("frame_aware", [False, True])
@pytest.mark.parametrize("part", ["vision.fc1", "vision.qkv", "text.intermediate", "text.key", "text.value"])
def test_a_layer_put_in_the_place_of_the_bases_is_obeyed(
    part: str, frame_aware: bool, taken: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No shortcut reads the weights of a layer that does more than they do."""
    model = tiny_model()
    add_adapter(model, AdapterConfig(bottleneck=4, frame_aware=frame_aware))
    model.requires_grad_(False)
    vision, text = model.vision_model.encoder.layers[-1], model.text_encoder.encoder.layer[0]
    layer = {
        "vision.fc1": vision.mlp.fc1, "vision.qkv": vision.self_attn.qkv, "text.intermediate": text.intermediate.dense,
        "text.key": text.crossattention.self.key, "text.value": text.crossattention.self.value,
    }[part]  # fmt: skip
    layer.__class__ = Doubled
    frames, pairs = torch.randn(2, 2, 3, 32, 32), torch.tensor([[0, 0], [1, 1]])
    monkeypatch.setattr(uniadapter.model.blip.fusion, "absorbing_is_cheaper", lambda *_: True)
    fused = []
    for shortcuts in (True, False):
        with torch.set_grad_enabled(not shortcuts):
            visuals, texts = encode_visual(model, frames), encode_text(model, *tiny_texts(2))
            fused.append(fuse(model, texts, visuals, pairs, "first"))
    assert torch.allclose(*fused, atol=1e-4)
    assert torch.allclose(visual_feature(model, frames), visuals.feature, atol=1e-5)
