"""Hard negatives against their distribution, pairs row by row, and the released code's stored loss."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from uniadapter.objectives.matching import (
    NONE,
    draw_negatives,
    matching_loss,
    matching_pairs,
    negative_uniforms,
)
from uniadapter.processes import seeds as draws

PARITY = Path(os.environ.get("UNIADAPTER_PARITY", Path(__file__).parents[1] / "parity"))
CASES = sorted(PARITY.glob("retrieval_*.safetensors"))


def naive(row: Tensor, one: int, gallery_ids: list[int], uniform: float) -> int:
    """Walk the allowed columns until their share of the softmax exceeds the uniform."""
    allowed = [column for column, other in enumerate(gallery_ids) if other != one]
    if not allowed:
        return NONE
    shares = torch.softmax(row[allowed].double(), dim=0).tolist()
    total = 0.0
    for column, part in zip(allowed, shares, strict=True):
        total += part
        if uniform < total:
            return column
    return allowed[-1]


@pytest.mark.parametrize("case", range(20))
def test_equals_the_naive_version(case: int) -> None:
    """Random shapes and ids, rows without a negative among them."""
    generator = torch.Generator().manual_seed(case)
    rows, columns = (int(n) for n in torch.randint(1, 9, (2,), generator=generator))
    similarity = torch.randn(rows, columns, generator=generator) * 5
    ids = torch.randint(0, 3, (rows,), generator=generator)
    gallery_ids = torch.randint(0, 3, (columns,), generator=generator)
    uniforms = torch.rand(rows, generator=generator, dtype=torch.float64)
    expected = [naive(similarity[i], int(ids[i]), gallery_ids.tolist(), float(uniforms[i])) for i in range(rows)]
    drawn = draw_negatives(similarity, ids, gallery_ids, uniforms)
    assert drawn.dtype == torch.int64
    assert drawn.tolist() == expected


def test_draws_follow_the_softmax_over_other_ids() -> None:
    """Ten thousand draws land within four standard deviations of each column's share."""
    count = 10_000
    logits = torch.tensor([[2.0, 1.0, 3.0, 0.0, -1.0]])
    gallery_ids = torch.tensor([1, 0, 0, 2, 3])
    uniforms = negative_uniforms(0, draws.NEGATIVE_TEXT, 0, range(count))
    drawn = draw_negatives(logits.expand(count, -1), torch.zeros(count), gallery_ids, uniforms)
    shares = torch.softmax(torch.tensor([2.0, -torch.inf, -torch.inf, 0.0, -1.0]), dim=0)
    found = torch.bincount(drawn, minlength=5) / count
    assert found[1] == found[2] == 0
    assert ((found - shares).abs() <= 4 * (shares * (1 - shares) / count).sqrt()).all()


@pytest.mark.parametrize("uniform", [0.0, 0.5, 1 - 2**-53, 1.0])
def test_extreme_numbers_draw_a_valid_column(uniform: float) -> None:
    """Similarities far apart, same ids at both ends, and a uniform that float32 rounded up to 1."""
    similarity = torch.tensor([[9e4, 1e4, -1e4, 9e4], [-1e30, 0.0, 1e30, 0.0], [0.0, 0.0, 0.0, 0.0]])
    gallery_ids = torch.tensor([0, 1, 2, 0])
    drawn = draw_negatives(similarity, torch.zeros(3), gallery_ids, torch.full((3,), uniform))
    assert all(int(gallery_ids[column]) != 0 for column in drawn)
    assert drawn[:2].tolist() == [1, 2]


def test_a_diverged_similarity_is_an_error() -> None:
    """The row is named."""
    similarity = torch.zeros(2, 3)
    similarity[1, 2] = torch.nan
    with pytest.raises(ValueError, match="row 1"):
        draw_negatives(similarity, torch.arange(2), torch.arange(3), torch.zeros(2))


def test_keys_make_the_draw_independent_of_the_columns_order() -> None:
    """The same sample is drawn however the batch was dealt out."""
    generator = torch.Generator().manual_seed(0)
    similarity = torch.randn(6, 8, generator=generator)
    samples = torch.randint(0, 1000, (8,), generator=generator)
    uniforms = torch.rand(6, generator=generator)
    ids, gallery_ids = torch.arange(6), torch.arange(8)
    drawn = draw_negatives(similarity, ids, gallery_ids, uniforms, samples)
    order = torch.randperm(8, generator=generator)
    shuffled = draw_negatives(similarity[:, order], ids, gallery_ids[order], uniforms, samples[order])
    assert torch.equal(order[shuffled], drawn)


def test_uniforms_belong_to_samples() -> None:
    """A sample's number is the same in any batch, and differs by stream, epoch and seed."""
    one = negative_uniforms(1, draws.NEGATIVE_VISUAL, 2, torch.tensor([5, 9]))
    assert one.dtype == torch.float64
    assert one[1] == negative_uniforms(1, draws.NEGATIVE_VISUAL, 2, [9])[0]
    others = [(1, draws.NEGATIVE_TEXT, 2), (1, draws.NEGATIVE_VISUAL, 3), (2, draws.NEGATIVE_VISUAL, 2)]
    assert all(one[1] != negative_uniforms(*parts, [9])[0] for parts in others)


def test_pairs_are_positives_then_both_kinds_of_negatives() -> None:
    """Columns are (text, visual); what could not be drawn is left out and counted."""
    built = matching_pairs(torch.tensor([1, NONE, 4]), torch.tensor([NONE, 0, 5]), first_row=1)
    assert built.pairs.tolist() == [[1, 1], [2, 2], [3, 3], [1, 1], [3, 4], [0, 2], [5, 3]]
    assert built.labels.tolist() == [1, 1, 1, 0, 0, 0, 0]
    assert built.left_out == 2


def test_loss_of_no_pairs_is_zero_with_a_gradient() -> None:
    """So that a process without pairs still takes part in the backward pass."""
    logits = torch.zeros(0, 2, requires_grad=True)
    loss = matching_loss(logits, torch.zeros(0, dtype=torch.int64))
    assert loss.item() == 0
    assert torch.autograd.grad(loss, logits)[0].shape == (0, 2)


@pytest.mark.skipif(not CASES, reason="no parity files: set UNIADAPTER_PARITY or fill tests/parity")
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_parity_of_loss(path: Path) -> None:
    """The released code's loss from its logits of all pairs; its negatives left no choice."""
    case = load_file(path)
    if "outputs.loss_itm" not in case:
        pytest.skip("this case stores no matching loss")
    ids, visual, text = case["inputs.idx"], case["outputs.visual_feature"], case["outputs.text_feature"]
    uniforms = torch.full((ids.shape[0],), 0.5)
    temperature = case["weights.temp"]
    built = matching_pairs(
        draw_negatives(text @ visual.T / temperature, ids, ids, uniforms),
        draw_negatives(visual @ text.T / temperature, ids, ids, uniforms),
    )
    assert built.left_out == 0
    loss = matching_loss(case["outputs.itm_logits"][built.pairs[:, 0], built.pairs[:, 1]], built.labels)
    assert float(loss) == pytest.approx(float(case["outputs.loss_itm"]), abs=1e-5)
