"""Softmax pooling, each channel by its own values: one read forward (online softmax), one read and one write backward.

Every lane of a tile keeps a softmax of its own: the largest value, the sum of exp2((x - largest) · k) and of that times
x. Lanes meet only at the end, so the loop has no barrier. Values of -inf weigh nothing by themselves; what infinities
mean (they share the weight) is settled once per lane.
"""

from __future__ import annotations

import triton
import triton.language as tl

from modalpool.kernels.cuda.walk import (
    LOG2E,
    UNROLL,
    enter,
    enter_join,
    largest,
    load_values,
    offset,
    put,
    rooms_from,
)


@triton.jit
def _tile(x, xs, many, ms, many_at, walk, low, high, steps, d, D, ACC):
    """A tile of values, -inf where nothing is there."""
    return load_values(walk, x, xs, many, ms, many_at, low, high, steps, d, D, float("-inf"), ACC)


@triton.jit
def _finite(value):
    """The value, or the lowest number for -inf, which then vanishes when it is multiplied by zero."""
    if value.dtype == tl.float64:
        return tl.maximum(value, -1.7976931348623157e308, propagate_nan=tl.PropagateNan.ALL)
    else:
        return tl.maximum(value, -3.4028234663852886e38, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _add(mass, total, value, times, shift, rate, WEIGHED):
    """Add a tile to the sums."""
    share = tl.exp2((value - shift) * rate)
    if WEIGHED:
        share *= times
    return mass + share, total + share * _finite(value)


@triton.jit
def _merge(top, mass, total, k):
    """Join the lanes (axis 0) of sums of exp2((x - top) · k): of the weights, ``mass``, and of weighted values."""
    best = largest(top)
    fade = tl.where(top == best[None], 1.0, tl.exp2((top - best[None]) * k))
    return best, tl.sum(mass * fade, 0), tl.sum(tl.where(fade == 0, 0.0, total * fade), 0)


@triton.jit
def soften_forward(
    x, xs, many, ms, walk, z, top, mass, top_rooms, mass_rooms, total_rooms, G, D, tiles,
    SCALE: tl.constexpr, WEIGHED: tl.constexpr, ACC: tl.constexpr, N: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Σ w x, the largest x and the mass of one chunk: x ``(A, B, P, G, D)``, outputs ``(S, G, D)``."""
    g, d, _, owner, low, high, slot, alone, exists = enter(walk, tl.program_id(0).to(tl.int64), G, tiles, C)
    x += offset(walk, owner, g, x, xs)
    many_at = offset(walk, owner, g, many, ms)
    steps = tl.arange(0, N)
    rate = tl.full((1, C), SCALE * LOG2E, ACC)
    tops = tl.full((N, C), float("-inf"), ACC)
    masses = tl.zeros((N, C), ACC)
    totals = tl.zeros((N, C), ACC)
    seen = tl.zeros((N, 1), tl.int32)
    for start in range(low, high, N * UNROLL):
        a, times_a, there_a, _row, _valid = _tile(x, xs, many, ms, many_at, walk, start, high, steps, d, D, ACC)
        b, times_b, there_b, _row, _valid = _tile(x, xs, many, ms, many_at, walk, start + N, high, steps, d, D, ACC)
        c, times_c, there_c, _row, _valid = _tile(x, xs, many, ms, many_at, walk, start + 2 * N, high, steps, d, D, ACC)
        e, times_e, there_e, _row, _valid = _tile(x, xs, many, ms, many_at, walk, start + 3 * N, high, steps, d, D, ACC)
        ab = tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)
        ce = tl.maximum(c, e, propagate_nan=tl.PropagateNan.ALL)
        new = tl.maximum(ab, ce, propagate_nan=tl.PropagateNan.ALL)
        new = tl.maximum(tops, new, propagate_nan=tl.PropagateNan.ALL)
        shift = tl.where(new == float("-inf"), 0.0, new)
        fade = tl.exp2((tops - shift) * rate)
        tops, masses, totals = new, masses * fade, totals * fade
        masses, totals = _add(masses, totals, a, times_a, shift, rate, WEIGHED)
        masses, totals = _add(masses, totals, b, times_b, shift, rate, WEIGHED)
        masses, totals = _add(masses, totals, c, times_c, shift, rate, WEIGHED)
        masses, totals = _add(masses, totals, e, times_e, shift, rate, WEIGHED)
        seen |= (there_a | there_b | there_c | there_e).to(tl.int32)
    endless = tops == float("inf")
    bottom = (tops == float("-inf")) & (seen > 0)
    masses = tl.where(endless | bottom, 1.0, masses)
    totals = tl.where(endless, float("inf"), tl.where(bottom, float("-inf"), totals))
    best, weight, total = _merge(tops, masses, totals, rate)
    mean = tl.where(weight == 0, 0.0, total / tl.where(weight == 0, 1.0, weight))
    place = g * D + d
    put(z, total_rooms, owner, slot, G * D, place, mean, total, d < D, alone, exists)
    put(top, top_rooms, owner, slot, G * D, place, best, best, d < D, alone, exists)
    put(mass, mass_rooms, owner, slot, G * D, place, weight, weight, d < D, alone, exists)


@triton.jit
def soften_join(
    top_rooms, mass_rooms, total_rooms, walk, z, top, mass, width, tiles,
    SCALE: tl.constexpr, N: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Join the chunks of one set."""
    ACC: tl.constexpr = top_rooms.dtype.element_ty
    owner, first, count, c = enter_join(walk, tiles, C)
    rate = tl.full((1, C), SCALE * LOG2E, ACC)
    tops = tl.full((N, C), float("-inf"), ACC)
    masses = tl.zeros((N, C), ACC)
    totals = tl.zeros((N, C), ACC)
    for start in range(0, count, N):
        place, good = rooms_from(first, start, count, c, width, N)
        peak = tl.load(top_rooms + place, mask=good, other=float("-inf"))
        new = tl.maximum(tops, peak, propagate_nan=tl.PropagateNan.ALL)
        fade = tl.where(tops == new, 1.0, tl.exp2((tops - new) * rate))
        rise = tl.where(peak == new, 1.0, tl.exp2((peak - new) * rate))
        masses = masses * fade + tl.load(mass_rooms + place, mask=good, other=0) * rise
        more = tl.load(total_rooms + place, mask=good, other=0)
        totals = tl.where(fade == 0, 0.0, totals * fade) + tl.where(rise == 0, 0.0, more * rise)
        tops = new
    best, weight, total = _merge(tops, masses, totals, rate)
    mean = tl.where(weight == 0, 0.0, total / tl.where(weight == 0, 1.0, weight))
    place, good = owner * width + c, (c < width) & (count > 0)
    tl.store(z + place, mean, mask=good)
    tl.store(top + place, best, mask=good)
    tl.store(mass + place, weight, mask=good)


@triton.jit
def soften_backward(
    grad_z, grad_mass, z, top, mass, x, xs, many, ms, walk, grad_x, gs, G, D, tiles,
    SCALE: tl.constexpr, WEIGHED: tl.constexpr, ACC: tl.constexpr, N: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Gradient of one chunk: w (g (1 + k (x - z)) + k g_mass), k the scale."""
    g, d, _, owner, low, high, _, _, _ = enter(walk, tl.program_id(0).to(tl.int64), G, tiles, C)
    x += offset(walk, owner, g, x, xs)
    many_at = offset(walk, owner, g, many, ms)
    grad_x += offset(walk, owner, g, grad_x, gs)
    wide = (d < D)[None, :]
    place = (owner * G + g) * D + d
    above = tl.load(grad_z + place, mask=d < D, other=0)[None, :]
    beside = tl.load(grad_mass + place, mask=d < D, other=0)[None, :]
    mean = tl.load(z + place, mask=d < D, other=0)[None, :]
    best = tl.load(top + place, mask=d < D, other=0)[None, :]
    inverse = 1.0 / tl.load(mass + place, mask=d < D, other=1)[None, :]
    k = tl.full((1, C), SCALE, ACC)
    for start in range(low, high, N):
        value, times, there, row, valid = _tile(x, xs, many, ms, many_at, walk, start, high, tl.arange(0, N), d, D, ACC)
        share = tl.exp2((value - best) * (k * LOG2E)) * inverse
        if WEIGHED:
            share *= times
        share = tl.where(there, share, 0.0)
        away = tl.where(share == 0, 0.0, value - mean)
        slope = share * (above * (1.0 + k * away) + k * beside)
        tl.store(
            grad_x + row[:, None] * gs[2] + d[None, :] * gs[4],
            slope.to(grad_x.dtype.element_ty),
            mask=valid[:, None] & wide,
        )
