"""Fast operations, forward and backward; a backward that is itself differentiated is that of the definition."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

_PROXY = torch._C._TorchDispatchModeKey.PROXY


def transformed() -> bool:
    """Whether a function transform (vmap, jvp, grad) or a forward-mode level is open, or code is traced."""
    if torch._C._are_functorch_transforms_active() or torch.autograd.forward_ad._current_level >= 0:
        return True
    return not torch.compiler.is_compiling() and torch._C._len_torch_dispatch_stack() > 0 and traced()


def traced() -> bool:
    """Whether operations are written down for other values (`make_fx`), so that none may be looked at."""
    return torch._C._get_dispatch_mode(_PROXY) is not None


def plainly(*grads: Tensor | None) -> bool:
    """Whether a backward has to be made of ordinary operations: its own gradient is asked for, or it is transformed."""
    if torch.is_grad_enabled() or torch.compiler.is_compiling() or transformed():
        return True
    return any(grad is not None and torch._C._functorch.is_legacy_batchedtensor(grad) for grad in grads)


def vector_product(
    composition: Callable[..., Tensor | tuple[Tensor, ...]],
    inputs: Sequence[Tensor],
    grads: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """Gradients of ``inputs`` through a composition for gradients of its outputs; differentiable if grad is on."""
    further = torch.is_grad_enabled()
    with torch.enable_grad():
        # A view each: an input that was computed from another must not be differentiated through here.
        leaves = [given.view_as(given) if given.requires_grad else given for given in inputs]
        outputs = composition(*leaves)
        outputs = (outputs,) if isinstance(outputs, Tensor) else outputs
        pairs = [
            (out, grad) for out, grad in zip(outputs, grads, strict=True) if grad is not None and out.requires_grad
        ]
        if not pairs:
            return [None for _ in leaves]
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        found = iter(
            torch.autograd.grad(
                [out for out, _ in pairs], wanted, [grad for _, grad in pairs], create_graph=further, allow_unused=True
            )
        )
    return [next(found) if leaf.requires_grad else None for leaf in leaves]


Saved = tuple[Tensor, ...]
Grads = Sequence[Any]
"""Tensors, or None where there is none; not all of them are None."""


class Fast(ABC):
    """An operation on tensors with a forward and a backward of its own; one object is one call.

    What the backward wants to know of sets is an attribute; what it wants of tensors is given to it again.
    """

    hidden = 0
    """How many of the results, the last ones, are there for the backward only."""
    recalls = True
    """Whether the backward looks at the results; otherwise only what was given is kept for it."""
    linear = False
    """Whether the backward needs no tensor: it is then made of ordinary operations when `plainly` holds."""

    @abstractmethod
    def forward(self, *given: Any, **_: Any) -> Any:
        """A result, or a tuple of them."""

    def again(self, *given: Any, **_: Any) -> Any:
        """The results that are not hidden, by the definition; a linear operation does without."""
        raise NotImplementedError

    @abstractmethod
    def backward(self, saved: Saved, grads: Grads, wanted: Sequence[bool]) -> Grads:
        """Gradients of what was given, as far as they are wanted; ``saved`` is that and then what it `recalls`."""

    def __call__(self, *given: Tensor) -> Any:
        """The results, with their gradients."""
        return _Fast.apply(self, *given)  # type: ignore[no-untyped-call]  # torch's own


class _Fast(Function):
    """What autograd is told of a fast operation."""

    @staticmethod
    def forward(fast: Fast, *given: Tensor) -> Any:
        return fast.forward(*(tensor.detach() for tensor in given))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.fast, *given = inputs
        results = output if isinstance(output, tuple) else (output,)
        ctx.set_materialize_grads(False)
        ctx.given, ctx.seen = len(given), len(results) - ctx.fast.hidden
        if ctx.fast.hidden:
            ctx.mark_non_differentiable(*results[ctx.seen :])
        if not ctx.fast.linear:
            ctx.save_for_backward(*given, *(results if ctx.fast.recalls else ()))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        fast, saved, grads = ctx.fast, ctx.saved_tensors, grads[: ctx.seen]
        if all(grad is None for grad in grads):
            return None, *[None] * ctx.given
        if not fast.linear and plainly(*grads):
            return None, *vector_product(fast.again, saved[: ctx.given], grads)
        return None, *fast.backward(saved, grads, ctx.needs_input_grad[1:])
