"""The seam with transformers: its own forward methods, masks, caches, checkpointing and compilation after injection."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
    BlipModel,
    BlipVisionModel,
    PreTrainedModel,
)
from transformers.models.blip import modeling_blip, modeling_blip_text

from tiny import TASK_MODELS, randomise, tiny_config, tiny_model, tiny_texts
from uniadapter.checkpoints.adapters import add_adapter
from uniadapter.config import AdapterConfig
from uniadapter.errors import ConfigError
from uniadapter.model.blip.inject import backbone_shape
from uniadapter.model.dispatch import adapter_store, restore
from uniadapter.model.kernels.attention import layer_attention
from uniadapter.model.sets import disable_adapter
from uniadapter.model.store import Adapted, _check_arguments

CONFIG = AdapterConfig(bottleneck=4, key_value=4)
SMALL = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
SHAPES = [{}, {"vision_layers": 4}, {"vision_layers": 1, "text_layers": 3}, {"width": 48, "text_width": 32}]


def pixels(count: int = 4, seed: int = 0) -> Tensor:
    """Random pictures [B, 3, 32, 32]."""
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def adapted(cls: type[PreTrainedModel] = BlipForImageTextRetrieval, **sizes: int) -> PreTrainedModel:
    """A tiny model whose adapters do something."""
    model = tiny_model(cls, **sizes)
    randomise(add_adapter(model, CONFIG))
    return model


def logits(model: PreTrainedModel) -> list[Tensor]:
    """What a task model computes through transformers' own code, whatever its task.

    Questions are all of one length: with padding the original's answers are wrong (the trap is tested below).
    """
    ids, mask = tiny_texts(4)
    with torch.no_grad():
        if isinstance(model, BlipForConditionalGeneration):
            return [model(input_ids=ids, pixel_values=pixels(), attention_mask=mask).logits]
        if isinstance(model, BlipForQuestionAnswering):
            full = ids.clamp(min=4)
            answers, answer_mask = tiny_texts(4, 5, seed=3)
            out = model(input_ids=full, pixel_values=pixels(), attention_mask=torch.ones_like(full), labels=answers,
                        decoder_attention_mask=answer_mask)  # fmt: skip
            return [out.loss, out.image_embeds]
        matching = model(input_ids=ids, pixel_values=pixels(), attention_mask=mask)
        contrast = model(input_ids=ids, pixel_values=pixels(), attention_mask=mask, use_itm_head=False)
        return [matching.itm_score, matching.question_embeds, contrast.itm_score]


def differ(a: list[Tensor], b: list[Tensor]) -> float:
    return max((x - y).abs().max().item() for x, y in zip(a, b, strict=True))


# transformers' interface

# Its name from transformers 5.24 on, and before.
_NAMES = inspect.signature(modeling_blip_text.BlipTextLayer.forward).parameters
CACHE = "cache" if "cache" in _NAMES else "past_key_values"
SIGNATURES = [
    (modeling_blip.BlipEncoderLayer.forward, ["self", "hidden_states", "kwargs"]),
    (modeling_blip.BlipAttention.forward, ["self", "hidden_states", "kwargs"]),
    (
        modeling_blip_text.BlipTextLayer.forward,
        ["self", "hidden_states", "encoder_hidden_states", "attention_mask", "encoder_attention_mask",
         CACHE, "kwargs"],
    ),
    (modeling_blip_text.BlipTextLayer.feed_forward_chunk, ["self", "attention_output"]),
    (
        modeling_blip_text.BlipTextSelfAttention.forward,
        ["self", "hidden_states", "attention_mask", "encoder_hidden_states", "encoder_attention_mask",
         CACHE, "kwargs"],
    ),
    (
        modeling_blip_text.BlipTextEncoder.forward,
        ["self", "hidden_states", "attention_mask", "encoder_hidden_states", "encoder_attention_mask",
         CACHE, "use_cache", "kwargs"],
    ),
    (modeling_blip_text.BlipTextSelfOutput.forward, ["self", "hidden_states", "input_tensor"]),
]  # fmt: skip


@pytest.mark.parametrize(("method", "parameters"), SIGNATURES, ids=lambda x: getattr(x, "__qualname__", ""))
def test_transformers_still_has_the_interface_that_is_overridden(method: Callable, parameters: list[str]) -> None:
    found = list(inspect.signature(method).parameters)
    assert found == parameters, (
        f"transformers changed {method.__qualname__}: it takes {found}, src/uniadapter/model/blip was written for "
        f"{parameters}. Compare its body with the subclass there, adapt that, then this list."
    )


def test_an_argument_of_a_newer_transformers_is_not_lost_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    def forward(self: nn.Module, hidden_states: Tensor, memory: Any = None, **kwargs: Any) -> None: ...

    monkeypatch.setattr(modeling_blip_text.BlipTextLayer, "forward", forward)
    _check_arguments.cache_clear()
    with pytest.raises(
        ConfigError, match=r"passes 'memory' to BlipTextLayer, .* install a newer uniadapter or an older"
    ):
        add_adapter(model := tiny_model(), CONFIG)
    _check_arguments.cache_clear()
    assert not any(isinstance(module, Adapted) for module in model.modules()), "the model is as it was"


@pytest.mark.parametrize(
    ("cls", "children"),
    [
        (modeling_blip.BlipEncoderLayer, {"self_attn", "layer_norm1", "mlp", "layer_norm2"}),
        (modeling_blip.BlipAttention, {"dropout", "qkv", "projection"}),
        (modeling_blip_text.BlipTextLayer, {"attention", "crossattention", "intermediate", "output"}),
        (modeling_blip_text.BlipTextAttention, {"self", "output"}),
        (modeling_blip_text.BlipTextSelfAttention, {"query", "key", "value", "dropout"}),
        (modeling_blip_text.BlipTextEncoder, {"layer"}),
    ],
)
def test_transformers_layers_still_have_the_parts_that_are_called(cls: type, children: set[str]) -> None:
    layer = next(m for m in tiny_model().modules() if type(m) is cls)
    found = {name for name, _ in layer.named_children()}
    assert found == children, f"transformers' {cls.__name__} is made of {found} now: adapt src/uniadapter/model/blip"


# The same numbers as transformers


@pytest.mark.parametrize("cls", TASK_MODELS)
@pytest.mark.parametrize("sizes", SHAPES)
def test_a_fresh_adapter_leaves_transformers_own_forward_as_it_was(cls: type, sizes: dict[str, int]) -> None:
    if cls is BlipForQuestionAnswering and "text_width" in sizes:
        pytest.skip("transformers' answer decoder expects states as wide as the visual encoder's")
    model = tiny_model(cls, **sizes).requires_grad_(False)
    original = logits(model)
    adapter_store(model)
    bare = logits(model)
    assert differ(bare, original) < 2e-5, "SDPA against transformers' eager attention"
    built = add_adapter(model, CONFIG)
    for a, b in zip(logits(model), bare, strict=True):
        assert torch.equal(a, b)
    randomise(built)
    assert differ(logits(model), bare) > 1e-3, "and the test can tell"
    with disable_adapter(model):
        for a, b in zip(logits(model), bare, strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("by", ["argument", "config"])
def test_attentions_and_hidden_states_can_still_be_had(by: str) -> None:
    ids, mask = tiny_texts(4)
    model, flags = tiny_model(vision_layers=3).double(), {"output_attentions": True, "output_hidden_states": True}

    def run() -> tuple[dict, dict]:
        given = flags if by == "argument" else {}
        with torch.no_grad():
            visual = model.vision_model(pixel_values=pixels().double(), **given)
            text = model.text_encoder(ids, attention_mask=mask, encoder_hidden_states=visual.last_hidden_state, **given)
        return visual, text

    if by == "config":
        for part in (model.vision_model, model.text_encoder):
            for name, value in flags.items():
                setattr(part.config, name, value)
    expected = run()
    built = add_adapter(model, CONFIG)
    for _ in range(2):
        visual, text = run()
        assert [tuple(a.shape) for a in visual["attentions"]] == [(4, 4, 5, 5)] * 3
        assert [tuple(a.shape) for a in visual["hidden_states"]] == [(4, 5, 32)] * 4
        assert [tuple(a.shape) for a in text["attentions"]] == [(4, 4, 7, 7)] * 2
        assert [tuple(a.shape) for a in text["cross_attentions"]] == [(4, 4, 7, 5)] * 2
        assert [tuple(a.shape) for a in text["hidden_states"]] == [(4, 7, 32)] * 3
        for now, before in zip((visual, text), expected, strict=True):
            for key in ("attentions", "hidden_states", "cross_attentions"):
                if key in before and not any(p.any() for p in built.layers[0].up_text.parameters()):
                    assert differ(list(now[key]), list(before[key])) < 1e-10
        torch.testing.assert_close(text["attentions"][0].sum(-1), torch.ones(4, 4, 7).double())
        randomise(built)
    ours = list(run()[1]["hidden_states"])
    assert differ(ours, list(expected[1]["hidden_states"])) > 1e-3


def test_asking_for_attentions_does_not_change_the_states() -> None:
    model = adapted()
    ids, mask = tiny_texts(4)
    with torch.no_grad():
        visual = model.vision_model(pixel_values=pixels())
        shown = model.vision_model(pixel_values=pixels(), output_attentions=True)
        text = model.text_encoder(ids, attention_mask=mask, encoder_hidden_states=visual.last_hidden_state)
        text_shown = model.text_encoder(
            ids, attention_mask=mask, encoder_hidden_states=visual.last_hidden_state, output_attentions=True
        )
    assert differ([visual.last_hidden_state], [shown.last_hidden_state]) < 2e-5
    assert differ([text.last_hidden_state], [text_shown.last_hidden_state]) < 2e-5


# Masks


def cross_attended(model: PreTrainedModel) -> float:
    """How far the answer decoder's output moves when question states that its mask hides change."""
    ids, _ = tiny_texts(4, 5)
    states = torch.randn(4, 6, 32, generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1] * 6, [1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]])
    moved = torch.where(mask[..., None].bool(), states, states + 3)
    with torch.no_grad():
        outputs = [
            model.text_decoder(input_ids=ids, encoder_hidden_states=s, encoder_attention_mask=mask).logits
            for s in (states, moved)
        ]
    return differ([outputs[0]], [outputs[1]])


def test_cross_attention_obeys_its_mask_where_transformers_does_not() -> None:
    model = tiny_model(BlipForQuestionAnswering)
    assert cross_attended(model) > 0.1, (
        "transformers' BLIP obeys encoder_attention_mask now: docs/method.md and the benchmarks' correction of the "
        "peers are out of date"
    )
    adapter_store(model)
    assert cross_attended(model) == 0, "even without adapters"
    randomise(add_adapter(model, CONFIG))
    assert cross_attended(model) == 0


def test_padding_of_a_question_does_not_reach_the_answer() -> None:
    model = adapted(BlipForQuestionAnswering)
    ids, mask = tiny_texts(4, 7)
    answers, answer_mask = tiny_texts(4, 5, seed=3)

    def loss(ids: Tensor, mask: Tensor) -> Tensor:
        return model(input_ids=ids, pixel_values=pixels(), attention_mask=mask, labels=answers,
                     decoder_attention_mask=answer_mask).loss  # fmt: skip

    expected = loss(ids, mask)
    assert (loss(torch.where(mask.bool(), ids, 9), mask) - expected).abs() < 1e-6
    longer = nn.functional.pad(ids, (0, 5), value=7), nn.functional.pad(mask, (0, 5))
    assert (loss(*longer) - expected).abs() < 1e-5


def test_a_row_that_is_masked_throughout_stays_finite_in_half_precision() -> None:
    query, key, value = torch.randn(3, 1, 2, 3, 4).bfloat16().unbind(0)
    mask = torch.full((1, 1, 3, 3), torch.finfo(torch.float32).min)
    mask[..., 1:, 0] = 0
    for weights in (False, True):
        context, _ = layer_attention(query, key, value, mask, 0.0, weights)
        assert torch.isfinite(context).all()
        assert differ([context[:, 1].float()], [value[:, :, 0].flatten(1).float()]) < 1e-2


def test_attend_without_weights_is_attend_with_weights() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 4, 3, 8), torch.randn(2, 4, 6, 8), torch.randn(2, 4, 6, 8)
    mask = (torch.rand(2, 1, 3, 6) < 0.3) * -1e9
    for given in (None, mask):
        fast, none = layer_attention(query, key, value, given, 0.0, weights=False)
        slow, weights = layer_attention(query, key, value, given, 0.0, weights=True)
        assert none is None
        assert weights is not None
        assert weights.shape == (2, 4, 3, 6)
        assert differ([fast], [slow]) < 1e-6
        assert fast.shape == (2, 3, 32)


# generate


def generate(model: PreTrainedModel, **kwargs: object) -> Any:
    """Tokens of four pictures, all of ten new ones (no end token ends them early)."""
    if isinstance(model, BlipForQuestionAnswering):
        ids, mask = tiny_texts(4)
        kwargs |= {"input_ids": ids, "attention_mask": mask}
    return model.generate(pixel_values=pixels(), min_new_tokens=10, max_new_tokens=10, do_sample=False, **kwargs)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("cls", [BlipForConditionalGeneration, BlipForQuestionAnswering])
def test_generation_with_a_cache_gives_the_tokens_of_generation_without(cls: type, beams: int) -> None:
    model = adapted(cls)
    told = {"num_beams": beams, "return_dict_in_generate": True, "output_scores": True}
    cached, plain = generate(model, use_cache=True, **told), generate(model, use_cache=False, **told)
    fast = cached.sequences
    assert fast.shape == (4, 11)
    assert torch.equal(fast, plain.sequences)
    for a, b in zip(cached.scores, plain.scores, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)
    assert len(fast.unique()) > 4, "the tokens must vary for this to say much"
    with disable_adapter(model):
        assert not torch.equal(fast, generate(model, num_beams=beams)), "the adapters take part"


def test_generation_agrees_with_forward_step_by_step() -> None:
    model = adapted(BlipForConditionalGeneration)
    tokens = generate(model)
    for length in range(1, tokens.shape[1]):
        with torch.no_grad():
            scores = model(input_ids=tokens[:, :length], pixel_values=pixels()).logits[:, -1]
        scores[:, 3] = -1e9  # the end token, kept out by min_new_tokens
        assert torch.equal(scores.argmax(-1), tokens[:, length])


def test_a_fresh_adapter_generates_what_transformers_does() -> None:
    model = tiny_model(BlipForConditionalGeneration)
    original = generate(model, num_beams=3)
    add_adapter(model, CONFIG)
    assert torch.equal(generate(model, num_beams=3), original)


# Checkpointing, compilation


def vision_gradients(model: PreTrainedModel) -> dict[str, Tensor]:
    """Gradients of the set after a pull on the visual states."""
    model.zero_grad()
    out = model.vision_model(pixel_values=pixels()).last_hidden_state
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    return {n: p.grad.clone() for n, p in model.uniadapters["default"].named_parameters() if p.grad is not None}


def test_checkpointing_the_visual_encoder_gives_the_same_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    model = adapted(vision_layers=3).train()
    expected = vision_gradients(model)
    used = {f"layers.{i}.{part}.{kind}" for i in range(3) for part in ("norm", "down", "up_vision")
            for kind in ("weight", "bias")}  # fmt: skip
    assert set(expected) == used
    calls = []
    cls = type(model.vision_model.encoder.layers[0].mlp)
    forward = cls.forward
    monkeypatch.setattr(cls, "forward", lambda self, x: (calls.append(1), forward(self, x))[1])
    model.vision_model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    got = vision_gradients(model)
    assert len(calls) == 6, "three layers, each computed twice"
    assert set(got) == used
    for name, gradient in expected.items():
        assert gradient.any(), name
        torch.testing.assert_close(got[name], gradient, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_the_visual_encoder_compiles(backend: str) -> None:
    model = adapted()
    expected = vision_gradients(model)
    with torch.no_grad():
        states = model.vision_model(pixel_values=pixels()).last_hidden_state
        with disable_adapter(model):
            bare = model.vision_model(pixel_values=pixels()).last_hidden_state
    torch._dynamo.reset()
    compiled = torch.compile(model.vision_model, backend=backend)
    with torch.no_grad():
        assert differ([compiled(pixel_values=pixels()).last_hidden_state], [states]) < 2e-5
        with disable_adapter(model):  # a compiled graph must not have frozen the selection
            assert differ([compiled(pixel_values=pixels()).last_hidden_state], [bare]) < 2e-5
        assert differ([compiled(pixel_values=pixels()).last_hidden_state], [states]) < 2e-5
    model.zero_grad()
    out = compiled(pixel_values=pixels()).last_hidden_state
    (out * torch.randn(out.shape, generator=torch.Generator().manual_seed(2))).sum().backward()
    for name, parameter in model.uniadapters["default"].named_parameters():
        if name in expected:
            torch.testing.assert_close(parameter.grad, expected[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_layers_that_are_compiled_one_by_one_are_compiled_once_for_all() -> None:
    """Torch gives up on a function after eight compilations and runs it as it is; BLIP-base has twelve layers."""
    counts = []
    for layers in (3, 12):
        torch._dynamo.reset()
        model = adapted(vision_layers=layers)
        expected = model.vision_model(pixel_values=pixels()).last_hidden_state
        counter = torch._dynamo.testing.CompileCounter()
        for layer in model.vision_model.encoder.layers:
            layer.compile(backend=counter)
        assert differ([model.vision_model(pixel_values=pixels()).last_hidden_state], [expected]) < 2e-5
        counts.append(counter.frame_count)
    torch._dynamo.reset()
    assert counts[0] == counts[1] > 0


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor needs a C++ compiler")
def test_the_visual_encoder_compiles_with_inductor() -> None:
    model = adapted(vision_layers=1)
    torch._dynamo.reset()
    compiled = torch.compile(model.vision_model)
    with torch.no_grad():
        states = model.vision_model(pixel_values=pixels()).last_hidden_state
        assert differ([compiled(pixel_values=pixels()).last_hidden_state], [states]) < 2e-5


# What is injected


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: BertModel(BertConfig(**SMALL)), "no family of models has the type 'bert'"),
        (lambda: BlipVisionModel(tiny_config().vision_config), "no family of models has the type 'blip_vision_model'"),
        (lambda: BlipModel(tiny_config()), "BlipModel is not one of transformers' BLIP task models: use BlipForImage"),
    ],
)
def test_only_task_models_are_taken_and_others_left_alone(model: Callable[[], PreTrainedModel], message: str) -> None:
    other = model()
    types = [type(m) for m in other.modules()]
    with pytest.raises(TypeError, match=message):
        add_adapter(other)
    assert [type(m) for m in other.modules()] == types


def test_backbone_shape_reads_the_config() -> None:
    shape = backbone_shape(tiny_model(width=48, text_width=32, vision_layers=3, text_layers=1))
    assert (shape.vision_layers, shape.vision_width, shape.text_layers, shape.text_width) == (3, 48, 1, 32)
    assert (shape.encoder, shape.decoder_source, shape.shares_width) == (True, 0, False)
    captioning = backbone_shape(tiny_model(BlipForConditionalGeneration, width=48, text_width=32))
    assert (captioning.encoder, captioning.decoder_source) == (False, 48), "the decoder reads the picture"
    answering = backbone_shape(tiny_model(BlipForQuestionAnswering))
    assert (answering.encoder, answering.decoder_source) == (True, 32), "the decoder reads the question"


def test_adopting_twice_is_adopting_once() -> None:
    model = tiny_model()
    assert adapter_store(model) is adapter_store(model)
    restore(model)
    restore(model)
    assert not [m for m in model.modules() if type(m).__module__.startswith("uniadapter")]


@pytest.mark.parametrize("cls", TASK_MODELS)
def test_every_layer_is_retyped_and_keeps_its_weights(cls: type) -> None:
    model = tiny_model(cls, vision_layers=3)
    before = {name: p for name, p in model.named_parameters()}
    adapter_store(model)
    after = dict(model.named_parameters())
    assert list(after) == list(before)
    assert all(after[name] is p for name, p in before.items()), "the very same tensors"
    modules = ("uniadapter.model.blip.layers", "uniadapter.model.store")
    names = [type(m).__name__ for m in model.modules() if type(m).__module__ in modules]
    stacks = 2 if cls is BlipForQuestionAnswering else 1
    heads = 3 if cls is BlipForImageTextRetrieval else 0
    assert {name: names.count(name) for name in set(names)} == {
        "AdaptedVisionLayer": 3,
        "AdaptedVisionAttention": 3,
        "FusedGeluMLP": 3,
        "FusedGeluIntermediate": 2 * stacks,
        "AdaptedTextEncoder": stacks,
        "AdaptedTextLayer": 2 * stacks,
        "AdaptedTextAttention": 4 * stacks,
        **({"AdaptedHead": heads} if heads else {}),
    }
