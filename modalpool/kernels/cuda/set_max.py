"""The maximum over sets, and how many elements share it: one read forward, one read and one write backward."""

from __future__ import annotations

import triton
import triton.language as tl

from modalpool.kernels.cuda.walk import UNROLL, load_rows, load_tile, origin, parts_of, rows_from, take_part

__all__ = ["max_backward", "max_forward", "max_join"]


@triton.jit
def _rise(top, ties, x, xs, many, ms, walk, low, high, steps, d, D, ACC, TIES):
    """Go on with a tile: the larger of each lane, and how often it was seen."""
    row, valid = rows_from(walk, low, high, steps)
    there = load_rows(many, ms, row, valid)[1][:, None]
    place = row[:, None] * xs[2] + d[None, :] * xs[4]
    value = load_tile(walk, many, x, place, valid[:, None], there, (d < D)[None, :], float("-inf")).to(ACC)
    best = tl.maximum(top, value, propagate_nan=tl.PropagateNan.ALL)
    if TIES:
        ties = tl.where(best == top, ties, 0) + ((value == best) & there).to(tl.int32)
    return best, ties


@triton.jit
def max_forward(
    x, xs, many, ms, walk, out, out_ties, partial, partial_ties, G, D, blocks,
    TIES: tl.constexpr, ACC: tl.constexpr, N: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """The maximum of one part: x ``(A, B, P, G, D)``, out ``(S, G, D)``."""
    pid = tl.program_id(0).to(tl.int64)
    block, pid = pid % blocks, pid // blocks
    g, item = pid % G, pid // G
    owner, low, high, slot, whole, exists = take_part(walk, item)
    x += origin(walk, owner, xs) + g * xs[3]
    if many is not None:
        many += origin(walk, owner, ms) + g * ms[3]
    steps = tl.arange(0, N)
    d = block * C + tl.arange(0, C)
    top = tl.full((N, C), float("-inf"), ACC)
    ties = tl.zeros((N, C), tl.int32)
    for start in range(low, high, N * UNROLL):
        for u in tl.static_range(UNROLL):
            top, ties = _rise(top, ties, x, xs, many, ms, walk, start + u * N, high, steps, d, D, ACC, TIES)
    best = tl.max(top, 0)
    best = tl.where(tl.max((top != top).to(tl.int32), 0) > 0, float("nan"), best)
    count = tl.sum(tl.where(top == best[None, :], ties, 0), 0)
    place = g * D + d
    good = d < D
    if partial is None:
        tl.store(out + owner * G * D + place, best, mask=good)
        if TIES:
            tl.store(out_ties + owner * G * D + place, count.to(ACC), mask=good)
    else:
        tl.store(out + owner * G * D + place, best, mask=good & whole)
        tl.store(partial + slot * G * D + place, best, mask=good & exists & (whole == 0))
        if TIES:
            tl.store(out_ties + owner * G * D + place, count.to(ACC), mask=good & whole)
            tl.store(partial_ties + slot * G * D + place, count, mask=good & exists & (whole == 0))


@triton.jit
def max_join(
    partial, partial_ties, walk, out, out_ties, width, blocks, TIES: tl.constexpr, N: tl.constexpr, C: tl.constexpr
):
    """The maximum of the parts of one set."""
    pid = tl.program_id(0).to(tl.int64)
    block, item = pid % blocks, pid // blocks
    owner, first, count = parts_of(walk, item)
    c = block * C + tl.arange(0, C)
    top = tl.full((N, C), float("-inf"), partial.dtype.element_ty)
    ties = tl.zeros((N, C), tl.float64)
    for start in range(0, count, N):
        part = start + tl.arange(0, N)
        good = (part < count)[:, None] & (c < width)[None, :]
        place = (first + part)[:, None] * width + c[None, :]
        value = tl.load(partial + place, mask=good, other=float("-inf"))
        best = tl.maximum(top, value, propagate_nan=tl.PropagateNan.ALL)
        if TIES:
            more = tl.load(partial_ties + place, mask=good, other=0)
            ties = tl.where(best == top, ties, 0.0) + tl.where(value == best, more, 0).to(tl.float64)
        top = best
    best = tl.max(top, 0)
    best = tl.where(tl.max((top != top).to(tl.int32), 0) > 0, float("nan"), best)
    good = (c < width) & (count > 0)
    tl.store(out + owner * width + c, best, mask=good)
    if TIES:
        total = tl.sum(tl.where(top == best[None, :], ties, 0.0), 0)
        tl.store(out_ties + owner * width + c, total.to(out_ties.dtype.element_ty), mask=good)


@triton.jit
def max_backward(
    share, top, x, xs, many, ms, walk, grad_x, gs, G, D, blocks, ACC: tl.constexpr, N: tl.constexpr, C: tl.constexpr
):
    """Give each element that attains the maximum its share of the gradient, ``(S, G, D)``."""
    pid = tl.program_id(0).to(tl.int64)
    block, pid = pid % blocks, pid // blocks
    g, item = pid % G, pid // G
    owner, low, high, _, _, _ = take_part(walk, item)
    x += origin(walk, owner, xs) + g * xs[3]
    grad_x += origin(walk, owner, gs) + g * gs[3]
    if many is not None:
        many += origin(walk, owner, ms) + g * ms[3]
    d = block * C + tl.arange(0, C)
    wide = (d < D)[None, :]
    best = tl.load(top + (owner * G + g) * D + d, mask=d < D, other=0)[None, :]
    slope = tl.load(share + (owner * G + g) * D + d, mask=d < D, other=0)[None, :]
    for start in range(low, high, N):
        row, valid = rows_from(walk, start, high, tl.arange(0, N))
        there = load_rows(many, ms, row, valid)[1][:, None]
        place = row[:, None] * xs[2] + d[None, :] * xs[4]
        value = load_tile(walk, many, x, place, valid[:, None], there, wide, 0.0).to(ACC)
        slopes = tl.where((value == best) & there, slope, 0.0).to(grad_x.dtype.element_ty)
        tl.store(grad_x + row[:, None] * gs[2] + d[None, :] * gs[4], slopes, mask=valid[:, None] & wide)
