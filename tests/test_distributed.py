"""Collective operations on one process, and on two with unequal rows against the same losses on one."""

from __future__ import annotations

import os
import signal
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from uniadapter.objectives.contrastive import FeatureQueue, contrastive_loss
from uniadapter.processes import distributed

IDS = torch.tensor([4, 1, 4, 2, 3])
SPLITS = ((3, 2), (5, 0), (1, 4))


def test_one_process_needs_no_group() -> None:
    """Everything is the identity, gradient included where asked for."""
    rows = torch.ones(3, 2, requires_grad=True)
    assert distributed.gather_rows(rows, with_grad=True) is rows
    assert not distributed.gather_rows(rows).requires_grad
    assert distributed.gather_list(["a", "b"]) == ["a", "b"]
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)
    distributed.barrier()
    whole = distributed.gather_row_counts(3)
    assert (whole.total, whole.first_row, whole.weight) == (3, 0, 1.0)


def test_share_weighs_means_by_their_rows() -> None:
    """The mean over processes of the weighted means is the mean over all rows."""
    parts = [distributed.RowCounts((3, 1, 0), rank) for rank in range(3)]
    assert [part.first_row for part in parts] == [0, 3, 4]
    assert [part.weight for part in parts] == [9 / 4, 3 / 4, 0]
    assert distributed.RowCounts((0, 0), 1).weight == 0


class Towers(nn.Module):
    """Two linear maps to unit features."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.visual, self.text = nn.Linear(4, 3).double(), nn.Linear(4, 3).double()
        for parameter in self.parameters():
            parameter.data = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """[B, 2, 4] to two [B, 3]."""
        return F.normalize(self.visual(inputs[:, 0]), dim=-1), F.normalize(self.text(inputs[:, 1]), dim=-1)


def gradients(model: nn.Module, first: int, count: int) -> list[Tensor]:
    """The gradients of ITC over a gathered gallery, of the rows that this process has."""
    inputs = torch.randn(5, 2, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    visual, text = model(inputs[first : first + count])
    ids = IDS[first : first + count]
    share = distributed.gather_row_counts(count)
    all_visual, all_text = (distributed.gather_rows(one, with_grad=True) for one in (visual, text))
    gallery_ids = distributed.gather_rows(ids)
    assert torch.equal(gallery_ids, IDS)
    assert share.first_row == first
    loss = contrastive_loss(
        visual, text, all_visual, all_text, FeatureQueue(0, 3), ids, 0.5, 0.0, gallery_ids, share.first_row
    )
    (loss * share.weight).backward()  # type: ignore[no-untyped-call]
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


def worker(rank: int, folder: str) -> None:
    """One of two processes; a failed assertion fails the test, and it waits two minutes at most for the other."""
    torch.set_num_threads(1)
    met, patience = f"file://{folder}/meeting", timedelta(seconds=120)  # a file: no port for another program to take
    dist.init_process_group("gloo", init_method=met, rank=rank, world_size=2, timeout=patience)
    try:
        assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (rank, 2, rank == 0)
        assert distributed.gather_list([f"{rank}a", rank][: rank + 1]) == ["0a", "1a", 1]
        rows = torch.full((rank + 1, 2), float(rank), requires_grad=True)
        gathered = distributed.gather_rows(rows)
        assert gathered[:, 0].tolist() == [0.0, 1.0, 1.0]
        assert not gathered.requires_grad
        named = sys.platform.startswith("linux") and torch.__version__ >= "2.13"  # older ones do not name their threads
        assert gloo_threads() or not named
        for split in SPLITS:
            grads = gradients(DistributedDataParallel(Towers()), sum(split[:rank]), split[rank])
            if rank == 0:
                torch.save(grads, Path(folder) / f"{split[0]}.pt")
        distributed.barrier()
    finally:
        distributed.destroy_process_group()
    assert not gloo_threads(), "one that still runs when Python ends may abort the process"


def lose_one(rank: int, folder: str) -> None:
    """One of three processes, of which the second is killed while the others wait for it."""
    met = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=met, rank=rank, world_size=3, timeout=timedelta(seconds=60))
    distributed.note_processes()
    if rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        with distributed.reporting_lost_peers():
            for _ in range(100):
                distributed.barrier()
                time.sleep(0.1)
    except distributed.PeerLost as error:
        Path(folder, f"{rank}.txt").write_text(str(error))
        time.sleep(3)  # until the other has told too


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no distributed package")
def test_a_process_that_is_killed_is_named_by_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform.startswith("linux"):
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    context, began = mp.get_context("spawn"), time.monotonic()
    three = [context.Process(target=lose_one, args=(rank, str(tmp_path))) for rank in range(3)]
    for one in three:
        one.start()
    for one in three:
        one.join(60)
    assert time.monotonic() - began < 60
    for rank in (0, 2):
        told = (tmp_path / f"{rank}.txt").read_text()
        assert told.startswith(f"process {rank} of 3 lost process 1, which ended (")
        assert "train --resume" in told


def gloo_threads() -> list[str]:
    """Names of the group's threads that run in this process; none where the system does not tell."""
    names = [file.read_text().strip() for file in Path("/proc/self/task").glob("*/comm")]
    return [name for name in names if "gloo" in name]


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no distributed package")
def test_two_processes_have_the_gradient_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DDP's average over unequal shares equals the single-process gradient, whichever way they are dealt."""
    if sys.platform.startswith("linux"):
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")  # whatever the machine's name resolves to
    mp.spawn(  # type: ignore[attr-defined, no-untyped-call]
        worker, args=(str(tmp_path),), nprocs=2
    )
    expected = gradients(Towers(), 0, 5)
    assert len(expected) == 4
    for split in SPLITS:
        for got, want in zip(torch.load(tmp_path / f"{split[0]}.pt"), expected, strict=True):
            assert torch.allclose(got, want, rtol=1e-10, atol=1e-12)
