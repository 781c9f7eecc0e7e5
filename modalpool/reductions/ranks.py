"""The value at a rank, without a sort: bisection on the bits of a number, which are ordered as numbers are.

It takes as many reads as a value has bits, whatever the sets are, and no more memory than the elements.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from modalpool.sets import Sets

__all__ = ["at_rank", "chosen", "present"]

_BITS = {torch.float32: torch.int32, torch.float64: torch.int64}


class _View(Function):
    """The same bits as another type, for `torch.func.vmap`, which has no rule for it."""

    @staticmethod
    def forward(x: Tensor, dtype: torch.dtype) -> Tensor:
        return x.view(dtype)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, None], x: Tensor, dtype: torch.dtype) -> tuple[Tensor, int | None]:
        return _view(x, dtype), in_dims[0]


def _view(x: Tensor, dtype: torch.dtype) -> Tensor:
    mapped = not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()
    view: Tensor = _View.apply(x, dtype) if mapped else x.view(dtype)  # type: ignore[no-untyped-call]
    return view


def present(sets: Sets, x: Tensor) -> Tensor:
    """The multiplicity of each element, ``(E, 1)``, for clean ``x (E, C)``."""
    return sets.multiply(sets.clean(torch.ones_like(x[..., :1])))


def at_rank(x: Tensor, sets: Sets, rank: Tensor) -> Tensor:
    """The least value of each channel that, with all below it, makes more than ``rank`` elements.

    Rank 0 is the minimum, N - 1 the maximum, where every multiplicity is one. It has no gradient.

    Args:
        x: Clean elements ``(E, C)``.
        sets: Their sets.
        rank: ``(D, 1)``, below N.

    Returns:
        ``(D, C)``; nan where a set is empty.
    """
    kind = _BITS[x.dtype]
    least, most = torch.iinfo(kind).min, torch.iinfo(kind).max
    bits = _view(x.detach(), kind)
    bits = torch.where(bits < 0, bits ^ most, bits)  # of negative numbers they fall where the number rises
    many, rank = present(sets, x).detach(), rank.detach()

    def reached(value: Tensor) -> Tensor:
        """Whether what lies below makes no more than ``rank``."""
        return sets.tally(many * (bits < sets.expand(value))) <= rank

    found = torch.zeros_like(rank, dtype=kind).expand(*rank.shape[:-1], x.shape[-1])
    found = torch.where(reached(found), found, found + least)
    for bit in reversed(range(torch.iinfo(kind).bits - 1)):
        found = torch.where(reached(found + (1 << bit)), found + (1 << bit), found)
    return _view(torch.where(found < 0, found ^ most, found), x.dtype)


def chosen(weight: Tensor, x: Tensor, sets: Sets) -> Tensor:
    """Σ w x ``(D, C)`` for weights ``(E, C)`` that choose among clean elements; nan where one of them is."""
    z = sets.weighted_sum(weight.unsqueeze(-2), x, exact_zeros=True).squeeze(-2)
    return torch.where(sets.tally(x.detach().isnan().to(x.dtype)) > 0, torch.nan, z)
