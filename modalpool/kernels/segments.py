"""Which set each ragged element belongs to, in all the forms a kernel may want to read."""

from __future__ import annotations

import torch
from torch import Tensor

from modalpool.kernels import tuning
from modalpool.kernels.second_order import transformed
from modalpool.kernels.values import read


class Segments:
    """The sets of ``count`` ragged elements; each form is worked out when it is first asked for.

    Args:
        size: Number of sets S.
        count: Number of elements N.
        index: Set of each element, ``(N,)``; None where ``ptr`` says it.
        ptr: Bounds of the sets, ``(S + 1,)``, where the elements are in set order.
        lengths: Number of elements of each set, ``(S,)``, if that is known too.
        full: Whether every set has elements, if that is known.
    """

    def __init__(
        self,
        size: int,
        count: int,
        *,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        lengths: Tensor | None = None,
        full: bool | None = None,
    ) -> None:
        self.size = size
        self.count = count
        self.ordered = ptr is not None
        """Whether the elements are known to be in set order, without looking."""
        # What has been worked out so far (dynamo cannot trace functools.cached_property).
        self._index, self._ptr = index, ptr
        self._lengths, self._full = lengths, full
        self._order: Tensor | None = None
        self._in_order: bool | None = True if self.ordered else None
        self._runs: tuple[Tensor, Tensor] | None = None
        self._row_runs: tuple[Tensor, Tensor | None] | None = None
        self._without: tuple[Tensor, Segments] | None = None

    @property
    def _eager_cpu(self) -> bool:
        """Whether a look at the values costs nothing."""
        given = self._index if self._ptr is None else self._ptr
        assert given is not None
        return given.is_cpu and not torch.compiler.is_compiling() and type(given) is Tensor and not transformed()

    @property
    def short(self) -> bool:
        """Whether one running sum is good enough."""
        return self.count <= tuning.SHORT

    @property
    def full(self) -> bool:
        """Whether every set has elements (a CPU looks, of a device it is not known)."""
        if self._full is None:
            if self.size == 0 or not self._eager_cpu:
                return False
            self._full = bool(read(self.lengths.amin()) > 0)
        return self._full

    @property
    def index(self) -> Tensor:
        """Set of each element, ``(N,)``."""
        if self._index is None:
            assert self._ptr is not None
            if self._eager_cpu:
                self._index = torch.repeat_interleave(self.lengths, output_size=self.count)
            else:  # the number of bounds up to an element is its set (repeat_interleave says the same, but not in ONNX)
                bounds = self._ptr[1:-1]
                steps = self._ptr.new_zeros(self.count + 1).index_add(0, bounds, torch.ones_like(bounds))
                self._index = steps.cumsum(0)[: self.count]
        return self._index

    @property
    def lengths(self) -> Tensor:
        """Number of elements of each set, ``(S,)`` integers."""
        if self._lengths is None:
            if self._ptr is not None:
                self._lengths = self._ptr.diff()
            elif self._eager_cpu:
                self._lengths = torch.bincount(self.index, minlength=self.size)
            else:
                ones = torch.ones_like(self.index)
                self._lengths = self.index.new_zeros(self.size).index_add(0, self.index, ones)
        return self._lengths

    @property
    def ptr(self) -> Tensor:
        """Bounds of the sets among the elements in set order, ``(S + 1,)``."""
        if self._ptr is None:
            self._ptr = torch.nn.functional.pad(self.lengths.cumsum(0), (1, 0))
        return self._ptr

    @property
    def in_order(self) -> bool:
        """Whether the elements are in set order (a CPU looks, a device is not asked)."""
        if self._in_order is None:
            self._in_order = self._eager_cpu and bool((self.index[1:] >= self.index[:-1]).all().tolist())
        return self._in_order

    @property
    def order(self) -> Tensor | None:
        """The elements in set order, ``(N,)``; None where they are so already."""
        if self._order is None and not self.in_order:
            self._order = torch.argsort(self.index, stable=True)
        return self._order

    @property
    def runs(self) -> tuple[Tensor, Tensor]:
        """The run of each element, ``(N,)``, and the set of each run, ``(S + N // RUN + 1,)``; nothing is looked at.

        In set order, element i of set s is in run s + i // RUN: one number per pair, because neither falls.
        """
        if self._runs is None:
            step = torch.arange(self.count, device=self.index.device) // tuning.RUN
            if self.ordered:
                run = self.index + step
            else:
                in_order, order = torch.sort(self.index)
                run = torch.empty_like(self.index).index_copy(0, order, in_order + step)
            # Runs without elements stay with set 0, to which they add nothing.
            owner = self.index.new_zeros(self.size + self.count // tuning.RUN + 1).index_copy(0, run, self.index)
            self._runs = run, owner
        return self._runs

    @property
    def row_runs(self) -> tuple[Tensor, Tensor | None]:
        """Bounds of runs in set order, ``(R + 1,)``, and the set of each; None where each set is one run (CPU only)."""
        if self._row_runs is None:
            if self.count <= tuning.SHORT or read(self.lengths.max()) <= tuning.SHORT:
                self._row_runs = self.ptr, None
            else:
                bounds = torch.cat([self.ptr, torch.arange(0, self.count, tuning.ROW_RUN)]).sort().values
                owner = torch.searchsorted(self.ptr, bounds[:-1], right=True) - 1
                # Runs behind the last set are empty.
                self._row_runs = bounds, owner.clamp_(0, self.size - 1)
        return self._row_runs

    def without(self, there: Tensor) -> Segments:
        """The same sets where only some elements, ``(N,)``, are there: the others make up one more set, the last."""
        if self._without is None or self._without[0] is not there:
            index = torch.where(there, self.index, self.size)
            self._without = there, Segments(self.size + 1, self.count, index=index)
        return self._without[1]
