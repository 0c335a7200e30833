"""Products with the base's matrices on a CPU, by the faster of the two libraries that torch was built with.

For float32 torch takes MKL, which is tuned for Intel's processors; on AMD's its other library, oneDNN, is 5 to 26%
faster for BLIP-base's shapes, forward and backward (benchmarks/products.py). Half precision goes to oneDNN anyway.
Where no gradient is wanted, oneDNN applies the activation to what it has just computed, and the wide states of a
feed-forward are written once. On a GPU nothing changes.
"""

from __future__ import annotations

import functools
import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import GELUActivation

from uniadapter.model.kernels.attention import lowered


class BaseLinear(nn.Linear):
    """A linear layer of the base."""

    original = nn.Linear  # what it is again once the last adapter is gone

    def forward(self, input: Tensor) -> Tensor:
        """As `nn.Linear`, [..., in] to [..., out]."""
        return product(input, self.weight, self.bias)


def product(states: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`nn.functional.linear`: W x + b, equal to rounding.

    Args:
        states: x [..., in].
        weight: W [out, in].
        bias: b [out], or None.

    Returns:
        [..., out].
    """
    if not _suits(states, weight, bias):
        return nn.functional.linear(states, weight, bias)
    if torch.is_grad_enabled() and states.requires_grad:
        return _Product.apply(states, weight, bias)  # type: ignore[no-any-return]
    return _by_onednn(states, weight, bias)


def activated(states: Tensor, linear: nn.Linear, activation: nn.Module) -> Tensor:
    """The activation of a linear layer's output.

    Args:
        states: x [..., in].
        linear: in to out.
        activation: of each element.

    Returns:
        [..., out].
    """
    if type(activation) is GELUActivation and is_plain(linear) and not torch.is_grad_enabled():
        lower = lowered(states)
        if _suits(lower, linear.weight, linear.bias) or _both_bfloat16(lower, linear.weight):
            return _by_onednn(lower, linear.weight, linear.bias, "gelu")
    return activation(linear(states))


def is_plain(linear: nn.Module) -> bool:
    """Whether a layer is the base's own, with no hook, so that its weights may stand for it.

    Somebody may have put another layer in its place, LoRA or a quantised one, whose `weight` is not all that it does.
    """
    return type(linear) is BaseLinear and not (linear._forward_hooks or linear._forward_pre_hooks)


def _both_bfloat16(states: Tensor, weight: Tensor) -> bool:
    """On a CPU whose bfloat16 products oneDNN has."""
    return (
        not torch.compiler.is_compiling()
        and states.dtype == weight.dtype == torch.bfloat16
        and states.device.type == "cpu"
        and states.numel() > 0
        and has_onednn()
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def _suits(states: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Frozen, float32 throughout, on a CPU where it is the faster way; a compiler has ways of its own."""
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
    """Whether torch was built with it."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@functools.cache
def prefers_onednn() -> bool:
    """Whether torch would take MKL on a processor that it is not tuned for, and has oneDNN too."""
    return has_onednn() and torch.backends.mkl.is_available() and "AuthenticAMD" in _processor()


def _processor() -> str:
    """What names the processor's maker: a file on Linux, the platform's own string on Windows."""
    file = Path("/proc/cpuinfo")
    return file.read_text() if file.exists() else platform.processor()


def _by_onednn(states: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(states, weight, bias, activation, [], "none")


class _Product(torch.autograd.Function):
    """The same with a gradient for the states alone; nothing is stored but the weight itself."""

    @staticmethod
    def forward(ctx: Any, states: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        return _by_onednn(states, weight, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (weight,) = ctx.saved_tensors
        return product(gradient, weight.t()), None, None
