"""Maps: summed over a set they are the logit."""

import pytest
import torch
from every import every, every_layout, make
from forms import FORMS, SIZES, give, lay, make_sets, read
from torch import nn

from modalpool import contributions

FORM = {
    "name": "form",
    "values": [form for form in FORMS if "kept" not in form],
    "differ": ("mask", "index", "jagged"),
}


def explained(case, form, *after):
    """A head with these layers after its linear one; and of its maps logits, their sums and the gap, and at nothing."""
    sets = make_sets(weighted=True)
    sets = sets._replace(x=sets.x.abs() + 0.1)
    positional = make(case, "[n] c").reduction.positional
    laid = lay(form, sets, weighted=True, coords=positional, poison=float("nan"))
    pool = make(case, laid.layout, dtype=torch.float64)
    width = pool.out_channels * (pool.vectors or 1)
    linear = nn.Linear(width, 3).double()
    head = nn.Sequential(nn.Flatten(), linear, *after).double() if after or pool.vectors else linear
    x = give(laid, laid.x)
    logits, maps, gap = contributions(pool, head, x, **laid.sets, return_gap=True)
    torch.testing.assert_close(logits, head(pool(x, **laid.sets)).detach())
    elements = read(laid, maps)
    assert elements.shape == (8, 3)
    if laid.name in ("mask", "lengths"):
        hidden = maps.mT[~(torch.arange(6) < torch.tensor(SIZES)[:, None])]
        assert (hidden == 0).all()
    sums = torch.stack([part.sum(0) for part in elements.split(SIZES)])
    return logits, sums, gap, head(torch.zeros(1, width, dtype=torch.float64)).detach()


@every_layout("its shares add up", **FORM)
def test_maps_add_up_to_the_logits(case, form):
    _, _, gap, _ = explained(case, form)
    assert gap.abs().max() < 1e-8


@every_layout("it is nothing at zero", **FORM)
def test_behind_a_deep_head_the_gap_says_what_is_missing(case, form):
    logits, sums, gap, nothing = explained(case, form, nn.LeakyReLU(), nn.Linear(3, 3))
    torch.testing.assert_close(gap, logits - nothing - sums, rtol=1e-9, atol=1e-9)


@every("its shares add up", "it is nothing at zero")
@pytest.mark.parametrize("weighted", [False, True])
def test_single_precision_is_exact_to_a_hundred_thousandth(case, weighted):
    """Batch > 1, 7 200 elements a set, a mask and soft weights: the sum over elements plus the bias is the logit."""
    pool = make(case, "b c [d h w]", channels=16, coordinates=3)
    head = nn.Sequential(nn.Flatten(), nn.Linear(pool.out_channels * (pool.vectors or 1), 2))
    x = torch.randn(3, 16, 12, 20, 30).abs() + 0.1
    sets = {"weight": torch.rand(3, 12, 20, 30), "mask": torch.rand(3, 12, 20, 30) > 0.5} if weighted else {}
    logits, maps = contributions(pool, head, x, **sets)
    sums = maps.double().sum((2, 3, 4)).float()
    torch.testing.assert_close(sums + head[1].bias, logits, rtol=1e-5, atol=1e-6)


@every("its shares add up", "it is nothing at zero")
@pytest.mark.parametrize("layout", ["b c f [t]", "[n] c"])
def test_kept_axes_and_ragged_sets_are_as_exact(case, layout):
    pool = make(case, layout, channels=16)
    kept = 10 if "f" in layout else 1
    head = nn.Sequential(nn.Flatten(), nn.Linear(kept * pool.out_channels * (pool.vectors or 1), 2))
    if kept > 1:
        x = torch.randn(3, 16, kept, 800).abs() + 0.1
        logits, maps = contributions(pool, head, x, lengths=torch.tensor([800, 330, 1]))
        sums = maps.double().sum((2, 3))
    else:
        x, index = torch.randn(7200, 16).abs() + 0.1, torch.randint(0, 3, (7200,))
        coords = {"coords": torch.rand(7200, 1)} if pool.reduction.positional else {}
        logits, maps = contributions(pool, head, x, index=index, dim_size=4, **coords)
        sums = torch.zeros(4, 2, dtype=torch.double).index_add(0, index, maps.double())
    torch.testing.assert_close(sums.float() + head[1].bias, logits, rtol=1e-5, atol=1e-6)
