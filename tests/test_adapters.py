"""Named sets on one frozen base: what trains, what is selected, and that everything comes off again."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import BlipForImageTextRetrieval, BlipForQuestionAnswering, PreTrainedModel

from tiny import TASK_MODELS, randomise, tiny_model, tiny_texts
from uniadapter.checkpoints.adapter_folder import save_adapter
from uniadapter.checkpoints.adapters import add_adapter, load_adapter
from uniadapter.config import AdapterConfig, ConfigError, ModelConfig, ObjectiveConfig
from uniadapter.model.counting import count_parameters
from uniadapter.model.encoding import encode_text, encode_visual, fuse, match
from uniadapter.model.sets import (
    active_adapter,
    adapter_names,
    adapter_set,
    add_momentum,
    disable_adapter,
    remove_adapter,
    select_adapter,
    update_momentum,
)
from uniadapter.tasks.retrieval import RetrievalLoss

CONFIG = AdapterConfig(bottleneck=4, key_value=4, temporal_frames=2)


def output(model: PreTrainedModel) -> Tensor:
    """One tensor that all adapters and heads have a part in."""
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(3, 2, 3, 32, 32, generator=generator)
    pairs = torch.tensor([[0, 0], [1, 2], [2, 1]])
    with torch.no_grad():
        visuals = encode_visual(model, frames)
        if not hasattr(model, "text_encoder"):
            return model(pixel_values=frames[:, 0], input_ids=tiny_texts(3)[0]).logits.flatten()
        texts = encode_text(model, *tiny_texts(3))
        parts = [visuals.feature, texts.feature, fuse(model, texts, visuals, pairs)]
        if hasattr(model, "itm_head"):
            parts.append(match(model, texts, visuals, pairs))
        else:
            question = parts[-1]
            parts.append(model.text_decoder(tiny_texts(3, seed=4)[0], encoder_hidden_states=question).logits)
        return torch.cat([p.flatten() for p in parts])


def two_sets() -> PreTrainedModel:
    """A model with the sets `a` and `b`, both away from their start; `b` was added last."""
    model = tiny_model()
    for seed, name in enumerate("ab"):
        randomise(add_adapter(model, CONFIG, name), seed=seed)
    return model


same = torch.equal


# What trains


@pytest.mark.parametrize("cls", TASK_MODELS)
@pytest.mark.parametrize("name", ["default", "x_m", "text_encoder", "norm_cross"])
def test_exactly_the_set_trains(cls: type, name: str) -> None:
    model = tiny_model(cls)
    built = add_adapter(model, CONFIG, name)
    mine = {id(p) for p in built.parameters()}
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert trained == mine
    assert all(p.requires_grad for adapter in built.layers for p in adapter.norm_cross.parameters())  # type: ignore[union-attr]
    names = {n for n, p in model.named_parameters() if p.requires_grad}
    assert names == {f"uniadapters.{name}.{n}" for n, _ in built.named_parameters()}, "each once, under its owner"


def test_the_base_gets_no_gradient_and_the_set_does() -> None:
    model = tiny_model()
    built = add_adapter(model, CONFIG)
    randomise(built)
    visuals, texts = encode_visual(model, torch.randn(2, 2, 3, 32, 32)), encode_text(model, *tiny_texts(2))
    logits = match(model, texts, visuals, torch.tensor([[0, 0], [1, 1]]))
    (logits.square().sum() + (texts.feature @ visuals.feature.T).sum()).backward()
    assert all(p.grad is None for n, p in model.named_parameters() if not n.startswith("uniadapters."))
    assert all(p.grad is not None for p in built.parameters())


# Names


def test_the_selected_set_computes_and_trains() -> None:
    model = two_sets()
    assert adapter_names(model) == ["a", "b"]
    outputs = {}
    for name in ("a", "b", None):
        select_adapter(model, name)
        outputs[name] = output(model)
        trained = {n.split(".")[1] for n, p in model.named_parameters() if p.requires_grad}
        assert trained == ({name} if name else set())
    assert not same(outputs["a"], outputs["b"])
    assert not same(outputs["a"], outputs[None])
    select_adapter(model, "a", trainable=False)
    assert same(output(model), outputs["a"])
    assert not any(p.requires_grad for p in model.parameters())


def test_contexts_switch_the_computation_and_switch_back() -> None:
    model = two_sets()
    b = output(model)
    with active_adapter(model, "a"):
        a = output(model)
        with disable_adapter(model):
            bare = output(model)
            with active_adapter(model, "b"):
                assert same(output(model), b)
            assert same(output(model), bare)
        assert same(output(model), a)
    assert same(output(model), b)
    assert len({t.sum().item() for t in (a, b, bare)}) == 3
    with active_adapter(model, None):
        assert same(output(model), bare)
    trained = {n.split(".")[1] for n, p in model.named_parameters() if p.requires_grad}
    assert trained == {"b"}, "contexts leave alone what is trained"


@pytest.mark.parametrize("context", [disable_adapter, lambda m: active_adapter(m, "a")])
def test_contexts_switch_back_after_an_exception(context) -> None:  # noqa: ANN001
    model = two_sets()
    before = output(model)
    with pytest.raises(RuntimeError, match="inside"), context(model):
        raise RuntimeError("inside")
    assert same(output(model), before)


def test_unknown_names_are_refused_and_name_those_there_are() -> None:
    model = two_sets()
    for action in (
        lambda: select_adapter(model, "c"),
        lambda: adapter_set(model, "c"),
        lambda: remove_adapter(model, "c"),
        lambda: active_adapter(model, "c").__enter__(),
        lambda: add_momentum(model, "c"),
    ):
        with pytest.raises(KeyError, match="no adapter named 'c': there is a, b"):
            action()
    assert adapter_names(model) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("", "non-empty"), ("a.b", "without a dot"), ("a", "already"), ("train", "another"), ("keys", "another")],
)
def test_impossible_names_are_refused(name: str, message: str) -> None:
    model = two_sets()
    for action in (lambda: add_adapter(model, CONFIG, name), lambda: add_momentum(model, "b", name)):
        with pytest.raises(ValueError, match=message):
            action()
    assert adapter_names(model) == ["a", "b"]


@pytest.mark.parametrize(
    "action",
    [
        lambda m: add_adapter(m, AdapterConfig(bottleneck=4, decoder="separate")),
        lambda m: add_adapter(m, CONFIG, "a.b"),
        lambda m: select_adapter(m, "default"),
        lambda m: remove_adapter(m),
    ],
)
def test_what_fails_leaves_a_bare_model_as_it_was(action) -> None:  # noqa: ANN001
    model = tiny_model()
    before = snapshot(model)
    with pytest.raises((ConfigError, ValueError, KeyError)):
        action(model)
    assert snapshot(model) == before
    assert all(p.requires_grad for p in model.parameters())


# Removal


def snapshot(model: PreTrainedModel) -> list[tuple]:
    """Name, type and attributes of every module."""
    return [(name, type(m), sorted(vars(m)), list(m._modules)) for name, m in model.named_modules()]


@pytest.mark.parametrize("cls", TASK_MODELS)
def test_without_the_last_set_the_base_is_what_it_was(cls: type) -> None:
    model = tiny_model(cls)
    before, state, original = snapshot(model), {k: v.clone() for k, v in model.state_dict().items()}, plain(model)
    for seed, name in enumerate(("one", "two")):
        randomise(add_adapter(model, AdapterConfig(bottleneck=4, key_value=4), name), seed=seed)
    optimiser = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model.vision_model(pixel_values=torch.randn(2, 3, 32, 32)).last_hidden_state.square().sum().backward()
    optimiser.step()
    with torch.no_grad():
        assert (plain(model) - original).abs().max() > 1e-3
    remove_adapter(model, "two")
    assert adapter_names(model) == ["one"]
    remove_adapter(model, "one")
    assert adapter_names(model) == []
    assert snapshot(model) == before
    now = model.state_dict()
    assert list(now) == list(state)
    assert all(torch.equal(now[k], state[k]) for k in state)
    assert torch.allclose(plain(model), original, atol=1e-6)
    assert not model._keys_to_ignore_on_save


def plain(model: PreTrainedModel) -> Tensor:
    """What the model computes through transformers' own code alone (nothing here adopts it)."""
    pictures = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    ids = tiny_texts(2, 2)[0]
    with torch.no_grad():
        if isinstance(model, BlipForQuestionAnswering):
            visual = model.vision_model(pixel_values=pictures).last_hidden_state
            question = model.text_encoder(ids, encoder_hidden_states=visual).last_hidden_state
            return model.text_decoder(ids, encoder_hidden_states=question).logits
        out = model(pixel_values=pictures, input_ids=ids)
        return out.itm_score if isinstance(model, BlipForImageTextRetrieval) else out.logits


def test_removing_the_selected_set_leaves_the_bare_base_selected() -> None:
    model = two_sets()
    with disable_adapter(model):
        bare = output(model)
    remove_adapter(model, "b")
    assert same(output(model), bare)
    select_adapter(model, "a")
    assert not same(output(model), bare)


def test_a_set_removed_within_a_context_is_not_come_back_to() -> None:
    model = two_sets()
    with disable_adapter(model):
        bare = output(model)
        remove_adapter(model, "b")
    assert same(output(model), bare)


def test_a_model_can_be_adapted_again_after_removal() -> None:
    model = two_sets()
    for name in "ab":
        remove_adapter(model, name)
    bare = output(model)
    built = add_adapter(model, CONFIG)
    assert torch.allclose(output(model), bare, atol=1e-6)
    randomise(built)
    assert not torch.allclose(output(model), bare, atol=1e-3)


# Momentum


def test_a_momentum_set_starts_equal_frozen_and_follows_slowly() -> None:
    model = tiny_model()
    online = add_adapter(model, CONFIG)
    randomise(online)
    before = output(model)
    twin = add_momentum(model)
    assert same(output(model), before), "the selection stays as it is"
    with active_adapter(model, "momentum"):
        assert same(output(model), before)
    assert not any(p.requires_grad for p in twin.parameters())
    assert all(p.requires_grad for p in online.parameters())
    start = copy.deepcopy(twin.state_dict())
    randomise(online, seed=5)
    update_momentum(model, 0.9)
    for name, value in twin.state_dict().items():
        torch.testing.assert_close(value, 0.9 * start[name] + 0.1 * online.state_dict()[name])
    with active_adapter(model, "momentum"):
        assert not same(output(model), before)


# Copies and files


def test_a_deep_copy_has_its_own_sets() -> None:
    model = two_sets()
    before = output(model)
    twin = copy.deepcopy(model)
    assert same(output(twin), before)
    randomise(adapter_set(twin, "b"))
    assert not same(output(twin), before)
    assert same(output(model), before)
    select_adapter(twin, None)
    assert same(output(model), before), "a selection in the copy is the copy's"
    for module in twin.modules():
        if hasattr(module, "link"):
            assert module.link is twin._uniadapter_store
            assert module.link.sets is twin.uniadapters
    remove_adapter(twin, "a")
    remove_adapter(twin, "b")
    assert same(output(model), before)
    assert adapter_names(model) == ["a", "b"]


def test_a_pickled_model_comes_back_whole() -> None:
    model = two_sets()
    back = pickle.loads(pickle.dumps(model))
    assert same(output(back), output(model))
    randomise(adapter_set(back, "b"))
    assert not same(output(back), output(model))


def keys(folder: Path) -> set[str]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return set(file.keys())


@pytest.mark.parametrize("cls", TASK_MODELS)
def test_save_pretrained_writes_exactly_the_base(cls: type, tmp_path: Path) -> None:
    model = tiny_model(cls)
    model.save_pretrained(tmp_path / "bare")
    original = plain(model)
    randomise(add_adapter(model, AdapterConfig(bottleneck=4, key_value=4), "one"))
    add_momentum(model, "one")
    add_adapter(model, AdapterConfig(bottleneck=4, key_value=0), "two")
    model.save_pretrained(tmp_path / "adapted")
    assert keys(tmp_path / "adapted") == keys(tmp_path / "bare")
    assert (tmp_path / "adapted/config.json").read_text() == (tmp_path / "bare/config.json").read_text()
    loaded, report = cls.from_pretrained(tmp_path / "adapted", output_loading_info=True)  # type: ignore[attr-defined]
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert torch.allclose(plain(loaded.eval()), original, atol=1e-6)
    assert adapter_names(loaded) == []
    for name in ("momentum", "two"):
        remove_adapter(model, name)
    model.save_pretrained(tmp_path / "fewer")
    copy.deepcopy(model).save_pretrained(tmp_path / "copy")
    assert keys(tmp_path / "fewer") == keys(tmp_path / "copy") == keys(tmp_path / "bare")


def test_a_set_follows_the_model_into_another_dtype() -> None:
    model = tiny_model().double()
    built = add_adapter(model, CONFIG)
    for dtype in (torch.float64, torch.bfloat16, torch.float32):
        model.to(dtype)
        assert {p.dtype for p in built.parameters()} == {dtype}
    assert torch.isfinite(output(model)).all()


def test_a_set_goes_onto_a_model_on_the_meta_device() -> None:
    model = tiny_model().to("meta")
    assert {p.device.type for p in add_adapter(model, CONFIG).parameters()} == {"meta"}


def test_train_and_eval_reach_the_sets() -> None:
    model = two_sets()
    assert adapter_set(model, "a").train(False) is not None
    model.train()
    assert all(m.training for m in adapter_set(model, "a").modules())
    model.eval()
    assert not any(m.training for m in adapter_set(model, "a").modules())


@pytest.mark.parametrize("cls", TASK_MODELS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_on_a_base_in_half_precision_adapters_are_float32(cls: type[PreTrainedModel], dtype: torch.dtype) -> None:
    model = tiny_model(cls).to(dtype)
    built = add_adapter(model, CONFIG)
    assert {parameter.dtype for parameter in built.parameters()} == {torch.float32}
    randomise(built, 0.1)
    frames = torch.randn(3, 2, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    ids, mask = tiny_texts(3)
    visuals = encode_visual(model, frames)
    assert visuals.tokens.dtype == dtype
    if hasattr(model, "text_encoder"):
        texts = encode_text(model, ids, mask)
        fused = fuse(model, texts, visuals, torch.tensor([[0, 0], [1, 2], [2, 1]]))
        assert (texts.states.dtype, fused.dtype) == (dtype, dtype)
    if hasattr(model, "itm_head"):
        assert model(pixel_values=frames[:, 0], input_ids=ids, attention_mask=mask)[0].dtype == dtype
    # An update as small as trainings make them stays: in bfloat16 0.1 + 1e-5 is 0.1.
    weight = adapter_set(model).get_parameter("layers.0.down.weight")
    visuals.tokens.float().square().sum().backward()
    assert weight.grad is not None
    assert weight.grad.abs().max() > 0
    before, weight.grad = weight.detach().clone(), torch.ones_like(weight)
    torch.optim.SGD([weight], lr=1e-5).step()
    assert torch.allclose(before - weight, torch.full_like(weight, 1e-5), rtol=0.1)


def test_a_half_precision_base_gives_what_a_rounded_one_does_in_float32() -> None:
    half, single = tiny_model().to(torch.bfloat16), tiny_model().to(torch.bfloat16).float()
    for model in (half, single):
        randomise(add_adapter(model, CONFIG))
    assert torch.cosine_similarity(output(half).float(), output(single), dim=0) > 0.98


@pytest.mark.parametrize("trained", ["all", "some", "none"])
def test_removing_the_last_set_gives_gradients_back(trained: str) -> None:
    model = tiny_model()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(trained == "all" or (trained == "some" and "text" in name))
    before = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    add_adapter(model, CONFIG, "a")
    add_adapter(model, CONFIG, "b")
    select_adapter(model, None)
    remove_adapter(model, "a")
    assert not any(parameter.requires_grad for name, parameter in model.named_parameters())
    remove_adapter(model, "b")
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == before


def test_a_rounded_base_is_still_known_when_its_adapter_has_come_off(tmp_path: Path) -> None:
    from uniadapter.model.identity import base_hash
    from uniadapter.model.precision import round_frozen

    model = tiny_model()
    before = base_hash(model)
    add_adapter(model, CONFIG)
    round_frozen(model, torch.bfloat16)
    remove_adapter(model)
    add_adapter(model, CONFIG)
    assert base_hash(model) == before


def retrieval_task(model: PreTrainedModel, **objective: object) -> RetrievalLoss:
    return RetrievalLoss(model, None, ModelConfig(), ObjectiveConfig(queue_size=4, **objective))  # type: ignore[arg-type]


def test_a_temperature_that_learns_is_the_adapters(tmp_path: Path) -> None:
    model = tiny_model()
    add_adapter(model, CONFIG)
    without = count_parameters(model)
    task = retrieval_task(model, train_temperature=True, temperature=0.05)
    counts = count_parameters(model)
    assert (counts.trainable, counts.adapter) == (without.trainable + 1, without.adapter + 1)
    assert sum(parameter is task.temperature for parameter in task.parameters()) == 1
    with torch.no_grad():
        task.temperature.fill_(0.03)
    save_adapter(model, tmp_path / "a")
    model.save_pretrained(tmp_path / "base")
    with safe_open(tmp_path / "base/model.safetensors", "pt") as file:
        assert not [key for key in file.keys() if key.startswith("uniadapters")]  # noqa: SIM118
    fresh = tiny_model()
    built = load_adapter(fresh, tmp_path / "a", trainable=True)
    assert built.temperature.item() == pytest.approx(0.03)
    for learns in (True, False):  # and it is used where training goes on
        again = retrieval_task(fresh, train_temperature=learns)
        assert again.temperature.item() == pytest.approx(0.03)
        assert again.temperature.requires_grad == learns


def test_a_task_can_be_made_again_and_leaves_no_momentum_set() -> None:
    model = tiny_model()
    add_adapter(model, CONFIG)
    for _ in range(2):
        task = retrieval_task(model)
        assert adapter_names(model) == ["default", "momentum"]
    task.release()
    assert adapter_names(model) == ["default"]
    mine = tiny_model()
    add_adapter(mine, CONFIG, "momentum")
    add_adapter(mine, CONFIG)
    with pytest.raises(ValueError, match="momentum"):
        retrieval_task(mine)  # somebody's own set of that name is not replaced
