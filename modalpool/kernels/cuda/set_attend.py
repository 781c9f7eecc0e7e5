"""Attention with a linear score: x · u, its softmax over the set and Σ w x in one read of x.

A tile holds whole elements, (rows, heads, channels of a head), because every score needs all channels. Each row of the
tile keeps an online softmax of its own; rows meet only at the end.
"""

from __future__ import annotations

import triton
import triton.language as tl

from modalpool.kernels.cuda.walk import LOG2E, largest, load_rows, load_tile, offset, origin, put, rows_from, take_chunk


@triton.jit
def _values(walk, many, x, xs, row, valid, there, head, d, H, D, ACC):
    """Elements ``(N, heads, D)``, zero where nothing is there."""
    wide = (head < H)[None, :, None] & (d < D)[None, None, :]
    place = row[:, None, None] * xs[2] + head[None, :, None] * xs[3] + d[None, None, :] * xs[4]
    return load_tile(walk, many, x, place, valid[:, None, None], there[:, None, None], wide, 0.0).to(ACC)


@triton.jit
def _query(matrix, h, head, d, H, D, ACC):
    """One row of the matrix, ``(heads, D)``."""
    good = (head < H)[:, None] & (d < D)[None, :]
    return tl.load(matrix + (h * H + head)[:, None] * D + d[None, :], mask=good, other=0).to(ACC)


@triton.jit
def _scores(value, matrix, head, d, H, D, ACC):
    """The score of each row for each head, ``(N, heads)``."""
    scores = tl.zeros((value.shape[0], value.shape[1]), ACC)
    for h in range(H):
        score = tl.sum(tl.sum(value * _query(matrix, h, head, d, H, D, ACC)[None], 2), 1)
        scores = tl.where((head == h)[None, :], score[:, None], scores)
    return scores


@triton.jit
def attend_forward(
    x, xs, matrix, many, ms, walk, z, top, mass, top_rooms, mass_rooms, total_rooms, K, H, D,
    WEIGHED: tl.constexpr, ACC: tl.constexpr, N: tl.constexpr, HEADS: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """One chunk, one of K queries: matrix ``(K, H, H·D)``, z ``(S, K, H, D)``, top and mass ``(S, K, H)``."""
    pid = tl.program_id(0).to(tl.int64)
    k, item = pid % K, pid // K
    owner, low, high, slot, alone, exists = take_chunk(walk, item)
    x += origin(walk, owner, xs)
    matrix += k * H * H * D
    many_at = offset(walk, owner, 0, many, ms)
    head = tl.arange(0, HEADS)
    d = tl.arange(0, C)
    tops = tl.full((N, HEADS), float("-inf"), ACC)
    masses = tl.zeros((N, HEADS), ACC)
    totals = tl.zeros((N, HEADS, C), ACC)
    for start in range(low, high, N):
        row, valid = rows_from(walk, start, high, tl.arange(0, N))
        times, there = load_rows(many, ms, many_at, row, valid)
        value = _values(walk, many, x, xs, row, valid, there, head, d, H, D, ACC)
        score = tl.where(there[:, None], _scores(value, matrix, head, d, H, D, ACC), float("-inf"))
        new = tl.maximum(tops, score, propagate_nan=tl.PropagateNan.ALL)
        # Infinite scores tie with each other, so that inf - inf never happens.
        fade = tl.where(tops == new, 1.0, tl.exp2((tops - new) * LOG2E))
        share = tl.where(score == new, 1.0, tl.exp2((score - new) * LOG2E))
        share = tl.where(there[:, None], share, 0.0)
        if WEIGHED:
            share *= times.to(ACC)[:, None]
        tops, masses = new, masses * fade + share
        totals = totals * fade[:, :, None] + share[:, :, None] * value
    best = largest(tops)
    fade = tl.where(tops == best[None], 1.0, tl.exp2((tops - best[None]) * LOG2E))
    weight = tl.sum(masses * fade, 0)
    total = tl.sum(totals * fade[:, :, None], 0)
    mean = total / tl.where(weight == 0, 1.0, weight)[:, None]
    place, good = k * H + head, head < H
    put(top, top_rooms, owner, slot, K * H, place, best, best, good, alone, exists)
    put(mass, mass_rooms, owner, slot, K * H, place, weight, weight, good, alone, exists)
    places, wide = place[:, None] * D + d[None, :], good[:, None] & (d < D)[None, :]
    put(z, total_rooms, owner, slot, K * H * D, places, mean, total, wide, alone, exists)


@triton.jit
def attend_backward(
    grad_z, slack, top, mass, x, xs, matrix, many, ms, walk, grad_x, gs, grad_score, grad_matrix, items, K, H, D,
    WEIGHED: tl.constexpr, ACC: tl.constexpr, N: tl.constexpr, HEADS: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Gradients of x, of the scores, ``(A·B·P, K, H)``, and for a single score of the matrix, ``(programs, D)``.

    With w the weights, g the gradient of z and slack = g · z - g_mass per head: the score's gradient is
    w (g · x - slack), that of x is Σ w g + Σ (score's gradient) u.
    """
    pid = tl.program_id(0).to(tl.int64)
    head = tl.arange(0, HEADS)
    d = tl.arange(0, C)
    gathered = tl.zeros((N, HEADS, C), ACC)
    for item in range(pid, items, tl.num_programs(0)):
        owner, low, high, _, _, _ = take_chunk(walk, item)
        first = origin(walk, owner, (walk.inner * walk.size, walk.size))
        x_set = x + origin(walk, owner, xs)
        grad_set = grad_x + origin(walk, owner, gs)
        many_at = offset(walk, owner, 0, many, ms)
        for start in range(low, high, N):
            row, valid = rows_from(walk, start, high, tl.arange(0, N))
            times, there = load_rows(many, ms, many_at, row, valid)
            value = _values(walk, many, x_set, xs, row, valid, there, head, d, H, D, ACC)
            slope = tl.zeros((N, HEADS, C), ACC)
            for k in range(K):
                place = (owner * K + k) * H + head
                good = head < H
                wide = good[:, None] & (d < D)[None, :]
                above = tl.load(grad_z + place[:, None] * D + d[None, :], mask=wide, other=0)
                best = tl.load(top + place, mask=good, other=0)[None, :]
                inverse = 1.0 / tl.load(mass + place, mask=good, other=1)[None, :]
                rows = matrix + k * H * H * D
                score = _scores(value, rows, head, d, H, D, ACC)
                share = tl.where(score == best, 1.0, tl.exp2((score - best) * LOG2E)) * inverse
                if WEIGHED:
                    share *= times.to(ACC)[:, None]
                share = tl.where(there[:, None], share, 0.0)
                down = tl.load(slack + place, mask=good, other=0)[None, :]
                steep = share * (tl.sum(value * above[None], 2) - down)
                steep = tl.where(there[:, None] & good[None, :], steep, 0.0)
                slope += share[:, :, None] * above[None]
                for h in range(H):
                    one = tl.sum(tl.where((head == h)[None, :], steep, 0.0), 1)
                    slope += one[:, None, None] * _query(rows, h, head, d, H, D, ACC)[None]
                if grad_score is not None:
                    place = ((first + row) * K + k)[:, None] * H + head[None, :]
                    tl.store(grad_score + place, steep, mask=valid[:, None] & good[None, :])
                if grad_matrix is not None:
                    gathered += steep[:, :, None] * value
            good = valid[:, None, None] & (head < H)[None, :, None] & (d < D)[None, None, :]
            place = row[:, None, None] * gs[2] + head[None, :, None] * gs[3] + d[None, None, :] * gs[4]
            slope = tl.where(there[:, None, None], slope, 0.0)
            tl.store(grad_set + place, slope.to(grad_x.dtype.element_ty), mask=good)
    if grad_matrix is not None:
        total = tl.sum(tl.sum(gathered, 0), 0)
        tl.store(grad_matrix + pid * D + d, total, mask=d < D)
