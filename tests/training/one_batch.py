"""One optimiser step over seven pairs, whole or in parts, by one process or several: losses, gradients, new weights."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from transformers import (
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
    PreTrainedModel,
)

from squares import word_tokenizer
from tiny import randomise, tiny_model
from uniadapter.checkpoints.adapters import add_adapter
from uniadapter.config import AdapterConfig, ModelConfig, ObjectiveConfig, TrainConfig
from uniadapter.data.batches import Batch
from uniadapter.processes.distributed import destroy_process_group, gather_rows, rank
from uniadapter.tasks.answering import AnswerLoss
from uniadapter.tasks.captioning import CaptionLoss
from uniadapter.tasks.retrieval import RetrievalLoss
from uniadapter.training.gradients import Gradients
from uniadapter.training.loss import StepInfo, TrainingLoss
from uniadapter.training.optimizer import prepare_optimizer
from uniadapter.training.trainer import make_accelerator

COUNT = 7
IDS = torch.tensor([4, 1, 4, 2, 3, 0, 1])  # two visuals are there twice
ANSWERS = ({"red": 0.75, "blue": 0.25}, {"green": 1.0}, {"white": 0.5, "a square": 0.5}) * COUNT
WORDS = ("a red square", "the blue square", "a picture of a green square", "white", "a square", "red", "the square ?")
ADAPTER = AdapterConfig(bottleneck=4, key_value=2, self_attention=2, frame_aware=True, temporal_frames=2)
LR = 0.1


@dataclass(frozen=True)
class Case:
    """A task and its loss.

    Args:
        task: "retrieval", "vqa" or "caption".
        objective: of retrieval.
        batches: whose gradients are accumulated.
        adapted: whether an adapter is trained, not the whole model.
    """

    task: str = "retrieval"
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    batches: int = 1
    adapted: bool = True


def contrast(**more: Any) -> Case:
    return Case(objective=ObjectiveConfig(**{"matching": False, "queue_size": 0, **more}))


BOTH = ObjectiveConfig(queue_size=16)
CASES = {
    "contrast, queue": contrast(queue_size=16),
    "contrast, no queue": contrast(),
    "contrast, no momentum": contrast(momentum=0.0, train_temperature=True),
    "contrast, softmax": contrast(loss="softmax"),
    "contrast, sigmoid": contrast(loss="sigmoid"),
    "matching": Case(objective=ObjectiveConfig(contrastive=False)),
    "both": Case(objective=replace(BOTH, train_temperature=True)),
    "both, two batches": Case(objective=BOTH, batches=2),
    "both, full fine-tuning": Case(objective=BOTH, adapted=False),
    "questions": Case("vqa"),
    "captions": Case("caption", batches=2),
}
MODELS: dict[str, type[PreTrainedModel]] = {
    "retrieval": BlipForImageTextRetrieval,
    "vqa": BlipForQuestionAnswering,
    "caption": BlipForConditionalGeneration,
}


@dataclass
class Step:
    """What one optimiser step gave.

    Args:
        losses: the means over the processes, for each batch.
        gradients: of the trained parameters, by name.
        weights: the same parameters after a step of SGD.
        state: queue and momentum encoder.
    """

    losses: list[dict[str, float]]
    gradients: dict[str, Tensor]
    weights: dict[str, Tensor]
    state: dict[str, dict[str, Tensor]]


def make_loss(case: Case, model: PreTrainedModel | None = None) -> TrainingLoss:
    """In training mode, in float64; nothing is at its start."""
    model = tiny_model(MODELS[case.task]) if model is None else model
    model.double().requires_grad_(not case.adapted)
    if case.adapted:
        config = ADAPTER if case.task == "retrieval" else AdapterConfig(bottleneck=4, key_value=2)
        randomise(add_adapter(model, config))
    words, settings = word_tokenizer(), ModelConfig()
    if case.task == "vqa":
        return AnswerLoss(model, words, settings).train()
    if case.task == "caption":
        return CaptionLoss(model, words, settings, "a picture of").train()
    loss = RetrievalLoss(model, words, settings, case.objective, "default" if case.adapted else None).double()
    if loss.momentum is not None:  # else it would be where the trained weights are
        moved = {name: value + 0.01 * torch.randn_like(value) for name, value in loss.momentum.state().items()}
        loss.momentum.load_state(moved)
    return loss.train()


def make_batch(own: slice, place: int = 0) -> Batch:
    """Some of the seven pairs of a batch: videos of two frames."""
    generator = torch.Generator().manual_seed(place)
    frames = torch.randn(COUNT, 2, 3, 32, 32, generator=generator, dtype=torch.float64)
    samples = torch.arange(COUNT) + place * COUNT
    rows = torch.arange(COUNT)[: len(IDS[own])]
    answers = [ANSWERS[sample] for sample in samples[own].tolist()]
    return Batch(frames[own], list(WORDS[own]), IDS[own], samples[own], rows, answers)


def one_step(case: Case, own: slice = slice(None), at_once: int = 0, loss: TrainingLoss | None = None) -> Step:
    """Of the rows that this process has."""
    torch.manual_seed(0)
    loss = make_loss(case) if loss is None else loss
    config = TrainConfig(accumulate=case.batches)
    accelerator = make_accelerator(config, cpu=True)
    module, *_ = prepare_optimizer(accelerator, loss, config, lambda step: 1.0)
    gradients = Gradients(loss, module, accelerator, case.batches, at_once)
    batches = iter([make_batch(own, place) for place in range(case.batches)])
    found = gradients.of_step(batches, case.batches, StepInfo(0, 1, 0, 4), 0)
    trained = {name: p for name, p in loss.named_parameters() if p.requires_grad}
    grads = {name: torch.zeros_like(p) if p.grad is None else p.grad.clone() for name, p in trained.items()}
    torch.optim.SGD(trained.values(), LR).step()
    losses = [{name: float(gather_rows(one[None]).mean()) for name, one in named.items()} for named, _ in found.batches]
    weights = {name: p.detach().clone() for name, p in trained.items()}
    state = {part: {name: one.clone() for name, one in tensors.items()} for part, tensors in
             loss.training_state().items()}  # fmt: skip
    loss.release()
    return Step(losses, grads, weights, state)


def assert_steps_close(found: Step, wanted: Step, within: float = 1e-9) -> None:
    """Losses, gradients, weights, queue and momentum encoder; float64, so that 1e-5 would be a fault."""
    for mine, theirs in zip(found.losses, wanted.losses, strict=True):
        assert mine.keys() == theirs.keys()
        assert all(abs(mine[name] - theirs[name]) < within for name in theirs), (mine, theirs)
    for kind in ("gradients", "weights"):
        mine, theirs = getattr(found, kind), getattr(wanted, kind)
        assert mine.keys() == theirs.keys()
        for name, value in theirs.items():
            assert torch.allclose(mine[name], value, rtol=0, atol=within), (kind, name)
    assert any(one.abs().max() > 1e-3 for one in wanted.gradients.values())
    for part, tensors in wanted.state.items():
        for name, value in tensors.items():
            assert torch.allclose(found.state[part][name].double(), value.double(), rtol=0, atol=within), (part, name)


def in_processes(world: int, work: Callable[..., None], *args: Any) -> None:
    """Run `work(*args)` in so many processes with a process group; a failed assertion fails the test."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(_process, args=(world, port, work, args), nprocs=world)  # type: ignore[attr-defined, no-untyped-call]


def _process(process: int, world: int, port: int, work: Callable[..., None], args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(process), "LOCAL_RANK": str(process), "WORLD_SIZE": str(world),
                   "ACCELERATE_USE_CPU": "true", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}  # fmt: skip
    make_accelerator(TrainConfig(), cpu=True)
    assert dist.get_world_size() == world
    try:
        work(*args)
    finally:
        destroy_process_group()


def share(counts: tuple[int, ...]) -> slice:
    """The rows of this process, of so many for each."""
    first = sum(counts[: rank()])
    return slice(first, first + counts[rank()])


def save_on_first(found: object, file: Path) -> None:
    """For the test to compare with."""
    if rank() == 0:
        torch.save(found, file)
