"""Softmax and power mean of each channel of dense sets on a CPU: sums of functions of an element, one read, one write.

The functions are computed in chunks that stay in the cache, again in the backward, and never written down.

Legend: ``D`` set axes, ``P`` pooled axes, ``C`` channels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from modalpool.kernels import definition, tuning
from modalpool.kernels.cpu.dense_attention import DenseAttention
from modalpool.kernels.cpu.memory import aligned, back, bits, blank, chunks, memory_order, per_set
from modalpool.kernels.definition import Frugal, Size
from modalpool.kernels.second_order import Fast, Grads, Saved
from modalpool.kernels.values import Many, accumulation_type, clean, finite, inside, keeps_weights, learned, single

LOG2E = 1.4426950408889634


def _product(a: Tensor, b: Tensor) -> Tensor:
    """A times b, in the memory of a unless a gradient will ask for it."""
    return a * b if torch.is_grad_enabled() else a.mul_(b)


def _walk(
    x: Tensor, many: Many, order: list[int], *others: Tensor
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


class _Totals(Fast):
    """Sums over the pooled axes, in the accumulation type, of functions of an element and of numbers of its set."""

    count: int
    """How many functions there are."""

    def __init__(self, dims: tuple[int, ...], many: Many) -> None:
        self.dims, self.many = dims, many

    @abstractmethod
    def terms(self, x: Tensor, *of_set: Tensor) -> Iterator[Tensor]:
        """The functions of x, in ordinary operations; each may take the memory of the one before."""

    @abstractmethod
    def slope(self, x: Tensor, grads: Sequence[Tensor], *of_set: Tensor, out: Tensor) -> None:
        """Write the gradient of x, given those of the functions' sums."""

    def again(self, x: Tensor, *of_set: Tensor) -> tuple[Tensor, ...]:
        sets, order = definition.Dense(self.dims), list(range(x.ndim))
        numbers = [per_set(number, self.dims, order) for number in of_set]
        return tuple(sets.sum(term, self.many) for term in self.terms(clean(x, self.many), *numbers))

    def forward(self, x: Tensor, *of_set: Tensor) -> tuple[Tensor, ...]:
        dims, order = self.dims, memory_order(x)
        pooled = [here for here, axis in enumerate(order) if axis in dims]
        shape = [1 if axis in dims else x.shape[axis] for axis in order]
        out = [x.new_zeros(shape, dtype=torch.float64) for _ in range(self.count)]
        given = [per_set(number, dims, order) for number in of_set]
        for chunk, times, here in _walk(x, self.many, order, *out, *given):
            for to, term in zip(here, self.terms(chunk, *here[self.count :]), strict=False):
                to.add_((term if times is None else term * times).sum(pooled, keepdim=True))
        return tuple(back(total, order).squeeze(dims).to(accumulation_type(x.dtype)) for total in out)

    def backward(self, saved: Saved, grads: Grads, wanted: Sequence[bool]) -> Grads:
        x, *of_set = saved[: -self.count]
        slopes = [
            torch.zeros_like(z) if grad is None else grad for z, grad in zip(saved[-self.count :], grads, strict=True)
        ]
        order = memory_order(x)
        out = torch.empty_like(x.permute(order), memory_format=torch.contiguous_format)
        given = [per_set(number, self.dims, order) for number in (*slopes, *of_set)]
        for chunk, times, (to, *here) in _walk(x, self.many, order, out, *given):
            slope = to if to.dtype == chunk.dtype else torch.empty_like(chunk)
            self.slope(chunk, here[: self.count], *here[self.count :], out=slope)
            if times is not None:
                slope.mul_(times)
            if slope is not to:
                to.copy_(slope)
        return back(out, order), *[None] * len(of_set)


class _Exponentials(_Totals):
    """exp((x - shift) · scale), and that times x."""

    count = 2

    def __init__(self, dims: tuple[int, ...], many: Many, scale: float) -> None:
        super().__init__(dims, many)
        self.scale = scale

    def terms(self, x: Tensor, *of_set: Tensor) -> Iterator[Tensor]:
        mass = self._mass(x, *of_set)
        yield mass
        yield _product(mass, x)

    def slope(self, x: Tensor, grads: Sequence[Tensor], *of_set: Tensor, out: Tensor) -> None:
        """Write mass · (scale · (a + b x) + b)."""
        a, b = grads
        torch.mul(x, b * self.scale, out=out).add_(a * self.scale + b).mul_(self._mass(x, *of_set))

    def _mass(self, x: Tensor, shift: Tensor | None = None) -> Tensor:
        rate = self.scale * LOG2E  # exp takes three times as long as exp2
        if shift is None:
            return (x * rate).exp2_()
        return (x - shift).mul_(rate).clamp_(max=0).exp2_()  # what is not there may lie above the largest


class _Powers(_Totals):
    """max(x, ε)^p."""

    count = 1

    def __init__(self, dims: tuple[int, ...], many: Many, p: float, eps: float) -> None:
        super().__init__(dims, many)
        self.p, self.eps = p, eps

    def terms(self, x: Tensor, *of_set: Tensor) -> Iterator[Tensor]:
        yield x.clamp(min=self.eps).pow_(self.p)

    def slope(self, x: Tensor, grads: Sequence[Tensor], *of_set: Tensor, out: Tensor) -> None:
        """Write p · max(x, ε)^(p - 1) where x is at least ε."""
        rises = torch.ge(x, self.eps, out=torch.empty_like(x))  # booleans take ten times as long
        torch.clamp(x, min=self.eps, out=out).pow_(self.p - 1).mul_(rises).mul_(grads[0] * self.p)


class DenseChannels(DenseAttention):
    """Softmax and power mean of each channel."""

    def frugal(self, x: Tensor, many: Many, scores: int = 1) -> Frugal:
        """Sums of functions keep nothing; weights of a linear attention are one number an element and score."""
        attend = self.dims[0] == 1 and single(x) and keeps_weights(x, scores)
        return Frugal(attend=attend, soften=many is None, power=many is None)

    def soften(self, x: Tensor, scale: Tensor | float, many: Many = None) -> tuple[Tensor, Tensor]:
        """No weights are kept: 4.3 to 4.7 times as fast forward, 3.9 to 4.1 with the backward, a fifth of memory."""
        if isinstance(scale, Tensor) or learned(many):
            return super().soften(x, scale, many)
        mass, total = _Exponentials(self.dims, many, scale)(x)
        if inside(mass, 1 / tuning.FAR, tuning.FAR) and finite(total):
            return total / mass, mass.log()
        shift = self.extreme(x.detach(), many, least=scale < 0)
        if not finite(shift):  # a set is empty, or infinite
            return super().soften(x, scale, many)
        mass, total = _Exponentials(self.dims, many, scale)(x, shift)
        return total / mass, mass.log() + shift * scale

    def power(self, x: Tensor, p: Tensor | float, eps: float, many: Many, size_of: Size) -> Tensor:
        """As written, far from limits of the type: 1.7 to 1.8 times as fast forward, 2.1 to 2.6 with the backward."""
        if not isinstance(p, Tensor) and not learned(many):
            (total,) = _Powers(self.dims, many, p, eps)(x)
            if inside(total, 1 / tuning.VAST, tuning.VAST):
                root: Tensor = (total / size_of(x)) ** (1 / p)
                return root
        return super().power(x, p, eps, many, size_of)
