"""How a run optimises: processes and precision, which parameters how, and the learning rate over the steps."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import nn

from uniadapter.config import TrainConfig


def schedule(config: TrainConfig, steps: int, steps_per_epoch: int) -> Callable[[int], float]:
    """The learning rate of a step as a factor on the peak.

    Args:
        config: schedule, warmup_steps, epochs, lr and min_lr are used.
        steps: of the run.
        steps_per_epoch: optimiser steps in an epoch.
    """
    floor = config.min_lr / config.lr

    def factor(step: int) -> float:
        if step < config.warmup_steps:
            return (step + 1) / config.warmup_steps
        if config.schedule == "constant":
            return 1.0
        if config.schedule == "epoch_cosine":  # BLIP's: constant within an epoch, warm-up steps not subtracted
            done = (step // steps_per_epoch) / config.epochs
        else:
            done = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
        left = 1 - done if config.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))
        return floor + (1 - floor) * left

    return factor


def parameter_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Trainable parameters, with weight decay on matrices alone: not on biases, norms and scales."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    return [
        {"params": [p for p in trainable if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in trainable if p.ndim < 2], "weight_decay": 0.0},
    ]


def make_accelerator(config: TrainConfig, cpu: bool = False) -> Accelerator:
    """Processes and precision as the run asks, whatever an earlier run of this process asked."""
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != config.precision:
        AcceleratorState._reset_state()  # the process group stays
    # A loss may leave parameters out. Buffers (the queue) are alike on all processes by construction: not sent around.
    wrapping = DistributedDataParallelKwargs(find_unused_parameters=True, broadcast_buffers=False)
    return Accelerator(
        mixed_precision=config.precision,
        gradient_accumulation_steps=config.accumulate,
        kwargs_handlers=[wrapping],
        cpu=cpu,
    )
