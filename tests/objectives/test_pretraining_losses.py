"""SigLIP's and CLIP's losses: against sums written out pair by pair, transformers' own, and two processes."""

from __future__ import annotations

import math
import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from uniadapter.objectives.sigmoid import sigmoid_loss
from uniadapter.objectives.softmax import softmax_loss
from uniadapter.processes.distributed import barrier, destroy_process_group, gather_row_counts, gather_rows

IDS = torch.tensor([4, 1, 4, 2, 3])
SPLITS = ((3, 2), (5, 0), (1, 4))


def similarities(rows: int = 5, columns: int = 5, seed: int = 0) -> Tensor:
    """Cosines [rows, columns], in float64."""
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(n, 4, dtype=torch.float64, generator=generator) for n in (rows, columns))
    return F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T


def naive_sigmoid(similarity: Tensor, ids: list[int], gallery: list[int], scale: float, bias: float) -> float:
    """Algorithm 1 of SigLIP, a pair at a time."""
    total = 0.0
    for i, text in enumerate(ids):
        for j, visual in enumerate(gallery):
            z = 1 if text == visual else -1
            total += math.log(1 + math.exp(-z * (scale * float(similarity[i, j]) + bias)))
    return total / len(ids)


def naive_softmax(similarity: Tensor, ids: list[int], gallery: list[int], scale: float) -> float:
    """Cross-entropy of rows against an even share among columns of the row's id."""
    total = 0.0
    for i, one in enumerate(ids):
        powers = [math.exp(scale * float(value)) for value in similarity[i]]
        same = [j for j, other in enumerate(gallery) if other == one]
        total -= sum(math.log(powers[j] / sum(powers)) for j in same) / len(same)
    return total / len(ids)


def test_sigmoid_is_its_specification() -> None:
    similarity = similarities(3, 5)
    for scale, bias in ((10.0, -10.0), (1.0, 0.0), (117.0, -12.9)):
        got = sigmoid_loss(similarity, IDS[:3], IDS, scale, bias)
        assert float(got) == pytest.approx(naive_sigmoid(similarity, IDS[:3].tolist(), IDS.tolist(), scale, bias), 1e-9)


def test_softmax_is_its_specification() -> None:
    to_visual, to_text = similarities(3, 5), similarities(3, 5, seed=1)
    for scale in (1.0, 14.3, 100.0):
        got = softmax_loss(to_visual, to_text, IDS[:3], IDS, scale)
        parts = [naive_softmax(one, IDS[:3].tolist(), IDS.tolist(), scale) for one in (to_visual, to_text)]
        assert float(got) == pytest.approx(sum(parts) / 2, 1e-9)


def test_both_are_transformers_losses_where_all_visuals_differ() -> None:
    """Written out in `SiglipModel.forward`, a function in CLIP's file."""
    similarity, ids = similarities(), torch.arange(5)
    logits = similarity * 14.3
    assert torch.allclose(softmax_loss(similarity, similarity.T, ids, ids, 14.3), image_text_contrastive_loss(logits))
    sign = 2 * torch.eye(5, dtype=torch.float64) - 1
    theirs = -F.logsigmoid(sign * (logits - 10)).sum(-1).mean()
    assert torch.allclose(sigmoid_loss(similarity, ids, ids, 14.3, -10.0), theirs)


def test_great_scales_neither_overflow_nor_lose_the_gradient() -> None:
    similarity = similarities().float().requires_grad_()
    for loss in (
        sigmoid_loss(similarity, IDS, IDS, 1000.0, -10.0),
        softmax_loss(similarity, similarity.T, IDS, IDS, 1000.0),
    ):
        (gradient,) = torch.autograd.grad(loss, similarity, retain_graph=True)
        assert loss.isfinite()
        assert gradient.isfinite().all()
        assert gradient.abs().sum() > 0


def test_half_precision_is_lifted_and_autocast_left_out() -> None:
    similarity = similarities().bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        for loss, full in (
            (
                sigmoid_loss(similarity, IDS, IDS, 100.0, -10.0),
                sigmoid_loss(similarity.float(), IDS, IDS, 100.0, -10.0),
            ),
            (
                softmax_loss(similarity, similarity.T, IDS, IDS, 100.0),
                softmax_loss(similarity.float(), similarity.float().T, IDS, IDS, 100.0),
            ),
        ):
            assert loss.dtype == torch.float32
            assert torch.equal(loss, full)


def test_ids_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sigmoid loss got similarities \[5, 5\] for 3 texts and 5 visuals"):
        sigmoid_loss(similarities(), IDS[:3], IDS, 1.0, 0.0)
    with pytest.raises(ValueError, match=r"softmax loss got similarities \[5, 5\] and \[3, 5\] for 5 pairs among 5"):
        softmax_loss(similarities(), similarities(3), IDS, IDS, 1.0)


class Towers(nn.Module):
    """Two linear maps to unit features, scale and bias."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.visual, self.text = nn.Linear(4, 3).double(), nn.Linear(4, 3).double()
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        self.scale = nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
        self.bias = nn.Parameter(torch.tensor(-1.0, dtype=torch.float64))

    def forward(self, inputs: Tensor, ids: Tensor) -> Tensor:
        """Both losses of this process's rows [n, 2, 4], weighed by them."""
        visual = F.normalize(self.visual(inputs[:, 0]), dim=-1)
        text = F.normalize(self.text(inputs[:, 1]), dim=-1)
        all_ids, rows = gather_rows(ids), gather_row_counts(len(ids))
        visuals, texts = gather_rows(visual, True), gather_rows(text, True)
        to_visual, scale = text @ visuals.T, self.scale.exp()
        pairs = sigmoid_loss(to_visual, ids, all_ids, scale, self.bias)
        return (pairs + softmax_loss(to_visual, visual @ texts.T, ids, all_ids, scale)) * rows.weight


def batch() -> Tensor:
    return torch.randn(5, 2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def both_losses(rank: int) -> list[tuple[Tensor, list[Tensor | None]]]:
    """For every way of splitting the five rows, the loss's mean over processes and this one's gradients."""
    found = []
    for split in SPLITS:
        first, count = sum(split[:rank]), split[rank]
        model = DistributedDataParallel(Towers())
        loss = model(batch()[first : first + count], IDS[first : first + count])
        loss.backward()
        every = gather_rows(loss.detach()[None])
        found.append((every.mean(), [parameter.grad for parameter in model.module.parameters()]))
    return found


def worker(rank: int, folder: str) -> None:
    """One of two processes; what DDP holds is let go before the group is left, or leaving may wait forever."""
    torch.set_num_threads(1)
    met, patience = f"file://{folder}/meeting", timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=met, rank=rank, world_size=2, timeout=patience)
    try:
        found = both_losses(rank)
        if rank == 0:
            torch.save(found, f"{folder}/found.pt")
        barrier()
    finally:
        destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no distributed package")
def test_two_processes_with_unequal_rows_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss, and the gradients of both towers, the scale and the bias."""
    if sys.platform.startswith("linux"):
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")  # whatever the machine's name resolves to
    mp.spawn(worker, args=(str(tmp_path),), nprocs=2)
    whole = Towers()
    loss = whole(batch(), IDS)
    loss.backward()
    for mean, gradients in torch.load(tmp_path / "found.pt"):
        assert torch.allclose(mean, loss, atol=1e-12)
        for gradient, parameter in zip(gradients, whole.parameters(), strict=True):
            assert torch.allclose(gradient, parameter.grad, atol=1e-12)
