"""Maps: summed over a set they are the logit, element by element they are what the element adds."""

import functools

import pytest
import torch
from torch import nn

from modalpool import Pool, contributions


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


def test_training_and_evaluation_alike():
    torch.manual_seed(0)
    head = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    head[1].running_mean.normal_()
    pool, x = Pool("b c [t]", "stochastic"), torch.randn(3, 4, 9)
    expected = contributions(pool.eval(), head.eval(), x, return_gap=True)
    torch.testing.assert_close(expected[0], head(pool(x)).detach())
    head.train()
    head[2].eval()
    pool.train()
    before = {name: value.clone() for name, value in head.state_dict().items()}
    for given in (head, functools.partial(head)):
        for got, want in zip(contributions(pool, given, x, return_gap=True), expected, strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=0)
    assert pool.training
    assert [module.training for module in head] == [True, True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in head.state_dict().items())


def test_a_head_that_fails_leaves_the_modes_alone():
    head = nn.Linear(5, 1).train()
    with pytest.raises(RuntimeError):
        contributions(Pool("b c [t]"), head, torch.randn(2, 3, 4))
    assert head.training


def test_logsumexp_states_its_gap():
    """What the shares of a log-sum-exp miss is T times the entropy of its weights, times the head's weight."""
    pool, head, x = Pool("b c [t]", "logsumexp", temperature=0.5), nn.Linear(4, 2), torch.randn(3, 4, 9)
    _, maps, gap = contributions(pool, head, x, return_gap=True)
    shares = (x / 0.5).softmax(2)
    entropy = -(shares * shares.log()).sum(2)
    # A log-sum-exp is nothing at -inf, not at zero: the head at zero is its bias.
    torch.testing.assert_close(gap, (0.5 * entropy @ head.weight.T).detach())
    torch.testing.assert_close(maps, torch.einsum("lc,bct->blt", head.weight, shares * x).detach())


def test_a_head_without_logits():
    with pytest.raises(ValueError, match=r"head: expected logits with axes \(batch, classes\), got shape \(5,\)"):
        contributions(Pool("b c [t]"), lambda z: z.sum(1), torch.randn(5, 2, 3))


class _Adapted(torch.nn.Linear):
    """A low-rank adapter: a Linear by class, and more than that by its forward."""

    def __init__(self):
        super().__init__(4, 3)
        self.down, self.up = torch.nn.Linear(4, 2, bias=False), torch.nn.Linear(2, 3, bias=False)

    def forward(self, z):
        return super().forward(z) + self.up(self.down(z))


class _Cosine(torch.nn.Linear):
    def forward(self, z):
        return torch.nn.functional.normalize(z, dim=1) @ torch.nn.functional.normalize(self.weight, dim=1).T


def _changed(kind):
    head = {"adapted": _Adapted, "cosine": lambda: _Cosine(4, 3)}.get(kind, lambda: torch.nn.Linear(4, 3))()
    if kind == "hook":
        head.register_forward_hook(lambda module, inputs, out: 2 * out)
    elif kind == "pre-hook":
        head.register_forward_pre_hook(lambda module, inputs: (inputs[0].square(),))
    elif kind == "parametrised":
        torch.nn.utils.parametrizations.weight_norm(head)
    elif kind == "forward":
        head.forward = lambda z: torch.nn.Linear.forward(head, z).tanh()
    return head


@pytest.mark.parametrize("kind", ["plain", "adapted", "cosine", "hook", "pre-hook", "parametrised", "forward"])
@pytest.mark.parametrize("layout", ["b c [t]", "b [n] c", "[n] c"])
def test_a_head_that_is_more_than_linear_is_not_taken_for_one(layout, kind):
    head = _changed(kind)
    x = torch.randn({"b c [t]": (2, 4, 6), "b [n] c": (2, 6, 4), "[n] c": (6, 4)}[layout])
    got = contributions(Pool(layout, ["mean"]), head, x, return_gap=True)
    expected = contributions(Pool(layout, ["mean"]), lambda z: head(z), x, return_gap=True)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
