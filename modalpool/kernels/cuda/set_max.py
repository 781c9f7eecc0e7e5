"""The maximum or minimum over sets, and how many elements share it: one read forward, one read and one write backward.

A minimum is the maximum of what is turned over while it is read, so nothing is written down for it.
"""

from __future__ import annotations

import triton
import triton.language as tl

from modalpool.kernels.cuda.walk import UNROLL, enter, enter_join, largest, load_values, offset, put, rooms_from


@triton.jit
def _rise(top, ties, x, xs, many, ms, many_at, walk, low, high, steps, d, D, ACC, TIES, LEAST):
    """Go on with a tile: the larger of each lane, and how often it was seen."""
    away = float("inf") if LEAST else float("-inf")
    value, _, there, _, _ = load_values(walk, x, xs, many, ms, many_at, low, high, steps, d, D, away, ACC)
    if LEAST:
        value = -value
    best = tl.maximum(top, value, propagate_nan=tl.PropagateNan.ALL)
    if TIES:
        ties = tl.where(best == top, ties, 0) + ((value == best) & there).to(tl.int32)
    return best, ties


@triton.jit
def max_forward(
    x, xs, many, ms, walk, out, out_ties, rooms, tie_rooms, G, D, tiles,
    TIES: tl.constexpr, LEAST: tl.constexpr, ACC: tl.constexpr, N: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """The maximum of one chunk, of -x if it is the least: x ``(A, B, P, G, D)``, out ``(S, G, D)``."""
    g, d, _, owner, low, high, slot, alone, exists = enter(walk, tl.program_id(0).to(tl.int64), G, tiles, C)
    x += offset(walk, owner, g, x, xs)
    many_at = offset(walk, owner, g, many, ms)
    steps = tl.arange(0, N)
    top = tl.full((N, C), float("-inf"), ACC)
    ties = tl.zeros((N, C), tl.int32)
    for start in range(low, high, N * UNROLL):
        for u in tl.static_range(UNROLL):
            low_at = start + u * N
            top, ties = _rise(top, ties, x, xs, many, ms, many_at, walk, low_at, high, steps, d, D, ACC, TIES, LEAST)
    best = largest(top)
    put(out, rooms, owner, slot, G * D, g * D + d, best, best, d < D, alone, exists)
    if TIES:
        count = tl.sum(tl.where(top == best[None, :], ties, 0), 0)
        put(out_ties, tie_rooms, owner, slot, G * D, g * D + d, count, count, d < D, alone, exists)


@triton.jit
def max_join(rooms, tie_rooms, walk, out, out_ties, width, tiles, TIES: tl.constexpr, N: tl.constexpr, C: tl.constexpr):
    """The maximum of the chunks of one set."""
    owner, first, count, c = enter_join(walk, tiles, C)
    top = tl.full((N, C), float("-inf"), rooms.dtype.element_ty)
    ties = tl.zeros((N, C), tl.float64)
    for start in range(0, count, N):
        place, good = rooms_from(first, start, count, c, width, N)
        value = tl.load(rooms + place, mask=good, other=float("-inf"))
        best = tl.maximum(top, value, propagate_nan=tl.PropagateNan.ALL)
        if TIES:
            more = tl.load(tie_rooms + place, mask=good, other=0)
            ties = tl.where(best == top, ties, 0.0) + tl.where(value == best, more, 0).to(tl.float64)
        top = best
    best = largest(top)
    good = (c < width) & (count > 0)
    tl.store(out + owner * width + c, best, mask=good)
    if TIES:
        total = tl.sum(tl.where(top == best[None, :], ties, 0.0), 0)
        tl.store(out_ties + owner * width + c, total.to(out_ties.dtype.element_ty), mask=good)


@triton.jit
def max_backward(
    share, top, x, xs, many, ms, walk, grad_x, gs, G, D, tiles, ACC: tl.constexpr, N: tl.constexpr, C: tl.constexpr
):
    """Give each element that attains the maximum its share of the gradient, ``(S, G, D)``."""
    g, d, _, owner, low, high, _, _, _ = enter(walk, tl.program_id(0).to(tl.int64), G, tiles, C)
    x += offset(walk, owner, g, x, xs)
    many_at = offset(walk, owner, g, many, ms)
    grad_x += offset(walk, owner, g, grad_x, gs)
    wide = (d < D)[None, :]
    best = tl.load(top + (owner * G + g) * D + d, mask=d < D, other=0)[None, :]
    slope = tl.load(share + (owner * G + g) * D + d, mask=d < D, other=0)[None, :]
    for start in range(low, high, N):
        steps = tl.arange(0, N)
        value, _times, there, row, valid = load_values(
            walk, x, xs, many, ms, many_at, start, high, steps, d, D, 0.0, ACC
        )
        slopes = tl.where((value == best) & there, slope, 0.0).to(grad_x.dtype.element_ty)
        tl.store(grad_x + row[:, None] * gs[2] + d[None, :] * gs[4], slopes, mask=valid[:, None] & wide)
