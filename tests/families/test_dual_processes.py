"""CLIP's and SigLIP's losses as they are trained: two processes, and parts of a batch, have the gradient of one."""

from __future__ import annotations

import sys
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from tiny_models import BUILDERS, TEXTS, pixels
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from tiny import randomise
from uniadapter.checkpoints.adapters import add_adapter
from uniadapter.config import AdapterConfig, ModelConfig, ObjectiveConfig
from uniadapter.model.sets import adapter_set
from uniadapter.model.tokens import TokenBatch
from uniadapter.objectives import row_blocks
from uniadapter.processes.distributed import barrier, destroy_process_group, gather_rows
from uniadapter.tasks.retrieval import RetrievalLoss
from uniadapter.training.exchange import exchange_trained_alone
from uniadapter.training.loss import StepInfo
from uniadapter.training.sharding import ShardedBase

IDS = torch.tensor([4, 1, 4, 2, 3])
CASES = [(family, *case) for family in ("clip", "siglip") for case in ((False, (3, 2)), (True, (1, 4)))]


class Rows(RetrievalLoss):
    """The loss of some of five videos and texts; a module's call is what DistributedDataParallel wraps."""

    def forward(self, family: str, first: int, count: int, at_once: int = 0) -> Tensor:  # type: ignore[override]
        own = slice(first, first + count)
        ids, mask = TEXTS[family](5)
        step = StepInfo(0, 0, 0, 1, at_once=at_once)
        found = self.losses(pixels(5, 2).double()[own], TokenBatch(ids[own], mask[own]), IDS[own], IDS[own], step)
        return found["loss"]


def loss_and_gradients(
    family: str, aware: bool, first: int, count: int, wrapped: bool, at_once: int = 0, sharded: bool = False
) -> tuple[Tensor, list[Tensor]]:
    """Of the rows that this process has; the mean loss over processes."""
    model = BUILDERS[family]().double()
    randomise(add_adapter(model, AdapterConfig(bottleneck=4, frame_aware=aware)))
    loss = Rows(model, None, ModelConfig(), ObjectiveConfig(matching=False)).train()
    if sharded:
        assert len(ShardedBase(model, torch.device("cpu")).parts) > 20
    exchange_trained_alone(loss, torch.device("cpu"))
    module = DistributedDataParallel(loss) if wrapped else loss
    found = module(family, first, count, at_once)
    found.backward()
    mean = gather_rows(found.detach()[None]).mean()
    return mean, [parameter.grad.clone() for parameter in adapter_set(model).parameters()]  # type: ignore[union-attr]


def worker(rank: int, folder: str) -> None:
    """One of two processes; a failed assertion fails the test."""
    torch.set_num_threads(1)
    met, patience = f"file://{folder}/meeting", timedelta(seconds=60)
    dist.init_process_group("gloo", init_method=met, rank=rank, world_size=2, timeout=patience)
    try:
        found = [
            loss_and_gradients(family, aware, sum(split[:rank]), split[rank], True, 0, sharded)
            for sharded in (False, True)
            for family, aware, split in CASES
        ]
        if rank == 0:
            torch.save(found, f"{folder}/found.pt")
        barrier()
    finally:
        destroy_process_group()


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available(), reason="this torch has no distributed package")
def test_two_processes_have_the_gradient_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform.startswith("linux"):
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")  # whatever the machine's name resolves to
    mp.spawn(worker, args=(str(tmp_path),), nprocs=2)
    found = torch.load(tmp_path / "found.pt")  # with the whole base in each process, and with a share of it
    for (family, aware, _), (mean, gradients) in zip(CASES + CASES, found, strict=True):
        loss, expected = loss_and_gradients(family, aware, 0, 5, False)
        assert torch.allclose(mean, loss, atol=1e-6)
        for got, want in zip(gradients, expected, strict=True):
            assert torch.allclose(got, want, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("family", ["clip", "siglip"])
@pytest.mark.parametrize("aware", [False, True])
@pytest.mark.parametrize("at_once", [1, 2])
def test_parts_have_the_gradient_of_the_whole(
    family: str, aware: bool, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The learned scale and bias too; blocks of similarities as large as the parts."""
    whole = loss_and_gradients(family, aware, 0, 5, False)
    monkeypatch.setattr(row_blocks, "SIMILARITIES", 0)
    parts = loss_and_gradients(family, aware, 0, 5, False, at_once)
    assert torch.allclose(parts[0], whole[0], rtol=0, atol=1e-12)
    for got, want in zip(parts[1], whole[1], strict=True):
        assert torch.allclose(got, want, rtol=0, atol=1e-12)
