"""BLIP-2's seam with transformers: its own forward, our grouped one, gradients, precision, and what is left behind."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tiny_blip2 import SHAPES, tiny_blip2
from torch import Tensor, nn
from transformers import Blip2ForImageTextRetrieval, PreTrainedModel
from transformers.models.blip_2 import modeling_blip_2

from tiny import randomise, tiny_model, tiny_texts
from uniadapter import add_adapter, remove_adapter
from uniadapter.config import AdapterConfig
from uniadapter.evaluation.blocks import block_pairs
from uniadapter.model.adapter_set import AdapterSet
from uniadapter.model.blip2 import encoding, fusion
from uniadapter.model.dispatch import adapter_store, restore
from uniadapter.model.encoding import begin_fusion, encode_text, encode_visual, fuse_with_weights, match, similarity
from uniadapter.model.features import Texts, Visuals
from uniadapter.objectives.matching import matching_loss
from uniadapter.objectives.softmax import softmax_loss

CONFIG = AdapterConfig(bottleneck=4, key_value=4)
ATTENTION = ("sdpa", "eager")


def pixels(count: int = 4, seed: int = 0) -> Tensor:
    """Random pictures [B, 3, 32, 32]."""
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def own(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> list[Tensor]:
    """Matching logits [4, 2] and contrastive ones [4 pictures, 4 texts] of transformers' own forward."""
    with torch.no_grad():
        return [
            model(pixel_values=pixels(), input_ids=ids, attention_mask=mask, use_image_text_matching_head=matching)
            .logits_per_image
            for matching in (True, False)
        ]  # fmt: skip


def encoded(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> tuple[Texts, Visuals]:
    """The texts and four pictures, through ours."""
    return encode_text(model, ids, mask), encode_visual(model, pixels()[:, None])


def ours(model: PreTrainedModel, ids: Tensor, mask: Tensor) -> list[Tensor]:
    """The same through ours."""
    with torch.no_grad():
        texts, visuals = encoded(model, ids, mask)
        pairs = torch.arange(4)[:, None].expand(4, 2)
        return [match(model, texts, visuals, pairs), similarity(model, texts.feature, visuals.feature).T]


def differ(a: list[Tensor], b: list[Tensor]) -> float:
    return max((x - y).abs().max().item() for x, y in zip(a, b, strict=True))


def adapted(config: AdapterConfig = CONFIG, **kinds: object) -> tuple[PreTrainedModel, AdapterSet]:
    """A tiny model whose adapters do something."""
    model = tiny_blip2(**kinds)  # type: ignore[arg-type]
    built = add_adapter(model, config)
    randomise(built)
    return model, built


# transformers' interface


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        (modeling_blip_2.Blip2EncoderLayer.forward, ["self", "hidden_states", "kwargs"]),
        (modeling_blip_2.Blip2QFormerMultiHeadAttention.forward,
         ["self", "hidden_states", "attention_mask", "encoder_hidden_states", "encoder_attention_mask", "kwargs"]),
        (modeling_blip_2.Blip2QFormerAttention.forward,
         ["self", "hidden_states", "attention_mask", "encoder_hidden_states", "encoder_attention_mask", "kwargs"]),
        (modeling_blip_2.Blip2QFormerLayer.forward,
         ["self", "hidden_states", "attention_mask", "encoder_hidden_states", "encoder_attention_mask",
          "query_length", "kwargs"]),
        (modeling_blip_2.Blip2QFormerEncoder.forward,
         ["self", "hidden_states", "attention_mask", "encoder_hidden_states", "encoder_attention_mask",
          "query_length", "kwargs"]),
        (modeling_blip_2.Blip2QFormerLayer.feed_forward_chunk, ["self", "attention_output"]),
        (modeling_blip_2.Blip2QFormerLayer.feed_forward_chunk_query, ["self", "attention_output"]),
        (modeling_blip_2.Blip2QFormerSelfOutput.forward, ["self", "hidden_states", "input_tensor"]),
    ],
    ids=lambda x: getattr(x, "__qualname__", ""),
)  # fmt: skip
def test_transformers_still_has_the_interface_that_is_overridden(method: Callable, parameters: list[str]) -> None:
    found = list(inspect.signature(method).parameters)
    assert found == parameters, (
        f"transformers changed {method.__qualname__}: it takes {found}, model/blip2 was written for {parameters}. "
        "Compare its body with the subclass there, adapt that, then this list."
    )


@pytest.mark.parametrize(
    ("cls", "children"),
    [
        (modeling_blip_2.Blip2EncoderLayer, {"self_attn", "layer_norm1", "mlp", "layer_norm2"}),
        (modeling_blip_2.Blip2QFormerMultiHeadAttention, {"query", "key", "value"}),
        (modeling_blip_2.Blip2QFormerAttention, {"attention", "output"}),
        (modeling_blip_2.Blip2QFormerLayer,
         {"attention", "crossattention", "intermediate", "output", "intermediate_query", "output_query"}),
        (modeling_blip_2.Blip2QFormerModel, {"layernorm", "dropout", "encoder"}),
        (Blip2ForImageTextRetrieval,
         {"vision_model", "embeddings", "qformer", "vision_projection", "text_projection", "itm_head"}),
    ],
)  # fmt: skip
def test_transformers_modules_still_have_the_parts_that_are_called(cls: type, children: set[str]) -> None:
    module = next(m for m in tiny_blip2().modules() if type(m) is cls)
    found = {name for name, _ in module.named_children()}
    assert found == children, f"transformers' {cls.__name__} is made of {found} now: adapt model/blip2"


# The same numbers as transformers


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("sizes", SHAPES)
def test_scores_are_transformers_own_without_an_adapter_with_a_fresh_one_and_with_a_trained_one(
    sizes: dict[str, int], attention: str
) -> None:
    model, (ids, mask) = tiny_blip2(attention=attention, **sizes), tiny_texts(4)
    original, keys = own(model, ids, mask), list(model.state_dict())
    adapter_store(model)
    assert differ(own(model, ids, mask), original) < 1e-6, "re-typed, without a set"
    assert differ(ours(model, ids, mask), original) < 2e-6
    restore(model)
    built = add_adapter(model, CONFIG)
    assert differ(own(model, ids, mask), original) < 1e-6, "a fresh set"
    assert differ(ours(model, ids, mask), original) < 2e-6
    randomise(built)
    moved = own(model, ids, mask)
    assert min((a - b).abs().max() for a, b in zip(moved, original, strict=True)) > 0.05, "and the test can tell"
    assert differ(ours(model, ids, mask), moved) < 1e-5, "transformers' own forward is adapted as ours is"
    remove_adapter(model)
    assert differ(own(model, ids, mask), original) < 1e-6
    assert list(model.state_dict()) == keys


def test_nothing_is_left_of_it() -> None:
    model, untouched = tiny_blip2(), tiny_blip2()
    add_adapter(model, CONFIG)
    remove_adapter(model)
    for (name, a), (_, b) in zip(model.named_modules(), untouched.named_modules(), strict=True):
        assert type(a) is type(b), name
        assert set(vars(a)) == set(vars(b)), name


def test_a_processors_image_tokens_are_transformers_matter() -> None:
    """Where a config has `image_token_index`, transformers' forward cuts the tokens that its processor put first."""
    model, _ = adapted(image_token=63)
    ids, mask = tiny_texts(4)
    count = model.config.num_query_tokens
    prefixed = torch.cat([torch.full((4, count), 63), ids], dim=1)
    longer = torch.cat([torch.ones(4, count, dtype=torch.long), mask], dim=1)
    assert differ(ours(model, ids, mask), own(model, prefixed, longer)) < 1e-5


def test_attentions_and_hidden_states_can_still_be_had() -> None:
    model, untouched = tiny_blip2(attention="eager"), tiny_blip2(attention="eager")
    add_adapter(model, CONFIG)
    seen = torch.randn(2, 5, 48, generator=torch.Generator().manual_seed(0))
    asked = {"output_attentions": True, "output_hidden_states": True}
    with torch.no_grad():
        a, b = (
            one.qformer(query_embeds=one.query_tokens.expand(2, -1, -1), encoder_hidden_states=seen, **asked)
            for one in (model, untouched)
        )
        c, d = (one.vision_model(pixel_values=pixels(2), **asked) for one in (model, untouched))
    for name in ("hidden_states", "attentions", "cross_attentions"):
        assert len(a[name]) == len(b[name]) > 0, name
        assert differ(list(a[name]), list(b[name])) < 2e-6, name
    for name in ("hidden_states", "attentions"):
        assert len(c[name]) == len(d[name]) > 0, name
        assert differ(list(c[name]), list(d[name])) < 2e-6, name


def test_pictures_of_another_size_interpolate_the_position_embeddings_as_transformers_does() -> None:
    model, _ = adapted()
    large = torch.randn(2, 3, 48, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = model.vision_model(pixel_values=large, interpolate_pos_encoding=True).last_hidden_state
        assert torch.equal(encode_visual(model, large[:, None]).tokens[:, 0], wanted)


# Grouped pairs


def test_pairs_may_come_in_any_order_repeated_and_with_what_their_texts_have_in_common() -> None:
    model, _ = adapted()
    ids, mask = tiny_texts(5)
    pairs = torch.tensor([[4, 3], [0, 1], [2, 1], [0, 1], [1, 3], [4, 0], [3, 3]])
    with torch.no_grad():
        texts, visuals = encode_text(model, ids, mask), encode_visual(model, pixels()[:, None])
        each = torch.cat([match(model, texts, visuals, pair[None]) for pair in pairs])
        cache = begin_fusion(model, texts)
        assert len(cache) == 5
        for kept in (None, cache):
            assert (match(model, texts, visuals, pairs, kept) - each).abs().max() < 1e-5
        assert match(model, texts, visuals, pairs[:0], cache).shape == (0, 2)


def test_too_many_texts_to_keep_are_begun_a_block_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = adapted()
    pairs = torch.tensor([[4, 3], [0, 1], [2, 1], [0, 1]])
    with torch.no_grad():
        texts, visuals = encode_text(model, *tiny_texts(5)), encode_visual(model, pixels()[:, None])
        wanted = match(model, texts, visuals, pairs)
        monkeypatch.setattr(fusion, "_KEPT_TEXTS", 4)
        cache = begin_fusion(model, texts)
        assert len(cache) == 0
        assert torch.equal(match(model, texts, visuals, pairs, cache), wanted)


def test_a_pictures_keys_and_values_are_projected_once_however_many_texts_meet_it() -> None:
    model, _ = adapted(text_layers=4)
    rows: Counter[str] = Counter()
    calls: Counter[str] = Counter()

    def count(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, inputs: tuple[Tensor], _out: Tensor) -> None:
            rows[name] += len(inputs[0])
            calls[name] += 1

        return hook

    with torch.no_grad():
        texts, visuals = encode_text(model, *tiny_texts(5)), encode_visual(model, pixels()[:, None])
        for name, module in model.named_modules():
            if name.endswith(("crossattention.attention.key", "crossattention.attention.value")):
                module.register_forward_hook(count(name))
        for name in ("encoder_key", "encoder_value"):
            getattr(model.uniadapters["default"], name).register_forward_hook(count(name))
        match(model, texts, visuals, torch.cartesian_prod(torch.arange(5), torch.arange(4)))
    assert len(rows) == 2 * 2 + 2, "two layers with a cross-attention, and one pair of adapters for both"
    assert set(rows.values()) == {4}, "20 pairs of 4 pictures"
    assert set(calls.values()) == {1}


@pytest.mark.parametrize(
    ("pairs", "said"), [(torch.zeros(2, 3, dtype=torch.long), r"must be \[P, 2\]"), (torch.tensor([[0, 9]]), "outside")]
)
def test_pairs_that_are_none_are_refused(pairs: Tensor, said: str) -> None:
    model, _ = adapted()
    with torch.no_grad(), pytest.raises(ValueError, match=said):
        match(model, *encoded(model, *tiny_texts(4)), pairs)


def test_words_have_no_attention_maps() -> None:
    model, _ = adapted()
    with torch.no_grad(), pytest.raises(TypeError, match="do not attend to patches"):
        fuse_with_weights(model, *encoded(model, *tiny_texts(4)), torch.tensor([[0, 0]]))


def test_a_block_has_room_for_the_queries_beside_each_text() -> None:
    assert block_pairs(tiny_blip2(), 10) == block_pairs(tiny_model(), 16)


# Texts, pictures, videos


def test_padding_on_the_left_is_moved_and_a_text_alone_is_the_same() -> None:
    model, _ = adapted()
    ids, mask = tiny_texts(4)
    left, left_mask = torch.zeros_like(ids), torch.zeros_like(mask)
    for row, length in enumerate(mask.sum(1).tolist()):
        left[row, ids.shape[1] - length :] = ids[row, :length]
        left_mask[row, ids.shape[1] - length :] = 1
    with torch.no_grad():
        right = encode_text(model, ids, mask)
        assert torch.equal(encode_text(model, left, left_mask).feature, right.feature)
        alone = torch.cat([encode_text(model, ids[i : i + 1], mask[i : i + 1]).feature for i in range(4)])
        assert (alone - right.feature).abs().max() < 1e-6
        assert encode_text(model, ids[:0], mask[:0]).feature.shape == (0, 16)


def test_a_video_of_one_picture_repeated_is_that_picture_and_chunks_change_nothing() -> None:
    model, _ = adapted()
    with torch.no_grad():
        picture = encode_visual(model, pixels()[:, None])
        video = encode_visual(model, pixels()[:, None].expand(-1, 3, -1, -1, -1))
        assert picture.feature.shape == (4, 6, 16)
        assert (video.feature - picture.feature).abs().max() < 2e-6
        assert (video.frames - picture.frames).abs().max() < 2e-6
        several = torch.stack([pixels(3, seed) for seed in range(4)])
        whole = encode_visual(model, several)
        for name in ("tokens", "feature", "frames"):
            assert (getattr(encode_visual(model, several, 2), name) - getattr(whole, name)).abs().max() < 2.5e-6
        assert (whole.feature.norm(dim=-1) - 1).abs().max() < 1e-6


def test_the_similarity_is_the_largest_over_the_queries_whatever_fits_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_blip2()
    text, visual = torch.randn(3, 8), torch.randn(5, 4, 8)
    wanted = torch.tensor([[max(float(s @ q) for q in v) for v in visual] for s in text])
    for at_once in (1, 30, 1 << 20):
        monkeypatch.setattr(encoding, "_SCORES", at_once)
        assert (similarity(model, text, visual) - wanted).abs().max() < 1e-6
    assert similarity(model, text, visual[:0]).shape == (3, 0)


# Training


def losses(model: PreTrainedModel) -> Tensor:
    """CLIP's loss over the largest similarities, and the matching loss, of four pairs and two that do not match."""
    texts, visuals = encoded(model, *tiny_texts(4))
    scores = similarity(model, texts.feature, visuals.feature)
    ids = torch.arange(4)
    pairs = torch.tensor([[0, 0], [1, 1], [2, 2], [3, 3], [0, 2], [3, 1]])
    logits = match(model, texts, visuals, pairs)
    return softmax_loss(scores, scores.T, ids, ids, 1 / 0.07) + matching_loss(logits, torch.tensor([1, 1, 1, 1, 0, 0]))


@pytest.mark.parametrize("sizes", SHAPES)
def test_gradients_reach_every_adapter_and_head_and_nothing_of_the_base(sizes: dict[str, int]) -> None:
    model, built = adapted(**sizes)
    losses(model).backward()
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert all(p.grad is None for name, p in model.named_parameters() if not name.startswith("uniadapters."))


def test_what_is_built_is_said() -> None:
    plan = add_adapter(tiny_blip2(), CONFIG).plan()
    assert "vision layers 0-1: one adapter each for vision, r = 4" in plan
    assert "text layers 0-2: one adapter each for queries, text and cross-attention (every 2 layers), r = 4" in plan


def test_a_fresh_set_learns_both_losses() -> None:
    model = tiny_blip2()
    built = add_adapter(model, CONFIG)
    optimiser = torch.optim.Adam(built.parameters(), 3e-3)
    before = float(losses(model).detach())
    for _ in range(30):
        optimiser.zero_grad()
        loss = losses(model)
        loss.backward()
        optimiser.step()
    assert float(loss.detach()) < 0.5 * before


def test_layers_computed_again_in_the_backward_pass_give_the_same_gradients() -> None:
    model, built = adapted()
    losses(model).backward()
    wanted = [parameter.grad for parameter in built.parameters()]
    built.zero_grad(set_to_none=True)
    model.train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    losses(model).backward()
    for (name, parameter), gradient in zip(built.named_parameters(), wanted, strict=True):
        assert (parameter.grad - gradient).abs().max() < 1e-5, name


def test_without_vision_adapters_the_visual_encoder_needs_no_backward_pass() -> None:
    model, built = adapted(AdapterConfig(bottleneck=4, key_value=4, vision=False))
    assert not encode_visual(model, pixels()[:, None]).tokens.requires_grad
    losses(model).backward()
    assert all(p.grad is not None for p in built.parameters())


@pytest.mark.parametrize("config", [
    AdapterConfig(bottleneck=4, key_value=0, cross=False), AdapterConfig(bottleneck=4, key_value=0, text=False),
    AdapterConfig(bottleneck=4, key_value=4, vision=False, text=False, cross=False),
])  # fmt: skip
def test_every_part_can_be_left_out(config: AdapterConfig) -> None:
    model, built = adapted(config)
    ids, mask = tiny_texts(4)
    assert differ(ours(model, ids, mask), own(model, ids, mask)) < 1e-5
    losses(model).backward()
    assert all(p.grad is not None for p in built.parameters())


# Precision


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_in_half_precision_scores_are_transformers_own_and_adapters_are_finer(
    dtype: torch.dtype, attention: str, tmp_path: Path
) -> None:
    tiny_blip2().save_pretrained(tmp_path)
    model = Blip2ForImageTextRetrieval.from_pretrained(tmp_path, dtype=dtype, attn_implementation=attention).eval()
    kept = torch.float32 if dtype == torch.float16 else dtype  # transformers' `_keep_in_fp32_modules` is for float16
    assert model.query_tokens.dtype == model.qformer.layernorm.weight.dtype == kept
    assert model.vision_model.post_layernorm.weight.dtype == model.itm_head.weight.dtype == dtype
    ids, mask = tiny_texts(4)
    original = own(model, ids, mask)
    built = add_adapter(model, CONFIG)
    close = 0.002 if dtype == torch.float16 else 0.03  # the set's copies of the heads are in float32
    assert differ(own(model, ids, mask), original) < close
    assert differ(ours(model, ids, mask), original) < close
    assert differ(ours(model, ids, mask), own(tiny_blip2(), ids, mask)) < close
    randomise(built, 0.1)
    losses(model).backward()
    for name, parameter in built.layers.named_parameters():
        assert parameter.dtype == torch.float32, name
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_under_autocast_scores_are_the_same_to_its_precision() -> None:
    model, _ = adapted()
    ids, mask = tiny_texts(4)
    wanted = ours(model, ids, mask)
    with torch.autocast("cpu", torch.bfloat16):
        found = ours(model, ids, mask)
    assert differ(found, wanted) < 0.1
    assert found[1].dtype == torch.float32
