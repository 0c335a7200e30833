"""A batch that does not fit: smaller parts with the same loss, or one line where there is no such thing."""

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
from uniadapter.app.cli import main
from uniadapter.config import ConfigError, RunConfig
from uniadapter.errors import user_message
from uniadapter.runs.steps import write_config
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


def test_a_setting_asks_for_parts_from_the_start_and_may_change_when_resuming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_run(tmp_path, "caption")
    whole = train(config)
    taken = limit_memory(monkeypatch, "caption", 4)
    first = train(changed(config, micro_batch=2), tmp_path / "run")
    assert max(taken) == 2
    assert_close(first, whole)
    train(changed(config, micro_batch=4), tmp_path / "run", resume=True)


def test_contrast_and_matching_stop_in_one_line_that_says_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_run(tmp_path, "retrieval", save_every=1)
    file, out = tmp_path / "run.yaml", tmp_path / "out"
    write_config(replace(config, data=replace(config.data, test=None, val=None)), file)
    original, calls = RetrievalLoss.forward, []

    def forward(self: RetrievalLoss, *rest: Any) -> dict[str, Tensor]:
        calls.append(1)
        if len(calls) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return original(self, *rest)

    monkeypatch.setattr(RetrievalLoss, "forward", forward)
    capsys.readouterr()
    assert main(["train", str(file), "--output", str(out)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 1
    assert errors[0].startswith("error: the memory is full in step 3 with 5 samples at once on a process; contrast and")
    assert "parts would be another loss" in errors[0]
    assert "model.checkpoint_vision true" in errors[0]
    assert main(["train", str(file), "--output", str(out), "--model.checkpoint_vision", "true", "--resume"]) == 0
    with pytest.raises(ConfigError, match=r"train.micro_batch is 2, but contrast and hard negatives compare all"):
        train(changed(config, micro_batch=2))


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
    configs = {task: make_run(tmp_path, task, accumulate=2) for task in ("vqa", "caption")}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(worker, args=(str(tmp_path), port, configs), nprocs=2)  # type: ignore[attr-defined, no-untyped-call]
