"""Maps: summed over a set they are the logit, element by element they are what the element adds."""

import pytest
import torch
from every import EVERY, make
from forms import FORMS, SIZES, give, lay, make_sets, read
from torch import nn

from modalpool import Pool, contributions

FORM = pytest.mark.parametrize("form", [form for form in FORMS if "kept" not in form])


@EVERY
@FORM
@pytest.mark.parametrize("head", ["linear", "deep"])
def test_maps_add_up_to_the_logits(case, form, head):
    sets = make_sets(weighted=True)
    sets = sets._replace(x=sets.x.abs() + 0.1)
    positional = make(case, "[n] c").reduction.positional
    laid = lay(form, sets, weighted=True, coords=positional, poison=float("nan"))
    pool = make(case, laid.layout, dtype=torch.float64)
    width = pool.out_channels * (pool.vectors or 1)
    linear = nn.Linear(width, 3).double()
    flat = nn.Sequential(nn.Flatten(), linear)
    deep = nn.Sequential(nn.Flatten(), linear, nn.LeakyReLU(), nn.Linear(3, 3).double())
    module = deep if head == "deep" else linear if pool.vectors is None else flat
    x = give(laid, laid.x)
    logits, maps, gap = contributions(pool, module, x, **laid.sets, return_gap=True)
    torch.testing.assert_close(logits, module(pool(x, **laid.sets)).detach())
    elements = read(laid, maps)
    assert elements.shape == (8, 3)
    sums = torch.stack([part.sum(0) for part in elements.split(SIZES)])
    if case.name not in ("pyramid", "attention_projected"):  # an empty cell, a bias after the sum: not at zero
        zero = torch.zeros(1, width, dtype=torch.float64)
        zero = zero if pool.vectors is None else zero.reshape(1, pool.vectors, -1)
        torch.testing.assert_close(gap, logits - module(zero).detach() - sums, rtol=1e-9, atol=1e-9)
    if head == "linear" and "logsumexp" not in case.name:
        assert gap.abs().max() < 1e-8
    if laid.name in ("mask", "lengths"):
        hidden = maps.mT[~(torch.arange(6) < torch.tensor(SIZES)[:, None])]
        assert (hidden == 0).all()


def test_class_activation_maps_are_the_heads_weight_over_n():
    """Zhou et al. 2016: behind global average pooling the map is the head applied to every position, over N."""
    x, head = torch.randn(2, 5, 4, 6), nn.Linear(5, 3)
    _, maps = contributions(Pool("b c [h w]"), head, x)
    torch.testing.assert_close(maps, nn.functional.conv2d(x, head.weight[:, :, None, None]).detach() / 24)


def test_gradient_times_input_at_the_pooled_vector():
    torch.manual_seed(0)
    x, head = torch.randn(2, 5, 7), nn.Sequential(nn.Linear(5, 8), nn.GELU(), nn.Linear(8, 2))
    z = x.mean(2).requires_grad_()
    _, maps, gap = contributions(Pool("b c [t]"), head, x, return_gap=True)
    for k in range(2):
        (slope,) = torch.autograd.grad(head(z)[:, k].sum(), z)
        torch.testing.assert_close(maps[:, k], torch.einsum("bc,bct->bt", slope, x) / 7)
    torch.testing.assert_close(gap, (head(z) - head(torch.zeros(1, 5)) - maps.sum(2)).detach())
    assert gap.abs().max() > 1e-4


@pytest.mark.parametrize("layout", ["b c f [t]", "b c [f] t", "b f [t] c"])
def test_a_head_may_see_kept_axes(layout):
    x = torch.randn(2, 4, 5, 6)
    pool = Pool(layout, "attention", channels=x.shape[layout.replace("[", "").replace("]", "").split().index("c")])
    width = pool(x).flatten(1).shape[1]
    head = nn.Sequential(nn.Flatten(), nn.Linear(width, 3))
    logits, maps, gap = contributions(pool, head, x, return_gap=True)
    shape = list(x.shape)
    shape[layout.replace("[", "").replace("]", "").split().index("c")] = 3
    assert list(maps.shape) == shape
    axis = shape.index(3)
    torch.testing.assert_close(maps.movedim(axis, 1).flatten(2).sum(2) + head[1].bias, logits, rtol=1e-4, atol=1e-5)
    assert gap.abs().max() < 1e-5


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_nothing_is_touched(context):
    pool, head = Pool("[n] c", "attention", channels=4), nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    with context():
        x = torch.randn(5, 4)
        expected = head(pool(x))
        logits, maps = contributions(pool, head, x)
        torch.testing.assert_close(logits, expected.detach())
    assert not maps.requires_grad
    assert all(p.grad is None and p.requires_grad for p in (*pool.parameters(), *head.parameters()))
    assert not any(m._forward_hooks or m._backward_hooks or m._forward_pre_hooks for m in (*head.modules(), pool))


def test_a_head_without_logits():
    with pytest.raises(ValueError, match=r"head: expected logits with axes \(batch, classes\), got shape \(5,\)"):
        contributions(Pool("b c [t]"), lambda z: z.sum(1), torch.randn(5, 2, 3))
