"""Softmax and power mean of each channel of dense sets on a CPU: sums of functions of an element, one read, one write.

The functions are computed in chunks that stay in the cache, again in the backward, and never written down.

Legend: ``D`` set axes, ``P`` pooled axes, ``C`` channels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from modalpool.kernels import definition, tuning
from modalpool.kernels.cpu.dense_attention import DenseAttention
from modalpool.kernels.cpu.memory import aligned, back, bits, blank, chunks, memory_order, per_set
from modalpool.kernels.definition import Frugal, Size
from modalpool.kernels.second_order import apply, plainly, vector_product
from modalpool.kernels.values import accumulation_type, clean, finite, inside, keeps_weights, learned, single

__all__ = ["DenseChannels"]

LOG2E = 1.4426950408889634


class _Terms(ABC):
    """Functions of an element, in ordinary operations."""

    count: int
    """How many they are."""

    @abstractmethod
    def __call__(self, x: Tensor, *of_set: Tensor) -> Iterator[Tensor]:
        """The functions of x, given some numbers of its set; each may take the memory of the one before."""

    @abstractmethod
    def slope(self, x: Tensor, grads: Sequence[Tensor], *of_set: Tensor, out: Tensor) -> None:
        """Write the gradient of x, given those of the functions' sums."""


def _product(a: Tensor, b: Tensor) -> Tensor:
    """A times b, in the memory of a unless a gradient will ask for it."""
    return a * b if torch.is_grad_enabled() else a.mul_(b)


def _walk(
    x: Tensor, many: Tensor | None, order: list[int], *others: Tensor
) -> Iterator[tuple[Tensor, Tensor | None, list[Tensor]]]:
    """Chunks of x in an order of axes: clean values, their multiplicities, and the same of what broadcasts to x."""
    kind = accumulation_type(x.dtype)
    if many is None:
        for chunk, *here in chunks(tuning.CHUNK, x.permute(order), *others):
            yield chunk.to(kind), None, here
        return
    mask = bits(many, x, order)
    times = aligned(many.to(kind), x, order)
    buffer = x.new_empty(min(tuning.CHUNK, x.numel()))
    for chunk, there, share, *here in chunks(tuning.CHUNK, x.permute(order), mask, times, *others):
        yield blank(chunk, there, buffer).to(kind), share, here


class _Totals(Function):
    """Sums of functions of an element over the pooled axes, in the accumulation type."""

    @staticmethod
    def forward(
        x: Tensor, terms: _Terms, dims: tuple[int, ...], many: Tensor | None, *of_set: Tensor
    ) -> tuple[Tensor, ...]:
        x, order = x.detach(), memory_order(x)
        pooled = [here for here, axis in enumerate(order) if axis in dims]
        shape = [1 if axis in dims else x.shape[axis] for axis in order]
        out = [x.new_zeros(shape, dtype=torch.float64) for _ in range(terms.count)]
        given = [per_set(number, dims, order) for number in of_set]
        for chunk, times, here in _walk(x, many, order, *out, *given):
            for to, term in zip(here, terms(chunk, *here[terms.count :]), strict=False):
                to.add_((term if times is None else term * times).sum(pooled, keepdim=True))
        return tuple(back(total, order).squeeze(dims).to(accumulation_type(x.dtype)) for total in out)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, ctx.terms, ctx.dims, ctx.many, *of_set = inputs
        ctx.save_for_backward(x, *of_set)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        x, *of_set = ctx.saved_tensors
        terms, dims, many, rest = ctx.terms, ctx.dims, ctx.many, [None] * (3 + len(of_set))
        if plainly(*grads):

            def again(x: Tensor) -> tuple[Tensor, ...]:
                sets = definition.Dense(dims)
                numbers = [per_set(number, dims, list(range(x.ndim))) for number in of_set]
                return tuple(sets.sum(term, many) for term in terms(clean(x, many), *numbers))

            return *vector_product(again, [x], grads), *rest
        order = memory_order(x)
        out = torch.empty_like(x.permute(order), memory_format=torch.contiguous_format)
        given = [per_set(number, dims, order) for number in (*grads, *of_set)]
        for chunk, times, (to, *here) in _walk(x, many, order, out, *given):
            slope = to if to.dtype == chunk.dtype else torch.empty_like(chunk)
            terms.slope(chunk, here[: terms.count], *here[terms.count :], out=slope)
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

    def __call__(self, x: Tensor, *of_set: Tensor) -> Iterator[Tensor]:
        """See `_Terms`."""
        mass = self._mass(x, *of_set)
        yield mass
        yield _product(mass, x)

    def slope(self, x: Tensor, grads: Sequence[Tensor], *of_set: Tensor, out: Tensor) -> None:
        """See `_Terms`: mass · (scale · (a + b x) + b)."""
        a, b = grads
        torch.mul(x, b * self.scale, out=out).add_(a * self.scale + b).mul_(self._mass(x, *of_set))

    def _mass(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        rate = self.scale * LOG2E  # exp takes three times as long as exp2
        if shift is None:
            return (x * rate).exp2_()
        return (x - shift).mul_(rate).clamp_(max=0).exp2_()  # what is not there may lie above the largest


class _Powers(_Terms):
    """max(x, ε)^p."""

    count = 1

    def __init__(self, p: float, eps: float) -> None:
        self.p, self.eps = p, eps

    def __call__(self, x: Tensor, *of_set: Tensor) -> Iterator[Tensor]:
        """See `_Terms`."""
        yield x.clamp(min=self.eps).pow_(self.p)

    def slope(self, x: Tensor, grads: Sequence[Tensor], *of_set: Tensor, out: Tensor) -> None:
        """See `_Terms`."""
        rises = torch.ge(x, self.eps, out=torch.empty_like(x))  # booleans take ten times as long
        torch.clamp(x, min=self.eps, out=out).pow_(self.p - 1).mul_(rises).mul_(grads[0] * self.p)


class DenseChannels(DenseAttention):
    """Softmax and power mean of each channel."""

    def frugal(self, x: Tensor, many: Tensor | None, scores: int = 1) -> Frugal:
        """Sums of functions keep nothing; weights of a linear attention are one number an element and score."""
        attend = self.dims[0] == 1 and single(x) and keeps_weights(x, scores)
        return Frugal(attend=attend, soften=many is None, power=many is None)

    def soften(self, x: Tensor, scale: Tensor | float, many: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """FIGURE_DENSE_SOFTEN."""
        if isinstance(scale, Tensor) or learned(many):
            return super().soften(x, scale, many)
        mass, total = apply(_Totals, x, _Exponentials(scale), self.dims, many)
        if inside(mass, 1 / tuning.FAR, tuning.FAR) and finite(total):
            return total / mass, mass.log()
        shift = (self.max if scale > 0 else self.min)(x.detach(), many)
        if not finite(shift):  # a set is empty, or infinite
            return super().soften(x, scale, many)
        mass, total = apply(_Totals, x, _Exponentials(scale), self.dims, many, shift)
        return total / mass, mass.log() + shift * scale

    def power(self, x: Tensor, p: Tensor | float, eps: float, many: Tensor | None, size_of: Size) -> Tensor:
        """As it is written, where no set's sum comes near a limit of its type: FIGURE_DENSE_POWER."""
        if not isinstance(p, Tensor) and not learned(many):
            (total,) = apply(_Totals, x, _Powers(p, eps), self.dims, many)
            if inside(total, 1 / tuning.VAST, tuning.VAST):
                root: Tensor = (total / size_of(x)) ** (1 / p)
                return root
        return super().power(x, p, eps, many, size_of)
