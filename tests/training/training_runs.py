"""A tiny run for the trainer's tests: a random BLIP, eight pictures, sixteen captions, a few steps."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import BlipForImageTextRetrieval, BlipForQuestionAnswering

from squares import karpathy, save_tokenizer
from tiny import tiny_config
from uniadapter.config import RunConfig
from uniadapter.files.schema import validated
from uniadapter.runs.steps import load_training, train_split
from uniadapter.tasks.preparing import prepare
from uniadapter.training.trainer import Trainer


def save_dropping_base(folder: Path, dropout: float = 0.1) -> Path:
    """A tiny base that drops out as BLIP's own files do."""
    torch.manual_seed(0)
    config = tiny_config()
    config.text_config.hidden_dropout_prob = config.text_config.attention_probs_dropout_prob = dropout
    config.vision_config.attention_dropout = dropout
    BlipForImageTextRetrieval(config).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def make_config(folder: Path, base: Path, **train: Any) -> RunConfig:
    """A run over `folder`'s pictures; 16 captions in batches of 5 are 4 steps an epoch."""
    files = karpathy(folder, "tiny")
    return validated(
        {
            "output": str(folder / "run"),
            "model": {"base": str(base), "adapter": {"bottleneck": 4, "key_value": 2}},
            "data": {**files, "root": str(folder), "workers": 0},
            "objective": {"queue_size": 16},
            "train": {"epochs": 3, "batch_size": 5, "lr": 5e-3, "log_every": 1, "seed": 1, **train},
            "evaluate": {"k": 2, "batch_size": 4},
        },
        RunConfig,
        "a test's config",
    )


def save_questions(folder: Path, repeats: int) -> tuple[Path, Path]:
    """A tiny question model and a file of four questions, each asked so many times, about the pictures in a folder."""
    torch.manual_seed(0)
    BlipForQuestionAnswering(tiny_config()).save_pretrained(folder / "vqa")
    save_tokenizer(folder / "vqa")
    rows = [{"image": f"{colour}.jpg", "question": "the square?", "answer": colour, "question_id": number}
            for number, colour in enumerate(("red", "blue", "green", "white") * repeats)]  # fmt: skip
    (folder / "questions.json").write_text(json.dumps(rows))
    return folder / "vqa", folder / "questions.json"


def changed(config: RunConfig, **train: Any) -> RunConfig:
    """The same run with other settings of `train`."""
    return replace(config, train=replace(config.train, **train))


def train(
    config: RunConfig,
    folder: Path | None = None,
    resume: bool = False,
    ready: Callable[[Trainer], None] | None = None,
    **more: Any,
) -> Trainer:
    """Prepare and train; `ready` gets the trainer before its first step."""
    prepared = prepare(config)
    split = load_training(config)
    if ready is None:
        return train_split(prepared, split, config, folder, resume, **more)
    original = Trainer.train

    def hooked(self: Trainer, again: bool = False) -> None:
        ready(self)
        original(self, again)

    Trainer.train = hooked  # type: ignore[method-assign]
    try:
        return train_split(prepared, split, config, folder, resume, **more)
    finally:
        Trainer.train = original  # type: ignore[method-assign]


def weights(trainer: Trainer) -> dict[str, Tensor]:
    """What was trained, with the momentum set and the queue."""
    found = {name: p.detach().clone() for name, p in trainer.loss.named_parameters() if p.requires_grad}
    for part, state in trainer.loss.training_state().items():
        found |= {f"{part}.{name}": value.clone() for name, value in state.items()}
    return found


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    """Bit for bit."""
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
