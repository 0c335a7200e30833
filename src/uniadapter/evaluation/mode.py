"""The state in which a model is measured and asked."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import nn


@dataclass
class _Held:
    """How many blocks want a model in evaluation mode, and which of its modules were in training mode before."""

    blocks: int = 0
    training: list[nn.Module] = field(default_factory=list)


_lock = threading.Lock()
_held: dict[nn.Module, _Held] = {}


@contextmanager
def evaluation_mode(model: nn.Module, autocast: AbstractContextManager[None] | None = None) -> Iterator[None]:
    """Within the block: evaluation mode, no gradients, and lower precision if asked for.

    Afterwards every module is in the mode it was in; of blocks that overlap, in threads say, after the last one.
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
