"""Dense sets on a CPU: values are read in the order they lie in memory, in chunks that stay in the cache.

What is not there is blanked by its bits (a float is itself AND -1, zero AND 0), which no NaN survives and no branch
predictor minds.

Legend: ``D`` set axes, ``P`` pooled axes, ``C`` channels, ``F`` scores.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from modalpool.kernels import fused, plain
from modalpool.kernels.bags import LONG
from modalpool.kernels.choice import apply, finite, known, single, sloped
from modalpool.kernels.differentiate import plainly, vector_product
from modalpool.kernels.plain import accumulation_type

__all__ = ["dense_attend", "dense_max", "dense_soften", "dense_softmax", "dense_sum", "dense_weighted_sum"]

CHUNK = 2**19
"""How many values are worked on at a time: two megabytes in float32."""
BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}


def _memory_order(x: Tensor) -> list[int]:
    """The axes from the largest stride to the smallest."""
    return sorted(range(x.ndim), key=lambda axis: (-x.stride(axis), axis))


def _blocks(shape: torch.Size, limit: int) -> Iterator[tuple[slice, ...]]:
    """Cut a shape into blocks of at most about ``limit`` values: whole but for the first axes."""
    if not shape:
        yield ()
        return
    rest = math.prod(shape[1:])
    if rest > limit:
        for i in range(shape[0]):
            for inner in _blocks(shape[1:], limit):
                yield (slice(i, i + 1), *inner)
    else:
        step = max(limit // max(rest, 1), 1)
        for low in range(0, shape[0], step):
            yield (slice(low, low + step), *(slice(None) for _ in shape[1:]))


def _aligned(many: Tensor, x: Tensor, order: list[int]) -> Tensor:
    """Multiplicities with the axes of ``x`` in the order of its memory, size one where they do not differ."""
    return many.reshape(*many.shape, *[1] * (x.ndim - many.ndim)).permute(order)


def _narrow(x: Tensor, at: tuple[slice, ...]) -> Tensor:
    """A block of something that may have size one where the block is cut."""
    return x[tuple(slice(None) if size == 1 else cut for size, cut in zip(x.shape, at, strict=True))]


class _Sum(Function):
    """Masked or half-precision sum over the pooled axes, in the accumulation type."""

    @staticmethod
    def forward(x: Tensor, dims: tuple[int, ...], many: Tensor | None) -> Tensor:
        x, order = x.detach(), _memory_order(x)
        kind = accumulation_type(x.dtype)
        kept = [i for i in range(x.ndim) if i not in dims]
        seen = x.permute(order)
        out = x.new_zeros([1 if axis in dims else x.shape[axis] for axis in order], dtype=kind)
        pooled = [here for here, axis in enumerate(order) if axis in dims]
        bits = BITS[x.element_size()]
        there = None if many is None else _aligned(many if many.dtype == torch.bool else many > 0, x, order)
        mask = None if there is None else there.to(bits).neg_()
        weight = None if many is None or many.dtype == torch.bool else _aligned(many.to(kind), x, order)
        buffer = x.new_empty(0)
        for at in _blocks(seen.shape, CHUNK if mask is not None else 4 * CHUNK):
            part = seen[at]
            if mask is not None:
                if part.numel() > buffer.numel():
                    buffer = x.new_empty(part.numel())
                blank = buffer[: part.numel()].view(part.shape)
                torch.bitwise_and(part.view(bits), _narrow(mask, at), out=blank.view(bits))
                part = blank
            part = part.to(kind)
            if weight is not None:
                part = part.mul_(_narrow(weight, at))
            _narrow(out, at).add_(part.sum(pooled, keepdim=True))
        inverse = [order.index(axis) for axis in range(x.ndim)]
        return out.permute(inverse).reshape([x.shape[axis] for axis in kept])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.dims, ctx.many = inputs
        ctx.shape, ctx.dtype, ctx.order = x.shape, x.dtype, _memory_order(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grad = grad.to(ctx.dtype)
        for axis in ctx.dims:
            grad = grad.unsqueeze(axis)
        many = ctx.many
        if many is None:
            many = torch.ones((), dtype=ctx.dtype).expand(ctx.shape[:-1])
        share = many.to(ctx.dtype).reshape(*many.shape, *[1] * (len(ctx.shape) - many.ndim))
        if plainly(grad):
            return (grad * share).expand(ctx.shape), None, None
        out = torch.empty([ctx.shape[axis] for axis in ctx.order], dtype=ctx.dtype)
        out = out.permute([ctx.order.index(axis) for axis in range(len(ctx.shape))])
        return torch.mul(grad, share.expand(ctx.shape), out=out), None, None


def dense_sum(values: Tensor, dims: tuple[int, ...], many: Tensor | None = None) -> Tensor:
    """See `modalpool.kernels.plain.dense_sum`."""
    half = values.dtype in (torch.float16, torch.bfloat16)
    if (many is None and not half) or (many is not None and many.requires_grad):
        return plain.dense_sum(values, dims, many)
    total: Tensor = apply(_Sum, values, dims, many)
    return total


class _Max(Function):
    """Largest over the pooled axes; the gradient goes to where it is attained, shared evenly by ties."""

    @staticmethod
    def forward(x: Tensor, dims: tuple[int, ...], many: Tensor | None) -> Tensor:
        x, order = x.detach(), _memory_order(x)
        seen = x.permute(order)
        if many is None:
            top = seen.amax([here for here, axis in enumerate(order) if axis in dims], keepdim=True)
            top = top.permute([order.index(axis) for axis in range(x.ndim)])
            return top.reshape([size for axis, size in enumerate(x.shape) if axis not in dims])
        out = x.new_full([1 if axis in dims else x.shape[axis] for axis in order], -torch.inf)
        pooled = [here for here, axis in enumerate(order) if axis in dims]
        bits = BITS[x.element_size()]
        mask = _aligned(many if many.dtype == torch.bool else many > 0, x, order).to(bits).neg_()
        low = torch.full((), -torch.inf, dtype=x.dtype).view(bits) & ~mask
        for at in _blocks(seen.shape, CHUNK):
            part = (seen[at].view(bits) & _narrow(mask, at)).bitwise_or_(_narrow(low, at)).view(x.dtype)
            to = _narrow(out, at)
            torch.maximum(to, part.amax(pooled, keepdim=True), out=to)
        out = out.permute([order.index(axis) for axis in range(x.ndim)])
        return out.reshape([size for axis, size in enumerate(x.shape) if axis not in dims])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.dims, ctx.many = inputs
        ctx.save_for_backward(x, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, top = ctx.saved_tensors
        if plainly(grad):
            again = lambda x: plain.dense_max(x, ctx.dims, ctx.many).to(x.dtype)  # noqa: E731
            return *vector_product(again, [x], [grad]), None, None
        for axis in ctx.dims:
            grad, top = grad.unsqueeze(axis), top.unsqueeze(axis)
        order = _memory_order(x)
        kind = accumulation_type(x.dtype)
        seen, grad, top = (t.permute(order) for t in (x, grad, top))
        pooled = [here for here, axis in enumerate(order) if axis in ctx.dims]
        out = torch.empty_like(seen, memory_format=torch.contiguous_format)
        ties = torch.zeros_like(top, dtype=kind)
        there = None if ctx.many is None else _aligned(ctx.many > 0, x, order).to(x.dtype)
        for at in _blocks(seen.shape, CHUNK):
            best = torch.eq(seen[at], _narrow(top, at), out=out[at])
            if there is not None:
                best.mul_(_narrow(there, at))
            _narrow(ties, at).add_(best.sum(pooled, keepdim=True, dtype=kind))
            best.mul_(_narrow(grad, at))
        if known((ties > 1).any()):
            share = ties.clamp_(min=1).reciprocal_().to(x.dtype)
            for at in _blocks(seen.shape, CHUNK):
                out[at].mul_(_narrow(share, at))
        return out.permute([order.index(axis) for axis in range(x.ndim)]), None, None


def dense_max(values: Tensor, dims: tuple[int, ...], many: Tensor | None = None) -> Tensor:
    """See `modalpool.kernels.plain.dense_max`."""
    if many is None and not sloped(values):
        return values.amax(dims).to(accumulation_type(values.dtype))
    top: Tensor = apply(_Max, values, dims, None if many is None else many.detach())
    return top.to(accumulation_type(values.dtype))


class _Attend(Function):
    """Attention with scores x · matrix over one pooled axis, ``x (B, N, C)``; every head pools all channels."""

    @staticmethod
    def forward(x: Tensor, matrix: Tensor, many: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        x, matrix = x.detach(), matrix.detach()
        scores = x @ matrix.T if x.is_contiguous() else torch.bmm(x, matrix.T.expand(len(x), -1, -1))  # (B, N, F)
        weight, log_mass = dense_softmax(scores, (1,), many)
        return torch.bmm(weight.mT, x), log_mass, weight

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        x, matrix, ctx.many = inputs
        z, _, weight = output
        ctx.mark_non_differentiable(weight)
        ctx.save_for_backward(x, matrix, z, weight)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(
        ctx: Any, grad: Tensor | None, mass_grad: Tensor | None, _: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        x, matrix, z, weight = ctx.saved_tensors
        if plainly(grad, mass_grad):

            def again(x: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
                z, mass = fused.dense_attend(x, matrix, (1,), ctx.many, whole=True)
                return z, mass.flatten(1)

            return *vector_product(again, [x, matrix], [grad, mass_grad]), None
        grad = torch.zeros_like(z) if grad is None else grad
        mean = (z * grad).sum(-1) if mass_grad is None else (z * grad).sum(-1) - mass_grad  # (B, F)
        slope = weight * (torch.bmm(x, grad.mT) - mean[:, None])  # (B, N, F)
        slopes = torch.bmm(slope.mT, x).sum(0)
        if not ctx.needs_input_grad[0]:
            return None, slopes, None
        shares = torch.cat([weight, slope], dim=2)
        vectors = torch.cat([grad, matrix.expand(len(x), -1, -1)], dim=1)
        # One product writes the gradient through values and scores, in the order x lies in memory.
        out = torch.bmm(shares, vectors) if x.stride(2) == 1 else torch.bmm(vectors.mT, shares.mT).mT
        return out, slopes, None


def dense_attend(
    x: Tensor,
    matrix: Tensor,
    dims: tuple[int, ...],
    many: Tensor | None = None,
    *,
    queries: int = 1,
    whole: bool = False,
) -> tuple[Tensor, Tensor]:
    """See `modalpool.kernels.fused.attend`."""
    wanted = many is not None and many.requires_grad
    if dims[0] != 1 or wanted or not single(x):
        return fused.dense_attend(x, matrix, dims, many, queries=queries, whole=whole)
    flat = x.flatten(1, -2)  # a view, as pooled axes lie together in every common layout
    there = None if many is None else many.expand(x.shape[:-1]).flatten(1)
    z, log_mass, _ = apply(_Attend, flat, matrix.to(x.dtype), there)
    if many is not None and not known(z.isfinite().all()):  # something not finite hides where nothing is
        return fused.dense_attend(x, matrix, dims, many, queries=queries, whole=whole)
    heads = len(matrix) // queries
    if not whole:  # each head keeps its own share of the channels
        groups = plain.split_channels(z, heads).reshape(len(z), queries, heads, heads, -1)  # (B, K, H, H, C/H)
        z = groups.diagonal(dim1=2, dim2=3).movedim(-1, 2).flatten(2)
    return z, log_mass.reshape(len(z), queries, heads)


def dense_weighted_sum(
    weight: Tensor, values: Tensor, dims: tuple[int, ...], many: Tensor | None = None, *, exact_zeros: bool = False
) -> Tensor:
    """See `modalpool.kernels.plain.dense_weighted_sum`: one look at the result says whether zeros had to be exact."""
    if exact_zeros:
        total = plain.dense_weighted_sum(weight, values, dims, many)
        if known(total.isfinite().all()):
            return total
    return plain.dense_weighted_sum(weight, values, dims, many, exact_zeros=exact_zeros)


def dense_softmax(scores: Tensor, dims: tuple[int, ...], many: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """See `modalpool.kernels.fused.softmax`: torch's own, where all scores are finite."""
    flat = scores.to(accumulation_type(scores.dtype)).flatten(dims[0], dims[-1])
    # Along the axis that lies innermost in memory torch needs no copy.
    inner = flat.stride(dims[0]) < flat.stride(-1)
    flat, axis = (flat.movedim(dims[0], -1), -1) if inner else (flat, dims[0])
    if many is not None or not finite(flat):
        return fused.dense_softmax(scores, dims, many)
    weight = flat.softmax(axis)
    if flat.shape[axis] > LONG:  # torch's softmax divides by a running sum, which drifts; its sum does not
        weight = weight / weight.sum(axis, keepdim=True)
    # The largest weight is exp(largest score - log mass): two reads, where logsumexp writes as many values as it reads.
    log_mass = flat.logsumexp(axis) if sloped(scores) else flat.amax(axis) - weight.amax(axis).log()
    return weight.movedim(axis, dims[0]).reshape(scores.shape), log_mass


def dense_soften(
    x: Tensor, scale: Tensor | float, dims: tuple[int, ...], many: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """See `modalpool.kernels.fused.soften`."""
    if many is not None:
        return fused.dense_soften(x, scale, dims, many)
    x = x.to(accumulation_type(x.dtype))
    weight, log_mass = dense_softmax(x if isinstance(scale, float) and scale == 1 else x * scale, dims)
    return dense_weighted_sum(weight[..., None, :], x, dims, exact_zeros=True).squeeze(-2), log_mass
