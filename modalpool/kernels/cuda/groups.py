"""Dense and ragged sets of a GPU: from what callers have to the one view that the ops take, and back.

The view is ``(A, B, P, G, D)``: set axes, elements, groups that share a multiplicity or a weight, channels of a group.
What has no kernel is the definition, put together from what has.

Legend: ``S`` ragged sets, ``C`` channels, ``*`` anything.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from math import prod

from torch import Tensor

from modalpool.kernels import definition
from modalpool.kernels.cuda import ops
from modalpool.kernels.definition import Frugal, Group
from modalpool.kernels.values import Many, accumulation_type, learned, sloped


@dataclass(frozen=True)
class Where:
    """Which elements make up which set."""

    shape: tuple[int, ...]  # of the sets
    dims: tuple[int, ...] | None = None  # pooled axes of dense sets
    full: tuple[int, ...] | None = None  # of the element axes of dense sets
    ptr: Tensor | None = None  # of ragged sets
    order: Tensor | None = None

    def elements(self, tensor: Tensor, kept: int, groups: int = 1) -> Tensor:
        """``(element axes, *)`` as ``(A, B, P, G, D)``: ``kept`` axes are elements' too, ``groups`` split the rest."""
        if self.dims is None:
            tensor = tensor[None, None]
        else:
            tensor = tensor.flatten(self.dims[0], self.dims[-1])
            axes = len(self.shape)
            tensor = tensor.flatten(0, axes - 2) if axes > 2 else tensor[(None,) * (2 - axes)]
        front = tensor.shape[3 : 3 + kept]
        return tensor.reshape(*tensor.shape[:3], prod(front) * groups, prod(tensor.shape[3 + kept :]) // groups)

    def times(self, many: Many, kept: int, groups: int = 1) -> Tensor | None:
        """Multiplicities as ``(A, B, P, G)``."""
        if many is None:
            return None
        many = self.elements(many if self.full is None else many.expand(self.full), kept)
        return many.expand(*many.shape[:4], groups).flatten(3)


def _sum(values: Tensor, where: Where, many: Many) -> Tensor:
    first = 1 if where.dims is None else where.dims[-1] + 1
    rest = values.shape[first:]
    kept = 0 if many is None else many.ndim - first
    x = where.elements(values, kept)
    z: Tensor = ops.set_sum(x, None, where.times(many, kept), where.ptr, where.order, False)
    return z.reshape(*where.shape, *rest)


def _extreme(values: Tensor, where: Where, many: Many, least: bool) -> Tensor:
    first = 1 if where.dims is None else where.dims[-1] + 1
    kept = 0 if many is None else many.ndim - first
    x = where.elements(values, kept)
    top: Tensor = ops.set_max(x, where.times(many, kept), where.ptr, where.order, sloped(x), least)[0]
    return top.reshape(*where.shape, *values.shape[first:])


def _weighted_sum(weight: Tensor, values: Tensor, where: Where, many: Many, exact_zeros: bool) -> Tensor:
    kept = values.ndim - 2 if where.dims is None else 0
    vectors, groups = weight.shape[-2:]
    weight = weight.expand(*values.shape[:-1], vectors, groups)
    share = where.elements(weight.movedim(-2, -1), kept, 1)  # (A, B, P, kept, groups · K)
    share = share.reshape(*share.shape[:4], groups, vectors).movedim(-1, 3).flatten(4)  # (A, B, P, K, kept · groups)
    x = where.elements(values, kept, groups)
    z: Tensor = ops.set_sum(x, share, where.times(many, kept, groups), where.ptr, where.order, exact_zeros)
    front = values.shape[1:-1] if where.dims is None else ()
    z = z.reshape(*z.shape[:2], prod(front), groups, z.shape[-1]).movedim(1, 2)  # (S, kept, K, groups, D)
    return z.reshape(*where.shape, *front, vectors, values.shape[-1])


def _soften(x: Tensor, scale: float, where: Where, many: Many) -> tuple[Tensor, Tensor]:
    kept = x.ndim - 2 if where.dims is None else 0
    seen = where.elements(x, kept)
    z, log_mass, _, _ = ops.set_soften(seen, scale, where.times(many, kept), where.ptr, where.order)
    shape = (*where.shape, *(x.shape[1:] if where.dims is None else x.shape[-1:]))
    return z.reshape(shape), log_mass.reshape(shape)


class _Launched(Group):
    """Sums, maxima and softmax pooling as kernels: one read of x each."""

    @abstractmethod
    def _where(self, values: Tensor) -> Where:
        """Which elements make up which set."""

    @abstractmethod
    def _plain(self) -> Group:
        """The definition."""

    def frugal(self, x: Tensor, many: Many, scores: int = 1) -> Frugal:
        """What has a kernel."""
        return Frugal(soften=not learned(many))

    def sum(self, values: Tensor, many: Many = None) -> Tensor:
        """One read."""
        return self._plain().sum(values, many) if learned(many) else _sum(values, self._where(values), many)

    def extreme(self, values: Tensor, many: Many = None, *, least: bool) -> Tensor:
        """One read, which counts ties too."""
        return _extreme(values, self._where(values), many, least)

    def weighted_sum(self, weight: Tensor, values: Tensor, many: Many = None, *, exact_zeros: bool = False) -> Tensor:
        """One read, if channels share weights."""
        if weight.shape[-1] == values.shape[-1] > 1:
            return self._plain().weighted_sum(weight, values, many, exact_zeros=exact_zeros)
        return _weighted_sum(weight, values, self._where(values), many, exact_zeros)

    def soften(self, x: Tensor, scale: Tensor | float, many: Many = None) -> tuple[Tensor, Tensor]:
        """One read: an online softmax."""
        if learned(many) or isinstance(scale, Tensor):
            return super().soften(x, scale, many)
        return _soften(x, scale, self._where(x), many)


class Ragged(_Launched, definition.Ragged):
    """Ragged sets."""

    def _where(self, values: Tensor) -> Where:
        segments = self.segments
        return Where((segments.size,), ptr=segments.ptr.contiguous(), order=segments.order)

    def _plain(self) -> Group:
        return definition.Ragged(self.segments)


class Dense(_Launched, definition.Dense):
    """Dense sets; torch's own sum and matrix product, where they will do."""

    def _where(self, values: Tensor) -> Where:
        return Where(tuple(values.shape[: self.dims[0]]), self.dims, tuple(values.shape[: self.dims[-1] + 1]))

    def _plain(self) -> Group:
        return definition.Dense(self.dims)

    def sum(self, values: Tensor, many: Many = None) -> Tensor:
        """Torch's own without multiplicities."""
        if many is None:
            return values.sum(self.dims, dtype=accumulation_type(values.dtype))
        return super().sum(values, many)

    def weighted_sum(self, weight: Tensor, values: Tensor, many: Many = None, *, exact_zeros: bool = False) -> Tensor:
        """A matrix product, if several vectors share weights over channels."""
        if many is None and not exact_zeros and weight.shape[-2] > 1 and weight.shape[-1] < values.shape[-1]:
            return self._plain().weighted_sum(weight, values)
        return super().weighted_sum(weight, values, many, exact_zeros=exact_zeros)
