"""Evaluation mode of a model within a block, safe for several threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass
class _Held:
    """How many blocks hold a model in evaluation mode, and which of its modules were in training mode before."""

    blocks: int = 0
    training: list[nn.Module] = field(default_factory=list)


_lock = threading.Lock()
_held: dict[nn.Module, _Held] = {}


@contextmanager
def evaluation_mode(model: nn.Module, autocast: AbstractContextManager[None] | None = None) -> Iterator[None]:
    """Within the block the model is in evaluation mode, without gradients.

    Afterwards every module is in its former mode; if blocks overlap, in several threads, after the last one.

    Args:
        model: any module.
        autocast: a context manager for lower precision, entered as well.
    """
    with _lock:
        held = _held.setdefault(model, _Held())
        held.blocks += 1
        training = [module for module in model.modules() if module.training]
        if training:
            held.training += training
            model.eval()
    try:
        with torch.no_grad(), autocast or nullcontext():
            yield
    finally:
        with _lock:
            held.blocks -= 1
            if not held.blocks:
                del _held[model]
                for module in held.training:
                    module.training = True
