"""What a reduction is.

A reduction sees elements ``x`` ``(element axes, C)`` and their `Sets`, and never an axis number, a mask or a segment.
It works in steps, so that a set may come in chunks:

    partial(x, sets, count)  -> state    what some elements contribute to each set: a tuple of set tensors
    merge(a, b, m, n)        -> state    two contributions become one; associative and commutative
    finalize(state, count)   -> z        the pooled vectors, (set axes, *k, C)
    project(z, count)        -> z        what, if anything, is done to them (attention's value matrix)

Every pooling is ``project(finalize(partial(x, sets)))``: zero where a set is empty, whatever `partial` made of it.

``*k`` is K where the rule gives K vectors per set, and no axis where it gives one. Weights are the w of Σ w x,
``(element axes, *k, G)``: channels in G groups that share a weight. Where z has more channels than x (heads that are
projected, lists), it pools x repeated: its channel j is input channel j modulo C.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from modalpool.kernels import split_channels
from modalpool.reductions.options import Temperature
from modalpool.sets import Sets

__all__ = ["Average", "Count", "Partial", "Reduction", "State"]

State = tuple[Tensor, ...]
Partial = tuple[State, Tensor | None]
"""A state, and the weights if they were asked for."""


class Count:
    """N of each set, ``(set axes, 1)``: worked out when a rule asks for it, and never where none does.

    Args:
        ask: What works it out.
        full: What tells, without waiting for a device, that no set is empty; None = nothing does.
    """

    __slots__ = ("_ask", "_found", "_full")

    def __init__(self, ask: Callable[[], Tensor], full: Callable[[], bool] | None = None) -> None:
        self._ask, self._full = ask, full
        self._found: Tensor | None = None

    @staticmethod
    def of(sets: Sets, x: Tensor) -> Count:
        """That of the sets of ``x``."""
        return Count(lambda: sets.count(x), lambda: sets.full)

    def __call__(self) -> Tensor:
        """N."""
        if self._found is None:
            self._found = self._ask()
        return self._found

    def __add__(self, other: Count) -> Count:
        """That of two chunks of the same sets."""
        return Count(lambda: self() + other())

    def __getitem__(self, sets: Any) -> Count:
        """That of some of the sets."""
        return Count(lambda: self()[sets])

    @property
    def full(self) -> bool:
        """Whether it is known, without looking, that no set is empty."""
        return self._full is not None and self._full()

    def size(self) -> Tensor:
        """N with empty sets counted as one, to divide by."""
        count = self()
        return count if self.full else torch.where(count > 0, count, 1.0)

    def empty(self, z: Tensor) -> Tensor | None:
        """Which sets are empty, to broadcast to their vectors ``(set axes, *)``; None = none, as is known."""
        if self.full:
            return None
        empty = self() <= 0
        return empty.reshape(*empty.shape, *[1] * (z.ndim - empty.ndim))

    def blank(self, z: Tensor) -> Tensor:
        """``z (set axes, *)`` with zero where a set is empty."""
        empty = self.empty(z)
        return z if empty is None else z.masked_fill(empty, 0.0)


class Reduction(nn.Module, ABC):
    """Base of all reductions; each keeps its options under their own names, which is how they are printed."""

    vectors: int | None = None
    """K, the number of vectors per set, or None when the output has no k axis."""
    positional = False
    """Whether the rule reads coordinates: chunks of a set then need ``coords`` relative to the whole."""
    needs_whole: str | None = None
    """Why a set cannot come in several calls, and what to do; None = it can."""
    repeats = 1
    """How often z repeats the input's channels."""
    state_size = 1
    """How many tensors a state has."""

    def in_chunks(self, x: Tensor, sets: Sets) -> bool:
        """Whether `partial` needs memory of the size of ``x``, so that many elements are better reduced in chunks."""
        return True

    @property
    def merges(self) -> bool:
        """Whether the chunks of a set merge within a call, where its size is known.

        If they do not, sets go whole: of a large one some channels at a time, which must not mix.
        """
        return self.needs_whole is None

    def forward(self, x: Tensor, sets: Sets, count: Count) -> State:
        """The state of `partial` alone."""
        return self.partial(x, sets, count)[0]

    def out_channels(self, channels: int | None) -> int | None:
        """Channels of each output vector for an input with ``channels``."""
        return channels

    @abstractmethod
    def partial(self, x: Tensor, sets: Sets, count: Count, *, with_weights: bool = False) -> Partial:
        """What these elements contribute to each set, and the weights w if asked for.

        ``count`` is that of the whole sets, of which these may be chunks. Within a call it is known; a rule that looks
        at it here `needs_whole`.
        """

    def merge(self, a: State, b: State, m: Count, n: Count) -> State:
        """Join the contributions of two chunks of the same sets, of m and n elements."""
        raise NotImplementedError(self.needs_whole)

    @abstractmethod
    def finalize(self, state: State, count: Count) -> Tensor:
        """Pooled vectors ``(set axes, *k, C)``, zero where a set is empty."""

    def project(self, z: Tensor, count: Count) -> Tensor:
        """What is done to the pooled vectors after the sum; zero where a set is empty."""
        return z

    def empty(self, z: Tensor, state: State, count: Count) -> Tensor | None:
        """Which of the projected vectors have no elements, bool that broadcasts to z; None = none, as is known."""
        return count.empty(z)

    def option(self, name: str) -> Any:
        """What an option of the constructor is, where it was kept."""
        kept = getattr(self, name, None)
        return kept.value if isinstance(kept, Temperature) else kept

    def extra_repr(self) -> str:
        """The options that are not the default, as they would be written in the call."""
        parameters = inspect.signature(type(self).__init__).parameters.values()
        options = [(p.name, self.option(p.name), p.default) for p in parameters if p.kind == p.KEYWORD_ONLY]
        return ", ".join(f"{name}={value!r}" for name, value, default in options if value != default)


class Average(Reduction):
    """A rule whose weights sum to one: z = Σ w x / Σ w.

    Its state is ``(log_mass, z)``, with log_mass ``(set axes, *k, G)`` the log of the sum of the weights before they
    were normalised. Two averages are joined in proportion to their masses. Where only the best elements count their
    score stands between the two, and of two averages the one with the better counts, or both.
    """

    state_size = 2
    exact_zeros = False  # whether weights are often zero, so that infinite elements must not meet them

    @abstractmethod
    def weigh(self, x: Tensor, sets: Sets, count: Count) -> tuple[Tensor, ...]:
        """Normalised weights ``(element axes, *k, G)``, their log_mass, and the best score if the best alone count."""

    def partial(self, x: Tensor, sets: Sets, count: Count, *, with_weights: bool = False) -> Partial:
        weight, *mass = self.weigh(x, sets, count)
        if self.vectors is None:
            z = sets.weighted_sum(weight.unsqueeze(-2), x, exact_zeros=self.exact_zeros).squeeze(-2)
        else:
            z = sets.weighted_sum(weight, x, exact_zeros=self.exact_zeros)
        return (*mass, z), weight if with_weights else None

    def merge(self, a: State, b: State, m: Count, n: Count) -> State:
        masses = torch.stack((a[0], b[0]))
        top = [torch.maximum(a[1], b[1])] if len(a) == 3 else []
        if top:
            masses = torch.where(torch.stack((a[1], b[1])) == top[0], masses, -torch.inf)
        far = torch.finfo(masses.dtype).max
        masses = masses.clamp(-far, far)  # an empty chunk has log_mass -inf
        share = masses.softmax(0)
        groups = split_channels(torch.stack((a[-1], b[-1])), share.shape[-1])  # (2, …, G, C/G)
        joined = torch.where(share[..., None] == 0, 0.0, share[..., None] * groups).sum(0)
        return masses.logsumexp(0), *top, joined.flatten(-2)

    def finalize(self, state: State, count: Count) -> Tensor:
        return state[-1]
