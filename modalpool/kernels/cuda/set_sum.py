"""Sums over sets, plain and weighted: one read of x forward; backward one write, and one read for the weights."""

from __future__ import annotations

import triton
import triton.language as tl

from modalpool.kernels.cuda.walk import (
    STEPS,
    UNROLL,
    enter,
    enter_join,
    load_rows,
    load_tile,
    offset,
    origin,
    put,
    rooms_from,
    rows_from,
)


@triton.jit
def _addend(x, xs, weight, ws, many, ms, many_at, walk, low, high, steps, d, D, ACC, EXACT):
    """A tile of w x, zero where nothing is there."""
    row, valid = rows_from(walk, low, high, steps)
    there = load_rows(many, ms, many_at, row, valid)[1]
    wide = (d < D)[None, :]
    place = row[:, None] * xs[2] + d[None, :] * xs[4]
    if weight is None:
        return load_tile(walk, many, x, place, valid[:, None], there[:, None], wide, 0.0).to(ACC)
    else:
        share = tl.load(weight + row * ws[2], mask=there, other=0).to(ACC)[:, None]
        if EXACT:
            return share * load_tile(walk, weight, x, place, valid[:, None], share != 0, wide, 0.0).to(ACC)
        else:
            return share * load_tile(walk, many, x, place, valid[:, None], there[:, None], wide, 0.0).to(ACC)


@triton.jit
def sum_forward(
    x, xs, weight, ws, many, ms, walk, out, rooms, K, G, D, tiles,
    EXACT: tl.constexpr, ACC: tl.constexpr, N: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Σ w x of one chunk: x ``(A, B, P, G, D)``, w ``(A, B, P, K, G)``, out ``(S, K, G, D)``."""
    pid = tl.program_id(0).to(tl.int64)
    k, pid = pid % K, pid // K
    g, d, _, owner, low, high, slot, alone, exists = enter(walk, pid, G, tiles, C)
    x += offset(walk, owner, g, x, xs)
    many_at = offset(walk, owner, g, many, ms)
    if weight is not None:
        weight += origin(walk, owner, ws) + k * ws[3] + g * ws[4]
    steps = tl.arange(0, N)
    total = tl.zeros((N, C), tl.float64)
    for span in range(low, high, N * UNROLL * STEPS):
        short = tl.zeros((N, C), ACC)
        end = tl.minimum(span + N * UNROLL * STEPS, high)
        for start in range(span, end, N * UNROLL):
            a = _addend(x, xs, weight, ws, many, ms, many_at, walk, start, end, steps, d, D, ACC, EXACT)
            b = _addend(x, xs, weight, ws, many, ms, many_at, walk, start + N, end, steps, d, D, ACC, EXACT)
            c = _addend(x, xs, weight, ws, many, ms, many_at, walk, start + 2 * N, end, steps, d, D, ACC, EXACT)
            e = _addend(x, xs, weight, ws, many, ms, many_at, walk, start + 3 * N, end, steps, d, D, ACC, EXACT)
            short += (a + b) + (c + e)
        total += short.to(tl.float64)
    result = tl.sum(total, 0)
    put(out, rooms, owner, slot, K * G * D, (k * G + g) * D + d, result.to(ACC), result, d < D, alone, exists)


@triton.jit
def sum_join(rooms, walk, out, width, tiles, N: tl.constexpr, C: tl.constexpr):
    """Add the chunks of one set."""
    owner, first, count, c = enter_join(walk, tiles, C)
    total = tl.zeros((N, C), tl.float64)
    for start in range(0, count, N):
        place, good = rooms_from(first, start, count, c, width, N)
        total += tl.load(rooms + place, mask=good, other=0)
    tl.store(out + owner * width + c, tl.sum(total, 0).to(out.dtype.element_ty), mask=(c < width) & (count > 0))


@triton.jit
def sum_backward(
    grad, x, xs, weight, ws, many, ms, walk, grad_x, gs, grad_weight, K, G, D, tiles,
    EXACT: tl.constexpr, ACC: tl.constexpr, N: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Gradients of one chunk: grad_x = Σ_k w g, grad_w = Σ_d x g, the latter ``(A·B·P, K, G, tiles)``."""
    pid = tl.program_id(0).to(tl.int64)
    g, d, _, owner, low, high, _, _, _ = enter(walk, pid, G, tiles, C)
    first = origin(walk, owner, (walk.inner * walk.size, walk.size))  # of the set, counting elements
    x += offset(walk, owner, g, x, xs)
    many_at = offset(walk, owner, g, many, ms)
    if grad_x is not None:
        grad_x += offset(walk, owner, g, grad_x, gs)
    if weight is not None:
        weight += origin(walk, owner, ws) + g * ws[4]
    wide = (d < D)[None, :]
    for start in range(low, high, N):
        row, valid = rows_from(walk, start, high, tl.arange(0, N))
        there = load_rows(many, ms, many_at, row, valid)[1]
        slope = tl.zeros((N, C), ACC)
        value = tl.zeros((N, C), ACC)
        if grad_weight is not None:
            read = row[:, None] * xs[2] + d[None, :] * xs[4]
            value = load_tile(walk, many, x, read, valid[:, None], there[:, None], wide, 0.0).to(ACC)
        for k in range(K):
            above = tl.load(grad + ((owner * K + k) * G + g) * D + d, mask=d < D, other=0).to(ACC)[None, :]
            if weight is None:
                slope += above
            else:
                share = tl.load(weight + k * ws[3] + row * ws[2], mask=there, other=0).to(ACC)[:, None]
                slope += share * above
                if grad_weight is not None:
                    product = value * above
                    if EXACT:  # infinities and NaN that weigh nothing are not there
                        product = tl.where((share == 0) & (value - value != 0), 0.0, product)
                    place = ((first + row) * K + k) * G + g
                    tl.store(grad_weight + place * tiles + pid % tiles, tl.sum(product, 1), mask=valid)
        if grad_x is not None:
            slope = tl.where(there[:, None], slope, 0.0)
            written = row[:, None] * gs[2] + d[None, :] * gs[4]
            tl.store(grad_x + written, slope.to(grad_x.dtype.element_ty), mask=valid[:, None] & wide)
