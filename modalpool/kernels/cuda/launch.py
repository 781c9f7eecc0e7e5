"""From tensors to launches of the Triton kernels: tiles, grids, rooms for the results of chunks.

Arguments are those of the ops in `modalpool.kernels.cuda.ops`.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from modalpool.kernels import tuning
from modalpool.kernels.cuda import set_max, set_soften, set_sum
from modalpool.kernels.cuda.walk import tiles_over, walk_over

Given = Tensor | None


def _strides(tensor: Given) -> tuple[int, ...] | None:
    return None if tensor is None else tensor.stride()


class _Plan:
    """How elements ``x (A, B, P, G, D)`` are walked over, and what all kernels are told of them.

    Args:
        x: Elements.
        sets: ``many``, ``ptr`` and ``order``.
        columns: Of a tile, at most.
    """

    def __init__(self, x: Tensor, sets: tuple[Given, ...], columns: int = tuning.COLUMNS) -> None:
        many, ptr, order = sets
        self.x, self.kind = x, torch.float64 if x.dtype == torch.float64 else torch.float32
        # Multiplicities a kernel can read, and whether they are more than there or not.
        self.weighed = many is not None and many.dtype != torch.bool
        self.many = many if many is None or self.weighed else many.view(torch.uint8)
        self.shape, self.tiles = tiles_over(x, ptr, order, widest=columns)
        self.walk, self.items = walk_over(x, ptr, order, self.shape["N"] * tuning.UNROLL * tuning.STEPS)
        self.groups, self.width = x.shape[3:]
        self.programs = self.items * self.groups * self.tiles

    @property
    def elements(self) -> tuple[Any, ...]:
        """The elements, their multiplicities and their sets, as arguments."""
        return self.x, self.x.stride(), *self.there

    @property
    def there(self) -> tuple[Any, ...]:
        """Multiplicities and sets, as arguments."""
        return self.many, _strides(self.many), self.walk

    @property
    def options(self) -> dict[str, Any]:
        """The type of sums and the shape of a tile, as arguments."""
        return {"ACC": tl.float64 if self.kind == torch.float64 else tl.float32, **self.shape}

    def new(self, *shape: int) -> Tensor:
        """Room for results of sets, in the type of sums."""
        return self.x.new_empty((self.walk.sets, *shape), dtype=self.kind)

    def rooms(self, *widths: int, dtype: torch.dtype | None = None) -> list[Tensor] | list[None]:
        """Room for the results of chunks, or none if every set is one chunk."""
        walk = self.walk
        if walk.chunks <= (walk.ptr is None):
            return [None] * len(widths)
        rows = walk.sets * walk.chunks if walk.ptr is None else 2 * self.x.shape[2] // walk.rows
        return [self.x.new_empty((rows, width), dtype=dtype or self.kind) for width in widths]

    def joint(self, width: int) -> tuple[int, int, dict[str, int]]:
        """Programs that join chunks of ``width`` numbers, how many lie side by side, and their tile."""
        columns = min(triton.next_power_of_2(width), tuning.JOIN_COLUMNS)
        tiles, joints = triton.cdiv(width, columns), self.walk.sets if self.walk.ptr is None else self.walk.chunks
        return joints * tiles, tiles, {"N": tuning.TILE // columns, "C": columns}


def sum_forward(x: Tensor, weight: Given, many: Given, ptr: Given, order: Given, exact_zeros: bool) -> Tensor:
    """Σ w x."""
    weight, many, exact_zeros = _as_weights(weight, many, exact_zeros)
    plan = _Plan(x, (many, ptr, order))
    vectors = 1 if weight is None else weight.shape[3]
    out = plan.new(vectors, plan.groups, plan.width)
    if x.numel() == 0 or out.numel() == 0:
        return out.zero_()
    (rooms,) = plan.rooms(out[0].numel(), dtype=torch.float64)
    set_sum.sum_forward[(plan.programs * vectors,)](
        x, x.stride(), weight, _strides(weight), *plan.there, out, rooms,
        vectors, plan.groups, plan.width, plan.tiles,
        EXACT=exact_zeros, **plan.options,
    )  # fmt: skip
    if rooms is not None:
        programs, tiles, shape = plan.joint(rooms.shape[1])
        set_sum.sum_join[(programs,)](rooms, plan.walk, out, rooms.shape[1], tiles, **shape)
    return out


def _as_weights(weight: Given, many: Given, exact_zeros: bool) -> tuple[Given, Given, bool]:
    """Multiplicities that are more than there or not are weights, if there are no others."""
    if weight is not None or many is None or many.dtype == torch.bool:
        return weight, many, exact_zeros
    return many[:, :, :, None, :], None, True


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
    share, _, _ = _as_weights(weight, many, exact_zeros)
    plan = _Plan(x, (many, ptr, order), tuning.GRADIENT_COLUMNS if for_weight else tuning.COLUMNS)
    vectors = grad.shape[1]
    grad_x = torch.empty_like(x) if for_x else None
    grad_weight = None
    if for_weight:
        elements = x.shape[0] * x.shape[1] * x.shape[2]
        grad_weight = x.new_empty((elements, vectors, plan.groups, plan.tiles), dtype=grad.dtype)
    if x.numel() > 0 and grad.numel() > 0:
        set_sum.sum_backward[(plan.programs,)](
            grad, x, x.stride(), share, _strides(share), *plan.there, grad_x, _strides(grad_x),
            grad_weight, vectors, plan.groups, plan.width, plan.tiles,
            EXACT=exact_zeros, **plan.options,
        )  # fmt: skip
    else:
        for result in (grad_x, grad_weight):
            if result is not None:
                result.zero_()
    none = x.new_empty(0)
    if weight is None or grad_weight is None:
        return (none if grad_x is None else grad_x), none
    return (none if grad_x is None else grad_x), grad_weight.sum(-1).view(weight.shape).to(weight.dtype)


def max_forward(x: Tensor, many: Given, ptr: Given, order: Given, ties: bool, least: bool) -> tuple[Tensor, Tensor]:
    """The maximum or minimum and its ties (nothing if they are not asked for)."""
    plan = _Plan(x, (many, ptr, order))
    groups, width = plan.groups, plan.width
    out = plan.new(groups, width)
    count = torch.empty_like(out) if ties else out.new_empty(0)
    if x.numel() == 0 or out.numel() == 0:
        return out.fill_(torch.inf if least else -torch.inf), count.zero_()
    (rooms,) = plan.rooms(groups * width)
    (tie_rooms,) = plan.rooms(groups * width if ties else 0, dtype=torch.int32)
    set_max.max_forward[(plan.programs,)](
        *plan.elements, out, count, rooms, tie_rooms, groups, width, plan.tiles,
        TIES=ties, LEAST=least, **plan.options,
    )  # fmt: skip
    if rooms is not None:
        programs, tiles, shape = plan.joint(groups * width)
        set_max.max_join[(programs,)](
            rooms, tie_rooms, plan.walk, out, count, groups * width, tiles, TIES=ties, **shape
        )
    return out.neg_() if least else out, count


def max_backward(share: Tensor, top: Tensor, x: Tensor, many: Given, ptr: Given, order: Given) -> Tensor:
    """Gradient of x."""
    plan = _Plan(x, (many, ptr, order))
    grad_x = torch.empty_like(x)
    if x.numel() > 0:
        set_max.max_backward[(plan.programs,)](
            share, top, *plan.elements, grad_x, grad_x.stride(), plan.groups, plan.width, plan.tiles, **plan.options
        )
    return grad_x


def soften_forward(x: Tensor, scale: float, many: Given, ptr: Given, order: Given) -> tuple[Tensor, ...]:
    """Σ w x, the log of what it was divided by, the largest x, the mass relative to it."""
    plan = _Plan(x, (many, ptr, order))
    groups, width = plan.groups, plan.width
    z, top, mass = (plan.new(groups, width) for _ in range(3))
    if x.numel() == 0 or z.numel() == 0:
        return z.zero_(), torch.full_like(top, -torch.inf), top.fill_(-torch.inf), mass.zero_()
    rooms = plan.rooms(*[groups * width] * 3)
    set_soften.soften_forward[(plan.programs,)](
        *plan.elements, z, top, mass, *rooms, groups, width, plan.tiles,
        SCALE=scale, WEIGHED=plan.weighed, **plan.options,
    )  # fmt: skip
    if rooms[-1] is not None:
        programs, tiles, shape = plan.joint(groups * width)
        set_soften.soften_join[(programs,)](
            *rooms, plan.walk, z, top, mass, groups * width, tiles, SCALE=scale, **shape
        )
    return z, top * scale + mass.log(), top, mass


def soften_backward(
    grad: Tensor,
    grad_log_mass: Tensor,
    z: Tensor,
    top: Tensor,
    mass: Tensor,
    x: Tensor,
    scale: float,
    many: Given,
    ptr: Given,
    order: Given,
) -> Tensor:
    """Gradient of x."""
    plan = _Plan(x, (many, ptr, order))
    grad_x = torch.empty_like(x)
    if x.numel() > 0:
        set_soften.soften_backward[(plan.programs,)](
            grad, grad_log_mass, z, top, mass, *plan.elements, grad_x, grad_x.stride(),
            plan.groups, plan.width, plan.tiles, SCALE=scale, WEIGHED=plan.weighed, **plan.options,
        )  # fmt: skip
    return grad_x
