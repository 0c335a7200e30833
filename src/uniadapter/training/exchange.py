"""What several processes exchange of a module: the trained weights and their gradients, and nothing else."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from uniadapter.config import ConfigError
from uniadapter.processes.distributed import max_over_processes, world_size


def exchange_trained_alone(module: nn.Module, device: torch.device) -> None:
    """Let DistributedDataParallel neither broadcast nor synchronise what is frozen, or a buffer.

    Each process has read the frozen weights itself, and keeps buffers equal itself. That the weights are equal is
    checked here: of a base whose file lacks some, each process would have drawn its own.

    Args:
        module: to be wrapped; its trained parameters are those with `requires_grad`.
        device: that the process group's backend supports.

    Raises:
        ConfigError: a frozen weight differs between processes.
    """
    if world_size() == 1:
        return
    every = {name: p.detach() for name, p in module.named_parameters() if not p.requires_grad}
    frozen = {name: p for name, p in every.items() if not hasattr(p, "to_local")}  # shares of `ShardedBase` differ
    sums = [float(p.double().sum()) for p in frozen.values()]
    sizes = [float(p.double().abs().sum()) for p in frozen.values()]
    highest, lowest = max_over_processes(sums, device), max_over_processes([-one for one in sums], device)
    for name, high, low, size in zip(frozen, highest, lowest, sizes, strict=True):
        if high + low > 1e-5 * size + 1e-30:  # sums are rounded as the number of threads has it
            raise ConfigError(
                f"{name} is frozen and differs between the processes: the base's file lacks it, or they have read "
                "different files"
            )
    names = [*every, *(name for name, _ in module.named_buffers())]
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(module, names)
