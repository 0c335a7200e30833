"""Collective operations over all processes; on one process, or without a process group, each is a no-op.

A contrastive loss over the batches of all processes has exact gradients under DistributedDataParallel if each process
takes the mean over its own rows, multiplies it by `RowCounts.weight` and gathers features with
`gather_rows(..., with_grad=True)`: the backward pass then sums the gradients of a row over the losses of all processes,
and DDP's average over processes is the gradient of the mean over all rows.
"""

from __future__ import annotations

import gc
import os
import platform
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import psutil
import torch
import torch.distributed as dist
from torch import Tensor

from uniadapter.errors import worker_failure

if dist.is_available():
    # Its functions have the process group of the moment as default: imported later, as DistributedDataParallel does
    # through torch._dynamo, they would keep the group and its threads beyond `destroy_process_group`.
    import torch.distributed.nn

T = TypeVar("T")

_LOST = re.compile(r"gloo|nccl|connection (closed|reset|refused)|broken pipe|timed? ?out|process group", re.I)


_where: list[tuple[str, int]] = []  # machine and process id of each rank


class PeerLost(ConnectionError):
    """Another process of the run has ended, so this one cannot continue."""


def world_size() -> int:
    """Number of processes; 1 without a process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Rank of this process; 0 without a process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def is_main() -> bool:
    """Whether this is rank 0, the only process that writes files and logs."""
    return rank() == 0


def barrier() -> None:
    """Wait for all processes."""
    if world_size() > 1:
        dist.barrier()


def destroy_process_group() -> None:
    """Destroy the process group, if there is one, and end its threads, which may abort a process that exits first.

    Call it when no DistributedDataParallel is referred to any more; those in circles of references are collected here.
    """
    if dist.is_available() and dist.is_initialized():
        gc.collect()
        dist.destroy_process_group()


@contextmanager
def reporting_lost_peers() -> Iterator[None]:
    """Turn torch's connection errors inside the block, caused by a process that ended, into one clear line.

    Raises:
        PeerLost: the connection to another process is lost.
    """
    try:
        yield
    except RuntimeError as error:
        count = max(world_size(), int(os.environ.get("WORLD_SIZE", 1)))  # the group may not be initialised yet
        if count == 1 or worker_failure(error) or not _LOST.search(str(error)):
            raise
        message = re.sub(r"^\[\S+\] ", "", str(error).strip())  # without the position in torch's source
        reason = message.splitlines()[0].split(". ")[0].strip()[:80]
        raise PeerLost(
            f"process {rank()} of {count} lost {_ended()} ({reason}); the last checkpoint is complete: continue with "
            "train --resume, or evaluate again"
        ) from error


def note_processes() -> None:
    """Exchange where each process runs, so that one that ends can be named; all processes call this."""
    _where[:] = gather_list([(platform.node(), os.getpid())])


def _ended() -> str:
    """Which processes of this machine have ended, in words; a connection may close a moment before its process ends."""
    for _ in range(20):
        gone = [f"process {one}" for one, (host, pid) in enumerate(_where) if host == platform.node() and _is_gone(pid)]
        if gone:
            return f"{' and '.join(gone)}, which ended"
        time.sleep(0.25)
    return "the others, of which one has ended or does not answer"


def _is_gone(pid: int) -> bool:
    """Whether a process of this machine has ended, perhaps without its parent's having noticed."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def check_on_rank0(check: Callable[[], object]) -> None:
    """Run a check on rank 0; if it raises there, every process ends and only rank 0 reports the error.

    Args:
        check: called without arguments, on rank 0 alone.

    Raises:
        SystemExit: with status 2, on the other processes.
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
class RowCounts:
    """Number of rows that each process holds.

    Args:
        counts: rows of each process, in rank order.
        rank: of this process.
    """

    counts: tuple[int, ...]
    rank: int

    @property
    def total(self) -> int:
        """Rows of all processes."""
        return sum(self.counts)

    @property
    def first_row(self) -> int:
        """Index of this process's first row among the gathered rows."""
        return sum(self.counts[: self.rank])

    @property
    def weight(self) -> float:
        """Factor for this process's mean loss: the mean over processes is then the mean over all rows."""
        return len(self.counts) * self.counts[self.rank] / self.total if self.total else 0.0


def gather_row_counts(count: int, device: torch.device | str = "cpu") -> RowCounts:
    """Exchange the number of rows of each process.

    Args:
        count: rows of this process; 0 is allowed.
        device: a device that the process group's backend supports (the GPU for NCCL).
    """
    if world_size() == 1:
        return RowCounts((count,), 0)
    mine = torch.tensor([count], dtype=torch.int64, device=device)
    every = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(every, mine)
    return RowCounts(tuple(int(one) for one in torch.cat(every).tolist()), rank())


def gather_rows(tensor: Tensor, with_grad: bool = False) -> Tensor:
    """Concatenate the rows of all processes, in rank order.

    Args:
        tensor: [rows, ...]; the number of rows may differ between processes, the other dimensions may not.
        with_grad: keep the gradient to the rows of all processes. Every process must then run the backward pass
            through the result, or the others wait forever. Otherwise the result is detached.

    Returns:
        [rows of all processes, ...]; on one process the tensor itself (detached where `with_grad` is false).
    """
    if world_size() == 1:
        return tensor if with_grad else tensor.detach()
    sizes = gather_row_counts(tensor.shape[0], tensor.device)
    if with_grad and torch.is_grad_enabled():
        return _GatherRows.apply(tensor, sizes)  # type: ignore[no-any-return, no-untyped-call]
    return _gather(tensor.detach(), sizes)


def gather_list(values: Sequence[T]) -> list[T]:
    """Concatenate the values of all processes (any picklable objects), in rank order."""
    if world_size() == 1:
        return list(values)
    every: list[Any] = [None] * world_size()
    dist.all_gather_object(every, list(values))
    return [value for part in every for value in part]


def max_over_processes(values: Sequence[float], device: torch.device | str = "cpu") -> list[float]:
    """Elementwise maximum over all processes (an all-reduce).

    Args:
        values: of the same length on every process.
        device: a device that the process group's backend supports.
    """
    if world_size() == 1:
        return list(values)
    tensor = torch.tensor(values, dtype=torch.float32, device=device)
    dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return [float(value) for value in tensor.tolist()]


def _gather(tensor: Tensor, sizes: RowCounts) -> Tensor:
    """The rows of all processes, padded to the largest count because all_gather wants equal shapes."""
    longest = max(sizes.counts)
    padded = tensor.new_zeros((longest, *tensor.shape[1:]))
    padded[: tensor.shape[0]] = tensor
    every = [torch.empty_like(padded) for _ in sizes.counts]
    dist.all_gather(every, padded)
    return torch.cat([part[:count] for part, count in zip(every, sizes.counts, strict=True)])


class _GatherRows(torch.autograd.Function):
    """`_gather` whose backward pass sums the gradients of this process's rows over all processes."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, sizes: RowCounts) -> Tensor:
        ctx.sizes = sizes
        return _gather(tensor.detach(), sizes)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        total = grads[0].contiguous().clone()
        dist.all_reduce(total)
        first = ctx.sizes.first_row
        return total[first : first + ctx.sizes.counts[ctx.sizes.rank]], None
