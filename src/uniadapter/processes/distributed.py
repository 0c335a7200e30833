"""Rows from every process in rank order; on one process, or without a process group, everything is a no-op.

A loss over a global gallery is exact under DistributedDataParallel when each process takes the mean over its
own rows, weighs it by `Share.weight` and gathers with `gather_rows(..., with_grad=True)`: the backward pass
then sums what every process's loss says about a row, and DDP's averaging over processes gives the gradient of
the one mean over all rows.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from uniadapter.errors import lost_worker

T = TypeVar("T")

_LOST = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|timed? ?out|process group", re.I)


class PeerLost(ConnectionError):
    """Another process of the run has ended, so that this one cannot go on."""


def world_size() -> int:
    """How many processes take part; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process; 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this is the process that writes files and logs."""
    return rank() == 0


def barrier() -> None:
    """Wait for every process; returns at once on one."""
    if world_size() > 1:
        dist.barrier()


def leave() -> None:
    """Leave the process group, if there is one; its threads would abort a process that ends while they run."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


@contextmanager
def losing_peers() -> Iterator[None]:
    """Within the block a connection that breaks because another process ended is said as that, in one line.

    Raises:
        PeerLost: it broke.
    """
    try:
        yield
    except RuntimeError as error:
        count = max(world_size(), int(os.environ.get("WORLD_SIZE", 1)))  # also while the processes are still meeting
        if count == 1 or lost_worker(error) or not _LOST.search(str(error)):
            raise
        told = re.sub(r"^\[\S+\] ", "", str(error).strip())  # without the place in torch's source
        reason = told.splitlines()[0].split(". ")[0].strip()[:80]
        raise PeerLost(
            f"process {rank()} of {count} lost the others, of which one has ended ({reason}); what was saved last is "
            "whole: go on with train --resume, or evaluate again"
        ) from error


def first_decides(check: Callable[[], object]) -> None:
    """Let the first process check something; where it raises, all end, and the first one says why.

    Raises:
        SystemExit: with status 2, on the others.
    """
    failed: list[Exception] = []
    if is_main():
        try:
            check()
        except Exception as error:
            failed = [error]
    if any(gather_list([bool(failed)])):
        if failed:
            raise failed[0]
        raise SystemExit(2)


@dataclass(frozen=True)
class Share:
    """How many rows each process holds, and this process's place among them.

    Args:
        counts: rows of each process, in rank order.
        rank: this process's number.
    """

    counts: tuple[int, ...]
    rank: int

    @property
    def total(self) -> int:
        """Rows of all processes."""
        return sum(self.counts)

    @property
    def first_row(self) -> int:
        """Where this process's rows start among the gathered ones."""
        return sum(self.counts[: self.rank])

    @property
    def weight(self) -> float:
        """Factor on this process's mean loss, so that the mean over processes is the mean over all rows."""
        return len(self.counts) * self.counts[self.rank] / self.total if self.total else 0.0


def share(count: int, device: torch.device | str = "cpu") -> Share:
    """Tell every process how many rows this one holds.

    Args:
        count: this process's rows; 0 is allowed.
        device: one that the process group can talk over (the GPU for NCCL).
    """
    if world_size() == 1:
        return Share((count,), 0)
    mine = torch.tensor([count], dtype=torch.int64, device=device)
    every = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(every, mine)
    return Share(tuple(int(one) for one in torch.cat(every).tolist()), rank())


def gather_rows(tensor: Tensor, with_grad: bool = False) -> Tensor:
    """Concatenate every process's rows, in rank order.

    Args:
        tensor: [rows, ...]; the number of rows may differ between processes, everything behind it may not.
        with_grad: keep the gradient to every process's rows. All processes must then run the backward pass
            through the result, or the others wait forever. Otherwise the result is detached.

    Returns:
        [rows of all processes, ...]; on one process the tensor itself (detached where `with_grad` is false).
    """
    if world_size() == 1:
        return tensor if with_grad else tensor.detach()
    sizes = share(tensor.shape[0], tensor.device)
    if with_grad and torch.is_grad_enabled():
        return _GatherRows.apply(tensor, sizes)  # type: ignore[no-any-return, no-untyped-call]
    return _gather(tensor.detach(), sizes)


def gather_list(values: Sequence[T]) -> list[T]:
    """Concatenate every process's values (strings, numbers: whatever pickles), in rank order."""
    if world_size() == 1:
        return list(values)
    every: list[Any] = [None] * world_size()
    dist.all_gather_object(every, list(values))
    return [value for part in every for value in part]


def greatest(values: Sequence[float], device: torch.device | str = "cpu") -> list[float]:
    """For each value the greatest that any process has.

    Args:
        values: as many on every process.
        device: one that the process group can talk over.
    """
    if world_size() == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float32, device=device)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return [float(value) for value in tensor.tolist()]


def _gather(tensor: Tensor, sizes: Share) -> Tensor:
    """All processes' rows of a detached tensor: padded to the longest for all_gather."""
    longest = max(sizes.counts)
    padded = tensor.new_zeros((longest, *tensor.shape[1:]))
    padded[: tensor.shape[0]] = tensor
    every = [torch.empty_like(padded) for _ in sizes.counts]
    dist.all_gather(every, padded)
    return torch.cat([part[:count] for part, count in zip(every, sizes.counts, strict=True)])


class _GatherRows(torch.autograd.Function):
    """`_gather` whose backward pass adds up what every process says about this one's rows."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, sizes: Share) -> Tensor:
        ctx.sizes = sizes
        return _gather(tensor.detach(), sizes)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        first = ctx.sizes.first_row
        return total[first : first + ctx.sizes.counts[ctx.sizes.rank]], None
