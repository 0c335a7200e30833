"""The state in which a model is measured."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from transformers import PreTrainedModel


@contextmanager
def evaluating(model: PreTrainedModel, autocast: AbstractContextManager[None] | None = None) -> Iterator[None]:
    """Within the block: evaluation mode, no gradients, and lower precision if asked for; then the mode it was in."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), autocast or nullcontext():
            yield
    finally:
        model.train(training)
