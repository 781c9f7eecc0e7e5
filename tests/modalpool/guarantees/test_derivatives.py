"""Gradients, gradients of gradients, forward mode and vmap, for every reduction and layout.

``grad_scale`` is the one thing that is left out of the comparison with finite differences: there the gradient is meant
not to be that of the output; its second order is tested by itself.
"""

import pytest
import torch
from every import BY_NAME, EVERY, EVERY_LAYOUT, LAYOUTS, calls, close, every_layout, make, needs_coords
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, jacfwd, jacrev, jvp, vmap


def as_function(case, layout):
    """The pool as a function of x and its parameters, and both as float64 leaves."""
    call = calls(torch.float64, positive=True)[layout]
    pool = make(case, call.layout, dtype=torch.float64)
    names = [name for name, _ in pool.named_parameters()]
    sets = needs_coords(pool, call)

    def function(x, *parameters):
        return functional_call(pool, dict(zip(names, parameters, strict=True)), (x,), sets)

    leaves = [call.x, *pool.parameters()]
    return function, [leaf.detach().clone().requires_grad_() for leaf in leaves]


@every_layout("its gradient is that of its output")
def test_gradients_backward_and_forward(case, layout):
    function, inputs = as_function(case, layout)
    assert gradcheck(function, inputs, fast_mode=True, check_forward_ad=True, check_batched_grad=True)


@EVERY_LAYOUT
def test_gradients_of_gradients(case, layout):
    function, inputs = as_function(case, layout)
    assert gradgradcheck(function, inputs, fast_mode=True)


@LAYOUTS
@pytest.mark.parametrize("name", ["mean_sqrt", "mean_sum", "mean_as_7"])
def test_scaled_gradients_scale_at_every_order(name, layout):
    function, (x,) = as_function(BY_NAME[name], layout)
    mean, _ = as_function(BY_NAME["mean"], layout)
    x = x.detach().requires_grad_()

    def penalty(pool):
        first = torch.autograd.grad(pool(x).pow(3).sum(), x, create_graph=True)[0]
        return first, torch.autograd.grad(first.sum(), x)[0]

    (first, second), (true_first, true_second) = penalty(function), penalty(mean)
    sizes = {"dense": [5.0] * 2}.get(layout, [5.0, 1.0, 2.0])
    factor = {"mean_sqrt": lambda n: n**0.5, "mean_sum": lambda n: n, "mean_as_7": lambda n: n / 7}[name]
    index = calls()[layout].sets.get("index", torch.tensor([0, 0, 0, 0, 0, 2, 2]))
    factors = torch.tensor([factor(n) for n in sizes], dtype=torch.float64)
    per_element = factors[index][:, None] if x.ndim == 2 else factors[:, None, None]
    close(first, true_first * per_element)
    close(second, true_second * per_element**2)  # the factor comes with every derivative of the mean
    one = torch.zeros_like(x)
    one[0] = 1
    tangents = [jvp(pool, (x.detach(),), (one,))[1] for pool in (function, mean)]
    close(tangents[0][0], tangents[1][0] * factors[index[0] if x.ndim == 2 else 0])  # forward mode agrees


@EVERY_LAYOUT
def test_vmap_and_its_derivatives(case, layout):
    """A model ensemble's axis, or per-sample gradients: an axis the layout does not know, in front."""
    function, (x, *parameters) = as_function(case, layout)
    parameters = [parameter.detach() for parameter in parameters]
    xs = torch.stack([x.detach(), x.detach().flip(-1) * 2])

    def pooled(x):
        return function(x, *parameters)

    def loss(x):
        return pooled(x).square().sum()

    close(vmap(pooled)(xs), torch.stack([pooled(x) for x in xs]))
    close(vmap(grad(loss))(xs), torch.stack([grad(loss)(x) for x in xs]), ulp=32)
    tangents = torch.ones_like(xs)
    got = vmap(lambda x, t: jvp(pooled, (x,), (t,))[1])(xs, tangents)
    close(got, torch.stack([jvp(pooled, (x,), (t,))[1] for x, t in zip(xs, tangents, strict=True)]), ulp=32)


@EVERY
def test_forward_and_reverse_jacobians_agree(case):
    function, (x, *parameters) = as_function(case, "index")
    function_of_x = lambda x: function(x, *(parameter.detach() for parameter in parameters))  # noqa: E731
    close(jacfwd(function_of_x)(x.detach()), jacrev(function_of_x)(x.detach()), ulp=64)
