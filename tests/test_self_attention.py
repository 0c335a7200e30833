"""Adapters in text self-attention: every way through a model computes the equations written out in `naive.py`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import (
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
    PreTrainedModel,
)

import naive
import uniadapter as ua
from families.tiny_blip2 import tiny_blip2
from families.tiny_models import tiny_clip, tiny_siglip
from tiny import TASK_MODELS, randomise, tiny_model, tiny_texts
from uniadapter.checkpoints.compatibility import check_family
from uniadapter.config import AdapterConfig, ConfigError, EvaluateConfig, ModelConfig, RunConfig
from uniadapter.errors import CheckpointError
from uniadapter.model.adapter import SelfAttentionAdapter
from uniadapter.model.blip.decoder import decode, question_context, visual_context
from uniadapter.model.blip.ranking import rank_answers
from uniadapter.model.counting import count_parameters
from uniadapter.model.encoding import begin_fusion, encode_text, encode_visual, fuse, match
from uniadapter.model.families import families
from uniadapter.model.features import AnswerTree
from uniadapter.model.sets import active_adapter, add_momentum, disable_adapter, update_momentum

CONFIG = AdapterConfig(bottleneck=4, key_value=3, self_attention=3)
ALONE = AdapterConfig(vision=False, text=False, cross=False, key_value=0, self_attention=2, heads=False)
DEC, SEP = 62, 3
PAIRS = torch.tensor([[0, 0], [1, 0], [2, 1], [4, 1], [0, 1]])


def frames(count: int = 2) -> Tensor:
    return torch.randn(count, 1, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def adapted(cls: type[PreTrainedModel], config: AdapterConfig = CONFIG, **sizes: int) -> PreTrainedModel:
    model = tiny_model(cls, **sizes).double()
    randomise(ua.add_adapter(model, config).double())
    return model


def close(actual: Tensor, expected: Tensor, limit: float = 1e-10) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max().item() <= limit


# At the start


@pytest.mark.parametrize("init", ["identity", "released"])
@pytest.mark.parametrize("cls", TASK_MODELS)
def test_all_outputs_start_at_exactly_zero(cls: type[PreTrainedModel], init: str) -> None:
    built = ua.add_adapter(tiny_model(cls), AdapterConfig(bottleneck=4, init=init, self_attention=3))  # type: ignore[arg-type]
    found = [module for module in built.modules() if isinstance(module, SelfAttentionAdapter)]
    assert len(found) == 2
    for one in found:
        assert all(not delta.any() for delta in one(torch.randn(5, 32)))  # type: ignore[union-attr]


def test_a_model_with_fresh_ones_is_its_base_to_the_bit() -> None:
    model = tiny_model().requires_grad_(False)
    ids, mask = tiny_texts(5)

    def run() -> list[Tensor]:
        visuals, texts = encode_visual(model, frames()), encode_text(model, ids, mask)
        return [texts.states, texts.feature, fuse(model, texts, visuals, PAIRS), match(model, texts, visuals, PAIRS)]

    with torch.no_grad():
        before = run()
        built = ua.add_adapter(model, ALONE)
        assert all(torch.equal(a, b) for a, b in zip(run(), before, strict=True))
        randomise(built)
        assert not any(torch.allclose(a, b, atol=1e-3) for a, b in zip(run(), before, strict=True))
        with disable_adapter(model):
            assert all(torch.equal(a, b) for a, b in zip(run(), before, strict=True))


def test_off_means_that_nothing_is_there() -> None:
    names = set(ua.add_adapter(tiny_model(), AdapterConfig(bottleneck=4)).state_dict())
    assert not any("self_attention" in name for name in names)
    torch.manual_seed(0)
    one = ua.add_adapter(tiny_model(), AdapterConfig(bottleneck=4)).state_dict()
    torch.manual_seed(0)
    other = ua.add_adapter(tiny_model(), AdapterConfig(bottleneck=4, self_attention=3)).state_dict()
    assert all(torch.equal(one[name], other[name]) for name in names), "the other adapters start alike"


# Every way through a model; texts alone and pairs are in `test_backbone.py`


@pytest.mark.parametrize("decoder", ["shared", "separate"])
def test_answers_are_decoded_and_ranked_by_the_equations(decoder: str) -> None:
    config = AdapterConfig(bottleneck=4, key_value=3, self_attention=3, decoder=decoder)  # type: ignore[arg-type]
    model = adapted(BlipForQuestionAnswering, config, text_layers=3)
    active = ua.adapter_set(model)
    assert len(active.decoder_self_attention) == (3 if decoder == "separate" else 0)
    ids, mask = tiny_texts(3, longest=6)
    texts = [[DEC, 4, 5, SEP], [DEC, 4, 6, 7, SEP], [DEC, 8, SEP]]
    with torch.no_grad():
        visuals = encode_visual(model, frames().double())
        context = question_context(model, visuals, ids, mask, torch.tensor([0, 1, 0]))
        chosen, nll = rank_answers(model, context, AnswerTree.of(texts))
        smooth = model.config.text_config.label_smoothing
        for q, row in enumerate([0, 1, 0]):
            own = ids[q][mask[q].bool()]
            states = naive.fuse(model, own, visuals.feature[0], visuals.tokens[row], visuals.frames[row], active)
            close(context.states[q, : len(own)], states)
            for a, text in enumerate(texts):
                told = torch.tensor(text)
                expected = naive.decode(model, told, states, active)
                close(decode(model, context, torch.tensor([q]), told[None])[0], expected)
                found = nll[q, (chosen[q] == a).nonzero()[0, 0]]
                wanted = torch.nn.functional.cross_entropy(
                    model.text_decoder.cls(expected[:-1]), told[1:], reduction="sum", label_smoothing=smooth
                )
                assert found.item() == pytest.approx(wanted.item(), abs=1e-4)  # its logits are float32


@torch.no_grad()
def test_transformers_own_forward_and_generate_are_the_equations() -> None:
    model = adapted(BlipForConditionalGeneration)
    active = ua.adapter_set(model)
    visuals = encode_visual(model, frames().double())
    states = visual_context(model, visuals).states
    ids = torch.tensor([[DEC, 5, 6, 7, 8], [DEC, 9, 4, 5, 10]])
    expected = torch.stack([naive.decode(model, one, seen, active) for one, seen in zip(ids, states, strict=True)])
    close(model.text_decoder.bert(ids, encoder_hidden_states=states, is_decoder=True)[0], expected)
    made = model.text_decoder.generate(
        input_ids=torch.full((2, 1), DEC), encoder_hidden_states=states, max_length=9, min_length=8, do_sample=False,
        eos_token_id=SEP, pad_token_id=0, output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    for row, told in enumerate(made.sequences):
        plain = model.text_decoder.cls(naive.decode(model, told[:-1], states[row], active))
        for step, logits in enumerate(made.logits):  # each step's from the cached keys and values of those before
            close(logits[row].double(), plain[step], 1e-5)


@torch.no_grad()
def test_the_retrieval_models_own_forward_is_fuse() -> None:
    model = adapted(BlipForImageTextRetrieval)
    ids, mask = tiny_texts(2)
    fused = ua.fused_ids(model, ids)
    own = model(pixel_values=frames()[:, 0].double(), input_ids=fused, attention_mask=mask).itm_score
    visuals, texts = encode_visual(model, frames().double()), encode_text(model, ids, mask)
    close(match(model, texts, visuals, torch.tensor([[0, 0], [1, 1]])), own, 1e-6)


@torch.no_grad()
def test_the_first_layers_cache_is_the_active_sets() -> None:
    model = adapted(BlipForImageTextRetrieval)
    randomise(ua.add_adapter(model, CONFIG, "other").double(), seed=1)
    ids, mask = tiny_texts(5)
    found = []
    for name in ("default", "other"):
        with active_adapter(model, name):
            visuals, texts = encode_visual(model, frames().double()), encode_text(model, ids, mask)
            cache = begin_fusion(model, texts)
            found.append(match(model, texts, visuals, PAIRS, cache))
            close(found[-1], match(model, texts, visuals, PAIRS))
    with active_adapter(model, "default"):  # the cache is the other's, which is noticed
        close(match(model, texts, visuals, PAIRS, cache), match(model, texts, visuals, PAIRS))
    assert (found[0] - found[1]).abs().max() > 1e-3


# Training


def loss_of(model: PreTrainedModel) -> Tensor:
    ids, mask = tiny_texts(5)
    visuals, texts = encode_visual(model, frames()), encode_text(model, ids, mask)
    return texts.feature.square().sum() + match(model, texts, visuals, PAIRS).square().sum()


def test_all_of_them_learn_alone_and_are_counted() -> None:
    model = tiny_model()
    built = ua.add_adapter(model, ALONE)
    assert count_parameters(model).trainable == 2 * (32 * 2 + 2 + 3 * (2 * 32 + 32))
    before = {name: p.detach().clone() for name, p in built.named_parameters()}
    optimiser = torch.optim.SGD(built.parameters(), lr=0.5)
    for _ in range(2):
        optimiser.zero_grad()
        loss_of(model).backward()
        optimiser.step()
    moved = {name: (p - before[name]).abs().max().item() for name, p in built.named_parameters()}
    assert all(1e-9 < by < 1.0 for by in moved.values()), moved


def test_checkpointed_layers_have_the_same_gradients() -> None:
    model = tiny_model(BlipForConditionalGeneration).train()
    randomise(ua.add_adapter(model, CONFIG))
    ids, mask = tiny_texts(2)

    def gradients() -> dict[str, Tensor]:
        model.zero_grad()
        with active_adapter(model, "default"):
            loss = model(pixel_values=frames()[:, 0], input_ids=ids, attention_mask=mask, labels=ids).loss
        ua.select_adapter(model, "other")  # in the backward pass another set is the active one
        ua.adapter_set(model, "default").requires_grad_(True)
        loss.backward()
        ua.select_adapter(model, "default")
        return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    randomise(ua.add_adapter(model, CONFIG, "other"), seed=1)
    ua.select_adapter(model, "default")
    expected = gradients()
    assert sum("self_attention" in name for name in expected) == 2 * 4
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for name, gradient in gradients().items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6, msg=name)


def test_the_momentum_copy_has_its_own() -> None:
    model = tiny_model()
    built = ua.add_adapter(model, CONFIG)
    randomise(built)
    copied = add_momentum(model)
    ids, mask = tiny_texts(5)

    def features() -> Tensor:
        with torch.no_grad(), active_adapter(model, "momentum"):
            return encode_text(model, ids, mask).feature

    before = features()
    randomise(built.self_attention, seed=2)
    assert torch.equal(features(), before)
    update_momentum(model, 0.5)
    one, other = built.self_attention[0].up.weight, copied.self_attention[0].up.weight
    assert not torch.equal(one, other)
    assert not torch.equal(features(), before)


def test_autocast_is_close_and_its_gradients_finite() -> None:
    model = tiny_model()
    randomise(ua.add_adapter(model, CONFIG), 0.1)
    ids, mask = tiny_texts(5)

    def run() -> Tensor:
        visuals, texts = encode_visual(model, frames()), encode_text(model, ids, mask)
        return match(model, texts, visuals, PAIRS)

    expected = run()
    with torch.autocast("cpu", torch.bfloat16):
        got = run()
        got.float().square().sum().backward()
    assert (got.float() - expected).abs().mean() < 0.03 * expected.abs().mean()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@torch.no_grad()
def test_float32_adapters_serve_a_base_in_half_precision() -> None:
    model = tiny_model(BlipForConditionalGeneration).to(torch.bfloat16)
    built = ua.add_adapter(model, CONFIG)
    randomise(built, 0.1)
    assert {p.dtype for p in built.self_attention.parameters()} == {torch.float32}
    states = visual_context(model, encode_visual(model, frames().bfloat16())).states
    ids = torch.tensor([[DEC, 5, 6], [DEC, 7, 8]])
    ours = decode(model, ua.model.features.Context(states, torch.ones(states.shape[:2])), torch.arange(2), ids)
    theirs = model.text_decoder.bert(ids, encoder_hidden_states=states, is_decoder=True)[0]
    assert ours.dtype == theirs.dtype == torch.bfloat16
    assert (ours - theirs).abs().max() < 0.1


# Folders, words, other families


@pytest.mark.parametrize("decoder", ["shared", "separate"])
def test_a_folder_brings_them_back(tmp_path: Path, decoder: str) -> None:
    config = AdapterConfig(bottleneck=4, key_value=3, self_attention=3, decoder=decoder)  # type: ignore[arg-type]
    model = tiny_model(BlipForQuestionAnswering)
    built = ua.add_adapter(model, config)
    randomise(built)
    saved = ua.save_adapter(model, tmp_path / "a")
    assert "adapters of width 3 in the text's self-attention" in (saved / "README.md").read_text()
    loaded = ua.load_adapter(tiny_model(BlipForQuestionAnswering), saved)
    assert loaded.config == config
    state = loaded.state_dict()
    assert state.keys() == built.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in built.state_dict().items())
    assert {"self_attention.1.down.weight", "self_attention.0.up.bias"} <= state.keys()
    assert ("decoder_self_attention.1.up.bias" in state) == (decoder == "separate")


def test_a_folder_without_a_tensor_of_theirs_is_refused(tmp_path: Path) -> None:
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    model = tiny_model()
    ua.add_adapter(model, CONFIG)
    file = ua.save_adapter(model, tmp_path / "a") / "adapter_model.safetensors"
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    tensors = load_file(file)
    del tensors["self_attention.0.up.weight"]
    save_file(tensors, file, metadata)
    with pytest.raises(CheckpointError, match=r"self_attention\.0\.up\.weight is missing"):
        ua.load_adapter(tiny_model(), tmp_path / "a")


def test_the_plan_says_so() -> None:
    lines = ua.add_adapter(tiny_model(), CONFIG).plan()
    assert "queries, keys and values of text self-attention: one adapter of width 3 a layer" in lines
    assert not any("self-attention" in line for line in ua.add_adapter(tiny_model(), AdapterConfig()).plan())


@pytest.mark.parametrize("make", [tiny_blip2, tiny_clip, tiny_siglip])
def test_other_families_refuse_it(make) -> None:  # noqa: ANN001
    model = make()
    with pytest.raises(ConfigError, match=r"self_attention is 3, .*set it to 0"):
        ua.add_adapter(model, AdapterConfig(bottleneck=4, self_attention=3))
    assert ua.adapter_names(model) == []


def test_a_config_for_another_family_is_refused_before_anything_is_loaded() -> None:
    config = RunConfig(model=ModelConfig(adapter=CONFIG), evaluate=EvaluateConfig(k=0))
    check_family(config, families()["blip"])
    for name in ("blip2", "clip", "siglip"):
        with pytest.raises(ConfigError, match=r"in self-attention: set model\.adapter\.self_attention to 0"):
            check_family(config, families()[name])
