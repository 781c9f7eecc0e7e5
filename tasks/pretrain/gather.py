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


def standardised(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Rows less their mean, divided by their standard deviation, number by number, over the rows of all processes.

    A batch norm that has no memory and no parameters; a process may have any number of rows.

    Args:
        x: (n, D).
        eps: Added to the variance.

    Example:
        >>> standardised(torch.tensor([[1.0, 5.0], [3.0, 5.0]])).round(decimals=3)
        tensor([[-1.,  0.],
                [ 1.,  0.]])
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        count = summed(x.new_tensor(float(len(x)))).clamp(min=1)
        x = x - _total(x.sum(0)) / count
        return x * (_total(x.square().sum(0)) / count + eps).rsqrt()


def _total(x: Tensor) -> Tensor:
    if processes() == 1:
        return x
    total: Tensor = _Sum.apply(x)  # type: ignore[no-untyped-call]
    return total


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


class _Sum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return summed(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return summed(grads[0].contiguous())
