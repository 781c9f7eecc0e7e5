"""Mergeable state: a set that comes in chunks is pooled as if it had come at once.

    state = pool.update(None, first_chunk)          # of a recording; tiles of a volume, some nodes of a graph
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
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from modalpool.arrange import Arranged
from modalpool.kernels import accumulation_type, full_precision
from modalpool.layout import Axes
from modalpool.reductions import Count, Reduction, State

__all__ = ["PoolState", "all_merge", "merge", "update"]

_WIDE = {"mps": torch.float32}  # which has no float64


@dataclass(frozen=True)
class PoolState:
    """What a pooling knows of its sets so far.

    Attributes:
        count: Size of each set (sum of its weights), ``(set axes, 1)``; in float64, which can always count one more.
        own: The reduction's own tensors, set axes first.
        axes: Where the axes of the elements were.
        dtype: Type of the elements, and so of the result.
        rule: The reduction, as it is written.
    """

    count: Tensor
    own: State
    axes: Axes
    dtype: torch.dtype
    rule: str

    def of(self, rule: str) -> PoolState:
        """The state itself, if it is of this rule."""
        if self.rule != rule:
            raise ValueError(f"state: expected one of {rule}, got one of {self.rule}; give it to the pool that made it")
        return self

    def counted(self) -> Count:
        """N, in the type of the reduction's tensors."""
        return Count(lambda: self.count.to(accumulation_type(self.dtype)))

    def map(self, function: Callable[[Tensor], Tensor]) -> PoolState:
        """Apply a function to every tensor, as in ``state.map(torch.Tensor.detach)`` or ``state.map(Tensor.cpu)``."""
        return replace(self, count=function(self.count), own=tuple(function(tensor) for tensor in self.own))

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All tensors: the count, then the reduction's own."""
        return (self.count, *self.own)


torch.serialization.add_safe_globals([PoolState, Axes])


def update(reduction: Reduction, state: PoolState | None, arranged: Arranged, rule: str) -> PoolState:
    """Add the elements of one chunk to a state of a rule (None = nothing yet)."""
    x, sets = arranged.elements, arranged.sets
    count = Count(lambda: sets.count(x))
    with full_precision(x):
        own = reduction.partial(x, sets, count)[0]
        new = PoolState(count().to(_WIDE.get(x.device.type, torch.float64)), own, arranged.axes, x.dtype, rule)
    return new if state is None else merge(reduction, state.of(rule), new)


def merge(reduction: Reduction, a: PoolState, b: PoolState) -> PoolState:
    """Join what two chunks contributed to the same sets.

    Raises:
        ValueError: If the states are not of the same rule and sets.
        NotImplementedError: If the reduction cannot be merged.
    """
    b.of(a.rule)
    if [t.shape for t in a.tensors] != [t.shape for t in b.tensors] or a.axes != b.axes:
        raise ValueError(
            "state: expected two states of the same sets, got set axes "
            f"{tuple(a.count.shape[:-1])} and {tuple(b.count.shape[:-1])} with tensors of shapes "
            f"{[tuple(t.shape) for t in a.own]} and {[tuple(t.shape) for t in b.own]}; "
            "give all chunks the same batch, channels and kept axes, or the same dim_size"
        )
    if reduction.needs_whole is not None:
        raise NotImplementedError(reduction.needs_whole)
    with full_precision(a.count):
        own = reduction.merge(a.own, b.own, a.counted(), b.counted())
    return replace(a, count=a.count + b.count, own=own, dtype=torch.promote_types(a.dtype, b.dtype))


def all_merge(
    reduction: Reduction, state: PoolState, *, group: dist.ProcessGroup | None = None, objective: str = "mean"
) -> PoolState:
    """Join the states of all processes of a group; every process gets the same one, to the bit.

    One collective (an all-gather of the packed state) forward and one backward, so all processes of the group have to
    call it, and go backward, together. A process without elements takes part with ``pool.update(None, x)`` of an empty
    chunk.

    Args:
        reduction: The rule, with the same parameters everywhere.
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
            values.reshape(tensor.shape).to(tensor.dtype)
            for values, tensor in zip(torch.split(flat, lengths), state.tensors, strict=True)
        ]
        return replace(state, count=tensors[0], own=tuple(tensors[1:]))

    gathered: Tensor = _Gather.apply(packed, scale, group)  # type: ignore[no-untyped-call]
    return reduce(lambda a, b: merge(reduction, a, b), map(unpack, gathered.unbind(0)))


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
