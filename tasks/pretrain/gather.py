"""What losses that look across a batch need of the other processes' parts of it."""

from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist


def processes() -> int:
    """How many processes share a batch; 1 where none were started."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def gathered(x: Tensor) -> Tensor:
    """The rows of all processes, in the order of their ranks, with a gradient; one process gets its own.

    Every process then computes the loss of the joined batch. Its gradient for a process's rows is summed over the
    processes on the way back, and averaged by Lightning's strategy: together the gradient of one process with all rows.

    Args:
        x: (B, ...), as many rows in every process.

    Example:
        >>> gathered(torch.eye(2))
        tensor([[1., 0.],
                [0., 1.]])
    """
    if processes() == 1:
        return x
    rows: Tensor = _Gather.apply(x)  # type: ignore[no-untyped-call]
    return rows


def summed(x: Tensor) -> Tensor:
    """The sum over processes, without a gradient."""
    if processes() > 1:
        x = x.clone()
        dist.all_reduce(x)
    return x


def largest(x: Tensor) -> Tensor:
    """The maximum over processes, without a gradient."""
    if processes() > 1:
        x = x.clone()
        dist.all_reduce(x, op=dist.ReduceOp.MAX)
    return x


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.rows = len(x)
        parts = [torch.empty_like(x) for _ in range(processes())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        first = dist.get_rank() * ctx.rows
        return summed(grads[0].contiguous())[first : first + ctx.rows]
