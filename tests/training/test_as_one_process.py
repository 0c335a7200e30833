"""Two and three processes take the step of one, whole or in parts, and measure exactly what one measures."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from one_batch import (
    CASES,
    Step,
    assert_steps_close,
    in_processes,
    make_batch,
    make_loss,
    one_step,
    save_on_first,
    share,
)
from PIL import Image
from torch import Tensor
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from training_runs import make_config
from transformers import BlipForConditionalGeneration, BlipForQuestionAnswering, PreTrainedModel

from squares import COLOURS, save_base, save_tokenizer
from tiny import tiny_config
from uniadapter.config import ConfigError, RunConfig, TrainConfig
from uniadapter.processes import fetching_rows
from uniadapter.processes.distributed import rank, world_size
from uniadapter.runs.steps import evaluate_split, load_split
from uniadapter.tasks import Result
from uniadapter.tasks.base import visuals_loader
from uniadapter.tasks.preparing import prepare
from uniadapter.training.exchange import exchange_trained_alone
from uniadapter.training.loss import StepInfo
from uniadapter.training.optimizer import make_accelerator, prepare_optimizer

# Rows of each process of a batch that is taken whole, and of one that is taken two at once.
SHARES = {2: ((4, 3), (5, 2)), 3: ((3, 2, 2), (1, 4, 2))}
EMPTY = {2: (7, 0), 3: (0, 4, 3)}
WITHOUT_ROWS = ("contrast, queue", "contrast, softmax", "contrast, sigmoid", "matching")
IN_PARTS = ("contrast, queue", "contrast, sigmoid", "matching", "both, two batches", "questions")


def work(folder: str, world: int, configs: dict[str, RunConfig]) -> None:
    """All steps and evaluations, in this process."""
    whole, parts = SHARES[world]
    found = {}
    for name, case in CASES.items():
        found[name, "whole"] = one_step(case, share(whole))
    for name in IN_PARTS if world == 3 else ():  # runs of two in parts: test_full_memory.py
        found[name, "parts"] = one_step(CASES[name], share(parts), 2)
    for name in WITHOUT_ROWS:
        found[name, "none"] = one_step(CASES[name], share(EMPTY[world]), 2)
    results = {name: measure(config) for name, config in configs.items()}
    few = measure(configs["pictures"], world - 1)  # each process measures all
    only_what_is_trained_is_exchanged()
    only_drawn_tokens_are_sent(share(whole))
    frozen_weights_that_differ_are_found()
    save_on_first((found, results, few), Path(folder) / "found.pt")


def only_drawn_tokens_are_sent(own: slice) -> None:
    """Of a batch with hard negatives of all processes: at most as many visuals as there are own texts."""
    taken: list[int] = []
    exchange = fetching_rows._exchange

    def counting(tensor: Tensor, given: list[int], wanted: list[int]) -> Tensor:
        if tensor.dtype.is_floating_point:
            taken.append(sum(wanted) - wanted[rank()])
        return exchange(tensor, given, wanted)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fetching_rows, "_exchange", counting)
        one_step(CASES["matching"], own)
    assert len(taken) == 2, "tokens, and their gradients"
    assert 0 < taken[0] <= own.stop - own.start
    assert taken[1] <= 2 * 7, "gradients of the own, from whoever has drawn them"


def only_what_is_trained_is_exchanged() -> None:
    """Broadcast at the start and reduced in a step, of all that the module holds: the frozen base, momentum, queue."""
    loss = make_loss(CASES["both"]).float()
    sent: list[int] = []
    reduced: list[int] = []
    broadcast = dist._broadcast_coalesced

    def counting(group: Any, tensors: list[Tensor], *rest: Any) -> None:
        sent.extend(tensor.numel() for tensor in tensors)
        broadcast(group, tensors, *rest)

    def reduce(_, bucket):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - torch wants none or no strings
        reduced.append(bucket.buffer().numel())
        return allreduce_hook(dist.group.WORLD, bucket)

    accelerator = make_accelerator(TrainConfig(), cpu=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dist, "_broadcast_coalesced", counting)
        module, *_ = prepare_optimizer(accelerator, loss, TrainConfig(), lambda step: 1.0)
        module.register_comm_hook(None, reduce)  # type: ignore[operator]
        for _ in range(2):
            batch = make_batch(slice(None))
            module(replace(batch, frames=batch.frames.float()), StepInfo(0, 1, 0, 4))["loss"].backward()
    trained = sum(p.numel() for p in loss.parameters() if p.requires_grad)
    assert sum(sent) == trained
    assert sum(reduced) == 2 * trained
    assert trained < sum(p.numel() for p in loss.parameters()) / 2
    loss.release()


def frozen_weights_that_differ_are_found() -> None:
    """As where a base's file lacks some, and each process draws its own."""
    loss = make_loss(CASES["contrast, queue"])
    with torch.no_grad():
        loss.model.vision_model.post_layernorm.bias.add_(0.1 * rank())
    with pytest.raises(ConfigError, match=r"post_layernorm.bias is frozen and differs between the processes"):
        exchange_trained_alone(loss, torch.device("cpu"))


def measure(config: RunConfig, most: int = 7) -> Result:
    """Over so many visuals; of more than there are processes, each encodes its share alone."""
    prepared, split = prepare(config), load_split(config, "test")
    split.drop_visuals(set(range(most, len(split.visuals))))
    prepared.distributed = True
    if most >= world_size():
        mine = sum(map(len, visuals_loader(prepared, split, config)))
        assert mine in (most // world_size(), most // world_size() + 1)
    return evaluate_split(prepared, split, config)


def evaluations(folder: Path) -> dict[str, RunConfig]:
    """Retrieval with rerank, captions, and questions about pictures and about videos."""
    pictures = make_config(folder, save_base(folder / "base"))
    pictures = replace(pictures, model=replace(pictures.model, method="none"))
    rows = []
    for number, name in enumerate(COLOURS):
        frames = [Image.new("RGB", (40, 30), COLOURS[one]) for one in (name, "grey", "white")]
        frames[0].save(folder / f"{name}.gif", save_all=True, append_images=frames[1:], duration=100)
        for more in range(1 + number % 2):  # not as many for each
            texts = {"question": "the square?", "answer": name, "caption": f"a {name} square"}
            rows.append({"image": f"{name}.jpg", "question_id": 2 * number + more, **texts})
    about = {"pictures": rows, "videos": [{**row, "video": str(row["image"]).replace("jpg", "gif")} for row in rows]}
    for kind, own in about.items():
        named = [{key: value for key, value in row.items() if kind == "pictures" or key != "image"} for row in own]
        (folder / f"{kind}.json").write_text(json.dumps(named))
    tasks: dict[str, tuple[str, str, type[PreTrainedModel], int]] = {
        "questions": ("vqa", "pictures", BlipForQuestionAnswering, 1),
        "questions about videos": ("vqa", "videos", BlipForQuestionAnswering, 2),
        "captions": ("caption", "pictures", BlipForConditionalGeneration, 1),
    }
    found = {"pictures": pictures}
    for name, (task, kind, cls, several) in tasks.items():
        base = folder / f"base of {name}"
        torch.manual_seed(0)
        cls(tiny_config()).save_pretrained(base)
        save_tokenizer(base)
        file = str(folder / f"{kind}.json")
        data = replace(pictures.data, train=file, val=None, test=file, frames=several)
        model = replace(pictures.model, base=str(base))
        settings = replace(pictures.evaluate, batch_size=2, longest=8, shortest=2)
        found[name] = replace(pictures, task=task, model=model, data=data, evaluate=settings)  # type: ignore[arg-type]
    return found


def assert_same_results(found: Result, wanted: Result) -> None:
    """Exactly."""
    assert found.scores == wanted.scores
    assert wanted.scores or isinstance(wanted.detail, list)  # captions are scored where the scorer is installed
    assert torch.equal(found.right, wanted.right)
    if isinstance(wanted.detail, list):  # answers, whose probabilities are rounded otherwise, or captions
        mine, theirs = ([getattr(one, "answer", one) for one in result.detail] for result in (found, wanted))
        assert mine == theirs


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunConfig]:
    return evaluations(tmp_path_factory.mktemp("evaluations"))


@pytest.fixture(scope="module")
def wanted(configs: dict[str, RunConfig]) -> tuple[dict[str, Step], dict[str, Result]]:
    """What one process gives."""
    return {name: one_step(case) for name, case in CASES.items()}, {name: measure(one) for name, one in configs.items()}


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available(), reason="this torch has no distributed package")
@pytest.mark.parametrize("world", [2, 3])
def test_several_processes_are_as_one(
    world: int,
    configs: dict[str, RunConfig],
    wanted: tuple[dict[str, Step], dict[str, Result]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if sys.platform.startswith("linux"):
        monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    in_processes(world, work, str(tmp_path), world, configs)
    steps, results, few = torch.load(tmp_path / "found.pt", weights_only=False)
    assert len(steps) == len(CASES) + len(WITHOUT_ROWS) + (len(IN_PARTS) if world == 3 else 0)
    for (name, how), step in steps.items():
        print(name, how)  # noqa: T201 - which one it was
        # the text decoder's loss is summed in float32
        assert_steps_close(step, wanted[0][name], 1e-9 if CASES[name].task == "retrieval" else 1e-5)
    for name, result in wanted[1].items():
        assert_same_results(results[name], result)
    assert_same_results(few, measure(configs["pictures"], world - 1))
