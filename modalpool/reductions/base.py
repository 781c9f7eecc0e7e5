"""What a reduction is.

A reduction sees elements ``x`` ``(element axes, C)`` and their `Sets`, and never an axis number, a mask or a segment.
It works in three steps, so that a set may come in parts:

    partial(x, sets)  -> state          what one part of every set contributes: a tuple of set tensors
    merge(a, b)       -> state          two parts become one; associative and commutative
    finalize(state)   -> z              the pooled vectors, (set axes, K, C)

and `project` is what, if anything, is done to the pooled vectors (attention's value matrix). A pooling of everything at
once is ``project(finalize(partial(x, sets)))``. `pool` is a shortcut to the same for rules that need no state for it.

``weights`` are the w of Σ w x: ``(element axes, K, G)``, K vectors per set, channels in G groups that share a weight.
A rule that has no k axis has K = 1 here and ``vectors = None``. Where z has more channels than x (heads that are
projected, lists), it pools x repeated: its channel j is input channel j modulo C.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from modalpool.kernels import split_channels
from modalpool.sets import Sets

__all__ = ["Average", "Reduction", "State"]

State = tuple[Tensor, ...]
_FAR = 1e30  # beyond every score, and still a number


class Reduction(nn.Module, ABC):
    """Base of all reductions."""

    vectors: int | None = None
    """K, the number of vectors per set, or None when the output has no k axis."""
    positional = False
    """Whether the rule reads coordinates: parts of a set then need ``coords`` relative to the whole."""

    repeats = 1
    """How often z repeats the input's channels."""
    state_size = 1
    """How many tensors a state has."""
    zero_if_empty = False
    """Whether ``project(finalize(state))`` is zero for a set without elements, whatever is in other sets."""

    sized = False
    """Whether the rule looks at the size of the whole set, which parts that come in calls of their own do not know."""

    def in_chunks(self, x: Tensor, sets: Sets) -> bool:
        """Whether `partial` needs memory of the size of ``x``, so that many elements are better reduced in chunks."""
        return True

    def forward(self, x: Tensor, sets: Sets) -> State:
        """The state of `partial` alone."""
        return self.partial(x, sets)[0]

    def out_channels(self, channels: int | None) -> int | None:
        """Channels of each output vector for an input with ``channels``."""
        return channels

    @abstractmethod
    def partial(self, x: Tensor, sets: Sets, *, with_weights: bool = False) -> tuple[State, Tensor | None]:
        """What these elements contribute to each set, and the weights w if asked for."""

    @abstractmethod
    def merge(self, a: State, b: State) -> State:
        """Join the contributions of two parts of the same sets."""

    @abstractmethod
    def finalize(self, state: State) -> Tensor:
        """Pooled vectors ``(set axes, K, C)``; anything finite where a set is empty."""

    def pool(self, x: Tensor, sets: Sets) -> Tensor | None:
        """Pooled vectors ``(set axes, C)`` of whole sets, zero where one is empty; None = only a state gives them.

        A rule that changes what another's `partial` does changes this too.
        """
        return None

    def project(self, z: Tensor) -> Tensor:
        """What is done to the pooled vectors after the sum."""
        return z

    def absent(self, state: State) -> Tensor | None:
        """Which vectors of a set that is not empty have no elements, bool ``(set axes, K, 1)``; None = none can."""
        return None


class Average(Reduction):
    """A rule whose weights sum to one: z = Σ w x / Σ w.

    Its state is ``(log_mass, z)``, with log_mass ``(set axes, K, G)`` the log of the sum of the weights before they
    were normalised. Two averages are joined in proportion to their masses.
    """

    @abstractmethod
    def weigh(self, x: Tensor, sets: Sets) -> tuple[Tensor, Tensor]:
        """Normalised weights ``(element axes, K, G)`` and their log_mass."""

    state_size = 2
    exact_zeros = False  # whether weights are often zero, so that infinite elements must not meet them

    def partial(self, x: Tensor, sets: Sets, *, with_weights: bool = False) -> tuple[State, Tensor | None]:
        """See `Reduction.partial`."""
        weight, log_mass = self.weigh(x, sets)
        z = sets.weighted_sum(weight, x, exact_zeros=self.exact_zeros)
        return (log_mass, z), weight if with_weights else None

    def merge(self, a: State, b: State) -> State:
        """See `Reduction.merge`."""
        masses = torch.stack((a[0], b[0])).clamp(-_FAR, _FAR)  # an empty part has log_mass -inf
        share = masses.softmax(0)
        groups = split_channels(torch.stack((a[1], b[1])), share.shape[-1])  # (2, …, K, G, C/G)
        joined = torch.where(share[..., None] == 0, 0.0, share[..., None] * groups).sum(0)
        return masses.logsumexp(0), joined.flatten(-2)

    def finalize(self, state: State) -> Tensor:
        """See `Reduction.finalize`."""
        return state[1]
