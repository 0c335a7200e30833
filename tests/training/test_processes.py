"""Training on two processes: stopping, exact resuming with dropout, and the shared queue."""

from __future__ import annotations

import os
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from training_runs import assert_same, changed, make_config, save_dropping_base, train, weights

from uniadapter.config import RunConfig
from uniadapter.errors import RUN_AGAIN, Interrupted
from uniadapter.model.features import Texts
from uniadapter.objectives.gathering import gather_texts
from uniadapter.processes.distributed import destroy_process_group, gather_list
from uniadapter.tasks import retrieval
from uniadapter.training.trainer import Trainer


def worker(rank: int, folder: str, port: int, config: RunConfig) -> None:
    """One of two processes; a failed assertion fails the test."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    try:
        stops_and_resumes(rank, Path(folder), config)
    finally:
        destroy_process_group()


def stops_and_resumes(rank: int, folder: Path, config: RunConfig) -> None:
    """The second process alone is signalled, inside a group of accumulated batches; both stop and go on."""
    validated: list[int] = []

    def validate(epoch: int) -> float:
        validated.append(epoch)
        return float(epoch + rank)  # what the first says counts

    whole = train(config, folder / "whole", validate=validate)
    assert validated == [1, 2]
    assert [line["validation"] for line in whole.validations.records.lines] == [1.0, 2.0]
    assert not whole.module.broadcast_buffers
    queue = retrieval.RetrievalLoss.training_state(whole.loss)["queue"]  # type: ignore[arg-type]
    assert int(queue["pointer"]) == 0  # 32 rows went in: no sample is left out
    both = gather_list([{name: value.tolist() for name, value in queue.items()}])
    assert both[0] == both[1]

    def ready(trainer: Trainer) -> None:
        original = trainer.gradients.of_batch

        def stopping(batch: Any, moment: Any, *rest: Any) -> Any:
            if rank == 1 and (moment.epoch, moment.batch) == (0, 2):
                os.kill(os.getpid(), signal.SIGTERM)
            return original(batch, moment, *rest)

        trainer.gradients.of_batch = stopping  # type: ignore[method-assign]

    with pytest.raises(Interrupted) as stop:
        train(config, folder / "parts", ready=ready, validate=validate)
    assert (stop.value.step, stop.value.exit_code) == (2, RUN_AGAIN)
    parts = train(config, folder / "parts", resume=True, validate=validate)
    assert_same(weights(parts), weights(whole))


def test_only_the_needed_values_are_gathered() -> None:
    texts = Texts(torch.ones(2, 3, dtype=torch.int64), torch.ones(2, 3), torch.rand(2, 3, 8), torch.rand(2, 4))
    found = gather_texts(texts)
    assert found.states.numel() == 0
    assert torch.equal(found.ids, texts.ids)
    assert torch.equal(found.feature, texts.feature)


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no distributed package")
def test_two_processes_stop_together_and_resume_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform.startswith("linux"):
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    config = make_config(tmp_path, save_dropping_base(tmp_path / "base"))
    config = changed(config, epochs=2, accumulate=2, evaluate_every=1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(  # type: ignore[attr-defined, no-untyped-call]
        worker, args=(str(tmp_path), port, config), nprocs=2
    )
