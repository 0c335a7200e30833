"""Learning rate schedule, parameter groups of the optimiser, and the Accelerator."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from uniadapter.config import TrainConfig
from uniadapter.processes.distributed import note_processes
from uniadapter.training.exchange import exchange_trained_alone


def lr_schedule(config: TrainConfig, steps: int, steps_per_epoch: int) -> Callable[[int], float]:
    """The learning rate of each step as a multiple of the peak, for `LambdaLR`.

    Args:
        config: `schedule`, `warmup_steps`, `epochs`, `lr` and `min_lr` are used.
        steps: optimiser steps of the run.
        steps_per_epoch: optimiser steps of an epoch.
    """
    floor = config.min_lr / config.lr

    def factor(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        if config.schedule == "constant":
            return 1.0
        if config.schedule == "epoch_cosine":  # BLIP's: constant within an epoch, warm-up steps are not subtracted
            done = (step // steps_per_epoch) / config.epochs
        else:
            done = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
        left = 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return floor + (1 - floor) * left

    return factor


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups of the trainable parameters: matrices with weight decay; biases, norms and scales without."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]


def prepare_optimizer(
    accelerator: Accelerator, loss: nn.Module, config: TrainConfig, factor: Callable[[int], float]
) -> tuple[nn.Module, AcceleratedOptimizer, LambdaLR]:
    """AdamW over the trainable parameters of `loss`, and its learning rate scheduler.

    Args:
        accelerator: of the run.
        loss: the module to train.
        config: `weight_decay` and `lr` are used.
        factor: from `lr_schedule`.

    Returns:
        `loss`, wrapped in DistributedDataParallel if there are several processes, the optimiser and the scheduler.

    Raises:
        ValueError: nothing is trainable.
        ConfigError: a frozen weight differs between the processes.
    """
    groups = parameter_groups(loss, config.weight_decay)
    if not any(group["params"] for group in groups):
        raise ValueError("nothing to train: add an adapter, or make the model's weights trainable")
    optimizer = torch.optim.AdamW(groups, lr=config.lr)
    scheduler = LambdaLR(optimizer, factor)  # before accelerate patches `optimizer.step` for fp16
    exchange_trained_alone(loss, accelerator.device)
    with warnings.catch_warnings():  # accelerate still uses the old name of one of torch's options
        warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)
        module, prepared = accelerator.prepare(loss, optimizer)
    return module, prepared, scheduler


def clip_gradients(accelerator: Accelerator, optimizer: torch.optim.Optimizer, max_norm: float) -> Tensor:
    """Clip the gradients to a norm, 0 for no limit, and return their L2 norm before; 0 if there are none."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    if max_norm:
        return torch.as_tensor(accelerator.clip_grad_norm_(parameters, max_norm))
    gradients = [p.grad for p in parameters if p.grad is not None]
    if not gradients:
        return torch.zeros(())
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))


def make_accelerator(config: TrainConfig, cpu: bool = False) -> Accelerator:
    """An Accelerator with the run's precision, even if an earlier run of this process used another one."""
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != config.precision:
        AcceleratorState._reset_state()  # keeps the process group
    # A loss may not use all parameters. Buffers (the queue) are the same on all processes and need no broadcast.
    wrapping = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
    accelerator = Accelerator(
        mixed_precision=config.precision,
        gradient_accumulation_steps=config.accumulate,
        kwargs_handlers=[wrapping],
        cpu=cpu,
    )
    note_processes()
    return accelerator
