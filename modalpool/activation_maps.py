"""From a slope at the pooled vector to a map over the elements: ``map_i = Σ_k Σ_c w_ikc x_ic slope_kc``.

Where channels share a weight it comes out of the sum over channels, and what is left is one matrix product over the
elements as they lie in memory, as in a 1x1 convolution. Nothing of the input's size is copied.

Legend: ``A`` sets (or elements that look their set up), ``F`` kept positions, ``P`` elements of a set, ``K`` vectors
per set, ``G`` groups of channels that share a weight, ``C`` channels of x, ``Z`` of the pooled vector, ``L`` classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from modalpool.sets import accumulation_type

__all__ = ["activation_maps"]

_NUMBERS = 2**21
"""How many numbers are worked on at once unless asked for otherwise: eight megabytes, which stay in a cache."""


def activation_maps(
    weight: Tensor,
    x: Tensor,
    slope: Callable[[slice], Tensor],
    *,
    gathered: bool = False,
    chunk: int | None = None,
) -> Tensor:
    """Work out the maps of ``x``, some sets, or some elements of one set, at a time.

    Args:
        weight: ``(A, F, P, K, G)``, sizes of one broadcast except G; an element of weight zero adds nothing, whatever
            it is.
        x: ``(A, F, P, C)``.
        slope: From a slice of A to ``(a or 1, F, K, Z, L)``, in the maps' type.
        gathered: Whether there is a slope for every element, which is then the largest thing around.
        chunk: Elements at a time.

    Returns:
        ``(A, F, P, L)``, classes first or last in memory as the channels of x are.
    """
    sets, kept, size, channels = x.shape
    vectors, dtype = weight.shape[-2], accumulation_type(x.dtype)
    classes = slope(slice(0, 0)).shape[-1]
    if x.stride(-1) == 1:
        out = x.new_empty((sets, kept, size, classes), dtype=dtype)
    else:
        out = x.new_empty((sets, classes, kept, size), dtype=dtype).movedim(1, -1)
    width = channels * vectors * classes if gathered else max(channels, vectors * classes)
    elements = max(1, _NUMBERS // max(1, width) if chunk is None else chunk)
    several = max(1, elements // max(1, kept * size))
    part = size if several > 1 else min(size, max(1, elements // max(1, kept)))
    for first in range(0, sets, several):
        rows = slice(first, first + several)
        slopes = slope(rows)
        for start in range(0, size, max(1, part)):
            here = (rows, slice(None), slice(start, start + part))
            _fill(_take(weight, here), x[here], slopes, out[here])
    return out


def _take(weight: Tensor, here: tuple[slice, ...]) -> Tensor:
    """The same part of a weight whose axes of size one broadcast."""
    return weight[tuple(slice(None) if n == 1 else at for at, n in zip(here, weight.shape, strict=False))]


def _fill(weight: Tensor, x: Tensor, slopes: Tensor, out: Tensor) -> None:
    """One part of the sets: the blocks of channels that share a weight, one after the other."""
    channels, wide, groups = x.shape[-1], slopes.shape[-2], weight.shape[-1]
    x = x.to(out.dtype)
    block = wide // groups
    if 1 == block < groups or max(block, channels) % min(block, channels):  # a weight for every channel
        weight = weight if block == 1 else weight.repeat_interleave(block, dim=-1)
        x = x if wide == channels else x.repeat(1, 1, 1, wide // channels)
        on_cpu = out.device.type == "cpu"
        _fill_by_channel(weight, x, slopes, out, exact_zeros=not on_cpu)
        if on_cpu and not bool(out.isfinite().all()):  # rare, and 0 · inf costs many times what a look at it costs
            _fill_by_channel(weight, x, slopes, out, exact_zeros=True)
        return
    for g in range(groups):
        start = g * block % channels
        part = slopes[..., g * block : (g + 1) * block, :]  # (a, F, K, block, L)
        if block > channels:  # the same elements under the same weight several times
            part = part.reshape(*part.shape[:-2], block // channels, channels, part.shape[-1]).sum(-3)
        product = _product(x[..., start : start + part.shape[-2]], part)  # (a, F, K, L, P)
        share = weight[..., g].movedim(-1, -2)[..., None, :]  # (a, F, K, 1, P)
        product.mul_(share).masked_fill_(share == 0, 0.0)
        _add(out, product.sum(-3).mT if product.shape[-3] > 1 else product.squeeze(-3).mT, first=g == 0)


def _fill_by_channel(weight: Tensor, x: Tensor, slopes: Tensor, out: Tensor, *, exact_zeros: bool) -> None:
    """The same where every channel has a weight of its own; ``exact_zeros`` lets a weight of zero beat infinity."""
    for k in range(weight.shape[-2]):
        share = weight[..., k, :] * x
        if exact_zeros:
            share = torch.where(weight[..., k, :] == 0, 0.0, share)
        _add(out, _product(share, slopes[..., k : k + 1, :, :]).squeeze(-3).mT, first=k == 0)


def _add(out: Tensor, value: Tensor, *, first: bool) -> None:
    if first:
        out.copy_(value)
    else:
        out.add_(value)


def _product(x: Tensor, slopes: Tensor) -> Tensor:
    """``(a, F, P, C)`` times ``(a or 1, F, K, C, L)``: ``(a, F, K, L, P)``, from x as it lies in memory."""
    sets, kept, size, channels = x.shape
    vectors, classes = slopes.shape[-3], slopes.shape[-1]
    matrix = slopes.permute(0, 1, 2, 4, 3).reshape(slopes.shape[0], kept, vectors * classes, channels)
    if kept == 1:  # one batch of matrices, whatever the strides
        product = matrix[:, 0].expand(sets, -1, -1) @ x[:, 0].mT
    else:  # two batch axes would be copied into one
        product = torch.stack([torch.bmm(matrix[i if len(matrix) > 1 else 0], x[i].mT) for i in range(sets)])
    return product.reshape(sets, kept, vectors, classes, size)
