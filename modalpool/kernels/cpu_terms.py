"""Dense sets on a CPU whose pooled values are made of sums of functions of an element: one read, one write back.

The functions are computed in blocks that stay in the cache, again in the backward, and never written down.

Legend: ``D`` set axes, ``P`` pooled axes, ``C`` channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from modalpool.kernels import cpu_dense, fused, plain
from modalpool.kernels.blocks import CHUNK, aligned, back, bits, blank, blocks, memory_order
from modalpool.kernels.choice import VAST, apply, finite, inside
from modalpool.kernels.differentiate import plainly, vector_product
from modalpool.kernels.plain import accumulation_type

__all__ = ["dense_power", "dense_soften"]

FAR = 1e18
"""Up to which sum of exponentials they are of moderate numbers: e^41."""
LOG2E = 1.4426950408889634


class _Terms(ABC):
    """Functions of an element, in ordinary operations."""

    count: int
    """How many they are."""

    @abstractmethod
    def __call__(self, x: Tensor, *per_set: Tensor) -> Iterator[Tensor]:
        """The functions of x, given some numbers of its set; each may take the memory of the one before."""

    @abstractmethod
    def slope(self, x: Tensor, grads: Sequence[Tensor], *per_set: Tensor, out: Tensor) -> None:
        """Write the gradient of x, given those of the functions' sums."""


def _product(a: Tensor, b: Tensor) -> Tensor:
    """A times b, in the memory of a unless a gradient will ask for it."""
    return a * b if torch.is_grad_enabled() else a.mul_(b)


def _walk(
    x: Tensor, many: Tensor | None, order: list[int], *others: Tensor
) -> Iterator[tuple[Tensor, Tensor | None, list[Tensor]]]:
    """Blocks of x in an order of axes: clean values, their multiplicities, and the same of what broadcasts to x."""
    kind = accumulation_type(x.dtype)
    if many is None:
        for part, *here in blocks(CHUNK, x.permute(order), *others):
            yield part.to(kind), None, here
        return
    mask = bits(many, x, order)
    times = aligned(many.to(kind), x, order)
    buffer = x.new_empty(min(CHUNK, x.numel()))
    for part, there, share, *here in blocks(CHUNK, x.permute(order), mask, times, *others):
        yield blank(part, there, buffer).to(kind), share, here


def _expand(per_set: Tensor, dims: tuple[int, ...], order: list[int]) -> Tensor:
    """Insert the pooled axes, in ascending order, with size one, and put all axes into an order."""
    for axis in dims:
        per_set = per_set.unsqueeze(axis)
    return per_set.permute(order)


class _Totals(Function):
    """Sums of functions of an element over the pooled axes, in the accumulation type."""

    @staticmethod
    def forward(
        x: Tensor, terms: _Terms, dims: tuple[int, ...], many: Tensor | None, *per_set: Tensor
    ) -> tuple[Tensor, ...]:
        x, order = x.detach(), memory_order(x)
        pooled = [here for here, axis in enumerate(order) if axis in dims]
        shape = [1 if axis in dims else x.shape[axis] for axis in order]
        out = [x.new_zeros(shape, dtype=torch.float64) for _ in range(terms.count)]
        given = [_expand(number, dims, order) for number in per_set]
        for part, times, here in _walk(x, many, order, *out, *given):
            for to, term in zip(here, terms(part, *here[terms.count :]), strict=False):
                to.add_((term if times is None else term * times).sum(pooled, keepdim=True))
        return tuple(back(total, order).squeeze(dims).to(accumulation_type(x.dtype)) for total in out)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, ctx.terms, ctx.dims, ctx.many, *per_set = inputs
        ctx.save_for_backward(x, *per_set)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *per_set = ctx.saved_tensors
        terms, dims, many, rest = ctx.terms, ctx.dims, ctx.many, [None] * (3 + len(per_set))
        if plainly(*grads):

            def again(x: Tensor) -> tuple[Tensor, ...]:
                numbers = [_expand(number, dims, list(range(x.ndim))) for number in per_set]
                return tuple(plain.dense_sum(term, dims, many) for term in terms(plain.clean(x, many), *numbers))

            return *vector_product(again, [x], grads), *rest
        order = memory_order(x)
        out = torch.empty_like(x.permute(order), memory_format=torch.contiguous_format)
        given = [_expand(number, dims, order) for number in (*grads, *per_set)]
        for part, times, (to, *here) in _walk(x, many, order, out, *given):
            slope = to if to.dtype == part.dtype else torch.empty_like(part)
            terms.slope(part, here[: terms.count], *here[terms.count :], out=slope)
            if times is not None:
                slope.mul_(times)
            if slope is not to:
                to.copy_(slope)
        return back(out, order), *rest


class _Exponentials(_Terms):
    """exp((x - shift) · scale), and that times x."""

    count = 2

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def __call__(self, x: Tensor, *per_set: Tensor) -> Iterator[Tensor]:
        """See `_Terms`."""
        mass = self._mass(x, *per_set)
        yield mass
        yield _product(mass, x)

    def slope(self, x: Tensor, grads: Sequence[Tensor], *per_set: Tensor, out: Tensor) -> None:
        """See `_Terms`: mass · (scale · (a + b x) + b)."""
        a, b = grads
        torch.mul(x, b * self.scale, out=out).add_(a * self.scale + b).mul_(self._mass(x, *per_set))

    def _mass(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        rate = self.scale * LOG2E  # exp takes three times as long as exp2
        if shift is None:
            return (x * rate).exp2_()
        return (x - shift).mul_(rate).clamp_(max=0).exp2_()  # what is not there may lie above the largest


def dense_soften(
    x: Tensor, scale: Tensor | float, dims: tuple[int, ...], many: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """See `modalpool.kernels.fused.soften`."""
    if isinstance(scale, Tensor) or (many is not None and many.requires_grad):
        return cpu_dense.dense_soften(x, scale, dims, many)
    mass, total = apply(_Totals, x, _Exponentials(scale), dims, many)
    if inside(mass, 1 / FAR, FAR) and finite(total):
        return total / mass, mass.log()
    shift = (cpu_dense.dense_max if scale > 0 else cpu_dense.dense_min)(x.detach(), dims, many)
    if not finite(shift):  # a set is empty, or infinite
        return cpu_dense.dense_soften(x, scale, dims, many)
    mass, total = apply(_Totals, x, _Exponentials(scale), dims, many, shift)
    return total / mass, mass.log() + shift * scale


class _Powers(_Terms):
    """max(x, ε)^p."""

    count = 1

    def __init__(self, p: float, eps: float) -> None:
        self.p, self.eps = p, eps

    def __call__(self, x: Tensor, *per_set: Tensor) -> Iterator[Tensor]:
        """See `_Terms`."""
        yield x.clamp(min=self.eps).pow_(self.p)

    def slope(self, x: Tensor, grads: Sequence[Tensor], *per_set: Tensor, out: Tensor) -> None:
        """See `_Terms`."""
        rises = torch.ge(x, self.eps, out=torch.empty_like(x))  # booleans take ten times as long
        torch.clamp(x, min=self.eps, out=out).pow_(self.p - 1).mul_(rises).mul_(grads[0] * self.p)


def dense_power(
    x: Tensor, p: Tensor | float, eps: float, dims: tuple[int, ...], many: Tensor | None, size: fused.Size
) -> Tensor:
    """See `modalpool.kernels.fused.power`: as it is written, where no set's sum comes near a limit of its type."""
    if not isinstance(p, Tensor) and not (many is not None and many.requires_grad):
        (total,) = apply(_Totals, x, _Powers(p, eps), dims, many)
        if inside(total, 1 / VAST, VAST):
            root: Tensor = (total / size(x)) ** (1 / p)
            return root
    return fused.power(x, p, eps, fused.Dense(dims), many, size)
