"""Single rows of other processes, each sent by the one that has it to those that want it, and its gradient back."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from uniadapter.processes.distributed import RowCounts, gather_rows


def fetch_rows(tensor: Tensor, wanted: Tensor, rows: RowCounts) -> Tensor:
    """Rows of all processes, of which each process wants others; what is sent does not grow with the processes.

    Every process must call this, with as many wanted rows as it likes, and run the backward pass through the result if
    it has gradients, or the others wait forever.

    Args:
        tensor: this process's rows, [rows, ...]; the number of rows may differ between processes, the other dimensions
            may not.
        wanted: [W] int64 among the rows of all processes, in rank order.
        rows: how many each process has.

    Returns:
        [W, ...], with gradients to the processes that have them.
    """
    if len(rows.counts) == 1:
        return tensor[wanted]
    world = len(rows.counts)
    ends = torch.tensor(rows.counts, device=wanted.device).cumsum(0)
    owner = torch.searchsorted(ends, wanted, right=True)
    by_owner = torch.argsort(owner, stable=True)
    asked = torch.bincount(owner, minlength=world)  # of each process
    every = gather_rows(asked[None])  # [process that asks, process that is asked]
    asks, given = asked.tolist(), every[:, rows.rank].tolist()
    starts = ends - torch.tensor(rows.counts, device=wanted.device)
    local = _exchange((wanted - starts[owner])[by_owner], asks, given)
    fetched = _FetchRows.apply(tensor, local, given, asks)  # type: ignore[no-untyped-call]
    return fetched[torch.argsort(by_owner)]  # type: ignore[no-any-return]


class _FetchRows(torch.autograd.Function):
    """Give some rows away and take others; backward, their gradients go the other way and are added up."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, local: Tensor, given: list[int], asked: list[int]) -> Tensor:
        ctx.save_for_backward(local)
        ctx.shape, ctx.given, ctx.asked = tensor.shape, given, asked
        return _exchange(tensor.detach()[local], given, asked)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        (local,) = ctx.saved_tensors
        own = _exchange(grads[0], ctx.asked, ctx.given)
        return own.new_zeros(ctx.shape).index_add_(0, local, own), None, None, None


def _exchange(tensor: Tensor, given: list[int], taken: list[int]) -> Tensor:
    """So many rows to each process, in rank order, for so many of each."""
    found = tensor.new_empty((sum(taken), *tensor.shape[1:]))
    dist.all_to_all_single(found, tensor.contiguous(), taken, given)
    return found
