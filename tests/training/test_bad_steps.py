"""Steps whose loss is not finite: named and the end, or left out as if their batch had not been there."""

from __future__ import annotations

import json
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

from squares import save_base
from uniadapter.app.cli import main
from uniadapter.config import ConfigError, RunConfig, TrainConfig
from uniadapter.errors import Interrupted
from uniadapter.processes.distributed import rank
from uniadapter.runs.steps import write_config
from uniadapter.training.divergence import DIVERGED, SKIPPED, Diverged
from uniadapter.training.trainer import Trainer


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("bad")
    return make_config(folder, save_dropping_base(folder / "base"), save_every=1)


def spoil(trainer: Trainer, bad: set[int], on_rank: int = 0) -> None:
    """Replace the frames of these steps by NaN, on one process."""
    original = trainer.gradients.of_batch

    def spoilt(batch: Any, *rest: Any) -> Any:
        if trainer.step + 1 in bad and rank() == on_rank:
            batch.frames[0] = torch.nan
        return original(batch, *rest)

    trainer.gradients.of_batch = spoilt  # type: ignore[method-assign]


def leave_out(trainer: Trainer, steps: set[int]) -> None:
    """The same run without these steps: nothing happens but that the schedule moves on."""
    original = trainer._step

    def step(batches: Any, size: int) -> None:
        if trainer.step + 1 not in steps:
            original(batches, size)
            return
        for _ in range(size):
            next(batches)
        trainer.batch += size
        trainer.scheduler.step()
        trainer.step += 1

    trainer._step = step  # type: ignore[method-assign]


@pytest.mark.parametrize("settings", [{}, {"batch_size": 2, "accumulate": 3}, {"precision": "bf16"}])
def test_what_is_left_is_the_run_without_those_batches(
    tmp_path: Path, config: RunConfig, caplog: pytest.LogCaptureFixture, settings: dict[str, Any]
) -> None:
    """Weights, momentum encoder, queue and optimiser; the mean of the log leaves the step out too."""
    own = changed(config, skip_bad_steps=2, log_every=2, **settings)
    found = train(own, tmp_path, ready=lambda trainer: spoil(trainer, {3, 6}))
    wanted = train(own, ready=lambda trainer: leave_out(trainer, {3, 6}))
    assert_same(weights(found), weights(wanted))
    assert [line["loss"] for line in found.history] == [line["loss"] for line in wanted.history]
    assert len(found.skipped) == 2
    told = [line for line in caplog.messages if "is left out" in line]
    assert [line.partition(": ")[0] for line in told] == [
        f"step {n} is left out, {i} of at most 2" for i, n in ((1, 3), (2, 6))
    ]
    assert all("its samples are tiny_" in line for line in told)
    lines = [json.loads(line) for line in (tmp_path / SKIPPED).read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6]
    assert all(sample["id"].startswith("tiny_") and sample["text"] for line in lines for sample in line["samples"])


def test_one_more_than_may_be_stops_the_run_and_names_its_samples(
    tmp_path: Path, config: RunConfig, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file, out = tmp_path / "run.yaml", tmp_path / "out"
    write_config(config, file)
    original = Trainer.train

    def spoilt(self: Trainer, resume: bool = False) -> None:
        spoil(self, {2, 5})
        original(self, resume)

    monkeypatch.setattr(Trainer, "train", spoilt)
    assert main(["train", str(file), "--output", str(out), "--train.skip_bad_steps", "1"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert "diverged in step 5: the loss or its gradient is not a finite number, after 1 steps that" in errors[0]
    told = json.loads((out / DIVERGED).read_text())
    ids = [sample["id"] for sample in told["samples"]]
    assert len(ids) == 5
    assert f", with {', '.join(ids[:3])} and 2 more (all in {out / DIVERGED})" in errors[0]
    # Allowed one more, the same run goes on: the count survives.
    assert main(["train", str(file), "--output", str(out), "--train.skip_bad_steps", "2", "--resume"]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["skipped_steps"] == 2
    assert "skipped steps" in (out / "report.html").read_text()
    log = (out / "train.log").read_text()
    assert "step 2 is left out, 1 of at most 1" in log
    assert "step 5 is left out, 2 of at most 2" in log


def test_stopped_after_a_step_that_was_left_out_it_resumes_exactly(tmp_path: Path, config: RunConfig) -> None:
    own = changed(config, skip_bad_steps=3)
    whole = train(own, tmp_path / "whole", ready=lambda trainer: spoil(trainer, {4, 5}))

    def ready(trainer: Trainer) -> None:
        spoil(trainer, {4, 5})
        original = trainer._step

        def step(*rest: Any) -> None:
            original(*rest)
            if trainer.step == 4:
                os.kill(os.getpid(), signal.SIGTERM)

        trainer._step = step  # type: ignore[method-assign]

    with pytest.raises(Interrupted):
        train(own, tmp_path / "parts", ready=ready)
    parts = train(own, tmp_path / "parts", resume=True, ready=lambda trainer: spoil(trainer, {5}))
    assert_same(weights(parts), weights(whole))
    assert len(parts.skipped) == 2


def test_fp16_skips_on_its_own() -> None:
    with pytest.raises(ConfigError, match=r"train.skip_bad_steps is for precision no and bf16"):
        TrainConfig(precision="fp16", skip_bad_steps=1)


def test_the_queue_forgets_what_was_enqueued_last() -> None:
    from uniadapter.objectives.contrastive import FeatureQueue

    queue = FeatureQueue(3, 2)
    queue.enqueue(torch.ones(2, 2), torch.ones(2, 2), torch.tensor([5, 6]))
    before = {name: value.clone() for name, value in queue.state_dict().items()}
    for count in (2, 4):  # around the end, and more than it holds
        queue.enqueue(torch.full((count, 2), 7.0), torch.full((count, 2), 7.0), torch.arange(count))
        queue.undo()
        assert_same(dict(queue.state_dict()), before)
        queue.undo()  # once
        assert_same(dict(queue.state_dict()), before)


def worker(process: int, folder: str, port: int, config: RunConfig) -> None:
    """One of two: the second alone has a broken picture."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(process), "LOCAL_RANK": str(process), "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    try:
        for name, own in {
            "all": config,
            "itm": changed_objective(config, contrastive=False, queue_size=0),
            "own": changed_objective(config, negatives="batch"),
        }.items():
            with pytest.raises(Diverged) as error:
                train(own, Path(folder) / name, ready=lambda trainer: spoil(trainer, {3}, 1))
            assert len(error.value.samples) == 6  # of both
            own = changed(own, skip_bad_steps=1)
            found = train(own, Path(folder) / f"{name}-skip", ready=lambda trainer: spoil(trainer, {3}, 1))
            wanted = train(own, ready=lambda trainer: leave_out(trainer, {3}))
            assert_same(weights(found), weights(wanted))
    finally:
        dist.destroy_process_group()


def changed_objective(config: RunConfig, **more: Any) -> RunConfig:
    from dataclasses import replace

    return replace(config, objective=replace(config.objective, **more))


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no distributed package")
def test_on_two_processes_both_stop_or_both_leave_it_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform.startswith("linux"):
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    config = make_config(tmp_path, save_base(tmp_path / "base"), epochs=2)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(str(tmp_path), port, config), nprocs=2)  # type: ignore[attr-defined, no-untyped-call]
