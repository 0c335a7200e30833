"""A run goes on with another number of processes: the same batches and draws, the same weights up to rounding."""

from __future__ import annotations

import logging
import os
import socket
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from training_runs import assert_same, make_config, save_questions, train, weights

from squares import save_base
from uniadapter.config import ConfigError, ObjectiveConfig, RunConfig
from uniadapter.data.batches import EpochBatchSampler
from uniadapter.errors import CheckpointError, Interrupted
from uniadapter.training.history import LogRecord
from uniadapter.training.trainer import Trainer

STOP = 4  # in the middle of the second epoch, and of a group of accumulated batches in none


def run(rank: int, world: int, port: int, configs: dict[str, RunConfig], folder: str, what: str) -> None:
    """One process: a whole run, the first half of one, or the second half."""
    torch.set_num_threads(1)
    if world > 1:
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world),
                       "ACCELERATE_USE_CPU": "true", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    try:
        for name, config in configs.items():
            own = Path(folder) / name
            if "whole" in what:
                save(train(config, own / "whole"), own / f"whole-{rank}.pt")
            if "first" in what:
                with pytest.raises(Interrupted):
                    train(config, own / "first", ready=stop_at(STOP))
            if "second" in what:
                save(train(config, own / f"on-{world}", resume=True), own / f"on-{world}-{rank}.pt")
    finally:
        if world > 1:
            dist.destroy_process_group()


def stop_at(step: int) -> Callable[[Trainer], None]:
    def ready(trainer: Trainer) -> None:
        original = trainer._step

        def counted(*rest: object) -> None:
            original(*rest)  # type: ignore[arg-type]
            trainer._stop = trainer.step == step

        trainer._step = counted  # type: ignore[method-assign]

    return ready


def save(trainer: Trainer, file: Path) -> None:
    torch.save({"weights": weights(trainer), "history": trainer.history}, file)


def spawn(world: int, configs: dict[str, RunConfig], folder: Path, what: str) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if world == 1:
        run(0, 1, port, configs, str(folder), what)
    else:
        arguments = (world, port, configs, str(folder), what)
        mp.spawn(run, args=arguments, nprocs=world)  # type: ignore[attr-defined, no-untyped-call]


def load(file: Path) -> tuple[dict[str, Tensor], list[LogRecord]]:
    found = torch.load(file)
    return found["weights"], found["history"]


def question_run(folder: Path) -> RunConfig:
    base, file = save_questions(folder, 4)
    config = make_config(folder, base, epochs=2, accumulate=2)
    data = replace(config.data, train=str(file), val=None, test=None, together=2)
    return replace(config, task="vqa", data=data)


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no distributed package")
def test_a_run_of_two_goes_on_with_one_two_or_three(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """16 samples in batches of 5: two processes make 3 batches of them, one would make 4, and keeps the 3."""
    if sys.platform.startswith("linux"):
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    pairs = make_config(tmp_path, save_base(tmp_path / "base"), epochs=3, lr=1e-3)
    configs = {"pairs": pairs, "questions": question_run(tmp_path)}
    for name in configs:
        (tmp_path / name).mkdir()
    spawn(2, configs, tmp_path, "whole first")
    for name in configs:
        for world in (1, 2, 3):
            copy(tmp_path / name / "first", tmp_path / name / f"on-{world}")
    for world in (3, 2):
        spawn(world, configs, tmp_path, "second")
    with caplog.at_level(logging.INFO, "uniadapter"):
        spawn(1, configs, tmp_path, "second")
    assert any("1 process instead of 2: the same batches and draws" in line for line in caplog.messages)
    for name in configs:
        wanted, history = load(tmp_path / name / "whole-0.pt")
        assert_same(wanted, load(tmp_path / name / "whole-1.pt")[0])
        assert_same(wanted, load(tmp_path / name / "on-2-0.pt")[0])
        for world in (1, 3):
            found, losses = load(tmp_path / name / f"on-{world}-0.pt")
            assert_close(found, wanted)
            assert [(line["step"], line["lr"]) for line in losses] == [(line["step"], line["lr"]) for line in history]
            assert [line["loss"] for line in losses] == pytest.approx([line["loss"] for line in history], abs=1e-5)


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.allclose(value.double(), other[name].double(), rtol=0, atol=1e-5), name


def copy(source: Path, target: Path) -> None:
    target.mkdir()
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())


def test_hard_negatives_of_a_process_bind_the_run_to_its_processes(tmp_path: Path) -> None:
    config = make_config(tmp_path, save_base(tmp_path / "base"))
    config = replace(config, objective=ObjectiveConfig(queue_size=16, negatives="batch"))
    with pytest.raises(Interrupted):
        train(config, tmp_path / "run", ready=stop_at(2))
    assert train(config, tmp_path / "run", resume=True, ready=stop_at(99)).step == 12
    for name in ("checkpoint.pt",):
        state = torch.load(tmp_path / "run" / name)
        state["place"]["processes"] = 2  # as two would have written it
        torch.save(state, tmp_path / "run" / name)
    with pytest.raises(CheckpointError, match=r"the run has had 2 processes, and objective.negatives batch") as error:
        train(config, tmp_path / "run", resume=True)
    assert "go on with 2, not 1" in str(error.value)


@pytest.mark.parametrize("begun", [1, 2, 3, 4])
@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_all_processes_together_get_the_batches_of_the_run_that_goes_on(begun: int, world: int) -> None:
    """17 samples in batches of 5: a last one of 2 samples, or of 7 where they are fewer than the processes."""
    samplers = [EpochBatchSampler(17, 5, 3, rank=rank, world=world) for rank in range(world)]
    batches = EpochBatchSampler(17, 5, 3, world=begun).batches_per_epoch
    if world > 2 and begun <= 2:
        with pytest.raises(ConfigError, match=rf"has 2 samples, which {world} processes .* with 2 processes at most"):
            samplers[0].keep_batches(batches)
        return
    for sampler in samplers:
        sampler.keep_batches(batches)
    parts = [list(sampler) for sampler in samplers]
    assert {len(part) for part in parts} == {batches}
    wanted = [list(EpochBatchSampler(17, 5, 3, rank=rank, world=begun)) for rank in range(begun)]
    for place in range(batches):
        mine, theirs = (
            [sample for part in every for load in part[place] for sample in load.group[load.start : load.stop]]
            for every in (parts, wanted)
        )
        assert mine == theirs


def test_batches_of_other_data_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"has had 5 batches per epoch, but 17 samples in batches of 5 are 4"):
        EpochBatchSampler(17, 5, 3).keep_batches(5)
