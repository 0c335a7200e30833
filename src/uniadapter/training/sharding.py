"""A frozen base of which each process holds a share, by PyTorch's FSDP2, for bases that do not fit on every device."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

from uniadapter.config import ConfigError
from uniadapter.model.dispatch import adapter_store
from uniadapter.model.identity import identity_of
from uniadapter.model.kernels.linear import BaseLinear
from uniadapter.model.store import OWNER
from uniadapter.processes.distributed import world_size

# Whose weights are read by their own `forward` alone: subclasses may be given away to fused functions.
_KINDS = (nn.Linear, BaseLinear, nn.Embedding, nn.Conv2d)


class ShardedBase:
    """The matrices of a frozen base, divided evenly among the processes.

    A layer's weights are gathered when it computes, forwards and backwards, and let go afterwards; adapters, heads,
    norms and biases of no matrix stay whole, and are trained as without. Every process must call the layers equally
    often, except while the base is `gathered`. What the base was loaded into stays in the memory of the machine until
    it is shared out here, matrix by matrix.

    Args:
        model: of any family, frozen but for its adapters; on the CPU or on its device.
        device: of this process.

    Raises:
        ConfigError: there is one process.
    """

    def __init__(self, model: PreTrainedModel, device: torch.device) -> None:
        if world_size() == 1:
            raise ConfigError(
                "train.fsdp shares the base among processes: start several with torchrun, or leave it off"
            )
        from torch.distributed.device_mesh import init_device_mesh  # not in every build of torch
        from torch.distributed.fsdp import fully_shard

        store = adapter_store(model)
        if store.identity is None:
            store.identity = identity_of(model)  # what an adapter folder names; shares could not tell
        # Views have hooks that an operation in place would lose; BLIP, CLIP and SigLIP are tested to have none.
        warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view", UserWarning)
        mesh = init_device_mesh(device.type, (world_size(),))
        self.parts: list[Any] = []
        for name, module in model.named_modules():
            if type(module) in _KINDS and OWNER not in name.split(".") and _is_frozen(module):
                self.parts.append(fully_shard(module, mesh=mesh, reshard_after_forward=True))

    def gather(self) -> None:
        """Let every process have the whole base, from now on; all call this."""
        for part in self.parts:
            part.set_reshard_after_forward(False)
            part.unshard()

    def scatter(self) -> None:
        """Undo `gather`."""
        for part in self.parts:
            part.set_reshard_after_forward(True)
            part.reshard()

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Within the block every process has the whole base, and calls it as often as it likes, without gradients."""
        self.gather()
        try:
            yield
        finally:
            self.scatter()


def _is_frozen(module: nn.Module) -> bool:
    own = list(module.parameters(recurse=False))
    return bool(own) and not any(parameter.requires_grad for parameter in own)
