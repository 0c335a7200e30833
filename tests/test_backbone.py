"""`encode_visual`, `encode_text`, `fuse` and `match` against the equations written out, and their own promises."""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor
from transformers import BlipForConditionalGeneration, BlipForImageTextRetrieval, PreTrainedModel

import naive
from tiny import TASK_MODELS, randomise, tiny_config, tiny_model, tiny_texts
from uniadapter.checkpoints.adapters import add_adapter
from uniadapter.config import AdapterConfig
from uniadapter.model import frame_attention
from uniadapter.model.adapter_set import AdapterSet
from uniadapter.model.blip import fusion
from uniadapter.model.blip.vision import visual_stem
from uniadapter.model.encoding import begin_fusion, encode_text, encode_visual, fuse, match, visual_feature
from uniadapter.model.features import Texts, Visuals
from uniadapter.model.frame_attention import frame_weights
from uniadapter.model.kernels import attention
from uniadapter.model.sets import disable_adapter, select_adapter

SHAPES = [
    {},
    {"vision_layers": 4, "text_layers": 2},
    {"vision_layers": 1, "text_layers": 3},
    {"width": 48, "text_width": 32},
    {"width": 24, "text_width": 40, "vision_layers": 3, "text_layers": 1, "heads": 2},
]


def pixels(*shape: int, seed: int = 0, size: int = 32) -> Tensor:
    """Random frames [*shape, 3, size, size]."""
    return torch.randn((*shape, 3, size, size), generator=torch.Generator().manual_seed(seed))


@dataclass
class Scene:
    """A random model with random adapters, and what goes through it."""

    model: PreTrainedModel
    active: AdapterSet | None
    frames: Tensor
    ids: Tensor
    mask: Tensor
    pairs: Tensor


ABLATIONS = range(32, 48)  # scenes with adapters that share less
WITHIN = range(49, 56)  # scenes with adapters in self-attention


def scene(seed: int) -> Scene:
    """Everything about it is drawn: depths, widths, heads, ranks, switches, frames, texts, pairs."""
    rng = random.Random(seed)
    heads = rng.choice([1, 2, 4])
    width = heads * rng.choice([4, 8, 12])
    frames, texts, visuals = rng.randint(1, 4), rng.randint(1, 6), rng.randint(1, 4)
    sizes = {
        "heads": heads, "width": width, "text_width": rng.choice([width, heads * rng.choice([4, 8, 16])]),
        "vision_layers": rng.randint(1, 3), "text_layers": rng.randint(1, 3), "patch": rng.choice([16, 32]),
    }  # fmt: skip
    model = tiny_model(seed=seed, **sizes).double()
    active = None
    if seed % 8:
        switches = {name: rng.random() < 0.7 for name in ("vision", "text", "cross")} if seed % 3 else {}
        if seed in ABLATIONS:
            one = seed - ABLATIONS[0]
            switches |= {"share": ("all", "down", "up", "none")[one % 4], "query_residual": one % 8 < 3}  # type: ignore[dict-item]
        config = AdapterConfig(
            bottleneck=rng.randint(1, 9),
            scale=rng.uniform(0.1, 1),
            key_value=rng.choice([0, 3]) or 5 * (seed % 2),
            frame_aware=rng.random() < 0.6,
            temporal_frames=rng.choice([0, frames]),
            self_attention=seed % 5 + 1 if seed in WITHIN else 0,
            **switches,
        )
        active = add_adapter(model, config)
        randomise(active, seed=seed)
    ids, mask = tiny_texts(texts, rng.randint(2, 8), seed=seed)
    pairs = [(rng.randrange(texts), rng.randrange(visuals)) for _ in range(rng.randint(1, 14))]
    return Scene(model, active, pixels(visuals, frames, seed=seed).double(), ids, mask, torch.tensor(pairs))


def plain(case: Scene, visuals: Visuals, texts: Texts) -> list[Tensor]:
    """The states [n, d] of each pair, its text without padding, by the plain equations."""
    outputs = []
    for t, v in case.pairs.tolist():
        ids = case.ids[t][case.mask[t].bool()]
        outputs.append(naive.fuse(case.model, ids, texts.feature[t], visuals.tokens[v], visuals.frames[v], case.active))
    return outputs


def close(actual: Tensor, expected: Tensor, limit: float = 1e-10) -> None:
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max().item() <= limit


# Against the plain equations

SCENES = range(WITHIN[-1] + 1)


@pytest.mark.parametrize("seed", SCENES)
def test_fuse_is_the_plain_equations_pair_by_pair(seed: int) -> None:
    case = scene(seed)
    with torch.no_grad():
        visuals, texts = encode_visual(case.model, case.frames), encode_text(case.model, case.ids, case.mask)
        everything = fuse(case.model, texts, visuals, case.pairs)
        first = fuse(case.model, texts, visuals, case.pairs, read="first")
        logits = match(case.model, texts, visuals, case.pairs)
        for row, states in enumerate(plain(case, visuals, texts)):
            close(everything[row, : len(states)], states)
            close(first[row], states[0])
            head = case.model.itm_head if case.active is None else case.active.heads["itm_head"]
            close(logits[row], states[0] @ head.weight.T + head.bias)


def test_the_scenes_cover_what_they_should() -> None:
    scenes = [scene(seed) for seed in SCENES]
    configs = [s.active.config for s in scenes if s.active is not None]
    assert len(configs) >= 20
    for name in ("vision", "text", "cross", "frame_aware"):
        assert {getattr(c, name) for c in configs} == {True, False}, name
    assert {bool(c.self_attention) for c in configs} == {True, False}
    assert {bool(c.key_value) for c in configs} == {bool(c.temporal_frames) for c in configs} == {True, False}
    kinds = {(c.share, c.query_residual) for c in configs if c.cross and c.text}
    assert {share for share, _ in kinds} == {"all", "down", "up", "none"}
    assert {residual for _, residual in kinds} == {True, False}
    assert any(len(s.pairs.unique(dim=0)) < len(s.pairs) for s in scenes), "repeated pairs"
    assert any((s.pairs[1:, 1] < s.pairs[:-1, 1]).any() for s in scenes), "unordered pairs"
    assert any(len(s.pairs[:, 0].unique()) < len(s.ids) for s in scenes), "texts without a pair"
    assert any(s.frames.shape[1] > 1 and s.active is not None and s.active.config.frame_aware for s in scenes)
    widths = [(s.model.config.vision_config.hidden_size, s.model.config.text_config.hidden_size) for s in scenes]
    assert {a == b for a, b in widths} == {True, False}


@pytest.mark.parametrize("read", ["all", "first"])
@pytest.mark.parametrize("seed", [*range(1, 24, 2), *ABLATIONS[1::3], *WITHIN[::2]])
def test_gradients_of_fuse_are_those_of_the_plain_equations(seed: int, read: str) -> None:
    case = scene(seed)
    pull = torch.randn(len(case.pairs), case.ids.shape[1], case.model.config.text_config.hidden_size).double()
    trained = [p for name, p in case.active.named_parameters() if not name.startswith("heads.")]  # type: ignore[union-attr]

    def gradients(states: list[Tensor], tokens: Tensor) -> list[Tensor]:
        if read == "first":
            loss = sum((s * p[0]).sum() for s, p in zip(states, pull, strict=True))
        else:
            loss = sum((s * p[: len(s)]).sum() for s, p in zip(states, pull, strict=True))
        found = torch.autograd.grad(loss, [tokens, *trained], allow_unused=True)
        return [torch.zeros(1) if g is None else g for g in found]

    case.frames.requires_grad_()  # so that visual tokens have a gradient without visual adapters too
    visuals, texts = encode_visual(case.model, case.frames), encode_text(case.model, case.ids, case.mask)
    expected = gradients([s[0] if read == "first" else s for s in plain(case, visuals, texts)], visuals.tokens)
    visuals, texts = encode_visual(case.model, case.frames), encode_text(case.model, case.ids, case.mask)
    states = fuse(case.model, texts, visuals, case.pairs, read=read)  # type: ignore[arg-type]
    lengths = case.mask.sum(1)[case.pairs[:, 0]].tolist()
    ours = [row if read == "first" else row[:n] for row, n in zip(states, lengths, strict=True)]
    for actual, wanted in zip(gradients(ours, visuals.tokens), expected, strict=True):
        assert (actual - wanted).abs().max() <= 1e-10 * max(1.0, wanted.abs().max().item())
    assert any(g.any() for g in expected[1:])


@pytest.mark.parametrize("seed", [*range(0, 16, 3), *WITHIN[::3]])
def test_encoders_are_the_plain_equations(seed: int) -> None:
    case = scene(seed)
    with torch.no_grad():
        visuals, texts = encode_visual(case.model, case.frames), encode_text(case.model, case.ids, case.mask)
        for v, video in enumerate(case.frames):
            for t, picture in enumerate(video):
                close(visuals.tokens[v, t], naive.visual(case.model, picture, case.active))
        for s, (ids, mask) in enumerate(zip(case.ids, case.mask, strict=True)):
            states = naive.text(case.model, ids[mask.bool()], case.active)
            close(texts.states[s, : len(states)], states)
        heads = case.model if case.active is None else case.active.heads
        head = heads.vision_proj  # type: ignore[union-attr]
        mean = visuals.tokens[:, :, 0].mean(1) @ head.weight.T + head.bias
        close(visuals.feature, mean / mean.norm(dim=-1, keepdim=True))
        frames = visuals.tokens[:, :, 0] @ head.weight.T + head.bias
        close(visuals.frames, frames / frames.norm(dim=-1, keepdim=True))


# The identity start


@pytest.mark.parametrize("sizes", SHAPES)
def test_fresh_adapters_change_nothing_at_all(sizes: dict[str, int]) -> None:
    model = tiny_model(**sizes).requires_grad_(False)  # as adding does: torch rounds frozen linears differently
    ids, mask = tiny_texts(5)
    frames = pixels(3, 2)
    pairs = torch.cartesian_prod(torch.arange(5), torch.arange(3))

    def run() -> list[Tensor]:
        visuals, texts = encode_visual(model, frames), encode_text(model, ids, mask)
        states = [fuse(model, texts, visuals, pairs), fuse(model, texts, visuals, pairs, read="first")]
        return [visuals.tokens, visuals.feature, visuals.frames, texts.states, texts.feature, *states]

    with torch.no_grad():
        before = run()
        built = add_adapter(model, AdapterConfig(bottleneck=4, key_value=4, temporal_frames=2))
        for a, b in zip(run(), before, strict=True):
            assert torch.equal(a, b)
        randomise(built)
        for a, b in zip(run(), before, strict=True):
            assert not torch.allclose(a, b, atol=1e-3), "and the test can tell"
        with disable_adapter(model):
            for a, b in zip(run(), before, strict=True):
                assert torch.equal(a, b)


# Masks and padding


@pytest.mark.parametrize("frame_aware", [False, True])
def test_masked_tokens_and_padding_change_nothing(frame_aware: bool) -> None:
    model = tiny_model().double()
    config = AdapterConfig(bottleneck=4, key_value=4, frame_aware=frame_aware)
    randomise(add_adapter(model, config))
    ids, mask = tiny_texts(5, 7)
    assert not mask.all(), "the test needs padding"
    other = torch.where(mask.bool(), ids, 9)
    longer = torch.nn.functional.pad(other, (0, 6), value=11), torch.nn.functional.pad(mask, (0, 6))
    visuals = encode_visual(model, pixels(3, 2).double())
    pairs = torch.cartesian_prod(torch.arange(5), torch.arange(3)).flip(0)
    expected = encode_text(model, ids, mask)
    fused, logits = fuse(model, expected, visuals, pairs), match(model, expected, visuals, pairs)
    real = mask.bool()
    for texts in (encode_text(model, other, mask), encode_text(model, *longer)):
        assert texts.ids.shape == ids.shape, "columns of padding alone are cut"
        close(texts.states[real], expected.states[real])
        close(texts.feature, expected.feature)
    padded = Texts(*longer, torch.nn.functional.pad(expected.states, (0, 0, 0, 6)), expected.feature)
    wider = fuse(model, padded, visuals, pairs)
    close(wider[:, :7][real[pairs[:, 0]]], fused[real[pairs[:, 0]]])
    close(match(model, padded, visuals, pairs), logits)


def test_a_text_without_padding_equals_itself_among_longer_ones() -> None:
    model = tiny_model().double()
    randomise(add_adapter(model, AdapterConfig(bottleneck=4, key_value=4)))
    ids, mask = tiny_texts(6, 8, seed=2)
    visuals = encode_visual(model, pixels(1, 1).double())
    together = encode_text(model, ids, mask)
    pairs = torch.tensor([[s, 0] for s in range(6)])
    logits = match(model, together, visuals, pairs)
    for s in range(6):
        alone = encode_text(model, ids[s : s + 1], mask[s : s + 1])
        close(match(model, alone, visuals, torch.tensor([[0, 0]])), logits[s : s + 1])


# Pairs


def small(frame_aware: bool = True) -> tuple[PreTrainedModel, Texts, Visuals]:
    """A random model with five texts and three two-frame videos."""
    model = tiny_model()
    config = AdapterConfig(bottleneck=4, key_value=4, frame_aware=frame_aware)
    randomise(add_adapter(model, config))
    with torch.no_grad():
        return model, encode_text(model, *tiny_texts(5)), encode_visual(model, pixels(3, 2))


def test_no_pairs_give_no_rows() -> None:
    model, texts, visuals = small()
    none = torch.empty(0, 2, dtype=torch.int64)
    assert fuse(model, texts, visuals, none).shape == (0, 7, 32)
    assert fuse(model, texts, visuals, none, read="first").shape == (0, 32)
    assert match(model, texts, visuals, none).shape == (0, 2)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (torch.zeros(4, dtype=torch.int64), r"\[P, 2\].*not \[4\]"),
        (torch.zeros(4, 3, dtype=torch.int64), r"\[P, 2\].*not \[4, 3\]"),
        (torch.tensor([[5, 0]]), "outside the 5 texts and 3 visuals"),
        (torch.tensor([[0, 3]]), "outside the 5 texts and 3 visuals"),
        (torch.tensor([[0, -1]]), "outside the 5 texts and 3 visuals"),
    ],
)
def test_bad_pairs_are_refused(pairs: Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fuse(*small(), pairs)


@pytest.mark.parametrize("frame_aware", [False, True])
def test_a_pair_does_not_depend_on_its_company(frame_aware: bool) -> None:
    model, texts, visuals = small(frame_aware)
    pairs = torch.cartesian_prod(torch.arange(5), torch.arange(3))
    with torch.no_grad():
        together = match(model, texts, visuals, pairs)
        for row, pair in enumerate(pairs):
            close(match(model, texts, visuals, pair[None]), together[row : row + 1], 1e-5)


def test_frame_weighted_scores_can_be_cut_into_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    model, texts, visuals = small()
    pairs = torch.cartesian_prod(torch.arange(5), torch.arange(3))
    with torch.no_grad():
        whole = fuse(model, texts, visuals, pairs)
        monkeypatch.setattr(attention, "SCORE_ELEMENTS", 1)
        close(fuse(model, texts, visuals, pairs), whole, 1e-6)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_the_kernel_that_weighs_scores_equals_the_parts() -> None:
    """FlexAttention runs on this device too, without its kernel and without gradients."""
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 20, 16), torch.randn(3, 2, 28, 16), torch.randn(3, 2, 28, 16)
    weights = torch.softmax(torch.randn(3, 4, 4), dim=-1) * 4  # R = 3 rows of four texts, four frames of seven tokens
    weights = weights.repeat_interleave(torch.tensor([3, 7, 9, 1]), dim=1)  # tokens of each text
    parts = frame_attention.frame_weighted_attention(query, key, value, weights, 7)
    close(
        frame_attention._in_flex_attention(frame_attention.flex_attention, query, key, value, weights, 7), parts, 1e-5
    )


def test_begun_fusion_goes_on_to_the_same_scores() -> None:
    model, texts, visuals = small()
    pairs = torch.cartesian_prod(torch.arange(5), torch.arange(3))
    with torch.no_grad():
        cache = begin_fusion(model, texts)
        assert cache.states.shape[0] == int(texts.mask.sum()), "no padding is kept"
        close(match(model, texts, visuals, pairs, cache), match(model, texts, visuals, pairs), 1e-5)
        real = texts.mask[pairs[:, 0]].bool()
        close(fuse(model, texts, visuals, pairs, "all", cache)[real], fuse(model, texts, visuals, pairs)[real], 1e-5)


def test_frame_weights_have_mean_one_favour_the_likely_frame_and_no_gradient() -> None:
    frames = torch.nn.functional.normalize(torch.randn(4, 5, 16), dim=-1).requires_grad_()
    weights = frame_weights(frames[:, 2], frames)
    close(weights.mean(1), torch.ones(4), 1e-6)
    assert weights.argmax(1).tolist() == [2] * 4
    assert not weights.requires_grad
    assert torch.equal(frame_weights(frames[:, 0, :], frames[:, :1]), torch.ones(4, 1)), "an image has nothing to weigh"


def test_the_temporal_embedding_goes_into_fusion_alone_and_fits_other_lengths() -> None:
    model = tiny_model()
    built = add_adapter(model, AdapterConfig(bottleneck=4, key_value=4, temporal_frames=4))
    ids, mask = tiny_texts(2)
    pairs = torch.tensor([[0, 0], [1, 0]])
    with torch.no_grad():
        for count in (4, 2, 7):
            built.time.zero_()
            visuals, texts = encode_visual(model, pixels(1, count)), encode_text(model, ids, mask)
            plain_states = fuse(model, texts, visuals, pairs)
            built.time.add_(torch.randn(built.time.shape))
            again = encode_visual(model, pixels(1, count))
            assert torch.equal(again.tokens, visuals.tokens)
            assert torch.equal(again.feature, visuals.feature)
            assert not torch.allclose(fuse(model, texts, visuals, pairs), plain_states, atol=1e-3)


def test_enc_token_is_the_configs_or_the_one_behind_dec() -> None:
    model = tiny_model()
    assert fusion.enc_token_id(model) == 63
    model.config.text_config.enc_token_id = 17
    assert fusion.enc_token_id(model) == 17


# Visuals and texts as values


@pytest.mark.parametrize("chunk", [1, 2, 4, 5, 6, 100])
def test_chunks_change_nothing(chunk: int) -> None:
    model = tiny_model().double()
    randomise(add_adapter(model, AdapterConfig(bottleneck=4, key_value=0)))
    frames = pixels(3, 2).double()
    whole, parts = encode_visual(model, frames), encode_visual(model, frames, chunk=chunk)
    for name in ("tokens", "feature", "frames"):
        close(getattr(parts, name), getattr(whole, name))


def test_another_picture_size_interpolates_positions() -> None:
    model = tiny_model()
    with torch.no_grad():
        visuals = encode_visual(model, pixels(2, 1, size=48))
        expected = model.vision_model(pixel_values=pixels(2, size=48), interpolate_pos_encoding=True).last_hidden_state
        assert visuals.tokens.shape == (2, 1, 10, 32)
        assert torch.equal(visuals.tokens[:, 0], expected)
        oblong = encode_visual(model, pixels(2, 1)[..., :16, :])
        assert oblong.tokens.shape == (2, 1, 3, 32)


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (2, 1, 1, 32, 32), (2, 32, 32, 3), (1, 1, 32, 32, 3)])
def test_frames_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"frames must be \[B, T, 3, H, W\]"):
        encode_visual(tiny_model(), torch.zeros(shape))


def test_features_are_units_and_absent_without_projections() -> None:
    for cls in TASK_MODELS:
        visuals = encode_visual(tiny_model(cls), pixels(3, 2))
        retrieval = cls is BlipForImageTextRetrieval
        assert visuals.feature.shape == (3, 16 if retrieval else 0)
        assert visuals.frames.shape == (3, 2, 16 if retrieval else 0)
        assert len(visuals) == 3
        if retrieval:
            close(visuals.feature.norm(dim=-1), torch.ones(3), 1e-6)


def test_a_captioning_model_has_no_text_encoder() -> None:
    with pytest.raises(TypeError, match="BlipForConditionalGeneration has no text encoder"):
        encode_text(tiny_model(BlipForConditionalGeneration), *tiny_texts(2))


@pytest.mark.parametrize("index", [[2, 0, 0], torch.tensor([2, 0, 0]), slice(1, 3), [], range(2)])
def test_select_takes_rows_in_order(index: list[int] | Tensor | slice) -> None:
    _, texts, visuals = small()
    rows = torch.arange(3)[index] if isinstance(index, slice | Tensor) else torch.tensor(list(index), dtype=torch.int64)
    assert torch.equal(visuals.select(index).tokens, visuals.tokens[rows])
    picked = texts.select(index)
    if not isinstance(index, slice):
        assert torch.equal(picked.ids, texts.ids[rows])
        assert len(picked) == len(rows)


def test_concatenate_undoes_select() -> None:
    model, texts, visuals = small()
    both = Visuals.concatenate([visuals.select([0]), visuals.select([1, 2])])
    assert torch.equal(both.tokens, visuals.tokens)
    assert torch.equal(both.frames, visuals.frames)
    short = encode_text(model, *tiny_texts(2, 4, seed=5))
    joined = Texts.concatenate([short, texts])
    assert joined.ids.shape == joined.mask.shape == joined.states.shape[:2] == (7, 7)
    assert torch.equal(joined.select(slice(2, 7)).states, texts.states)
    pairs = torch.tensor([[0, 1], [1, 2]])
    close(match(model, joined, visuals, pairs), match(model, short, visuals, pairs), 1e-5)


def test_to_moves_every_field() -> None:
    _, texts, visuals = small()
    for moved in (texts.to("meta"), visuals.to("meta")):
        assert {t.device.type for t in vars(moved).values()} == {"meta"}


# Precision and dropout


@pytest.mark.parametrize("frame_aware", [False, True])
def test_bfloat16_autocast_is_close_and_finite(frame_aware: bool) -> None:
    model, _, _ = small(frame_aware)
    ids, mask = tiny_texts(5)
    pairs = torch.cartesian_prod(torch.arange(5), torch.arange(3))

    def run() -> tuple[Visuals, Texts, Tensor, Tensor]:
        visuals, texts = encode_visual(model, pixels(3, 2)), encode_text(model, ids, mask)
        return visuals, texts, fuse(model, texts, visuals, pairs), match(model, texts, visuals, pairs)

    expected = run()
    with torch.autocast("cpu", torch.bfloat16):
        got = run()
        got[3].float().square().sum().backward()
    real = mask.bool()[pairs[:, 0]]
    close(got[0].feature, expected[0].feature, 0.03)
    close(got[1].feature, expected[1].feature, 0.03)
    assert got[0].feature.dtype == torch.float32, "similarities are computed in float32"
    difference = (got[2].float() - expected[2])[real].abs()
    assert difference.mean() < 0.02 * expected[2][real].abs().mean()
    assert torch.isfinite(got[3]).all()
    gradients = [p.grad for p in model.parameters() if p.requires_grad and p.grad is not None]
    assert gradients
    assert all(torch.isfinite(g).all() for g in gradients)


def dropping(site: str) -> BlipForImageTextRetrieval:
    """A tiny model with dropout at one site."""
    config = tiny_config()
    if site == "vision":
        config.vision_config.attention_dropout = 0.5
    else:
        setattr(config.text_config, site, 0.5)
    torch.manual_seed(0)
    return BlipForImageTextRetrieval(config).eval()


@pytest.mark.parametrize("site", ["vision", "hidden_dropout_prob", "attention_probs_dropout_prob"])
def test_dropout_is_active_in_training_alone(site: str) -> None:
    model = dropping(site)
    randomise(add_adapter(model, AdapterConfig(bottleneck=4, key_value=4)))
    ids, mask = tiny_texts(5)

    def draws(function) -> bool:  # noqa: ANN001
        with torch.no_grad():
            return not torch.equal(function(), function())

    def visual() -> Tensor:
        return encode_visual(model, pixels(2, 2)).tokens

    visuals, texts = encode_visual(model, pixels(2, 2)), encode_text(model, ids, mask)
    fused = [lambda: encode_text(model, ids, mask).states, lambda: match(model, texts, visuals, torch.tensor([[0, 0]]))]
    assert not any(draws(f) for f in [visual, *fused])
    model.train()
    assert draws(visual) == (site == "vision")
    assert [draws(f) for f in fused] == [site != "vision"] * 2
    model.eval()
    assert not any(draws(f) for f in [visual, *fused])


@pytest.mark.parametrize("frame_aware", [False, True])
@pytest.mark.parametrize("part", ["attention", "crossattention"])
def test_each_attention_of_a_fused_layer_drops_by_itself(part: str, frame_aware: bool) -> None:
    model, texts, visuals = small(frame_aware)
    pairs = torch.tensor([[0, 0], [1, 1], [2, 1]])
    for layer in model.text_encoder.encoder.layer:
        getattr(layer, part).self.dropout.p = 0.5
    with torch.no_grad():
        steady = match(model, texts, visuals, pairs)
        assert torch.equal(match(model, texts, visuals, pairs), steady)
        model.train()
        assert not torch.equal(match(model, texts, visuals, pairs), match(model, texts, visuals, pairs))


def test_frame_weighted_attention_drops_too() -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 6, 8).unbind(0)
    weights = torch.ones(2, 6, 2)  # R = 2 rows of six tokens, two frames of three tokens

    def attend(dropout: float) -> Tensor:
        return frame_attention.frame_weighted_attention(query, key, value, weights, 3, dropout)

    expected = torch.nn.functional.scaled_dot_product_attention(query, key, value)
    close(attend(0.0), expected, 1e-6)
    assert not torch.equal(attend(0.5), attend(0.5))
    mean = torch.stack([attend(0.5) for _ in range(4000)]).mean(0)
    assert (mean - expected).abs().max() < 0.15


def test_the_mean_of_many_dropped_fusions_is_near_the_undropped_one() -> None:
    config = tiny_config(text_layers=1)
    config.text_config.attention_probs_dropout_prob = 0.1
    torch.manual_seed(0)
    model = BlipForImageTextRetrieval(config).eval()
    randomise(add_adapter(model, AdapterConfig(bottleneck=4, key_value=4, frame_aware=True)))
    pairs = torch.tensor([[0, 0], [1, 1]])
    with torch.no_grad():
        visuals, texts = encode_visual(model, pixels(2, 2)), encode_text(model, *tiny_texts(2))
        expected = fuse(model, texts, visuals, pairs, read="first")
        model.train()
        mean = torch.stack([fuse(model, texts, visuals, pairs, read="first") for _ in range(300)]).mean(0)
    assert (mean - expected).abs().mean() < 0.05 * expected.abs().mean()


# What contrast alone reads, and what two encoders share


@pytest.mark.parametrize("seed", range(0, 32, 3))
def test_the_feature_alone_is_the_feature(seed: int) -> None:
    case = scene(seed)
    with torch.no_grad():
        for chunk in (0, 2):
            close(visual_feature(case.model, case.frames, chunk), encode_visual(case.model, case.frames).feature)


@pytest.mark.parametrize("chunk", [0, 2])
def test_a_stem_serves_every_adapter_set(chunk: int) -> None:
    model = tiny_model(vision_layers=3).double()
    for name, seed in (("one", 1), ("two", 2)):
        randomise(add_adapter(model, AdapterConfig(bottleneck=4), name), seed=seed)
    frames = pixels(3, 2).double()
    stem = visual_stem(model, frames, chunk)
    assert not stem.out.requires_grad
    found = []
    for name in ("one", "two"):
        select_adapter(model, name)
        trained = [p for p in model.uniadapters[name].parameters() if p.requires_grad]
        losses = [encode_visual(model, frames, chunk, given).tokens.square().mean() for given in (stem, None)]
        for ours, theirs in zip(*(torch.autograd.grad(x, trained, allow_unused=True) for x in losses), strict=True):
            assert (ours is None) == (theirs is None)
            assert ours is None or torch.allclose(ours, theirs, atol=1e-12)
        close(*losses)
        close(visual_feature(model, frames, chunk, stem), encode_visual(model, frames).feature)
        found.append(losses[0])
    assert (found[0] - found[1]).abs() > 1e-6, "the sets differ"
