"""What CLIP and SigLIP have in common: transformers' own numbers, adapters in both towers, and no trace afterwards."""

from __future__ import annotations

import copy
import inspect
import itertools
from pathlib import Path

import pytest
import torch
from tiny_models import BUILDERS, SHAPES, TEXTS, pixels
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.models.clip import modeling_clip
from transformers.models.siglip import modeling_siglip

from tiny import randomise
from uniadapter.checkpoints.adapters import add_adapter, load_adapter
from uniadapter.config import AdapterConfig, ConfigError
from uniadapter.model.adapter_set import AdapterSet
from uniadapter.model.counting import count_parameters
from uniadapter.model.dispatch import backbone
from uniadapter.model.encoding import contrast_of, encode_text, encode_visual, loss_scalars
from uniadapter.model.sets import active_adapter, adapter_set, disable_adapter, remove_adapter, select_adapter
from uniadapter.objectives.pretrained import pretrained_contrast

FAMILIES = ("clip", "siglip")
CONFIG = AdapterConfig(bottleneck=4)
EVERY = list(itertools.product(FAMILIES, SHAPES))


def inputs(family: str, model: PreTrainedModel, count: int = 4) -> dict[str, Tensor]:
    """Arguments of the model's own forward: SigLIP is asked without a mask, as it was trained."""
    ids, mask = TEXTS[family](count)
    given = {"input_ids": ids, "pixel_values": pixels(count)[:, 0].to(model.dtype)}
    return given if family == "siglip" else {**given, "attention_mask": mask}


def outputs(family: str, model: PreTrainedModel, **options: bool) -> list[Tensor]:
    """Logits, features and loss of the model's own forward, and both of its feature functions."""
    given = inputs(family, model)
    whole = model(**given, return_loss=True, **options)
    seen = model.get_image_features(pixel_values=given.pop("pixel_values"))
    read = model.get_text_features(**given)
    return [whole.logits_per_text, whole.image_embeds, whole.text_embeds, whole.loss,
            seen.pooler_output, seen.last_hidden_state, read.pooler_output, read.last_hidden_state]  # fmt: skip


def differ(a: list[Tensor], b: list[Tensor]) -> float:
    return max((x.float() - y.float()).abs().max().item() for x, y in zip(a, b, strict=True))


def features(family: str, model: PreTrainedModel) -> list[Tensor]:
    """What the interface gives for the same pictures and texts."""
    found = backbone(model)
    visuals = found.encode_visual(pixels(4))
    texts = found.encode_text(*TEXTS[family](4))
    return [found.similarity(texts.feature, visuals.feature), visuals.feature, texts.feature]


def adapted(family: str, config: AdapterConfig = CONFIG, **sizes: int) -> PreTrainedModel:
    """A tiny model whose adapters do something; the contrast's numbers stay the base's."""
    model = BUILDERS[family](**sizes)
    moved(add_adapter(model, config))
    return model


def moved(built: AdapterSet, seed: int = 0) -> None:
    """Every parameter of a set away from its start, but the numbers of the contrast."""
    kept = {name: value.detach().clone() for name, value in built.scalars.items()}
    randomise(built, seed=seed)
    for name, value in kept.items():
        built.scalars[name].data.copy_(value)


# transformers' interface

LAYERS = (modeling_clip.CLIPEncoderLayer, modeling_siglip.SiglipEncoderLayer)


@pytest.mark.parametrize("layer", LAYERS)
def test_transformers_still_has_the_layer_that_is_overridden(layer: type) -> None:
    found = list(inspect.signature(layer.forward).parameters)
    assert found == ["self", "hidden_states", "attention_mask", "kwargs"], (
        f"transformers changed {layer.__name__}.forward: compare it with AdaptedPreNormLayer in model/adapted_layers.py"
    )
    family = "clip" if layer is LAYERS[0] else "siglip"
    parts = next({name for name, _ in m.named_children()} for m in BUILDERS[family]().modules() if type(m) is layer)
    assert parts == {"self_attn", "layer_norm1", "mlp", "layer_norm2"}


# The same numbers as transformers


@pytest.mark.parametrize(("family", "sizes"), EVERY)
def test_features_are_transformers_own_without_an_adapter_and_with_a_fresh_one(
    family: str, sizes: dict[str, int]
) -> None:
    model = BUILDERS[family](**sizes)
    with torch.no_grad():
        original = outputs(family, model)
        scale = model.logit_scale.exp()
        bias = getattr(model, "logit_bias", 0)
        expected = [(original[0] - bias) / scale, original[1], original[2]]
        assert differ(features(family, model), expected) < 1e-6
        built = add_adapter(model, CONFIG)
        assert differ(outputs(family, model), original) < 1e-6, "products of the frozen base may be the other library's"
        assert differ(features(family, model), expected) < 1e-6
        randomise(built)
        moved = outputs(family, model)
        for one, other in zip(moved, original, strict=True):
            assert (one - other).abs().max() > 1e-3, "get_*_features, forward and its loss are all adapted"
        expected = [(moved[0] - bias) / scale, moved[1], moved[2]]
        assert differ(features(family, model), expected) < 1e-6


@pytest.mark.parametrize("family", FAMILIES)
def test_one_layer_is_the_equation(family: str) -> None:
    """x + mlp(norm2 x) + A(x), written out."""
    model = adapted(family)
    original = copy.deepcopy(BUILDERS[family]())
    for tower, use in (("vision_model", "vision"), ("text_model", "text")):
        layer = getattr(model, tower).encoder.layers[1]
        plain = getattr(original, tower).encoder.layers[1]
        states = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(3))
        x = states + plain.self_attn(plain.layer_norm1(states), attention_mask=None)[0]
        adapter = adapter_set(model).layers[1]
        h = torch.relu(adapter.down(adapter.norm(x)))
        expected = x + plain.mlp(plain.layer_norm2(x)) + 0.1 * getattr(adapter, f"up_{use}")(h)
        assert (layer(states, None) - expected).abs().max() < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_implementations_agree(family: str) -> None:
    results = []
    for attention in ("eager", "sdpa"):
        model = adapted(family, attention=attention)
        with torch.no_grad():
            results.append(outputs(family, model) + features(family, model))
    assert differ(*results) < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_attention_weights_and_hidden_states_can_still_be_had(family: str) -> None:
    model = adapted(family, attention="eager")
    given = inputs(family, model)
    with torch.no_grad():
        out = model.vision_model(given["pixel_values"], output_attentions=True, output_hidden_states=True)
    assert len(out.attentions) == 2
    assert len(out.hidden_states) == 3
    assert (out.attentions[0].sum(-1) - 1).abs().max() < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_a_base_in_bfloat16_has_adapters_in_float32(family: str) -> None:
    model = BUILDERS[family]()
    randomise(add_adapter(model, CONFIG))
    half = BUILDERS[family]().to(torch.bfloat16)
    randomise(add_adapter(half, CONFIG))
    assert {p.dtype for n, p in adapter_set(half).named_parameters() if not n.startswith("heads")} == {torch.float32}
    with torch.no_grad():
        exact, rounded = features(family, model), features(family, half)
    assert {one.dtype for one in rounded} == {torch.float32}
    assert 0 < differ(exact, rounded) < 0.05
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        to_autocast_dtype = features(family, model)
    assert {one.dtype for one in to_autocast_dtype} == {torch.float32}
    assert 0 < differ(exact, to_autocast_dtype) < 0.05


# Training


@pytest.mark.parametrize(("family", "sizes"), EVERY)
def test_gradients_reach_every_adapter_and_nothing_of_the_base(family: str, sizes: dict[str, int]) -> None:
    model = adapted(family, **sizes)
    visuals, texts = encode_visual(model, pixels(4)), encode_text(model, *TEXTS[family](4))
    kind, scalars, ids = contrast_of(model), loss_scalars(model), torch.arange(4)
    assert kind == {"clip": "softmax", "siglip": "sigmoid"}[family]
    scale, bias = scalars["logit_scale"].exp(), scalars.get("logit_bias", torch.zeros(()))
    loss = pretrained_contrast(model, kind, texts, visuals, ids, ids, scale, bias)  # type: ignore[arg-type]
    with torch.no_grad():
        theirs = model(**inputs(family, model), return_loss=True).loss
    assert (loss - theirs).abs() < 1e-5, "on one process it is transformers' own"
    loss.backward()
    for name, parameter in adapter_set(model).named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    mine = {id(parameter) for parameter in adapter_set(model).parameters()}
    assert all(p.grad is None and not p.requires_grad for p in model.parameters() if id(p) not in mine)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_recomputes_with_the_set_of_the_forward_pass(family: str, reentrant: bool) -> None:
    model = adapted(family).train()
    randomise(add_adapter(model, CONFIG, "other"), seed=5)
    ids, mask = TEXTS[family](4)

    def gradients() -> list[Tensor]:
        select_adapter(model, "default")
        model.zero_grad()
        with active_adapter(model, "default"):
            found = backbone(model)
            similar = found.similarity(found.encode_text(ids, mask).feature, found.visual_feature(pixels(4)))
        with active_adapter(model, "other"):  # the backward pass runs where another set is active
            similar.square().sum().backward()
        built = adapter_set(model, "default")  # its numbers of the contrast are no part of cosines
        return [p.grad for name, p in built.named_parameters() if not name.startswith("scalars")]  # type: ignore[misc]

    plain = gradients()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    for tower in (model.vision_model, model.text_model):  # torch's older kind wants an input that has a gradient
        tower.embeddings.register_forward_hook(lambda *args: args[-1].requires_grad_())
    assert differ(plain, gradients()) < 1e-6


# Names of sets, keys of the base, and what is left behind


@pytest.mark.parametrize("family", FAMILIES)
def test_sets_are_added_selected_disabled_and_removed_without_a_trace(family: str) -> None:
    model = BUILDERS[family]()
    keys, types = list(model.state_dict()), [type(module) for module in model.modules()]
    trained = [parameter.requires_grad for parameter in model.parameters()]
    with torch.no_grad():
        bare = outputs(family, model)
        randomise(add_adapter(model, CONFIG, "one"), seed=1)
        one = outputs(family, model)
        randomise(add_adapter(model, AdapterConfig(bottleneck=3, text=False, heads=False), "two"), seed=2)
        two = outputs(family, model)
        assert min(differ(bare, one), differ(one, two), differ(bare, two)) > 1e-3
        assert torch.equal(two[6], bare[6]), "without text adapters and heads texts are the base's"
        select_adapter(model, "one")
        assert differ(outputs(family, model), one) == 0
        with disable_adapter(model):
            assert differ(outputs(family, model), bare) < 1e-6
        with active_adapter(model, "two"):
            assert differ(outputs(family, model), two) == 0
        assert [key for key in model.state_dict() if not key.startswith("uniadapters.")] == keys
        remove_adapter(model, "one")
        remove_adapter(model, "two")
        assert differ(outputs(family, model), bare) == 0
    assert list(model.state_dict()) == keys
    assert [type(module) for module in model.modules()] == types
    assert [parameter.requires_grad for parameter in model.parameters()] == trained
    traces = ("link", "store", "role", "index", "name")
    assert not [name for module in model.modules() for name in traces if name in module.__dict__]


@pytest.mark.parametrize(("family", "sizes"), EVERY)
def test_one_down_projection_serves_both_towers_where_widths_agree(family: str, sizes: dict[str, int]) -> None:
    model = BUILDERS[family](**sizes)
    built = add_adapter(model, CONFIG)
    shape = built.shape
    seen, read = (
        [built.adapter(role, index, use) for index in range(depth)]  # type: ignore[arg-type]
        for role, use, depth in (("vision", "vision", shape.vision_layers), ("encoder", "text", shape.text_layers))
    )
    shared = sum(a is b for a, b in zip(seen, read, strict=False))
    assert shared == (min(shape.vision_layers, shape.text_layers) if shape.shares_width else 0)
    assert not [name for name, _ in built.named_parameters() if "cross" in name or "key" in name or "value" in name]
    plan = "\n".join(built.plan())
    assert "no cross-attention in this base, so no cross and no key/value adapters" in plan
    assert ("widths differ" in plan) == (not shape.shares_width)


@pytest.mark.parametrize("family", FAMILIES)
def test_settings_that_two_towers_cannot_serve_are_one_line(family: str) -> None:
    model = BUILDERS[family]()
    for config, said in (
        (AdapterConfig(temporal_frames=8), "nothing in this base reads a video's tokens together"),
        (AdapterConfig(vision=False, text=False), "has no cross-attention to adapt"),
        (AdapterConfig(decoder="separate"), "has no decoder beside its encoder"),
    ):
        with pytest.raises(ConfigError, match=said) as error:
            add_adapter(model, config)
        assert "\n" not in str(error.value)
    assert not [module for module in model.modules() if "Adapted" in type(module).__name__]


# Pictures and videos


@pytest.mark.parametrize("family", FAMILIES)
def test_a_video_is_the_mean_of_its_frames(family: str) -> None:
    found = backbone(adapted(family))
    frames = pixels(2, 3)
    with torch.no_grad():
        visuals = found.encode_visual(frames)
        alone = found.encode_visual(frames.flatten(0, 1)[:, None])
        assert visuals.tokens.shape == (2, 3, 16 + (family == "clip"), 32)
        assert (visuals.frames.flatten(0, 1) - alone.feature).abs().max() < 1e-6
        mean = nn.functional.normalize(alone.feature.unflatten(0, (2, 3)).mean(1), dim=-1)
        assert (visuals.feature - mean).abs().max() < 1e-6
        assert (found.visual_feature(frames) - mean).abs().max() < 1e-6
        for chunk in (1, 2, 4, 100):
            parts = found.encode_visual(frames, chunk)
            assert (parts.tokens - visuals.tokens).abs().max() < 1e-5
            assert (found.visual_feature(frames, chunk) - mean).abs().max() < 1e-6
        assert len(found.encode_visual(frames[:0])) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_weighs_frames_by_how_they_fit_it(family: str) -> None:
    """Against the weighted mean made feature by feature."""
    found = backbone(adapted(family))
    with torch.no_grad():
        visuals = found.encode_visual(pixels(3, 4))
        texts = found.encode_text(*TEXTS[family](5))
        got = found.similarity(texts.feature, visuals.feature, visuals.frames)
        for s, text in enumerate(texts.feature):
            for v, frames in enumerate(visuals.frames):
                weights = torch.softmax(frames @ text / 0.1, 0)
                mean = nn.functional.normalize((weights[:, None] * frames).sum(0), dim=0)
                assert float(got[s, v]) == pytest.approx(float(mean @ text), abs=1e-5)
        plain = found.similarity(texts.feature, visuals.feature)
        assert (got - plain).abs().max() > 1e-4
        one = found.encode_visual(pixels(3))
        assert torch.equal(
            found.similarity(texts.feature, one.feature, one.frames), found.similarity(texts.feature, one.feature)
        )


@pytest.mark.parametrize("family", FAMILIES)
def test_other_picture_sizes_interpolate_positions_as_transformers_does(family: str) -> None:
    model = adapted(family)
    found = backbone(model)
    for height, width in ((48, 48), (24, 40)):
        frames = torch.randn(2, 1, 3, height, width, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            theirs = model.get_image_features(pixel_values=frames[:, 0], interpolate_pos_encoding=True).pooler_output
            assert (found.visual_feature(frames) - nn.functional.normalize(theirs, dim=-1)).abs().max() < 1e-6
    for frames, said in (
        (torch.zeros(2, 1, 3, 4, 32), "pictures of 4 x 32 px are smaller than a patch of 8 px"),
        (torch.zeros(2, 3, 32, 32), r"frames must be \[B, T, 3, H, W\]"),
    ):
        with pytest.raises(ValueError, match=said):
            found.encode_visual(frames)
    with pytest.raises(ValueError, match="frame_chunk must be at least 1"):
        found.encode_visual(pixels(), -1)


# What is counted, and what is saved with the base


@pytest.mark.parametrize("family", FAMILIES)
def test_parameters_are_counted_with_and_without_token_embeddings(family: str) -> None:
    model = BUILDERS[family]()
    whole = sum(parameter.numel() for parameter in model.parameters())
    built = add_adapter(model, CONFIG)
    counts = count_parameters(model)
    assert counts.total == whole
    assert counts.embeddings == 40 * 32
    assert counts.trainable == sum(parameter.numel() for parameter in built.parameters())
    assert counts.adapter == built.adapter_parameters()
    assert counts.trainable - counts.adapter == {"clip": 2 * 16 * 32 + 1, "siglip": 33 * 32 + 2}[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_base_is_saved_alone_and_the_adapters_beside_it(family: str, tmp_path: Path) -> None:
    model = BUILDERS[family]()
    with torch.no_grad():
        bare = outputs(family, model)
        moved(add_adapter(model, CONFIG))
        changed = outputs(family, model)
        model.save_pretrained(tmp_path)
        again = type(model).from_pretrained(tmp_path).eval()
        assert differ(outputs(family, again), bare) == 0
        load_adapter(again, tmp_path / "uniadapters" / "default")
        assert differ(outputs(family, again), changed) == 0


def test_unequal_widths_may_share_a_factor() -> None:
    """`adapter.factor`: each tower has a projection of its own to the width of a factor that both have."""
    sizes = {"width": 48, "text_width": 32}
    model = BUILDERS["clip"](**sizes)
    with torch.no_grad():
        bare = outputs("clip", model)
        built = add_adapter(model, AdapterConfig(bottleneck=4, factor=3))
        assert differ(outputs("clip", model), bare) < 1e-6
    moved(built)
    assert len(built.factors) == 2
    shared = {name for name, _ in built.named_parameters() if name.startswith("factors")}
    assert len(shared) == 4, "a matrix and a bias a layer, each once"
    sum(one.square().sum() for one in features("clip", model)).backward()  # type: ignore[union-attr]
    assert all(p.grad.abs().max() > 0 for name, p in built.named_parameters() if not name.startswith("scalars"))  # type: ignore[union-attr]
