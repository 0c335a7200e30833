"""Gradient accumulation: several batches are one step of the optimiser, the momentum encoder and the queue."""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from training_runs import assert_same, changed, make_config, train, weights

from squares import save_base
from uniadapter.config import RunConfig
from uniadapter.errors import RUN_AGAIN, Interrupted
from uniadapter.tasks.retrieval import RetrievalLoss
from uniadapter.training.progress import ProgressEvent
from uniadapter.training.trainer import Trainer


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    folder = tmp_path_factory.mktemp("accumulation")
    return make_config(folder, save_base(folder / "base"))


def momentum(trainer: Trainer) -> Mapping[str, Tensor]:
    assert isinstance(trainer.loss, RetrievalLoss)
    assert trainer.loss.momentum is not None
    return {name: value.clone() for name, value in trainer.loss.momentum.state().items()}


def test_momentum_and_queue_move_once_a_step(tmp_path: Path, config: RunConfig) -> None:
    """With weights moved away from it, the momentum set comes 0.005 of the way, not 1 - 0.995^4 = 0.0199."""
    before: list[Mapping[str, Tensor]] = []
    after: list[Mapping[str, Tensor]] = []
    trainers: list[Trainer] = []

    def ready(trainer: Trainer) -> None:
        with torch.no_grad():
            for _, p in trainer.loss.named_parameters():
                if p.requires_grad:
                    p.add_(1.0)
        before.append(momentum(trainer))
        trainers.append(trainer)

    def on_progress(event: ProgressEvent) -> None:
        after.append(momentum(trainers[0]))  # while it is there: it goes with the end of training

    one = changed(config, batch_size=2, accumulate=4, max_steps=1)
    trainer = train(one, tmp_path, ready=ready, on_progress=on_progress)
    assert trainer.batch == 4
    moved = [(value - before[0][name]).mean() for name, value in after[0].items()]
    assert torch.stack(moved).mean() == pytest.approx(0.005, rel=1e-3)
    task = trainer.loss
    assert isinstance(task, RetrievalLoss)
    assert int(task.queue.pointer) == 8
    assert (task.queue.ids[:8] >= 0).all()
    assert (task.queue.ids[8:] < 0).all()


def test_batches_of_a_step_meet_the_same_queue(
    tmp_path: Path, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    pointers: list[int] = []
    original = RetrievalLoss._contrastive

    def spy(self: RetrievalLoss, *rest: Any) -> Tensor:
        pointers.append(int(self.queue.pointer))
        return original(self, *rest)

    monkeypatch.setattr(RetrievalLoss, "_contrastive", spy)
    train(changed(config, batch_size=2, accumulate=3, max_steps=3), tmp_path)
    assert pointers == [0, 0, 0, 6, 6, 6, 12, 12]  # the epoch's last two batches are a step of their own


def test_an_incomplete_group_is_a_mean_too(tmp_path: Path, config: RunConfig) -> None:
    """One batch of the whole set, in groups of four: the same gradient as without accumulation."""
    found = []
    for accumulate in (1, 4):
        norms: list[Tensor] = []

        def ready(trainer: Trainer, norms: list[Tensor] = norms) -> None:
            def note(*_: object) -> None:
                norms.append(torch.stack([p.grad.norm() for p in trainer.loss.parameters() if p.grad is not None]))

            trainer.optimizer.optimizer.register_step_pre_hook(note)

        train(changed(config, batch_size=16, accumulate=accumulate, max_steps=1), ready=ready)
        found.append(norms[0])
    assert torch.allclose(found[0], found[1])


def test_a_stop_inside_a_group_loses_no_gradient(tmp_path: Path, config: RunConfig) -> None:
    accumulating = changed(config, batch_size=2, accumulate=3, epochs=2)
    whole = train(accumulating, tmp_path / "whole")

    def ready(trainer: Trainer) -> None:
        original = trainer.gradients.of_batch

        def stopping(batch: Any, moment: Any, *rest: Any) -> Any:
            if (moment.epoch, moment.batch) == (0, 4):  # the second of three
                os.kill(os.getpid(), signal.SIGTERM)
            return original(batch, moment, *rest)

        trainer.gradients.of_batch = stopping  # type: ignore[method-assign]

    with pytest.raises(Interrupted) as stop:
        train(accumulating, tmp_path / "parts", ready=ready)
    assert stop.value.step == 2
    assert stop.value.exit_code == RUN_AGAIN
    parts = train(accumulating, tmp_path / "parts", resume=True)
    assert_same(weights(parts), weights(whole))
