"""The plain composition: every set operation in ordinary torch operations, which is its definition.

Values arrive raw: any type, any strides, anything at all where an element is not there. ``many`` is the multiplicity of
each element (bool or float; None = each once), and what has multiplicity zero is replaced before any arithmetic. Sums
are kept, and given, in the accumulation type.

Legend: ``D`` the set axes of a dense batch, ``P`` its pooled axes, ``N`` ragged elements, ``S`` ragged sets,
``K`` vectors per set, ``G`` groups of channels that share a weight, ``C`` channels, ``*`` anything.
"""

from __future__ import annotations

import torch
from torch import Tensor

from modalpool.kernels.segments import Segments

__all__ = [
    "accumulation_type",
    "clean",
    "dense_max",
    "dense_min",
    "dense_sum",
    "dense_weighted_sum",
    "multiply",
    "present",
    "segment_max",
    "segment_mean",
    "segment_min",
    "segment_sum",
    "segment_weighted_sum",
    "split_channels",
]


HALF = (torch.float16, torch.bfloat16)


def accumulation_type(dtype: torch.dtype) -> torch.dtype:
    """The type sums are kept in: float32 for half precision, otherwise the type itself."""
    return torch.float32 if dtype in HALF else dtype


def align(small: Tensor, large: Tensor) -> Tensor:
    """Append axes of size one to ``small`` until it has as many axes as ``large``."""
    return small.reshape(*small.shape, *[1] * (large.ndim - small.ndim))


def present(many: Tensor) -> Tensor:
    """Which elements are there."""
    return many if many.dtype == torch.bool else many > 0


def clean(values: Tensor, many: Tensor | None, outside: float = 0.0) -> Tensor:
    """``values`` in the accumulation type, with ``outside`` where an element is not there."""
    if values.dtype in HALF:
        values = values.to(torch.float32)
    if many is None:
        return values
    return torch.where(align(present(many), values), values, outside)


def multiply(values: Tensor, many: Tensor | None) -> Tensor:
    """Clean ``values`` times the multiplicity of each element."""
    if many is None or many.dtype == torch.bool:
        return values
    return align(many.to(values.dtype), values) * values


def split_channels(values: Tensor, groups: int) -> Tensor:
    """``(*, C)`` as ``(*, groups, C / groups)``."""
    return values.reshape(*values.shape[:-1], groups, values.shape[-1] // groups)


def segment_sum(values: Tensor, segments: Segments, many: Tensor | None = None) -> Tensor:
    """Sum ``(N, *)`` over each set: ``(S, *)``."""
    values = multiply(clean(values, many), many)
    widen = not values.is_mps  # where there is no float64
    total = values.new_zeros((segments.size, *values.shape[1:]))
    if torch.compiler.is_compiling() and widen:
        # Compiled code widens each value as it adds it, so it needs no blocks. (An unsorted index would need a sort for
        # them, which Inductor gets wrong when sizes are dynamic; and asking how many elements there are is a guard.)
        return total.double().index_add(0, segments.index, values.double()).to(values.dtype)
    if torch.compiler.is_compiling() or segments.small:
        return total.index_add(0, segments.index, values)
    block, owner = segments.blocks
    partial = values.new_zeros((owner.shape[0], *values.shape[1:])).index_add(0, block, values)
    if widen:
        partial = partial.double()
    return total.to(partial.dtype).index_add(0, owner, partial).to(values.dtype)


def segment_mean(values: Tensor, segments: Segments) -> Tensor:
    """Average ``(N, *)`` over each set, ``(S, *)``; zero where a set is empty."""
    return share(segment_sum(values, segments), segments)


def share(total: Tensor, segments: Segments) -> Tensor:
    """Sums ``(S, *)`` divided by how many elements each set has, or by one."""
    return total / align(segments.lengths.clamp(min=1), total)


def segment_max(values: Tensor, segments: Segments, many: Tensor | None = None) -> Tensor:
    """Maximum of ``(N, *)`` over each set, ``(S, *)``; -inf where a set is empty; ties share the gradient."""
    values = clean(values, many, -torch.inf)
    index = segments.index.reshape(-1, *[1] * (values.ndim - 1)).expand_as(values)
    low = values.new_full((segments.size, *values.shape[1:]), -torch.inf)
    if not (torch.is_grad_enabled() and values.requires_grad):  # it may still carry a forward-mode tangent
        return low.scatter_reduce(0, index, values, "amax")
    top = low.scatter_reduce(0, index, values.detach(), "amax")
    # Differentiable twice: the mean over the elements that attain the maximum.
    best = values.detach() == top.index_select(0, segments.index)
    share = best.to(values.dtype)
    share = share / segment_sum(share, segments).clamp(min=1).index_select(0, segments.index)
    mean = segment_sum(torch.where(best, share * values, 0.0), segments)
    return torch.where(mean.isfinite(), top + (mean - mean.detach()), mean)  # a mean of equals is rounded, they are not


def segment_min(values: Tensor, segments: Segments, many: Tensor | None = None) -> Tensor:
    """Minimum of ``(N, *)`` over each set, ``(S, *)``; inf where a set is empty; ties share the gradient."""
    return -segment_max(-values, segments, many)


def segment_weighted_sum(
    weight: Tensor, values: Tensor, segments: Segments, many: Tensor | None = None, *, exact_zeros: bool = False
) -> Tensor:
    """Sum of weight ``(N, *, K, G)`` times value ``(N, *, C)`` over each set: ``(S, *, K, C)``.

    The weight contains the multiplicities already. With ``exact_zeros``, 0 · inf is 0: zero weights are common.
    """
    values = clean(values, many)
    weight = weight.to(values.dtype).expand(*values.shape[:-1], *weight.shape[-2:])
    groups = split_channels(values, weight.shape[-1])  # (N, *, G, C/G)
    vectors = []
    for k in range(weight.shape[-2]):
        share = weight[..., k, :, None]
        product = share * groups
        if exact_zeros:
            product = torch.where(share == 0, 0.0, product)
        vectors.append(segment_sum(product.flatten(-2), segments))
    return torch.stack(vectors, dim=-2)


def dense_sum(values: Tensor, dims: tuple[int, ...], many: Tensor | None = None) -> Tensor:
    """Sum ``(D, P, *)`` over the pooled axes: ``(D, *)``."""
    return multiply(clean(values, many), many).sum(dims)


def dense_max(values: Tensor, dims: tuple[int, ...], many: Tensor | None = None) -> Tensor:
    """Maximum of ``(D, P, *)`` over the pooled axes, ``(D, *)``; ties share the gradient."""
    return clean(values, many, -torch.inf).amax(dims)


def dense_min(values: Tensor, dims: tuple[int, ...], many: Tensor | None = None) -> Tensor:
    """Minimum of ``(D, P, *)`` over the pooled axes, ``(D, *)``; ties share the gradient."""
    return clean(values, many, torch.inf).amin(dims)


def dense_weighted_sum(
    weight: Tensor, values: Tensor, dims: tuple[int, ...], many: Tensor | None = None, *, exact_zeros: bool = False
) -> Tensor:
    """Sum of weight ``(D, P, K, G)`` times value ``(D, P, C)`` over the pooled axes: ``(D, K, C)``."""
    values = clean(values, many)
    weight = weight.to(values.dtype)
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
        meets = (weight != 0).to(values.dtype)
        total = weight @ finite
        total = total + torch.where(meets @ up > 0, torch.inf, 0.0) + torch.where(meets @ down > 0, -torch.inf, 0.0)
    return total.transpose(-3, -2).flatten(-2)
