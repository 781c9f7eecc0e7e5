"""The Triton kernels as torch ops, so that compilation, autocast and autograd see each as a single operation.

Elements come as views ``x`` ``(A, B, P, G, D)`` of any strides: dense sets are the pairs (a, b) with P elements each;
for ragged sets A = B = 1 and ``ptr`` says where they begin along P, ``order`` which element is at each place. ``many``
``(A, B, P, G)`` is how often an element is there, bool or float; None = once. S sets, G groups of D channels.

A gradient that is itself to be differentiated is worked out by the plain composition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from modalpool.kernels import definition
from modalpool.kernels.cuda import launch
from modalpool.kernels.second_order import transformed, vector_product
from modalpool.kernels.segments import Segments
from modalpool.kernels.values import accumulation_type

SETS = "Tensor? many, Tensor? ptr, Tensor? order"


def _op(name: str, schema: str, launched: Callable[..., Any], fake: Callable[..., Any]) -> Any:
    """A torch op that launches on the device of its first tensor, and its shapes."""

    def on_its_device(x: Tensor, *rest: Any) -> Any:
        with torch.cuda.device_of(x):  # type: ignore[no-untyped-call]
            return launched(x, *rest)

    op = custom_op(f"modalpool::{name}", on_its_device, mutates_args=(), schema=schema)
    op.register_fake(fake)
    return op


def _shape(x: Tensor, ptr: Tensor | None) -> tuple[int, ...]:
    """Sets, groups, channels."""
    return x.shape[0] * x.shape[1] if ptr is None else ptr.shape[0] - 1, *x.shape[3:]


def _new(x: Tensor, *shape: int) -> Tensor:
    return x.new_empty(shape, dtype=accumulation_type(x.dtype))


def _plainly(
    compute: Callable[..., Any],
    tensors: Sequence[Tensor],
    many: Tensor | None,
    ptr: Tensor | None,
    order: Tensor | None,
) -> Any:
    """``compute(group, *tensors, many)`` by the definition, for views ``(A, B, P, G, …)``; results begin with S, G."""
    given = [*tensors, many]
    if ptr is not None:
        rows = [t if t is None else t[0, 0] if order is None else t[0, 0].index_select(0, order) for t in given]
        segments = Segments(ptr.shape[0] - 1, tensors[0].shape[2], ptr=ptr)
        return compute(definition.Ragged(segments), *rows)
    # Groups are one more set axis.
    results = compute(definition.Dense((3,)), *(t if t is None else t.transpose(2, 3) for t in given))
    return tuple(z.flatten(0, 1) for z in results) if isinstance(results, tuple) else results.flatten(0, 1)


def _again(
    compute: Callable[..., Any], x: Tensor, parameter: Tensor | None, grads: Sequence[Tensor], others: int
) -> tuple[Tensor | None, ...] | None:
    """Gradients of x and a parameter by the definition, if they will be differentiated; None for what is left."""
    if not (torch.is_grad_enabled() or transformed()):
        return None
    inputs = (x,) if parameter is None else (x, parameter)
    return *vector_product(compute, inputs, grads), *(None,) * (2 - len(inputs) + others)


# --- sums


def _fake_sum(x: Tensor, weight: Tensor | None, many: Any, ptr: Tensor | None, order: Any, exact_zeros: bool) -> Tensor:
    sets, *rest = _shape(x, ptr)
    return _new(x, sets, 1 if weight is None else weight.shape[3], *rest)


def _fake_sum_backward(grad: Tensor, x: Tensor, weight: Tensor | None, *rest: Any) -> tuple[Tensor, Tensor]:
    *_, for_x, for_weight = rest
    grad_x = torch.empty_like(x) if for_x else x.new_empty(0)
    return grad_x, torch.empty_like(weight) if for_weight and weight is not None else x.new_empty(0)


set_sum = _op(
    "set_sum", f"(Tensor x, Tensor? weight, {SETS}, bool exact_zeros) -> Tensor", launch.sum_forward, _fake_sum
)
"""Σ w x, ``(S, K, G, D)``; weight ``(A, B, P, K, G)``, None = ``many``."""
_sum_backward = _op(
    "set_sum_backward",
    f"(Tensor grad, Tensor x, Tensor? weight, {SETS}, bool exact_zeros, bool for_x, bool for_weight)"
    " -> (Tensor, Tensor)",
    launch.sum_backward,
    _fake_sum_backward,
)


def _keep_sum(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.exact_zeros = inputs[5]


def _differentiate_sum(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, *sets = ctx.saved_tensors
    for_x, for_weight = ctx.needs_input_grad[:2]

    def compute(x: Tensor, weight: Tensor | None = None) -> Tensor:
        if weight is None:
            z: Tensor = _plainly(lambda group, x, many: group.sum(x, many), (x,), *sets)
            return z[:, None]
        beside = weight.transpose(3, 4)[..., None]  # the weights of a group beside its values: (A, B, P, G, K, 1)
        z = _plainly(
            lambda group, x, weight, many: group.weighted_sum(weight, x, many, exact_zeros=ctx.exact_zeros),
            (x, beside),
            *sets,
        )
        return z.transpose(1, 2)

    again = _again(compute, x, weight, (grad,), 4)
    if again is not None:
        return again
    grad_x, grad_weight = _sum_backward(grad.contiguous(), x, weight, *sets, ctx.exact_zeros, for_x, for_weight)
    return grad_x if for_x else None, grad_weight if for_weight else None, *(None,) * 4


set_sum.register_autograd(_differentiate_sum, setup_context=_keep_sum)


# --- maximum


def _fake_max(x: Tensor, many: Any, ptr: Tensor | None, order: Any, ties: bool, least: bool) -> tuple[Tensor, Tensor]:
    return _new(x, *_shape(x, ptr)), _new(x, *(_shape(x, ptr) if ties else (0,)))


set_max = _op(
    "set_max", f"(Tensor x, {SETS}, bool ties, bool least) -> (Tensor, Tensor)", launch.max_forward, _fake_max
)
"""The maximum or minimum, ``(S, G, D)``, and (for the gradient) how many elements attain it."""
_max_backward = _op(
    "set_max_backward",
    f"(Tensor share, Tensor top, Tensor x, {SETS}) -> Tensor",
    launch.max_backward,
    lambda share, top, x, *sets: torch.empty_like(x),
)


def _keep_max(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:4], *output)
    ctx.least = inputs[5]
    ctx.mark_non_differentiable(output[1])


def _differentiate_max(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    x, *sets, top, ties = ctx.saved_tensors

    def compute(x: Tensor) -> Any:
        return _plainly(lambda group, x, many: group.extreme(x, many, least=ctx.least), (x,), *sets)

    again = _again(compute, x, None, (grad,), 4)
    if again is not None:
        return again
    share = grad / ties.clamp(min=1)
    return _max_backward(share.contiguous(), top, x, *sets), *(None,) * 5


set_max.register_autograd(_differentiate_max, setup_context=_keep_max)


# --- softmax of each channel


def _fake_soften(x: Tensor, scale: float, many: Any, ptr: Tensor | None, order: Any) -> tuple[Tensor, ...]:
    return tuple(_new(x, *_shape(x, ptr)) for _ in range(4))


set_soften = _op(
    "set_soften",
    f"(Tensor x, float scale, {SETS}) -> (Tensor, Tensor, Tensor, Tensor)",
    launch.soften_forward,
    _fake_soften,
)
"""Σ w x with w = softmax(scale · x), scale positive, and the log of what it was divided by.

Also the largest x and the mass relative to it, for the gradient; all ``(S, G, D)``.
"""
_soften_backward = _op(
    "set_soften_backward",
    f"(Tensor grad, Tensor grad_log_mass, Tensor z, Tensor top, Tensor mass, Tensor x, float scale, {SETS}) -> Tensor",
    launch.soften_backward,
    lambda grad, grad_log_mass, z, top, mass, x, *rest: torch.empty_like(x),
)


def _keep_soften(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    (x, ctx.scale, *sets), (z, _, top, mass) = inputs, output
    ctx.save_for_backward(x, *sets, z, top, mass)
    ctx.mark_non_differentiable(top, mass)


def _differentiate_soften(
    ctx: Any, grad: Tensor, grad_log_mass: Tensor, _: Tensor | None, __: Tensor | None
) -> tuple[Tensor | None, ...]:
    x, *sets, z, top, mass = ctx.saved_tensors

    def compute(x: Tensor) -> Any:
        return _plainly(lambda group, x, many: group.soften(x, ctx.scale, many), (x,), *sets)

    again = _again(compute, x, None, (grad, grad_log_mass), 3)
    if again is not None:
        return again
    kept = (grad.contiguous(), grad_log_mass.contiguous(), z, top, mass, x, ctx.scale)
    return _soften_backward(*kept, *sets), *(None,) * 4


set_soften.register_autograd(_differentiate_soften, setup_context=_keep_soften)
