"""Dense sets on a CPU: values are read in the order they lie in memory, in chunks that stay in the cache.

What is not there is blanked by its bits (a float is itself AND -1, zero AND 0), which no NaN survives and no branch
predictor minds.

Legend: ``D`` set axes, ``P`` pooled axes, ``C`` channels, ``F`` scores.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from modalpool.kernels import fused, plain
from modalpool.kernels.bags import LONG
from modalpool.kernels.blocks import CHUNK, aligned, back, bits, blank, blocks, memory_order
from modalpool.kernels.choice import apply, finite, known, single, sloped
from modalpool.kernels.differentiate import plainly, vector_product
from modalpool.kernels.plain import accumulation_type, present

__all__ = [
    "dense_attend",
    "dense_max",
    "dense_min",
    "dense_soften",
    "dense_softmax",
    "dense_sum",
    "dense_weighted_sum",
]

NEAR = 2**12
"""Up to how many values a matrix is at hand for every row of a product: then its result is turned, not the rows."""
MANY = 4 * CHUNK
"""How many weights are written down at a time where no gradient is wanted; products of fewer are slower."""


class _Sum(Function):
    """Masked or half-precision sum over the pooled axes, in the accumulation type."""

    @staticmethod
    def forward(x: Tensor, dims: tuple[int, ...], many: Tensor | None) -> Tensor:
        x, order = x.detach(), memory_order(x)
        kind = accumulation_type(x.dtype)
        seen = x.permute(order)
        out = x.new_zeros([1 if axis in dims else x.shape[axis] for axis in order], dtype=kind)
        pooled = [here for here, axis in enumerate(order) if axis in dims]
        given = [] if many is None else [bits(many, x, order)]
        weighted = many is not None and many.dtype != torch.bool
        if many is not None and weighted:
            given.append(aligned(many.to(kind), x, order))
        wide = kind == x.dtype
        limit = CHUNK if given else 4 * CHUNK if wide else 2 * CHUNK
        buffer = x.new_empty(min(limit, x.numel()) if given else 0)
        room = x.new_empty(0 if wide else min(limit, x.numel()), dtype=kind)
        for part, to, *here in blocks(limit, seen, out, *given):
            part = blank(part, here[0], buffer) if given else part
            part = part if wide else room[: part.numel()].view(part.shape).copy_(part)
            if weighted:
                part = part.mul_(here[1])
            to.add_(part.sum(pooled, keepdim=True))
        return back(out, order).squeeze(dims)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.dims, ctx.many = inputs
        ctx.shape, ctx.dtype, ctx.order = x.shape, x.dtype, memory_order(x)

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
        out = back(torch.empty([ctx.shape[axis] for axis in ctx.order], dtype=ctx.dtype), ctx.order)
        return torch.mul(grad, share.expand(ctx.shape), out=out), None, None


def dense_sum(values: Tensor, dims: tuple[int, ...], many: Tensor | None = None) -> Tensor:
    """See `modalpool.kernels.plain.dense_sum`."""
    half = values.dtype in plain.HALF
    if (many is None and not half) or (many is not None and many.requires_grad):
        return plain.dense_sum(values, dims, many)
    total: Tensor = apply(_Sum, values, dims, many)
    return total


class _Extreme(Function):
    """Largest or least over the pooled axes; the gradient goes to where it is attained, shared evenly by ties."""

    @staticmethod
    def forward(x: Tensor, dims: tuple[int, ...], many: Tensor | None, least: bool) -> Tensor:
        x = x.detach()
        extreme = torch.amin if least else torch.amax
        if many is None:
            return extreme(x, dims)
        order = memory_order(x)
        pooled = [here for here, axis in enumerate(order) if axis in dims]
        worst = torch.full((), torch.inf if least else -torch.inf, dtype=x.dtype)
        out = worst.repeat([1 if axis in dims else x.shape[axis] for axis in order])
        mask = bits(many, x, order)
        better = torch.minimum if least else torch.maximum
        for part, to, here, instead in blocks(CHUNK, x.permute(order), out, mask, worst.view(mask.dtype) & ~mask):
            part = (part.view(mask.dtype) & here).bitwise_or_(instead).view(x.dtype)
            better(to, extreme(part, pooled, keepdim=True), out=to)
        return back(out, order).squeeze(dims)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, ctx.dims, ctx.many, ctx.least = inputs
        ctx.save_for_backward(x, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, top = ctx.saved_tensors
        if plainly(grad):
            definition = plain.dense_min if ctx.least else plain.dense_max
            again = lambda x: definition(x, ctx.dims, ctx.many).to(x.dtype)  # noqa: E731
            return *vector_product(again, [x], [grad]), None, None, None
        for axis in ctx.dims:
            grad, top = grad.unsqueeze(axis), top.unsqueeze(axis)
        order = memory_order(x)
        kind = accumulation_type(x.dtype)
        seen, grad, top = (t.permute(order) for t in (x, grad, top))
        pooled = [here for here, axis in enumerate(order) if axis in ctx.dims]
        out = torch.empty_like(seen, memory_format=torch.contiguous_format)
        ties = torch.zeros_like(top, dtype=kind)
        given = [] if ctx.many is None else [aligned(present(ctx.many), x, order).to(x.dtype)]
        for to, part, best, share, count, *there in blocks(CHUNK, out, seen, top, grad, ties, *given):
            torch.eq(part, best, out=to)
            if there:
                to.mul_(there[0])
            count.add_(to.sum(pooled, keepdim=True, dtype=kind))
            to.mul_(share)
        if known((ties > 1).any()):
            for to, share in blocks(CHUNK, out, ties.clamp_(min=1).reciprocal_().to(x.dtype)):
                to.mul_(share)
        return back(out, order), None, None, None


def _extreme(values: Tensor, dims: tuple[int, ...], many: Tensor | None, *, least: bool) -> Tensor:
    kind = accumulation_type(values.dtype)
    if many is None and not sloped(values):
        return (values.amin(dims) if least else values.amax(dims)).to(kind)
    top: Tensor = apply(_Extreme, values, dims, None if many is None else many.detach(), least)
    return top.to(kind)


def dense_max(values: Tensor, dims: tuple[int, ...], many: Tensor | None = None) -> Tensor:
    """See `modalpool.kernels.plain.dense_max`."""
    return _extreme(values, dims, many, least=False)


def dense_min(values: Tensor, dims: tuple[int, ...], many: Tensor | None = None) -> Tensor:
    """See `modalpool.kernels.plain.dense_min`."""
    return _extreme(values, dims, many, least=True)


def _agreement(x: Tensor, vectors: Tensor) -> Tensor:
    """Scores x · vectors, ``(B, N, C)`` and ``(B, F, C)`` to ``(B, F, N)``: sets along memory."""
    if x.stride(2) == 1 and vectors.shape[1] * vectors.shape[2] <= NEAR:
        return torch.bmm(x, vectors.mT).mT.contiguous()
    return torch.bmm(vectors, x.mT)


def _attend(x: Tensor, matrix: Tensor, many: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Pooled vectors ``(B, F, C)``, log masses ``(B, F)`` and weights ``(B, F, N)`` of ``x (B, N, C)``."""
    scores = _agreement(x, matrix.expand(len(x), -1, -1))
    weight, log_mass = dense_softmax(scores.mT, (1,), many)
    return torch.bmm(weight.mT, x), log_mass, weight.mT


def _attend_in_pieces(x: Tensor, matrix: Tensor, many: Tensor | None) -> tuple[Tensor, Tensor]:
    """Pooled vectors and log masses, without a gradient: some weights at a time."""
    rows = max(MANY // len(matrix), 1)
    step = max(rows // x.shape[1], 1)
    done = []
    for first in range(0, len(x), step):
        pieces = []
        for low in range(0, x.shape[1], rows):
            at = slice(first, first + step), slice(low, low + rows)
            pieces.append(_attend(x[at], matrix, None if many is None else many[at])[:2])
        done.append(pieces[0] if len(pieces) == 1 else _join(pieces))
    z, log_mass = (torch.cat(parts) for parts in zip(*done, strict=True))
    return z, log_mass


def _join(pieces: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """The average of averages, in proportion to their masses."""
    vectors, masses = (torch.stack(parts) for parts in zip(*pieces, strict=True))
    total = masses.logsumexp(0)
    share = torch.where(total == -torch.inf, 0.0, (masses - total).exp())
    return (share[..., None] * vectors).sum(0), total


class _Attend(Function):
    """Attention with scores x · matrix over one pooled axis, ``x (B, N, C)``; every head pools all channels."""

    @staticmethod
    def forward(x: Tensor, matrix: Tensor, many: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        return _attend(x.detach(), matrix.detach(), many)

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
        slope = _agreement(x, grad).sub_(mean[..., None]).mul_(weight)  # (B, F, N)
        slopes = torch.bmm(slope, x).sum(0)
        if not ctx.needs_input_grad[0]:
            return None, slopes, None
        shares = torch.cat([weight.mT, slope.mT], dim=2)  # (B, N, 2F): the product is faster along memory
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
    in_pieces = flat[..., 0].numel() * len(matrix) > MANY and not (sloped(x) or sloped(matrix))
    if in_pieces:
        z, log_mass = _attend_in_pieces(flat, matrix.to(x.dtype), there)
    else:
        z, log_mass, _ = apply(_Attend, flat, matrix.to(x.dtype), there)
    if (in_pieces or many is not None) and not known(z.isfinite().all()):
        # Something not finite hides where nothing is, or is in a piece, which does not join then.
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


class _Softmax(Function):
    """Softmax along an axis, and the log of what it was divided by; every largest score is finite."""

    @staticmethod
    def forward(scores: Tensor, axis: int, top: Tensor) -> tuple[Tensor, Tensor]:
        weight = scores.detach().softmax(axis)
        if scores.shape[axis] > LONG:  # torch's softmax divides by a running sum, which drifts; its sum does not
            weight.div_(weight.sum(axis, keepdim=True))
        # The largest weight is exp(largest score - log mass).
        return weight, top - weight.amax(axis).log_()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        scores, ctx.axis, _ = inputs
        ctx.save_for_backward(scores, output[0])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx: Any, grad: Tensor | None, mass_grad: Tensor | None) -> tuple[Tensor | None, ...]:
        scores, weight = ctx.saved_tensors
        axis = ctx.axis
        if plainly(grad, mass_grad):
            again = lambda scores: (scores.softmax(axis), scores.logsumexp(axis))  # noqa: E731
            return *vector_product(again, [scores], [grad, mass_grad]), None, None
        slope = None if grad is None else torch._softmax_backward_data(grad, weight, axis, weight.dtype)
        if mass_grad is not None:
            rise = mass_grad.unsqueeze(axis)
            slope = weight * rise if slope is None else slope.addcmul_(weight, rise)
        return slope, None, None


def dense_softmax(scores: Tensor, dims: tuple[int, ...], many: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """See `modalpool.kernels.fused.softmax`: torch's own, where the largest score of every set is finite."""
    if scores.numel() == 0 or (many is not None and many.requires_grad):
        return fused.dense_softmax(scores, dims, many)
    flat = scores.to(accumulation_type(scores.dtype))
    if many is not None:
        times = many.reshape(*many.shape, *[1] * (flat.ndim - many.ndim))
        flat = flat if many.dtype == torch.bool else flat + times.to(flat.dtype).log()
        flat = torch.where(present(times), flat, -torch.inf)
    flat = flat.flatten(dims[0], dims[-1])
    # Along the axis that lies innermost in memory torch needs no copy.
    inner = flat.stride(dims[0]) < flat.stride(-1)
    flat, axis = (flat.movedim(dims[0], -1), -1) if inner else (flat, dims[0])
    top = flat.detach().amax(axis)
    if not finite(top):
        return fused.dense_softmax(scores, dims, many)
    weight, log_mass = apply(_Softmax, flat, axis, top)
    return weight.movedim(axis, dims[0]).reshape(scores.shape), log_mass


def dense_soften(
    x: Tensor, scale: Tensor | float, dims: tuple[int, ...], many: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """See `modalpool.kernels.fused.soften`."""
    x = plain.clean(x, many)
    weight, log_mass = dense_softmax(x if isinstance(scale, float) and scale == 1 else x * scale, dims, many)
    return dense_weighted_sum(weight[..., None, :], x, dims, many, exact_zeros=True).squeeze(-2), log_mass
