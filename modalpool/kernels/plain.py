"""The plain composition: every set operation in ordinary torch operations.

Values arrive in the accumulation type and already clean (elements outside the mask are zero, or -inf for the maximum).

Legend: ``D`` the set axes of a dense batch, ``P`` its pooled axes, ``N`` ragged elements, ``S`` ragged sets,
``K`` vectors per set, ``G`` groups of channels that share a weight, ``C`` channels, ``*`` anything.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = [
    "Segments",
    "dense_max",
    "dense_sum",
    "dense_weighted_sum",
    "segment_max",
    "segment_sum",
    "segment_weighted_sum",
    "split_channels",
]

BLOCK = 128
"""How many elements are added one after the other before a partial sum is closed, and the partial sums are added in
float64: a float32 running sum over a million equal numbers drifts by percents."""
SMALL = 1024
"""Up to how many elements one running sum is good enough."""


class Segments:
    """Which set each ragged element belongs to, and how its sum is split into blocks.

    Args:
        index: Set of each element, ``(N,)``.
        size: Number of sets ``S``.
        ordered: Whether ``index`` is known to be non-decreasing.
    """

    def __init__(self, index: Tensor, size: int, *, ordered: bool) -> None:
        self.index = index
        self.size = size
        self.ordered = ordered
        self._blocks: tuple[Tensor, Tensor] | None = None

    def blocks(self) -> tuple[Tensor, Tensor]:
        """The block of each element, ``(N,)``, and the set of each block, ``(S + N // BLOCK + 1,)``.

        In set order, element i of set s is in block s + i // BLOCK: one number per pair, because neither falls.
        """
        if self._blocks is None:
            count = self.index.shape[0]
            step = torch.arange(count, device=self.index.device) // BLOCK
            if self.ordered:
                block = self.index + step
            else:
                in_order, order = torch.sort(self.index)
                block = torch.empty_like(self.index).index_copy(0, order, in_order + step)
            # Blocks without elements stay with set 0, to which they add nothing.
            owner = self.index.new_zeros(self.size + count // BLOCK + 1).index_copy(0, block, self.index)
            self._blocks = block, owner
        return self._blocks


def split_channels(values: Tensor, groups: int) -> Tensor:
    """``(*, C)`` as ``(*, groups, C / groups)``."""
    return values.reshape(*values.shape[:-1], groups, values.shape[-1] // groups)


def segment_sum(values: Tensor, segments: Segments) -> Tensor:
    """Sum ``(N, *)`` over each set: ``(S, *)``."""
    widen = values.device.type != "mps"  # where there is no float64
    total = values.new_zeros((segments.size, *values.shape[1:]))
    if torch.compiler.is_compiling() and widen:
        # Compiled code widens each value as it adds it, so it needs no blocks. (An unsorted index would need a sort for
        # them, which Inductor gets wrong when sizes are dynamic; and asking how many elements there are is a guard.)
        return total.double().index_add(0, segments.index, values.double()).to(values.dtype)
    if torch.compiler.is_compiling() or segments.index.shape[0] <= SMALL:
        return total.index_add(0, segments.index, values)
    block, owner = segments.blocks()
    partial = values.new_zeros((owner.shape[0], *values.shape[1:])).index_add(0, block, values)
    if widen:
        partial = partial.double()
    return total.to(partial.dtype).index_add(0, owner, partial).to(values.dtype)


def segment_max(values: Tensor, segments: Segments) -> Tensor:
    """Maximum of ``(N, *)`` over each set, ``(S, *)``; -inf where a set is empty; ties share the gradient."""
    index = segments.index.reshape(-1, *[1] * (values.ndim - 1)).expand_as(values)
    low = values.new_full((segments.size, *values.shape[1:]), -torch.inf)
    if not (torch.is_grad_enabled() and values.requires_grad):  # it may still carry a forward-mode tangent
        return low.scatter_reduce(0, index, values, "amax")
    top = low.scatter_reduce(0, index, values.detach(), "amax")
    # Differentiable twice: the mean over the elements that attain the maximum.
    best = values.detach() == top.index_select(0, segments.index)
    ties = segment_sum(best.to(values.dtype), segments)
    mean = segment_sum(torch.where(best, values, 0.0), segments) / ties.clamp(min=1)
    return torch.where(ties > 0, mean, top)


def segment_weighted_sum(weight: Tensor, values: Tensor, segments: Segments, *, exact_zeros: bool) -> Tensor:
    """Sum of weight ``(N, *, K, G)`` times value ``(N, *, C)`` over each set: ``(S, *, K, C)``."""
    groups = split_channels(values, weight.shape[-1])  # (N, *, G, C/G)
    vectors = []
    for k in range(weight.shape[-2]):
        share = weight[..., k, :, None]
        product = share * groups
        if exact_zeros:  # 0 · inf is not a number, but an element without weight is not there
            product = torch.where(share == 0, 0.0, product)
        vectors.append(segment_sum(product.flatten(-2), segments))
    return torch.stack(vectors, dim=-2)


def dense_sum(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Sum ``(D, P, *)`` over the pooled axes: ``(D, *)``."""
    return values.sum(dims)


def dense_max(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Maximum of ``(D, P, *)`` over the pooled axes, ``(D, *)``; ties share the gradient."""
    return values.amax(dims)


def dense_weighted_sum(weight: Tensor, values: Tensor, dims: tuple[int, ...], *, exact_zeros: bool) -> Tensor:
    """Sum of weight ``(D, P, K, G)`` times value ``(D, P, C)`` over the pooled axes: ``(D, K, C)``."""
    if weight.shape[-1] == values.shape[-1] > 1:  # one weight per channel: nothing for a matrix product to share
        product = weight * values[..., None, :]
        return (torch.where(weight == 0, 0.0, product) if exact_zeros else product).sum(dims)
    first, last = dims[0], dims[-1]
    weight = weight.expand(*values.shape[:-1], *weight.shape[-2:]).flatten(first, last)  # (D, N, K, G)
    values = split_channels(values.flatten(first, last), weight.shape[-1])  # (D, N, G, C/G)
    weight = weight.movedim(-3, -1).transpose(-3, -2)  # (D, G, K, N)
    values = values.transpose(-3, -2)  # (D, G, N, C/G)
    if not exact_zeros:
        total = weight @ values  # (D, G, K, C/G)
    else:  # 0 · inf is not a number, but an element without weight is not there: add the infinities apart
        finite = torch.where(values.isfinite(), values, 0.0)
        up = ((values == torch.inf) | values.isnan()).to(values.dtype)
        down = ((values == -torch.inf) | values.isnan()).to(values.dtype)
        present = (weight != 0).to(values.dtype)
        total = weight @ finite
        total = total + torch.where(present @ up > 0, torch.inf, 0.0) + torch.where(present @ down > 0, -torch.inf, 0.0)
    return total.transpose(-3, -2).flatten(-2)
