"""The second derivative of a fast operation: a backward that is itself differentiated is that of the definition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

__all__ = ["apply", "plainly", "traced", "transformed", "vector_product"]

_PROXY = torch._C._TorchDispatchModeKey.PROXY


def apply(function: type[Function], *args: Any) -> Any:
    """The result of an autograd function."""
    return function.apply(*args)  # type: ignore[no-untyped-call]  # torch's own


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
