"""Reranking in blocks, from memory or from disk, against one pair at a time."""

from __future__ import annotations

import errno
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from tiny import randomise, tiny_model, tiny_texts
from uniadapter.checkpoints.adapters import add_adapter
from uniadapter.config import AdapterConfig, ConfigError, EvaluateConfig
from uniadapter.data.batches import Batch
from uniadapter.evaluation import visual_store as features
from uniadapter.evaluation.blocks import pair_blocks
from uniadapter.evaluation.rerank import rerank
from uniadapter.evaluation.visual_store import TokensOnDisk, encoded_visuals
from uniadapter.model.encoding import encode_text, encode_visual, match
from uniadapter.model.features import Texts, Visuals

VISUALS, TEXTS, FRAMES = 7, 11, 3


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    made = tiny_model(seed=3)
    randomise(add_adapter(made, AdapterConfig(bottleneck=8, key_value=4, frame_aware=True)))
    return made.eval()


def frames() -> Tensor:
    return torch.randn(VISUALS, FRAMES, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def batches() -> Iterator[Batch]:
    for part in torch.arange(VISUALS).split(3):
        yield Batch(frames()[part], [], part, part, torch.arange(len(part)))


@pytest.fixture(scope="module")
def gallery(model: PreTrainedModel) -> tuple[Texts, Visuals]:
    with torch.no_grad():
        return encode_text(model, *tiny_texts(TEXTS)), encode_visual(model, frames())


@pytest.mark.parametrize("seed", range(30))
def test_blocks_cover_every_pair_once_and_keep_visuals_whole(seed: int) -> None:
    rng = random.Random(seed)
    limit = rng.randint(1, 12)
    visuals = torch.tensor(sorted(rng.randrange(9) for _ in range(rng.randint(1, 60))))
    blocks = pair_blocks(visuals, limit)
    assert [row for block in blocks for row in range(block.start, block.stop)] == list(range(len(visuals)))
    assert all(0 < block.stop - block.start <= limit for block in blocks)
    for visual in visuals.unique():
        places = torch.nonzero(visuals == visual).flatten()
        touching = [b for b in blocks if b.start <= int(places[-1]) and b.stop > int(places[0])]
        assert len(touching) == -(-len(places) // limit)


@pytest.mark.parametrize("seed", range(10))
def test_blocks_hold_no_more_visuals_than_they_may(seed: int) -> None:
    rng = random.Random(seed)
    limit, most = rng.randint(2, 12), rng.randint(1, 4)
    visuals = torch.tensor(sorted(rng.randrange(30) for _ in range(60)))
    blocks = pair_blocks(visuals, limit, most)
    assert [row for block in blocks for row in range(block.start, block.stop)] == list(range(60))
    held = [len(visuals[block].unique()) for block in blocks]
    assert max(held) <= most
    assert most > 1 or len(held) >= len(visuals.unique())


def test_no_pairs_are_no_blocks() -> None:
    assert pair_blocks(torch.tensor([], dtype=torch.long), 4) == []


@pytest.mark.parametrize("block", [0, 1, 3, 10])
@pytest.mark.parametrize("k", [1, 4, 99])
def test_rerank_equals_one_pair_at_a_time(
    model: PreTrainedModel, gallery: tuple[Texts, Visuals], block: int, k: int
) -> None:
    texts, visuals = gallery
    itc = texts.feature @ visuals.feature.T
    seen: list[tuple[int, int]] = []
    found = rerank(model, texts, visuals, itc, k, 0.7, block, lambda done, total: seen.append((done, total)))
    with torch.no_grad():
        each = torch.stack([
            torch.stack([match(model, texts, visuals, torch.tensor([[t, v]]))[0, 1] for v in range(VISUALS)])
            for t in range(TEXTS)
        ])  # fmt: skip
    scores = each + 0.7 * itc
    wanted = torch.zeros_like(scores, dtype=torch.bool)
    for t in range(TEXTS):
        best = itc[t].topk(min(k, VISUALS)).indices
        wanted[t, best] = True
        assert sorted(found.text_candidates[t].tolist()) == sorted(best.tolist())
    for v in range(VISUALS):
        wanted[itc[:, v].topk(min(k, TEXTS)).indices, v] = True
    assert torch.allclose(found.text_scores, scores.gather(1, found.text_candidates), atol=1e-5)
    assert torch.allclose(found.visual_scores, scores.T.gather(1, found.visual_candidates), atol=1e-5)
    assert found.pairs == int(wanted.sum())
    assert seen[-1] == (found.pairs, found.pairs)


def test_tokens_on_disk_are_those_in_memory_and_leave_nothing(
    model: PreTrainedModel, gallery: tuple[Texts, Visuals], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    texts, visuals = gallery
    itc = texts.feature @ visuals.feature.T
    expected = rerank(model, texts, visuals, itc, 99)
    for config, tolerance in (
        (EvaluateConfig(features="disk"), 1e-6),
        (EvaluateConfig(features="memory"), 1e-6),
        (EvaluateConfig(features="disk", features_bf16=True), 2e-2),
    ):
        with torch.no_grad(), encoded_visuals(model, batches(), VISUALS, config) as kept:
            assert bool(list(tmp_path.rglob("tokens"))) == (config.features == "disk")
            assert torch.allclose(
                kept.tokens[torch.arange(VISUALS)].float(),
                visuals.tokens,
                atol=tolerance,
                rtol=1e-2 if config.features_bf16 else 1e-5,
            )
            assert torch.allclose(kept.feature, visuals.feature, atol=1e-6)
            found = rerank(model, texts, kept, itc, 99)
        assert torch.allclose(found.text_scores, expected.text_scores, atol=tolerance + 1e-5)
        assert not list(tmp_path.iterdir())


def test_tokens_go_to_disk_where_they_do_not_fit(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    for free in (10**12, 10**3):
        monkeypatch.setattr(features, "free_memory", lambda device, free=free: free)
        with torch.no_grad(), encoded_visuals(model, batches(), VISUALS, EvaluateConfig()) as kept:
            assert isinstance(kept.tokens, TokensOnDisk) == (free == 10**3)


def test_tokens_on_disk_are_read_by_rows_in_any_order(tmp_path: Path) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        values = torch.randn(6, 2, 3, 8).to(dtype)
        kept = TokensOnDisk(tmp_path / "tokens", (6, 2, 3, 8), dtype)
        kept[0:4] = values[:4]
        kept[4:6] = values[4:]
        for rows in ([5, 0, 3], [2, 2], []):
            index = torch.tensor(rows, dtype=torch.long)
            assert torch.equal(kept[index], values[index])
        os.truncate(tmp_path / "tokens", 10)
        with pytest.raises(OSError, match="visual 1"):
            kept[torch.tensor([1])]
        kept.close()


def test_a_full_disk_says_what_to_do(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full, raising=False)
    with (
        pytest.raises(ConfigError, match="features_bf16"),
        torch.no_grad(),
        encoded_visuals(model, batches(), VISUALS, EvaluateConfig(features="disk")),
    ):
        pass
