"""Computing again in the backward pass what would take memory until then."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from torch import Tensor
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop
from transformers import PreTrainedModel

from uniadapter.model.dispatch import adapter_store

T = TypeVar("T")


def recomputed(model: PreTrainedModel, function: Callable[..., T], *tensors: Tensor) -> T:
    """`function(*tensors)`, whose intermediate results are not kept but computed again when gradients are.

    Both times dropout draws the same, and the adapter set that is active now is the active one: the backward pass may
    run in another thread, or after a block that activated the set has ended.

    Args:
        model: that the function uses.
        function: of these tensors and whatever it has bound; called a second time in the backward pass.
        tensors: at least one of them on the device that the function computes on, whose random state is restored.

    Returns:
        What the function gives, with gradients to all that it has used.
    """
    store = adapter_store(model)
    name = store.name

    def call(*given: Tensor) -> T:
        with store.using(name):
            return function(*given)

    with set_checkpoint_early_stop(False):  # so that hooks of layers end what they have begun
        return checkpoint(call, *tensors, use_reentrant=False)  # type: ignore[no-any-return]
