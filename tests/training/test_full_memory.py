"""A batch that does not fit: smaller parts with the same loss, or one line that says which on several processes."""

from __future__ import annotations

import json
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from training_runs import changed, make_config, train, weights
from transformers import BlipForConditionalGeneration, BlipForQuestionAnswering

from squares import save_base, save_tokenizer
from tiny import tiny_config
from uniadapter.config import ConfigError, RunConfig
from uniadapter.data.batches import Batch
from uniadapter.errors import user_message
from uniadapter.tasks import in_parts
from uniadapter.tasks.answering import AnswerLoss
from uniadapter.tasks.captioning import CaptionLoss
from uniadapter.tasks.retrieval import RetrievalLoss
from uniadapter.training.loss import TrainingLoss
from uniadapter.training.trainer import Trainer

LOSSES: dict[str, type[TrainingLoss]] = {"vqa": AnswerLoss, "caption": CaptionLoss, "retrieval": RetrievalLoss}


def make_run(folder: Path, task: str, **more: Any) -> RunConfig:
    """Questions two a picture, with answers of several annotators; captions of different lengths."""
    torch.manual_seed(0)
    if task == "retrieval":
        return make_config(folder, save_base(folder / "base"), **more)
    kind = BlipForQuestionAnswering if task == "vqa" else BlipForConditionalGeneration
    kind(tiny_config()).save_pretrained(folder / task)
    save_tokenizer(folder / task)
    colours = ("red", "blue", "green", "white")
    rows = [{"image": f"{colour}.jpg", "question": "the square?" if n % 3 else "a red square ?", "question_id": n,
             "answer": colour, "caption": "a square" if n % 3 else f"a picture of a {colour} square"}
            for n, colour in enumerate(colours * 4)]  # fmt: skip
    (folder / f"{task}.json").write_text(json.dumps(rows))
    config = make_config(folder, folder / task, **{"lr": 1e-3, "epochs": 2, **more})
    data = replace(config.data, train=str(folder / f"{task}.json"), val=None, test=None, together=2)
    return replace(config, task=task, data=data)  # type: ignore[arg-type]


def limit_memory(monkeypatch: pytest.MonkeyPatch, task: str, most: int, late: bool = False) -> list[int]:
    """No more than so many samples fit; where `late`, that shows in the backward pass, after some gradients."""
    taken: list[int] = []
    original = LOSSES[task].forward

    def forward(self: TrainingLoss, batch: Any, step: Any) -> dict[str, Tensor]:
        taken.append(len(batch))
        full = len(batch) > most
        if full and not late:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        losses = original(self, batch, step)
        if full:
            for p in self.parameters():
                if p.requires_grad and p.ndim > 1:
                    p.register_hook(_refuse)
                    break
        return losses

    monkeypatch.setattr(LOSSES[task], "forward", forward)
    return taken


def _refuse(gradient: Tensor) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


def assert_close(one: Trainer, other: Trainer) -> None:
    mine, theirs = weights(one), weights(other)
    for name, value in mine.items():
        assert torch.allclose(value.double(), theirs[name].double(), rtol=0, atol=1e-5), name
    losses = [[line["loss"] for line in each.history] for each in (one, other)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-5)


@pytest.mark.parametrize("task", ["vqa", "caption"])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_half_as_many_at_once_give_the_same_run(
    tmp_path: Path, task: str, accumulate: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    config = make_run(tmp_path, task, accumulate=accumulate)
    whole = train(config)
    caplog.clear()
    taken = limit_memory(monkeypatch, task, 2)
    parts = train(config)
    assert_close(parts, whole)
    assert taken[:4] == [5, 3, 2, 2]  # the whole, half of it, half of that
    assert max(taken[2:]) == 2
    told = [line for line in caplog.messages if "the memory is full" in line]
    assert len(told) == 2
    assert told[0].startswith("the memory is full in step 1 with 5 samples at once on a process: 3 at once from here")


def test_gradients_of_a_pass_that_failed_half_way_do_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_run(tmp_path, "vqa", accumulate=2)
    whole = train(config)
    original = Trainer._step

    def step(self: Trainer, *rest: Any) -> None:
        """In its third step, for once, the memory is full in the backward pass of the second batch."""
        if self.step == 2:
            of_batch, calls = self.gradients.of_batch, []

            def failing(*given: Any) -> Any:
                calls.append(1)
                found = of_batch(*given)  # with its gradients
                if len(calls) == 2:
                    raise torch.OutOfMemoryError("CUDA out of memory.")
                return found

            self.gradients.of_batch = failing  # type: ignore[method-assign]
        original(self, *rest)

    monkeypatch.setattr(Trainer, "_step", step)
    found = train(config)
    assert found.gradients.most == 3
    assert_close(found, whole)


@pytest.mark.parametrize("task", ["caption", "retrieval"])
def test_a_setting_asks_for_parts_from_the_start_and_may_change_when_resuming(
    tmp_path: Path, task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_run(tmp_path, task, lr=1e-3)
    whole = train(config)
    retrieval = task == "retrieval"
    taken = fail_with_more_than(monkeypatch, 4) if retrieval else limit_memory(monkeypatch, task, 4)
    first = train(changed(config, micro_batch=2), tmp_path / "run")
    assert max(taken) == 2
    assert_close(first, whole)
    train(changed(config, micro_batch=4), tmp_path / "run", resume=True)


def fail_with_more_than(monkeypatch: pytest.MonkeyPatch, most: int) -> list[int]:
    """No more than so many pictures fit, in retrieval; noted is how many went in."""
    taken: list[int] = []
    original = in_parts.encode_visual

    def encode(model: Any, frames: Tensor, *rest: Any) -> Any:
        taken.append(len(frames))
        if len(frames) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return original(model, frames, *rest)

    monkeypatch.setattr(in_parts, "encode_visual", encode)
    return taken


@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("loss", ["momentum", "sigmoid"])
def test_contrast_and_matching_take_half_as_many_too(
    tmp_path: Path, accumulate: int, loss: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Their batch stays whole, momentum encoder and queue move once a step."""
    config = make_run(tmp_path, "retrieval", accumulate=accumulate, lr=1e-3)
    config = replace(config, objective=replace(config.objective, loss=loss, queue_size=16 * (loss == "momentum")))
    whole = train(config)
    caplog.clear()
    taken = fail_with_more_than(monkeypatch, 2)
    parts = train(config)
    assert_close(parts, whole)
    assert taken[:5] == [5, 3, 2, 2, 1]
    assert max(taken[2:]) == 2
    told = [line for line in caplog.messages if "the memory is full" in line]
    assert [line.partition(" at once from")[0][-1] for line in told] == ["3", "2"]


def test_a_step_that_is_done_again_moves_momentum_and_queue_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the memory was full before or after they moved, in the second batch of a step, and once more."""
    config = make_run(tmp_path, "retrieval", accumulate=2, lr=1e-3)
    config = replace(config, objective=replace(config.objective, momentum=0.5))
    whole = train(config)
    original, calls = RetrievalLoss._matching, []

    def failing(self: RetrievalLoss, *rest: Any) -> Tensor:
        calls.append(1)
        if len(calls) in (2, 4):  # the second batch of the first step, twice
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(self, *rest)

    copies: list[int] = []
    to = Batch.to

    def copied(self: Batch, *rest: Any) -> Batch:
        copies.append(1)
        if len(copies) == 9:  # the first batch of the third step, before anything has moved
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return to(self, *rest)

    monkeypatch.setattr(RetrievalLoss, "_matching", failing)
    monkeypatch.setattr(Batch, "to", copied)
    found = train(config)
    assert len(calls) > 8
    assert found.gradients.most == 1
    assert_close(found, whole)


def test_a_single_sample_that_does_not_fit_is_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_run(tmp_path, "vqa")
    taken = limit_memory(monkeypatch, "vqa", 0)
    with pytest.raises(torch.OutOfMemoryError) as error:
        train(config)
    assert taken == [5, 3, 2, 1]
    assert "the memory is full" in str(user_message(error.value))


def worker(process: int, folder: str, port: int, configs: dict[str, RunConfig]) -> None:
    """One of two processes: in parts, with other numbers of parts on each."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(process), "LOCAL_RANK": str(process), "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    try:
        for config in configs.values():
            assert_close(train(changed(config, micro_batch=2)), train(config))
        with pytest.MonkeyPatch.context() as patch:
            limit_memory(patch, "vqa", 1)  # on both
            with pytest.raises(ConfigError, match=r"go on with --train.micro_batch [12] --resume"):
                train(configs["vqa"])
    finally:
        dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="this torch has no distributed package")
def test_two_processes_take_parts_if_told_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform.startswith("linux"):
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    configs = {task: make_run(tmp_path, task, accumulate=2, lr=1e-3) for task in LOSSES}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(str(tmp_path), port, configs), nprocs=2)  # type: ignore[attr-defined, no-untyped-call]
