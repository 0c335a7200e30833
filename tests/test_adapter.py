"""The equations of one adapter, where it starts, and how it leaves that start."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from transformers import BlipForConditionalGeneration, BlipForImageTextRetrieval, BlipForQuestionAnswering

import naive
from tiny import randomise, tiny_model, tiny_texts
from uniadapter.checkpoints.adapters import add_adapter
from uniadapter.config import Activation, AdapterConfig, ConfigError, Share
from uniadapter.model.adapter import KeyValueAdapter, UniAdapter, Use
from uniadapter.model.adapter_set import AdapterSet
from uniadapter.model.encoding import encode_text, encode_visual, match
from uniadapter.model.shape import BackboneShape


def draw(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers, the same at every call."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


# The equations


@pytest.mark.parametrize("use", ["vision", "text", "cross"])
def test_adapter_is_its_equation(use: str) -> None:
    adapter = UniAdapter(12, 5, scale=0.37).double()
    randomise(adapter, 0.7)
    x = draw(3, 4, 12).double()
    expected = torch.stack([naive.adapter(adapter, row, use, 0.37) for row in x])
    assert (adapter(x, use) - expected).abs().max() < 1e-12  # type: ignore[arg-type]


@pytest.mark.parametrize("use", ["vision", "text", "cross"])
@pytest.mark.parametrize("activation", ["gelu", "none"])
def test_another_activation_stands_between_the_projections(activation: Activation, use: Use) -> None:
    adapter = UniAdapter(12, 5, scale=0.37, activation=activation).double()
    randomise(adapter, 0.7)
    x = draw(4, 12).double()
    between = {"none": lambda h: h, "gelu": lambda h: h * (1 + torch.erf(h / math.sqrt(2))) / 2}[activation]
    assert (adapter(x, use) - naive.adapter(adapter, x, use, 0.37, activation=between)).abs().max() < 1e-12
    assert (adapter(x, use) - naive.adapter(adapter, x, use, 0.37)).abs().max() > 1e-3


@pytest.mark.parametrize("share", ["all", "none"])
def test_the_activation_of_a_set_is_that_of_its_adapters(share: Share) -> None:
    model = tiny_model(BlipForImageTextRetrieval)
    store = add_adapter(model, config=AdapterConfig(bottleneck=4, activation="none", share=share))
    found = [one for one in store.modules() if isinstance(one, UniAdapter)]
    assert found
    assert {one.activation for one in found} == {"none"}
    assert "r = 4, linear" in str(store.plan())


def test_key_value_adapter_is_its_equation() -> None:
    adapter = KeyValueAdapter(12, 5, 20).double()
    randomise(adapter, 0.7)
    x = draw(7, 12).double()
    assert adapter.scale.item() != 1
    assert (adapter(x) - naive.key_value(adapter, x)).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("uses", "built"),
    [
        (["vision"], {"norm", "down", "up_vision"}),
        (["text"], {"norm", "down", "up_text"}),
        (["cross"], {"norm", "down", "up_text", "up_cross", "norm_cross"}),
        (["vision", "text"], {"norm", "down", "up_vision", "up_text"}),
        (["vision", "text", "cross"], {"norm", "down", "up_vision", "up_text", "up_cross", "norm_cross"}),
    ],
)
def test_only_what_a_use_needs_is_built(uses: list[str], built: set[str]) -> None:
    adapter = UniAdapter(8, 2, uses=uses)  # type: ignore[arg-type]
    assert {name for name, _ in adapter.named_children()} == built
    for use in {"vision", "text", "cross"} - set(uses):
        with pytest.raises(ValueError, match=f"not for {use}"):
            adapter(draw(1, 8), use)  # type: ignore[arg-type]


# The start


def test_identity_start_is_exactly_zero_for_every_use() -> None:
    adapter, x = UniAdapter(16, 4), draw(5, 16) * 100
    for use in ("vision", "text", "cross"):
        assert torch.equal(adapter(x, use), torch.zeros_like(x)), use  # type: ignore[arg-type]
    assert torch.equal(KeyValueAdapter(16, 4, 8)(x), torch.zeros(5, 8))


def test_released_start_zeroes_the_text_up_projection_alone() -> None:
    adapter = UniAdapter(16, 4, init="released")
    zero = {name for name, p in adapter.named_parameters() if not p.any()}
    assert zero == {"up_text.weight", "up_text.bias", "down.bias", "norm.bias", "norm_cross.bias"}
    assert torch.equal(adapter.norm_cross.weight, torch.ones(16))
    assert torch.equal(adapter(draw(5, 16), "text"), torch.zeros(5, 16))
    for use in ("vision", "cross"):
        assert adapter(draw(5, 16), use).abs().max() > 1e-3  # type: ignore[arg-type]
    assert KeyValueAdapter(16, 4, 8, init="released")(draw(5, 16)).abs().max() > 1e-3


def test_identity_start_zeroes_only_what_it_must() -> None:
    zero = {name for name, p in UniAdapter(16, 4).named_parameters() if not p.any()}
    ups = {f"up_{use}.{kind}" for use in ("vision", "text") for kind in ("weight", "bias")}
    assert zero == ups | {"norm_cross.weight", "norm_cross.bias", "down.bias", "norm.bias"}


def cross_gradients(adapter: UniAdapter) -> dict[str, float]:
    """Largest gradient of each tensor when the cross delta is pulled in a random direction."""
    adapter.zero_grad()
    (adapter(draw(64, 32), "cross") * draw(64, 32, seed=1)).sum().backward()
    return {name: p.grad.abs().max().item() for name, p in adapter.named_parameters() if p.grad is not None}


def zeros_under_the_norm(adapter: UniAdapter) -> UniAdapter:
    """The other way to start at zero: gain 1 over an all-zero input."""
    with torch.no_grad():
        for linear in (adapter.up_cross, adapter.up_text):
            linear.weight.zero_()
            linear.bias.zero_()
        adapter.norm_cross.weight.fill_(1)
    return adapter


def test_identity_start_has_no_explosive_gradient_where_zeros_under_a_norm_have() -> None:
    torch.manual_seed(0)
    working = UniAdapter(32, 8)  # an adapter under way: what gradients look like
    randomise(working, 0.3)
    usual = cross_gradients(working)
    start = cross_gradients(UniAdapter(32, 8))
    assert max(start.values()) < 3 * max(usual.values())
    assert start["norm_cross.weight"] > 0
    assert start["norm_cross.bias"] > 0
    bad = cross_gradients(zeros_under_the_norm(UniAdapter(32, 8)))
    assert bad["up_cross.weight"] > 30 * max(usual.values())
    # The size of the blow-up is 1/sqrt(eps): the gradient of the pre-norm states against that of the delta.
    pull = draw(64, 32, seed=1) * 0.1
    expected = (pull - pull.mean(-1, keepdim=True)).sum(0).abs().max().item() / math.sqrt(1e-5)
    assert bad["up_cross.bias"] == pytest.approx(expected, rel=1e-3)


def retrieval_loss(model: BlipForImageTextRetrieval) -> Tensor:
    """A loss that uses both features and the matching head, on two-frame videos."""
    ids, mask = tiny_texts(4)
    visuals = encode_visual(model, draw(3, 2, 3, 32, 32))
    texts = encode_text(model, ids, mask)
    pairs = torch.tensor([[0, 0], [1, 0], [2, 1], [3, 2], [0, 2]])
    logits = match(model, texts, visuals, pairs)
    matching = nn.functional.cross_entropy(logits, torch.tensor([0, 1, 1, 0, 0]))
    contrast = nn.functional.cross_entropy(texts.feature @ visuals.feature.T / 0.07, torch.tensor([0, 1, 2, 0]))
    return matching + contrast


def answer_loss(model: BlipForQuestionAnswering) -> Tensor:
    """The loss of transformers' own forward."""
    ids, mask = tiny_texts(4)
    answers, answer_mask = tiny_texts(4, 5, seed=3)
    return model(input_ids=ids, attention_mask=mask, pixel_values=draw(4, 3, 32, 32), labels=answers,
                 decoder_attention_mask=answer_mask).loss  # fmt: skip


def caption_loss(model: BlipForConditionalGeneration) -> Tensor:
    """The loss of transformers' own forward."""
    ids, mask = tiny_texts(4)
    return model(input_ids=ids, attention_mask=mask, pixel_values=draw(4, 3, 32, 32), labels=ids).loss


CASES = [
    (BlipForImageTextRetrieval, retrieval_loss, {"frame_aware": True, "temporal_frames": 2}),
    (BlipForImageTextRetrieval, retrieval_loss, {}),
    (BlipForQuestionAnswering, answer_loss, {}),
    (BlipForQuestionAnswering, answer_loss, {"decoder": "separate"}),
    (BlipForConditionalGeneration, caption_loss, {}),
]
IDS = ["retrieval-video", "retrieval", "answering", "answering-separate", "captioning"]


@pytest.mark.parametrize(("cls", "loss", "switches"), CASES, ids=IDS)
def test_everything_moves_within_two_steps(cls: type, loss, switches: dict) -> None:  # noqa: ANN001
    model = tiny_model(cls, vision_layers=3).double()  # where a gradient of 0 is 1e-16 and a small one is not
    built = add_adapter(model, AdapterConfig(bottleneck=4, key_value=4, **switches))
    before = {name: p.detach().clone() for name, p in built.named_parameters()}
    optimiser = torch.optim.SGD(built.parameters(), lr=0.5)
    for _ in range(2):
        optimiser.zero_grad()
        loss(model).backward()
        optimiser.step()
    moved = {name: (p - before[name]).abs().max().item() for name, p in built.named_parameters()}
    still = {name for name, by in moved.items() if by < 1e-12}
    # One vector added to all keys shifts all scores of a query alike, and softmax takes no notice; frame weights,
    # which leave CLS alone, make it matter.
    shifts = {n for n in moved if n.endswith(("key.up.bias", "key.down.bias"))}
    assert still == (set() if switches.get("frame_aware") else shifts)


@pytest.mark.parametrize(("cls", "loss", "switches"), CASES, ids=IDS)
def test_gradients_at_the_start_of_a_whole_model_are_sane(cls: type, loss, switches: dict) -> None:  # noqa: ANN001
    def largest(prepare) -> float:  # noqa: ANN001
        model = tiny_model(cls)
        built = add_adapter(model, AdapterConfig(bottleneck=4, key_value=4, heads=False, **switches))
        for adapter in built.modules():
            if isinstance(adapter, UniAdapter):
                prepare(adapter)
        loss(model).backward()
        return max(
            p.grad.abs().max().item() for adapter in built.modules() if isinstance(adapter, UniAdapter)
            for p in adapter.parameters() if p.grad is not None
        )  # fmt: skip

    usual = largest(lambda adapter: randomise(adapter, 0.3))
    assert largest(lambda _: None) < 3 * usual
    assert largest(zeros_under_the_norm) > 6 * usual


# A set


def shape(**sizes: int) -> BackboneShape:
    """Three visual and two text layers, 16 wide."""
    return BackboneShape(**{"vision_layers": 3, "vision_width": 16, "text_layers": 2, "text_width": 16, **sizes})


def test_one_adapter_is_shared_by_the_three_uses_of_a_layer() -> None:
    built = AdapterSet(AdapterConfig(bottleneck=4), shape(), {})
    assert built.adapter("vision", 1, "vision") is built.adapter("encoder", 1, "text") is built.layers[1]
    assert built.adapter("encoder", 1, "cross") is built.adapter("decoder", 1, "cross") is built.layers[1]
    assert built.adapter("vision", 2, "vision") is built.layers[2]
    assert built.adapter("encoder", 2, "text") is None, "layer 2 is vision's alone"


def test_where_widths_differ_text_and_cross_still_share() -> None:
    built = AdapterSet(AdapterConfig(bottleneck=4), shape(vision_width=24), {})
    assert built.adapter("vision", 0, "vision") is built.vision_layers[0]
    assert built.adapter("encoder", 0, "text") is built.adapter("encoder", 0, "cross") is built.layers[0]
    assert built.vision_layers[0].down.in_features == 24
    assert built.layers[0].down.in_features == 16
    key, value = built.key_value("encoder", torch.zeros(1, 5, 24))
    assert key is not None
    assert value is not None
    assert key.shape == value.shape == (1, 5, 16)


def test_a_separate_decoder_has_its_own_and_needs_one() -> None:
    config = AdapterConfig(bottleneck=4, decoder="separate")
    built = AdapterSet(config, shape(decoder_source=16), {})
    assert built.adapter("decoder", 0, "cross") is built.decoder_layers[0]
    assert built.adapter("encoder", 0, "cross") is built.layers[0]
    with pytest.raises(ConfigError, match="separate"):
        AdapterSet(config, shape(), {})
    with pytest.raises(ConfigError, match="separate"):
        AdapterSet(config, shape(encoder=False, decoder_source=16), {})


def test_heads_are_copies() -> None:
    head = nn.Linear(16, 2, bias=False, dtype=torch.bfloat16)
    built = AdapterSet(AdapterConfig(bottleneck=4), shape(), {"itm_head": head})
    assert torch.equal(built.heads["itm_head"].weight, head.weight)
    assert built.heads["itm_head"].bias is None
    with torch.no_grad():
        built.heads["itm_head"].weight.add_(1)
    assert not torch.equal(built.heads["itm_head"].weight, head.weight)
    assert not AdapterSet(AdapterConfig(bottleneck=4, heads=False), shape(), {"itm_head": head}).heads


def test_bad_settings_are_refused() -> None:
    for values in ({"bottleneck": 0}, {"key_value": -1}, {"temporal_frames": -1},
                   {"vision": False, "text": False, "cross": False, "key_value": 0}):  # fmt: skip
        with pytest.raises(ConfigError, match="adapter"):
            AdapterConfig(**values)  # type: ignore[arg-type]
