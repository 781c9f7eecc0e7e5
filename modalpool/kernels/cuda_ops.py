"""The Triton kernels as torch ops, so that compilation, autocast and autograd see each as a single operation.

Elements come as views ``x`` ``(A, B, P, G, D)`` of any strides: dense sets are the pairs (a, b) with P elements each;
for ragged sets A = B = 1 and ``ptr`` says where they begin along P, ``order`` which element is at each place. ``many``
``(A, B, P, G)`` is how often an element is there, bool or float; None = once. S sets, G groups of D channels.

A gradient that is itself to be differentiated is worked out by the plain composition.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor
from torch.library import custom_op

from modalpool.kernels import cuda_launch as launch
from modalpool.kernels import fused, plain
from modalpool.kernels.differentiate import transformed, vector_product
from modalpool.kernels.segments import Segments

__all__ = ["set_attend", "set_max", "set_soften", "set_sum"]

SETS = "Tensor? many, Tensor? ptr, Tensor? order"


def _device_of(x: Tensor) -> AbstractContextManager[None]:
    """Make the device of ``x`` the current one, on which Triton launches."""
    context: AbstractContextManager[None] = torch.cuda.device_of(x)  # type: ignore[no-untyped-call]
    return context


def _shape(x: Tensor, ptr: Tensor | None) -> tuple[int, ...]:
    """Sets, groups, channels."""
    return x.shape[0] * x.shape[1] if ptr is None else ptr.shape[0] - 1, *x.shape[3:]


def _new(x: Tensor, *shape: int) -> Tensor:
    return x.new_empty(shape, dtype=plain.accumulation_type(x.dtype))


def _plain(
    ragged: Callable[..., Any],
    dense: Callable[..., Any],
    tensors: Sequence[Tensor],
    many: Tensor | None,
    ptr: Tensor | None,
    order: Tensor | None,
) -> Any:
    """A composition on views ``(A, B, P, …)``; the results begin with S."""
    if ptr is None:
        results = dense(*tensors, (2,), many)
        return tuple(z.flatten(0, 1) for z in results) if isinstance(results, tuple) else results.flatten(0, 1)
    rows = [t if t is None else t[0, 0] if order is None else t[0, 0].index_select(0, order) for t in (*tensors, many)]
    return ragged(*rows[:-1], Segments(ptr.shape[0] - 1, tensors[0].shape[2], ptr=ptr), rows[-1])


def _plain_groups(
    ragged: Callable[..., Any],
    dense: Callable[..., Any],
    tensors: Sequence[Tensor],
    many: Tensor | None,
    ptr: Tensor | None,
    order: Tensor | None,
) -> Any:
    """A composition on views ``(A, B, P, G, …)``; the results begin with S, G."""
    if ptr is not None:
        return _plain(ragged, dense, tensors, many, ptr, order)

    def grouped(*given: Any) -> Any:  # groups are one more set axis
        *tensors, _, many = given
        moved = [t.transpose(2, 3) for t in tensors]
        results = dense(*moved, (3,), None if many is None else many.transpose(2, 3))
        return results

    return _plain(ragged, grouped, tensors, many, ptr, order)


# --- sums


@custom_op(
    "modalpool::set_sum", mutates_args=(), schema=f"(Tensor x, Tensor? weight, {SETS}, bool exact_zeros) -> Tensor"
)
def set_sum(
    x: Tensor, weight: Tensor | None, many: Tensor | None, ptr: Tensor | None, order: Tensor | None, exact_zeros: bool
) -> Tensor:
    """Σ w x, ``(S, K, G, D)``; weight ``(A, B, P, K, G, D or 1)``, None = ``many``."""
    with _device_of(x):
        return launch.sum_forward(x, weight, many, ptr, order, exact_zeros)


@set_sum.register_fake
def _(x, weight, many, ptr, order, exact_zeros):  # type: ignore[no-untyped-def]
    sets, *rest = _shape(x, ptr)
    return _new(x, sets, 1 if weight is None else weight.shape[3], *rest)


@custom_op(
    "modalpool::set_sum_backward",
    mutates_args=(),
    schema=f"(Tensor grad, Tensor x, Tensor? weight, {SETS}, bool exact_zeros, bool for_x, bool for_weight) "
    "-> (Tensor, Tensor)",
)
def _sum_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor | None,
    many: Tensor | None,
    ptr: Tensor | None,
    order: Tensor | None,
    exact_zeros: bool,
    for_x: bool,
    for_weight: bool,
) -> tuple[Tensor, Tensor]:
    with _device_of(x):
        return launch.sum_backward(grad, x, weight, many, ptr, order, exact_zeros, for_x, for_weight)


@_sum_backward.register_fake
def _(grad, x, weight, many, ptr, order, exact_zeros, for_x, for_weight):  # type: ignore[no-untyped-def]
    grad_x = torch.empty_like(x) if for_x else x.new_empty(0)
    return grad_x, weight.new_empty(weight.shape) if for_weight else x.new_empty(0)


def _keep_sum(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs[:5])
    ctx.exact_zeros = inputs[5]


def _differentiate_sum(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, *sets = ctx.saved_tensors
    for_x, for_weight = ctx.needs_input_grad[:2]
    rest = (None,) * 4
    if torch.is_grad_enabled() or transformed():

        def composition(x: Tensor, weight: Tensor | None = None) -> Tensor:
            return _sum_plainly(x, weight, sets, ctx.exact_zeros)

        inputs = (x,) if weight is None else (x, weight)
        grads = vector_product(composition, inputs, (grad,))
        return (*grads, *(None,) * (2 - len(inputs)), *rest)
    grad_x, grad_weight = torch.ops.modalpool.set_sum_backward(
        grad.contiguous(), x, weight, *sets, ctx.exact_zeros, for_x, for_weight
    )
    return grad_x if for_x else None, grad_weight if for_weight else None, *rest


def _sum_plainly(x: Tensor, weight: Tensor | None, sets: Sequence[Tensor | None], exact_zeros: bool) -> Tensor:
    if weight is None:
        z: Tensor = _plain_groups(fused.segment_sum, fused.dense_sum, (x,), *sets)
        return z[:, None]

    def weighed(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(values: Tensor, weight: Tensor, *where: Any) -> Tensor:
            return function(weight, values, *where, exact_zeros=exact_zeros)

        return call

    # The weights of a group beside its values: (A, B, P, G, K, D or 1).
    beside = weight.transpose(3, 4)
    z = _plain_groups(weighed(fused.segment_weighted_sum), weighed(fused.dense_weighted_sum), (x, beside), *sets)
    return z.transpose(1, 2)


set_sum.register_autograd(_differentiate_sum, setup_context=_keep_sum)


# --- maximum


@custom_op("modalpool::set_max", mutates_args=(), schema=f"(Tensor x, {SETS}, bool ties) -> (Tensor, Tensor)")
def set_max(
    x: Tensor, many: Tensor | None, ptr: Tensor | None, order: Tensor | None, ties: bool
) -> tuple[Tensor, Tensor]:
    """The maximum, ``(S, G, D)``, and (for the gradient) how many elements attain it."""
    with _device_of(x):
        return launch.max_forward(x, many, ptr, order, ties)


@set_max.register_fake
def _(x, many, ptr, order, ties):  # type: ignore[no-untyped-def]
    return _new(x, *_shape(x, ptr)), _new(x, *(_shape(x, ptr) if ties else (0,)))


@custom_op(
    "modalpool::set_max_backward", mutates_args=(), schema=f"(Tensor share, Tensor top, Tensor x, {SETS}) -> Tensor"
)
def _max_backward(
    share: Tensor, top: Tensor, x: Tensor, many: Tensor | None, ptr: Tensor | None, order: Tensor | None
) -> Tensor:
    with _device_of(x):
        return launch.max_backward(share, top, x, many, ptr, order)


@_max_backward.register_fake
def _(share, top, x, many, ptr, order):  # type: ignore[no-untyped-def]
    return torch.empty_like(x)


def _keep_max(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*inputs[:4], *output)
    ctx.mark_non_differentiable(output[1])


def _differentiate_max(ctx: Any, grad: Tensor, _: Tensor | None) -> tuple[Tensor | None, ...]:
    x, *sets, top, ties = ctx.saved_tensors
    rest = (None,) * 4
    if torch.is_grad_enabled() or transformed():

        def composition(x: Tensor) -> Tensor:
            z: Tensor = _plain_groups(fused.segment_max, fused.dense_max, (x,), *sets)
            return z

        return (*vector_product(composition, (x,), (grad,)), *rest)
    share = grad / ties.clamp(min=1)
    return torch.ops.modalpool.set_max_backward(share.contiguous(), top, x, *sets), *rest


set_max.register_autograd(_differentiate_max, setup_context=_keep_max)


# --- softmax of each channel


@custom_op(
    "modalpool::set_soften",
    mutates_args=(),
    schema=f"(Tensor x, Tensor? scale, {SETS}) -> (Tensor, Tensor, Tensor, Tensor)",
)
def set_soften(
    x: Tensor, scale: Tensor | None, many: Tensor | None, ptr: Tensor | None, order: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Σ w x with w = softmax(scale · x), scale ``(D,)`` positive (None = 1), and the log of what it was divided by.

    Also the largest x and the mass relative to it, for the gradient; all ``(S, G, D)``.
    """
    with _device_of(x):
        z, top, mass = launch.soften_forward(x, scale, many, ptr, order)
    return z, (top if scale is None else top * scale) + mass.log(), top, mass


@set_soften.register_fake
def _(x, scale, many, ptr, order):  # type: ignore[no-untyped-def]
    return tuple(_new(x, *_shape(x, ptr)) for _ in range(4))


@custom_op(
    "modalpool::set_soften_backward",
    mutates_args=(),
    schema="(Tensor grad, Tensor grad_log_mass, Tensor z, Tensor top, Tensor mass, Tensor x, Tensor? scale, "
    f"{SETS}, bool for_scale) -> (Tensor, Tensor)",
)
def _soften_backward(
    grad: Tensor,
    grad_log_mass: Tensor,
    z: Tensor,
    top: Tensor,
    mass: Tensor,
    x: Tensor,
    scale: Tensor | None,
    many: Tensor | None,
    ptr: Tensor | None,
    order: Tensor | None,
    for_scale: bool,
) -> tuple[Tensor, Tensor]:
    with _device_of(x):
        return launch.soften_backward(grad, grad_log_mass, z, top, mass, x, scale, many, ptr, order, for_scale)


@_soften_backward.register_fake
def _(grad, grad_log_mass, z, top, mass, x, scale, many, ptr, order, for_scale):  # type: ignore[no-untyped-def]
    return torch.empty_like(x), _new(x, x.shape[-1] if for_scale else 0)


def _keep_soften(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    z, _, top, mass = output
    ctx.save_for_backward(*inputs, z, top, mass)
    ctx.mark_non_differentiable(top, mass)


def _differentiate_soften(
    ctx: Any, grad: Tensor, grad_log_mass: Tensor, _: Tensor | None, __: Tensor | None
) -> tuple[Tensor | None, ...]:
    x, scale, many, ptr, order, z, top, mass = ctx.saved_tensors
    rest = (None,) * 3
    if torch.is_grad_enabled() or transformed():

        def composition(x: Tensor, scale: Tensor | None = None) -> Any:
            def softened(function: Callable[..., Any]) -> Callable[..., Any]:
                return lambda values, *where: function(values, 1.0 if scale is None else scale, *where)

            return _plain_groups(softened(fused.segment_soften), softened(fused.dense_soften), (x,), many, ptr, order)

        inputs = (x,) if scale is None else (x, scale)
        grads = vector_product(composition, inputs, (grad, grad_log_mass))
        return (*grads, *(None,) * (2 - len(inputs)), *rest)
    for_scale = ctx.needs_input_grad[1]
    grad_x, grad_scale = torch.ops.modalpool.set_soften_backward(
        grad.contiguous(), grad_log_mass.contiguous(), z, top, mass, x, scale, many, ptr, order, for_scale
    )
    return grad_x, grad_scale if for_scale else None, *rest


set_soften.register_autograd(_differentiate_soften, setup_context=_keep_soften)


# --- attention with a linear score


@custom_op(
    "modalpool::set_attend",
    mutates_args=(),
    schema=f"(Tensor x, Tensor matrix, {SETS}) -> (Tensor, Tensor, Tensor, Tensor)",
)
def set_attend(
    x: Tensor, matrix: Tensor, many: Tensor | None, ptr: Tensor | None, order: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Σ w x with w = softmax(matrix · x), ``(S, K, G, D)``, and the log of what it was divided by, ``(S, K, G)``.

    Here the groups are heads: matrix ``(K, G, G·D)`` scores whole elements, many is ``(A, B, P)``. Also the largest
    score and the mass relative to it, for the gradient.
    """
    with _device_of(x):
        z, top, mass = launch.attend_forward(x, matrix, many, ptr, order)
    return z, top + mass.log(), top, mass


@set_attend.register_fake
def _(x, matrix, many, ptr, order):  # type: ignore[no-untyped-def]
    sets, heads, channels = _shape(x, ptr)
    shape = (sets, matrix.shape[0], heads)
    return _new(x, *shape, channels), _new(x, *shape), _new(x, *shape), _new(x, *shape)


@custom_op(
    "modalpool::set_attend_backward",
    mutates_args=(),
    schema=f"(Tensor grad, Tensor slack, Tensor top, Tensor mass, Tensor x, Tensor matrix, {SETS}) -> (Tensor, Tensor)",
)
def _attend_backward(
    grad: Tensor,
    slack: Tensor,
    top: Tensor,
    mass: Tensor,
    x: Tensor,
    matrix: Tensor,
    many: Tensor | None,
    ptr: Tensor | None,
    order: Tensor | None,
) -> tuple[Tensor, Tensor]:
    with _device_of(x):
        return launch.attend_backward(grad, slack, top, mass, x, matrix, many, ptr, order)


@_attend_backward.register_fake
def _(grad, slack, top, mass, x, matrix, many, ptr, order):  # type: ignore[no-untyped-def]
    return torch.empty_like(x), matrix.new_empty(matrix.shape)


def _keep_attend(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    z, _, top, mass = output
    ctx.save_for_backward(*inputs, z, top, mass)
    ctx.mark_non_differentiable(top, mass)


def _differentiate_attend(
    ctx: Any, grad: Tensor, grad_log_mass: Tensor, _: Tensor | None, __: Tensor | None
) -> tuple[Tensor | None, ...]:
    x, matrix, many, ptr, order, z, top, mass = ctx.saved_tensors
    rest = (None,) * 3
    if torch.is_grad_enabled() or transformed():
        queries, heads = matrix.shape[:2]

        def composition(x: Tensor, matrix: Tensor) -> Any:
            def attended(function: Callable[..., Any]) -> Callable[..., Any]:
                return lambda values, *where: function(values, matrix.flatten(0, 1), *where, queries=queries)

            z, log_mass = _plain(
                attended(fused.segment_attend), attended(fused.dense_attend), (x.flatten(3),), many, ptr, order
            )
            return z.unflatten(-1, (heads, -1)), log_mass

        return (*vector_product(composition, (x, matrix), (grad, grad_log_mass)), *rest)
    slack = (grad * z).sum(-1) - grad_log_mass
    grads = torch.ops.modalpool.set_attend_backward(
        grad.contiguous(), slack.contiguous(), top, mass, x, matrix, many, ptr, order
    )
    return *grads, *rest


set_attend.register_autograd(_differentiate_attend, setup_context=_keep_attend)
