"""ITC against a naive version, the queue slot by slot, and the released code's stored numbers."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor

from uniadapter.objectives.contrastive import (
    EMPTY,
    FeatureQueue,
    contrastive_loss,
    hard_targets,
    ramped_alpha,
)

PARITY = Path(os.environ.get("UNIADAPTER_PARITY", Path(__file__).parents[1] / "parity"))
CASES = sorted(PARITY.glob("retrieval_*.safetensors"))


def unit(generator: torch.Generator, *shape: int) -> Tensor:
    """Random unit rows in float64."""
    return F.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def naive(
    online: Tensor,
    own: Tensor,
    gallery: Tensor,
    ids: list[int],
    columns: list[int],
    temperature: float,
    alpha: float,
) -> float:
    """One direction's loss, a row and a column at a time."""
    total = 0.0
    for row, one in enumerate(ids):
        logits = torch.stack([online[row] @ column for column in gallery]) / temperature
        momentum = torch.softmax(torch.stack([own[row] @ column for column in gallery]) / temperature, dim=0)
        right = [column == one and column != EMPTY for column in columns]
        for j in range(len(columns)):
            target = alpha * float(momentum[j]) + (1 - alpha) * right[j] / sum(right)
            total -= target * float(torch.log_softmax(logits, dim=0)[j])
    return total / len(ids)


@pytest.mark.parametrize("case", range(12))
def test_equals_the_naive_version(case: int) -> None:
    """Any batch, part of a larger gallery or not, with or without a queue."""
    generator = torch.Generator().manual_seed(case)
    batch, more, slots, width = (int(n) for n in torch.randint(1, 6, (4,), generator=generator))
    more, slots = more if case % 2 else 0, slots if case % 3 else 0
    first = more // 2
    gallery_ids = torch.randint(0, 4, (batch + more,), generator=generator)
    ids = gallery_ids[first : first + batch].clone()
    queue = FeatureQueue(slots, width, seed=case).double()
    queue.ids.copy_(torch.tensor([EMPTY, 0, 1, 2, 3])[torch.randint(5, (slots,), generator=generator)])
    visual, text = unit(generator, batch, width), unit(generator, batch, width)
    momentum = unit(generator, 2, batch + more, width)
    alpha = 0.4 * (case % 4 != 0)
    loss = contrastive_loss(
        visual, text, momentum[0], momentum[1], queue, ids, 0.07, alpha, gallery_ids if more else None, first
    )
    columns = [*gallery_ids.tolist(), *queue.ids.tolist()]
    own = slice(first, first + batch)
    expected = [
        naive(online, momentum[k][own], torch.cat([momentum[1 - k], other]), ids.tolist(), columns, 0.07, alpha)
        for k, (online, other) in enumerate(((visual, queue.text), (text, queue.visual)))
    ]
    assert float(loss) == pytest.approx(sum(expected) / 2, rel=1e-9)


def test_empty_slots_are_negatives_and_nobodys_positives() -> None:
    """Even a row whose id looks like an empty slot's shares nothing with one."""
    targets = hard_targets(torch.tensor([0]), torch.tensor([0, EMPTY, 0, EMPTY]))
    assert targets.tolist() == [[0.5, 0, 0.5, 0]]
    assert not (hard_targets(torch.tensor([EMPTY]), torch.tensor([EMPTY, 0])) > 0).any()
    one = torch.eye(3)[:1]
    empty, full = (
        contrastive_loss(one, one, one, one, FeatureQueue(n, 3), torch.tensor([0]), 0.07, 0.0) for n in (0, 4)
    )
    assert float(empty) == 0.0 < float(full)


def test_without_momentum_the_gallery_keeps_its_gradient() -> None:
    """The loss is then the symmetric cross-entropy of CLIP."""
    generator = torch.Generator().manual_seed(0)
    visual, text = (unit(generator, 4, 5).requires_grad_() for _ in range(2))
    ids, queue = torch.arange(4), FeatureQueue(0, 5)
    loss = contrastive_loss(visual, text, visual, text, queue, ids, 0.1, 0.0)
    logits = visual @ text.T / 0.1
    expected = (F.cross_entropy(logits, ids) + F.cross_entropy(logits.T, ids)) / 2
    assert torch.allclose(loss, expected)
    for got, want in zip(
        torch.autograd.grad(loss, [visual, text]), torch.autograd.grad(expected, [visual, text]), strict=True
    ):
        assert torch.allclose(got, want)
    with pytest.raises(ValueError, match="without a momentum encoder"):
        contrastive_loss(visual, text, visual, text, queue, ids, 0.1, 0.4)


def test_gradients_reach_features_and_temperature_but_not_targets() -> None:
    """Checked numerically, soft targets held fixed by momentum features of their own."""
    generator = torch.Generator().manual_seed(1)
    visual, text = (unit(generator, 3, 4).requires_grad_() for _ in range(2))
    momentum = unit(generator, 2, 3, 4)
    queue = FeatureQueue(2, 4).double()
    temperature = torch.tensor(0.5, dtype=torch.float64)

    def loss(visual: Tensor, text: Tensor) -> Tensor:
        return contrastive_loss(
            visual, text, momentum[0], momentum[1], queue, torch.tensor([0, 0, 1]), temperature, 0.4
        )

    assert torch.autograd.gradcheck(loss, (visual, text))
    temperature.requires_grad_()
    (grad,) = torch.autograd.grad(loss(visual, text), temperature)
    assert float(grad) != 0


def test_autocast_does_not_round_the_similarities() -> None:
    """The loss is computed in float32 inside a bfloat16 region."""
    generator = torch.Generator().manual_seed(2)
    visual, text = unit(generator, 8, 16).float(), unit(generator, 8, 16).float()
    arguments = (visual, text, visual, text, FeatureQueue(8, 16), torch.arange(8), 0.07, 0.4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(contrastive_loss(*arguments), contrastive_loss(*arguments))
        inside = contrastive_loss(*arguments)
    assert torch.equal(inside, contrastive_loss(*arguments))


def test_misplaced_gallery_rows_are_refused() -> None:
    """A wrong first_row would train on other rows' targets; too few ids on none."""
    visual = torch.eye(4)
    arguments = (visual[:2], visual[:2], visual, visual, FeatureQueue(0, 4))
    gallery_ids = torch.tensor([7, 8, 9, 10])
    contrastive_loss(*arguments, gallery_ids[2:], 0.07, 0.0, gallery_ids, 2)
    with pytest.raises(ValueError, match="not the batch's own ids"):
        contrastive_loss(*arguments, gallery_ids[2:], 0.07, 0.0, gallery_ids, 1)
    with pytest.raises(ValueError, match="gallery_ids"):
        contrastive_loss(*arguments, gallery_ids[:2], 0.07, 0.0)


@pytest.mark.parametrize("size", [0, 1, 3, 4, 7])
@pytest.mark.parametrize("batches", [(1,) * 9, (3, 3, 3), (2, 5, 1, 4), (9, 2), (0, 4, 0)])
def test_queue_holds_the_last_rows_wherever_it_wraps(size: int, batches: tuple[int, ...]) -> None:
    """As if each row were written at the pointer, one by one."""
    queue = FeatureQueue(size, 2)
    slots: list[int] = [EMPTY] * size
    seen = 0
    for count in batches:
        ids = torch.arange(seen, seen + count)
        queue.enqueue(torch.stack([ids, ids], 1).float(), -torch.stack([ids, ids], 1).float(), ids)
        for one in ids.tolist():
            if size:
                slots[one % size] = one
        seen += count
        assert queue.ids.tolist() == slots
        filled = queue.ids != EMPTY
        assert torch.equal(queue.visual[filled, 0], queue.ids[filled].float())
        assert torch.equal(queue.text[filled, 1], -queue.ids[filled].float())
    assert int(queue.pointer) == (seen % size if size else 0)


def test_queue_is_seeded_saved_and_checked() -> None:
    """Equal seeds give equal content; the state dict restores it; uneven rows are an error."""
    first, second, other = FeatureQueue(5, 3, seed=1), FeatureQueue(5, 3, seed=1), FeatureQueue(5, 3, seed=2)
    assert torch.equal(first.visual, second.visual)
    assert not torch.equal(first.visual, other.visual)
    assert torch.allclose(first.text.norm(dim=1), torch.ones(5))
    first.enqueue(torch.zeros(2, 3), torch.zeros(2, 3), torch.tensor([1, 2]))
    other.load_state_dict(first.state_dict())
    assert torch.equal(other.visual, first.visual)
    assert int(other.pointer) == 2
    with pytest.raises(ValueError, match="one of each per pair"):
        first.enqueue(torch.zeros(2, 3), torch.zeros(1, 3), torch.tensor([1, 2]))


def test_enqueue_before_backward_does_not_disturb_the_gradient() -> None:
    """The loss holds its own copy of the queue."""
    generator = torch.Generator().manual_seed(3)
    visual = unit(generator, 2, 3).requires_grad_()
    fixed = unit(generator, 2, 3)
    grads = []
    for enqueue in (False, True):
        queue = FeatureQueue(4, 3).double()
        loss = contrastive_loss(visual, fixed, fixed, fixed, queue, torch.tensor([0, 1]), 0.07, 0.4)
        if enqueue:
            queue.enqueue(fixed, fixed, torch.tensor([0, 1]))
        grads.append(torch.autograd.grad(loss, visual)[0])
    assert torch.equal(*grads)


def test_alpha_ramps_over_the_first_epoch() -> None:
    """From 0 to alpha in equal steps, then constant."""
    assert [ramped_alpha(0.4, 0, batch, 4) for batch in range(4)] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert ramped_alpha(0.4, 1, 0, 4) == ramped_alpha(0.4, 5, 3, 4) == 0.4


def parity_case(path: Path) -> dict[str, Tensor]:
    """The tensors that ITC needs: features, queues before and after the step, projections and gradients."""
    keys = ("weights.vision_proj", "weights.text_proj", "grads.vision_proj", "grads.text_proj")
    with safe_open(path, "pt") as handle:
        return {
            key: handle.get_tensor(key)
            for key in handle.keys()  # noqa: SIM118  (a safetensors handle is no dict)
            if key.startswith(("inputs.", "outputs.", *keys)) or key.endswith("_queue") or key == "weights.temp"
        }


def parity_queue(case: dict[str, Tensor], prefix: str) -> FeatureQueue:
    """The stored queue, which is [dim, Q] there."""
    queue = FeatureQueue(case[f"{prefix}.image_queue"].shape[1], case[f"{prefix}.image_queue"].shape[0])
    queue.visual.copy_(case[f"{prefix}.image_queue"].T)
    queue.text.copy_(case[f"{prefix}.text_queue"].T)
    queue.ids.copy_(case[f"{prefix}.idx_queue"][0])
    queue.pointer.copy_(case[f"{prefix}.ptr_queue"][0])
    return queue


def parity_momentum(case: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The momentum features, read where the step put them: behind the old pointer."""
    size, batch = case["weights.image_queue"].shape[1], case["inputs.idx"].shape[0]
    slots = (int(case["weights.ptr_queue"][0]) + torch.arange(batch)) % size
    return case["after.image_queue"][:, slots].T, case["after.text_queue"][:, slots].T


@pytest.mark.skipif(not CASES, reason="no parity files: set UNIADAPTER_PARITY or fill tests/parity")
@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_parity_of_loss_gradient_and_queue(path: Path) -> None:
    """The released code's loss, its gradients at the projections, and its queue after the step."""
    case = parity_case(path)
    ids, queue = case["inputs.idx"], parity_queue(case, "weights")
    visual_m, text_m = parity_momentum(case)
    weights = {
        name: case[f"weights.{name}"].clone().requires_grad_()
        for name in ("vision_proj.weight", "vision_proj.bias", "text_proj.weight", "text_proj.bias")
    }
    visual = case["outputs.visual_last_hidden_state"][:, :, 0].mean(dim=1)
    text = case["outputs.text_last_hidden_state"][:, 0]
    visual = F.normalize(F.linear(visual, weights["vision_proj.weight"], weights["vision_proj.bias"]), dim=-1)
    text = F.normalize(F.linear(text, weights["text_proj.weight"], weights["text_proj.bias"]), dim=-1)
    assert torch.allclose(visual, case["outputs.visual_feature"], atol=1e-5)
    assert torch.allclose(text, case["outputs.text_feature"], atol=1e-5)
    loss = contrastive_loss(
        visual, text, visual_m, text_m, queue, ids, case["weights.temp"], float(case["inputs.alpha"])
    )
    assert loss.item() == pytest.approx(float(case["outputs.loss_itc"]), abs=1e-5)
    grads = torch.autograd.grad(loss, list(weights.values()))
    stored = {name: grad for name, grad in zip(weights, grads, strict=True) if f"grads.{name}" in case}
    assert len(stored) == (0 if path.stem == "retrieval_image_two_captions" else 4)
    for name, grad in stored.items():  # ITM has no gradient here, so these are ITC's alone
        reference = case[f"grads.{name}"]
        assert float((grad - reference).abs().max()) <= 1e-6 + 1e-4 * float(reference.abs().max())
    queue.enqueue(visual_m, text_m, ids)
    after = parity_queue(case, "after")
    for name, value in after.state_dict().items():
        assert torch.equal(queue.state_dict()[name], value), name


@pytest.mark.skipif(not CASES, reason="no parity files: set UNIADAPTER_PARITY or fill tests/parity")
def test_parity_files_are_all_there() -> None:
    """Six retrieval cases, so that a missing file cannot pass for a passed test."""
    assert len(CASES) == 6
    for path in CASES:
        with safe_open(path, "pt") as handle:
            assert json.loads(handle.metadata()["meta"])["kind"] == "retrieval"
