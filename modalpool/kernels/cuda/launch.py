"""From tensors to launches of the Triton kernels: tiles, grids, room for partial results.

Arguments are those of the ops in `modalpool.kernels.cuda.ops`.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from modalpool.kernels import tuning
from modalpool.kernels.cuda import set_attend, set_max, set_soften, set_sum
from modalpool.kernels.cuda.walk import Tiles, Walk, tiles_over, walk_over

__all__ = [
    "attend_backward",
    "attend_forward",
    "max_backward",
    "max_forward",
    "soften_backward",
    "soften_forward",
    "sum_backward",
    "sum_forward",
]

Given = Tensor | None


def _types(x: Tensor) -> tuple[torch.dtype, Any]:
    """What sums are kept in, for torch and for Triton."""
    return (torch.float64, tl.float64) if x.dtype == torch.float64 else (torch.float32, tl.float32)


def _strides(tensor: Given) -> tuple[int, ...] | None:
    return None if tensor is None else tensor.stride()


def _bytes(many: Given) -> tuple[Given, bool]:
    """Multiplicities a kernel can read, and whether they are more than there or not."""
    if many is None or many.dtype != torch.bool:
        return many, many is not None
    return many.view(torch.uint8), False


def _plan(x: Tensor, ptr: Given, order: Given, *, widest: int = tuning.COLUMNS) -> tuple[Walk, int, Tiles]:
    """Parts, how many of them, and the tile, for kernels that take channels one by one."""
    tiles = tiles_over(x, ptr, order, widest=widest)
    return *walk_over(x, ptr, order, tiles.shape["N"] * tuning.UNROLL * tuning.STEPS), tiles


def _partial(x: Tensor, walk: Walk, *widths: int, dtype: torch.dtype) -> list[Tensor] | list[None]:
    """Room for the results of sets in several parts, or nothing if there can be none."""
    if walk.parts <= (walk.ptr is None):
        return [None] * len(widths)
    rows = walk.sets * walk.parts if walk.ptr is None else 2 * x.shape[2] // walk.chunk
    return [x.new_empty((rows, width), dtype=dtype) for width in widths]


def _joints(walk: Walk) -> int:
    """Sets in several parts, at most."""
    return walk.sets if walk.ptr is None else walk.parts


def _join_tile(width: int) -> tuple[int, dict[str, int]]:
    """Tiles side by side and their shape, for the kernels that join parts."""
    columns = min(triton.next_power_of_2(width), tuning.JOIN_COLUMNS)
    return triton.cdiv(width, columns), {"N": tuning.TILE // columns, "C": columns}


def sum_forward(x: Tensor, weight: Given, many: Given, ptr: Given, order: Given, exact_zeros: bool) -> Tensor:
    """Σ w x."""
    dtype, acc = _types(x)
    many, weighed = _bytes(many)
    if weight is None and weighed:  # multiplicities are weights
        assert many is not None
        weight, exact_zeros, many = many[:, :, :, None, :, None], True, None
    walk, items, tiles = _plan(x, ptr, order)
    groups, width = x.shape[3:]
    vectors = 1 if weight is None else weight.shape[3]
    out = x.new_empty((walk.sets, vectors, groups, width), dtype=dtype)
    if x.numel() == 0 or out.numel() == 0:
        return out.zero_()
    (partial,) = _partial(x, walk, vectors * groups * width, dtype=torch.float64)
    set_sum.sum_forward[(items * groups * tiles.blocks * vectors,)](
        x, x.stride(), weight, _strides(weight), many, _strides(many), walk, out, partial,
        vectors, groups, width, tiles.blocks,
        EXACT=exact_zeros, EACH=weight is not None and weight.shape[5] > 1, ACC=acc, **tiles.shape,
    )  # fmt: skip
    if partial is not None:
        blocks, shape = _join_tile(partial.shape[1])
        set_sum.sum_join[(_joints(walk) * blocks,)](partial, walk, out, partial.shape[1], blocks, **shape)
    return out


def sum_backward(
    grad: Tensor,
    x: Tensor,
    weight: Given,
    many: Given,
    ptr: Given,
    order: Given,
    exact_zeros: bool,
    for_x: bool,
    for_weight: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of x and the weights; empty where not asked for."""
    _, acc = _types(x)
    many, weighed = _bytes(many)
    share = weight
    if weight is None and weighed:
        assert many is not None
        share = many[:, :, :, None, :, None]
    groups, width = x.shape[3:]
    walk, items, tiles = _plan(x, ptr, order, widest=tuning.GRADIENT_COLUMNS if for_weight else tuning.COLUMNS)
    vectors, each = grad.shape[1], share is not None and share.shape[5] > 1
    grad_x = torch.empty_like(x) if for_x else None
    grad_weight = None
    if for_weight:
        last = width if each else tiles.blocks
        grad_weight = x.new_empty((x.shape[0] * x.shape[1] * x.shape[2], vectors, groups, last), dtype=grad.dtype)
    if x.numel() > 0 and grad.numel() > 0:
        set_sum.sum_backward[(items * groups * tiles.blocks,)](
            grad, x, x.stride(), share, _strides(share), many, _strides(many), walk, grad_x, _strides(grad_x),
            grad_weight, vectors, groups, width, tiles.blocks,
            EXACT=exact_zeros, EACH=each, ACC=acc, **tiles.shape,
        )  # fmt: skip
    else:
        for result in (grad_x, grad_weight):
            if result is not None:
                result.zero_()
    none = x.new_empty(0)
    if weight is None or grad_weight is None:
        return (none if grad_x is None else grad_x), none
    if not each:
        grad_weight = grad_weight.sum(-1, keepdim=True) if tiles.blocks > 1 else grad_weight
    return (none if grad_x is None else grad_x), grad_weight.view(weight.shape).to(weight.dtype)


def max_forward(x: Tensor, many: Given, ptr: Given, order: Given, ties: bool) -> tuple[Tensor, Tensor]:
    """The maximum and its ties (nothing if they are not asked for)."""
    dtype, acc = _types(x)
    many, _ = _bytes(many)
    walk, items, tiles = _plan(x, ptr, order)
    groups, width = x.shape[3:]
    out = x.new_empty((walk.sets, groups, width), dtype=dtype)
    count = x.new_empty((walk.sets, groups, width) if ties else (0,), dtype=dtype)
    if x.numel() == 0 or out.numel() == 0:
        return out.fill_(-torch.inf), count.zero_()
    (partial,) = _partial(x, walk, groups * width, dtype=dtype)
    (partial_ties,) = _partial(x, walk, groups * width if ties else 0, dtype=torch.int32)
    set_max.max_forward[(items * groups * tiles.blocks,)](
        x, x.stride(), many, _strides(many), walk, out, count, partial, partial_ties, groups, width, tiles.blocks,
        TIES=ties, ACC=acc, **tiles.shape,
    )  # fmt: skip
    if partial is not None:
        blocks, shape = _join_tile(partial.shape[1])
        set_max.max_join[(_joints(walk) * blocks,)](
            partial, partial_ties, walk, out, count, partial.shape[1], blocks, TIES=ties, **shape
        )
    return out, count


def max_backward(share: Tensor, top: Tensor, x: Tensor, many: Given, ptr: Given, order: Given) -> Tensor:
    """Gradient of x."""
    _, acc = _types(x)
    many, _ = _bytes(many)
    walk, items, tiles = _plan(x, ptr, order)
    groups, width = x.shape[3:]
    grad_x = torch.empty_like(x)
    if x.numel() > 0:
        set_max.max_backward[(items * groups * tiles.blocks,)](
            share, top, x, x.stride(), many, _strides(many), walk, grad_x, grad_x.stride(), groups, width, tiles.blocks,
            ACC=acc, **tiles.shape,
        )  # fmt: skip
    return grad_x


def soften_forward(x: Tensor, scale: Given, many: Given, ptr: Given, order: Given) -> tuple[Tensor, ...]:
    """Σ w x, the log of what it was divided by, the largest x, the mass relative to it."""
    dtype, acc = _types(x)
    many, weighed = _bytes(many)
    walk, items, tiles = _plan(x, ptr, order)
    groups, width = x.shape[3:]
    z, top, mass = (x.new_empty((walk.sets, groups, width), dtype=dtype) for _ in range(3))
    if x.numel() == 0 or z.numel() == 0:
        return z.zero_(), torch.full_like(top, -torch.inf), top.fill_(-torch.inf), mass.zero_()
    rows = _partial(x, walk, *[groups * width] * 3, dtype=dtype)
    set_soften.soften_forward[(items * groups * tiles.blocks,)](
        x, x.stride(), scale, many, _strides(many), walk, z, top, mass, *rows, groups, width, tiles.blocks,
        WEIGHED=weighed, ACC=acc, **tiles.shape,
    )  # fmt: skip
    if rows[0] is not None:
        blocks, shape = _join_tile(groups * width)
        set_soften.soften_join[(_joints(walk) * blocks,)](
            *rows, scale, walk, z, top, mass, groups * width, width, blocks, **shape
        )
    return z, (top if scale is None else top * scale) + mass.log(), top, mass


def soften_backward(
    grad: Tensor,
    grad_log_mass: Tensor,
    z: Tensor,
    top: Tensor,
    mass: Tensor,
    x: Tensor,
    scale: Given,
    many: Given,
    ptr: Given,
    order: Given,
    for_scale: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of x and the scale (nothing if it is not asked for)."""
    dtype, acc = _types(x)
    many, weighed = _bytes(many)
    walk, items, tiles = _plan(x, ptr, order)
    groups, width = x.shape[3:]
    grad_x = torch.empty_like(x)
    gathered = x.new_zeros((items, groups, width), dtype=dtype) if for_scale else None
    if x.numel() > 0:
        set_soften.soften_backward[(items * groups * tiles.blocks,)](
            grad, grad_log_mass, z, top, mass, x, x.stride(), scale, many, _strides(many), walk,
            grad_x, grad_x.stride(), gathered, groups, width, tiles.blocks, WEIGHED=weighed, ACC=acc, **tiles.shape,
        )  # fmt: skip
    if gathered is None:
        return grad_x, x.new_empty(0, dtype=dtype)
    return grad_x, (gathered.sum((0, 1), dtype=torch.float64) + (grad_log_mass * z).sum((0, 1))).to(dtype)


def _attend_tile(x: Tensor) -> dict[str, int]:
    """A tile of whole elements and its warps."""
    heads, columns = (triton.next_power_of_2(size) for size in x.shape[3:])
    rows = max(tuning.ATTEND_TILE // (2 if x.dtype == torch.float64 else 1) // (heads * columns), 1)
    return {"N": rows, "HEADS": heads, "C": columns, "num_warps": 8 if heads * columns >= 2048 else 4}


def attend_forward(x: Tensor, matrix: Tensor, many: Given, ptr: Given, order: Given) -> tuple[Tensor, ...]:
    """Σ w x, the log of what it was divided by, the largest score, the mass relative to it."""
    dtype, acc = _types(x)
    many, weighed = _bytes(many)
    tile = _attend_tile(x)
    walk, items = walk_over(x, ptr, order, tile["N"] * tuning.STEPS)
    queries, heads, width = matrix.shape[0], *x.shape[3:]
    z = x.new_empty((walk.sets, queries, heads, width), dtype=dtype)
    top, mass = (x.new_empty(z.shape[:3], dtype=dtype) for _ in range(2))
    if x.numel() == 0 or z.numel() == 0:
        return z.zero_(), torch.full_like(top, -torch.inf), top.fill_(-torch.inf), mass.zero_()
    scores = queries * heads
    rows = _partial(x, walk, scores, scores, scores * width, dtype=dtype)
    set_attend.attend_forward[(items * queries,)](
        x, x.stride(), matrix, many, _strides(many), walk, z, top, mass, *rows, queries, heads, width,
        WEIGHED=weighed, ACC=acc, **tile,
    )  # fmt: skip
    if rows[0] is not None:
        blocks, shape = _join_tile(width)
        set_attend.attend_join[(_joints(walk) * scores * blocks,)](
            *rows, walk, z, top, mass, scores, width, blocks, **shape
        )
    return z, top + mass.log(), top, mass


def attend_backward(
    grad: Tensor,
    slack: Tensor,
    top: Tensor,
    mass: Tensor,
    x: Tensor,
    matrix: Tensor,
    many: Given,
    ptr: Given,
    order: Given,
) -> tuple[Tensor, Tensor]:
    """Gradients of x and the matrix."""
    dtype, acc = _types(x)
    there, weighed = _bytes(many)
    tile = _attend_tile(x)
    walk, items = walk_over(x, ptr, order, tile["N"] * tuning.STEPS)
    queries, heads, width = matrix.shape[0], *x.shape[3:]
    scores = queries * heads
    grad_x = torch.empty_like(x)
    if x.numel() == 0 or grad.numel() == 0:
        return grad_x.zero_(), torch.zeros_like(matrix)
    # With a single score each program gathers its share of the matrix's gradient; with more, that takes another read.
    programs = min(items, tuning.PROGRAMS) if scores == 1 else items
    gathered = x.new_empty((programs, width), dtype=dtype) if scores == 1 else None
    steep = x.new_empty((*x.shape[:3], scores, 1, 1), dtype=dtype) if scores > 1 else None
    set_attend.attend_backward[(programs,)](
        grad, slack, top, mass, x, x.stride(), matrix, there, _strides(there), walk, grad_x, grad_x.stride(),
        steep, gathered, items, queries, heads, width, WEIGHED=weighed, ACC=acc, **tile,
    )  # fmt: skip
    if gathered is None:
        assert steep is not None
        gathered = sum_forward(x.flatten(3).unsqueeze(3), steep, None, None, None, exact_zeros=True)
    return grad_x, gathered.sum(0, dtype=torch.float64).to(matrix.dtype).view(matrix.shape)
