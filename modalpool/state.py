"""Mergeable state: a set that comes in parts is pooled as if it had come at once.

    state = pool.update(None, first_chunk)          # chunks of a recording, tiles of a volume, parts of a graph
    state = pool.update(state, second_chunk)        # = pool.merge(state, pool.update(None, second_chunk))
    state = pool.all_merge(state)                   # and what the other processes hold
    z = pool.finalize(state)                        # what pool(everything) gives, to rounding

All of them are pure functions, and differentiable. A chunk may be masked or empty, and chunks may come in any order:
merging is associative and commutative to rounding. The state of a set is a handful of numbers per channel, whatever
the number of elements, so a recording of any length is pooled in constant memory.

What a chunk does not know is its place in the whole: a rule that looks at positions needs ``coords`` for every chunk.
Where chunks tie for a maximum they share its gradient chunk by chunk, not element by element.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from modalpool.layout import Axes

if TYPE_CHECKING:
    from modalpool.pool import Pool

__all__ = ["PoolState", "all_merge", "finalize", "merge", "update"]


@dataclass(frozen=True)
class PoolState:
    """What a pooling knows of its sets so far.

    Attributes:
        count: Size of each set (sum of its weights), ``(set axes, 1)``.
        parts: The reduction's own tensors, set axes first.
        axes: Where the axes of the elements were.
        dtype: Type of the elements, and so of the result.
    """

    count: Tensor
    parts: tuple[Tensor, ...]
    axes: Axes
    dtype: torch.dtype

    def map(self, function: Callable[[Tensor], Tensor]) -> PoolState:
        """Apply a function to every tensor, as in ``state.map(torch.Tensor.detach)`` or ``state.map(Tensor.cpu)``."""
        return replace(self, count=function(self.count), parts=tuple(function(part) for part in self.parts))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors: the count, then the parts."""
        return (self.count, *self.parts)


def update(pool: Pool, state: PoolState | None, x: Tensor, **sets: Any) -> PoolState:
    """Add the elements of one chunk to a state.

    Args:
        pool: The pooling.
        state: What came before, or None.
        x: Elements in the pool's layout.
        sets: ``mask``, ``weight``, ``lengths``, ``index``, ``ptr``, ``dim_size``, ``coords``, as in the pool's call;
            all chunks have the same batch and kept axes, or number the same sets (``dim_size``).

    Returns:
        The new state; the old one is as it was.

    Raises:
        ValueError: If the chunk has other sets than the state, or the rule looks at positions and has no ``coords``.
        NotImplementedError: If the reduction cannot be merged.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> pool, state, recording = Pool("b c [t]", "std"), None, torch.randn(2, 8, 1000)
        >>> for chunk in recording.split(300, dim=-1):
        ...     state = pool.update(state, chunk)
        >>> torch.allclose(pool.finalize(state), pool(recording), atol=1e-6)
        True
    """
    if pool.reduction.positional and sets.get("coords") is None:
        raise ValueError(
            "coords: this reduction looks at positions, and a chunk does not know its place in the whole; "
            "pass coords= (in [0, 1] over the whole)"
        )
    arranged = pool.arrange(x, **sets)
    with torch.autocast(x.device.type, enabled=False):
        parts, _ = pool.reduction.partial(arranged.elements, arranged.sets)
        count = arranged.sets.count(arranged.elements)
    new = PoolState(count, parts, arranged.axes, x.dtype)
    return new if state is None else merge(pool, state, new)


def merge(pool: Pool, a: PoolState, b: PoolState) -> PoolState:
    """Join what two chunks contributed to the same sets.

    Raises:
        ValueError: If the states are not of the same sets.
        NotImplementedError: If the reduction cannot be merged.
    """
    if [t.shape for t in a.tensors] != [t.shape for t in b.tensors] or a.axes != b.axes:
        raise ValueError(
            "state: expected two states of the same sets, got set axes "
            f"{tuple(a.count.shape[:-1])} and {tuple(b.count.shape[:-1])} with parts of shapes "
            f"{[tuple(t.shape) for t in a.parts]} and {[tuple(t.shape) for t in b.parts]}; "
            "give all chunks the same batch, channels and kept axes, or the same dim_size"
        )
    if pool.reduction.sized:
        raise NotImplementedError(
            "temperature_scaling='log_n' needs the size of the whole set, which its parts do not know; "
            "pool the whole at once, or use temperature_scaling='none'"
        )
    with torch.autocast(a.count.device.type, enabled=False):
        parts = pool.reduction.merge(a.parts, b.parts)
    return PoolState(a.count + b.count, parts, a.axes, torch.promote_types(a.dtype, b.dtype))


def finalize(pool: Pool, state: PoolState) -> Tensor:
    """Give the pooled tensor of everything the state has seen: what ``pool(everything)`` gives, to rounding."""
    with torch.autocast(state.count.device.type, enabled=False):
        z = pool.fill_empty(pool.reduction.project(pool.reduction.finalize(state.parts)), state.count, state.parts)
    vectors = pool.vectors is not None
    y = state.axes.restore_sets(z if vectors else z.squeeze(-2), vectors=vectors, keepdim=pool.keepdim)
    return y.to(state.dtype)


def all_merge(
    pool: Pool, state: PoolState, *, group: dist.ProcessGroup | None = None, objective: str = "mean"
) -> PoolState:
    """Join the states of all processes of a group; every process gets the same one, to the bit.

    One collective (an all-gather of the packed state) forward and one backward, so all processes of the group have to
    call it, and go backward, together. A process without elements takes part with ``pool.update(None, x)`` of an empty
    chunk.

    Args:
        pool: The pooling, with the same parameters everywhere.
        state: What this process has seen; same sets everywhere.
        group: The processes; None = all.
        objective: What the elements' gradients are of: "mean" or "sum" of the processes' losses. Where all compute the
            same loss from the joined state, "mean" gives each element the gradient it has in a single process. Use
            "sum" where parameters are trained and their gradients are then averaged over the processes, as
            `DistributedDataParallel` does: the average is the single process's, for parameters before, in and after
            the pooling.

    Raises:
        ValueError: If ``objective`` is neither.
        RuntimeError: If torch.distributed is not initialised.
    """
    if objective not in ("mean", "sum"):
        raise ValueError(f"objective: expected 'mean' or 'sum', got {objective!r}")
    if not dist.is_initialized():
        raise RuntimeError("all_merge: expected torch.distributed to be initialised; call init_process_group first")
    ranks = dist.get_world_size(group)
    packed = torch.cat([tensor.flatten() for tensor in state.tensors])
    scale = 1.0 if objective == "sum" else 1.0 / ranks
    lengths = [tensor.numel() for tensor in state.tensors]

    def unpack(flat: Tensor) -> PoolState:
        tensors = [
            piece.reshape(tensor.shape).to(tensor.dtype)
            for piece, tensor in zip(torch.split(flat, lengths), state.tensors, strict=True)
        ]
        return replace(state, count=tensors[0], parts=tuple(tensors[1:]))

    gathered: Tensor = _Gather.apply(packed, scale, group)  # type: ignore[no-untyped-call]
    return reduce(lambda a, b: merge(pool, a, b), map(unpack, gathered.unbind(0)))


class _Gather(torch.autograd.Function):
    """Every process's ``(n,)`` as ``(processes, n)``; `_AddUp` is its backward and it is that of `_AddUp`."""

    @staticmethod
    def forward(ctx: Any, mine: Tensor, scale: float, group: dist.ProcessGroup | None) -> Tensor:
        ctx.scale, ctx.group = scale, group
        everyone = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
        dist.all_gather(everyone, mine.contiguous(), group=group)
        return torch.stack(everyone)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _AddUp.apply(grad, ctx.scale, ctx.group), None, None  # type: ignore[no-untyped-call]


class _AddUp(torch.autograd.Function):
    """This process's row of the sum over processes, times a factor."""

    @staticmethod
    def forward(ctx: Any, grad: Tensor, scale: float, group: dist.ProcessGroup | None) -> Tensor:
        ctx.scale, ctx.group = scale, group
        total = grad.contiguous().clone()
        dist.all_reduce(total, group=group)
        return scale * total[dist.get_rank(group)]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Gather.apply(grad, ctx.scale, ctx.group), None, None  # type: ignore[no-untyped-call]
