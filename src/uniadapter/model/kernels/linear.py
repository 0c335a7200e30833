"""Frozen linear layers on a CPU, by the faster of the two libraries that PyTorch is built with.

For float32 PyTorch uses MKL, which is tuned for Intel's processors; on AMD's, its other library, oneDNN, is 5 to 26%
faster for BLIP-base's shapes, forward and backward (benchmarks/linear.py). PyTorch uses oneDNN for half precision
anyway. Without gradients, oneDNN also fuses the activation into the linear layer. On a GPU nothing changes.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation

from uniadapter.model.kernels.attention import to_autocast_dtype


class BaseLinear(nn.Linear):
    """A linear layer of the base, computed by `frozen_linear`."""

    original = nn.Linear  # the class that `store.restore_classes` restores

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Linear`, [..., in] to [..., out]."""
        return frozen_linear(input, self.weight, self.bias)


def replace_linears(*stacks: nn.Module, others: Mapping[type[nn.Module], type[nn.Module]] | None = None) -> None:
    """Let the plain linear layers in some modules be computed by `frozen_linear`; no weight moves.

    Args:
        stacks: modules, whose own modules are looked at too.
        others: from further classes to what they are replaced by.
    """
    faster = {nn.Linear: BaseLinear, **(others or {})}
    for stack in stacks:
        for module in stack.modules():
            module.__class__ = faster.get(type(module), type(module))


def frozen_linear(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`nn.functional.linear`, W x + b, by oneDNN where that is faster; equal up to rounding.

    Args:
        states: x [..., in].
        weight: W [out, in].
        bias: b [out], or None.

    Returns:
        [..., out].
    """
    if not _onednn_suits(states, weight, bias):
        return nn.functional.linear(states, weight, bias)
    if torch.is_grad_enabled() and states.requires_grad:
        return _FrozenLinear.apply(states, weight, bias)  # type: ignore[no-any-return]
    return _by_onednn(states, weight, bias)


def linear_then_activation(states: Tensor, linear: nn.Linear, activation: nn.Module) -> Tensor:
    """`activation(linear(states))`; without gradients, oneDNN fuses GELU into the linear layer.

    Args:
        states: x [..., in].
        linear: from in to out.
        activation: elementwise.

    Returns:
        [..., out].
    """
    if type(activation) is GELUActivation and is_base_linear(linear) and not torch.is_grad_enabled():
        lower = to_autocast_dtype(states)
        if _onednn_suits(lower, linear.weight, linear.bias) or _onednn_suits_bfloat16(lower, linear.weight):
            return _by_onednn(lower, linear.weight, linear.bias, "gelu")
    return activation(linear(states))


def is_base_linear(linear: nn.Module) -> bool:
    """Whether a layer is the base's own and has no hooks, so that its weight and bias may be used directly.

    A layer that LoRA or quantisation has replaced computes more than `weight` and `bias` tell.
    """
    return type(linear) is BaseLinear and not (linear._forward_hooks or linear._forward_pre_hooks)


def _onednn_suits_bfloat16(states: Tensor, weight: Tensor) -> bool:
    """Whether states and weight are bfloat16, on a CPU for which oneDNN supports it."""
    return (
        not torch.compiler.is_compiling()
        and states.dtype == weight.dtype == torch.bfloat16
        and states.device.type == "cpu"
        and states.numel() > 0
        and has_onednn()
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def _onednn_suits(states: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether the layer is frozen, float32, and on a CPU where oneDNN is faster; `torch.compile` chooses for itself."""
    return (
        not torch.compiler.is_compiling()
        and states.dtype == weight.dtype == torch.float32
        and states.device.type == "cpu"
        and states.numel() > 0
        and not weight.requires_grad
        and (bias is None or not bias.requires_grad)
        and not torch.is_autocast_enabled("cpu")
        and prefers_onednn()
    )


@functools.cache
def has_onednn() -> bool:
    """Whether PyTorch is built with oneDNN."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@functools.cache
def prefers_onednn() -> bool:
    """Whether PyTorch would use MKL on an AMD processor, and has oneDNN too."""
    return has_onednn() and torch.backends.mkl.is_available() and "AuthenticAMD" in _processor()


def _processor() -> str:
    """A text that names the processor's vendor."""
    file = Path("/proc/cpuinfo")
    return file.read_text() if file.exists() else platform.processor()


def _by_onednn(states: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(states, weight, bias, activation, [], "none")


class _FrozenLinear(torch.autograd.Function):
    """The linear layer with a gradient for the states alone; only the weight is saved for the backward pass."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return _by_onednn(states, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (weight,) = ctx.saved_tensors
        return frozen_linear(gradient, weight.t()), None, None
