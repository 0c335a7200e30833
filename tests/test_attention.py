"""Attention by products equals torch's fused attention, whole or in parts, masked or not, gradients included."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from uniadapter.model.kernels import attention


def drawn(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Query, key, value, and a mask that hides the end of some rows."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(3, 2, n, 16, generator=generator) for n in (7, 11, 11))
    mask = torch.where(torch.arange(11) < torch.tensor([11, 4, 8])[:, None], 0.0, torch.finfo(dtype).min)
    return query.to(dtype), key.to(dtype), value.to(dtype), mask[:, None, None].to(dtype)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("limit", [1 << 22, 50])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_it_is_fused_attention_in_any_precision(
    dtype: torch.dtype, limit: int, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "SCORE_ELEMENTS", limit)
    query, key, value, mask = drawn(dtype)
    exact = torch.nn.functional.scaled_dot_product_attention(
        query.double(), key.double(), value.double(), attn_mask=mask.double() if masked else None
    )
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        found = attention.attend(query, key, value, mask if masked else None)
    assert found.dtype == dtype
    assert (found.double() - exact).abs().max() < {torch.bfloat16: 0.02, torch.float16: 3e-3}.get(dtype, 1e-5)


@pytest.mark.parametrize("masked", [False, True])
def test_gradients_are_those_of_fused_attention(masked: bool) -> None:
    query, key, value, mask = drawn(torch.bfloat16)
    inputs = [t.requires_grad_() for t in (query, key, value)]
    pull = torch.randn(query.shape, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad(attention.attend(*inputs, mask if masked else None).float(), inputs, pull)
    doubles = [t.detach().double().requires_grad_() for t in inputs]
    exact = torch.nn.functional.scaled_dot_product_attention(*doubles, attn_mask=mask.double() if masked else None)
    for ours, theirs in zip(found, torch.autograd.grad(exact, doubles, pull.double()), strict=True):
        assert (ours.double() - theirs).norm() < 0.02 * theirs.norm()


@pytest.mark.parametrize("masked", [False, True])
def test_dropout_has_the_right_mean(masked: bool) -> None:
    query, key, value, mask = drawn(torch.bfloat16)
    mask = mask if masked else None
    with torch.no_grad():
        mean = torch.stack([attention.attend(query, key, value, mask, 0.3).float() for _ in range(2000)]).mean(0)
        assert not torch.equal(*(attention.attend(query, key, value, mask, 0.3) for _ in range(2)))
        assert (mean - attention.attend(query, key, value, mask).float()).abs().max() < 0.15
