"""Infinities inside the mask are kept."""

import pytest
import torch
from every import BY_NAME, every_layout, make
from forms import FORMS, first, give, lay, make_sets

from modalpool import Pool

INF = float("inf")


def one_large(case, form, value):
    """The three sets' results, ``(3, K, C)``, where one element of the first has this value in channel 0."""
    sets = make_sets()
    sets = sets._replace(x=sets.x.abs() + 0.1)
    sets.x[2, 0] = value
    laid = lay(form, sets, coords=make(case, "[n] c").reduction.positional, poison=float("nan"))
    pool = make(case, laid.layout, dtype=torch.float64)
    with torch.no_grad():
        return first(laid, pool(give(laid, laid.x), **laid.sets), vectors=pool.vectors is not None)


KNOWN = {}


def expected_of(case, sign):
    """The result by ptr of an infinite element, and what it tends to as the element grows, infinite if it does."""
    if (case.name, sign) not in KNOWN:  # which is the same for all forms
        got, large, larger = (one_large(case, "ptr", sign * value) for value in (INF, 1e60, 1e100))
        tends_to = torch.where(torch.isclose(large, larger, rtol=1e-9), larger, larger.sign() * INF)
        KNOWN[case.name, sign] = got, tends_to
    return KNOWN[case.name, sign]


@every_layout(name="form", values=FORMS, differ=("mask", "index", "jagged"))
@pytest.mark.parametrize("sign", [1, -1])
def test_no_infinity_is_lost(case, form, sign):
    """Infinite or not a number where larger and larger numbers have no finite limit, else the limit (or 0 · ∞)."""
    got, (by_ptr, expected) = one_large(case, form, sign * INF), expected_of(case, sign)
    torch.testing.assert_close(got[1:], expected[1:])
    finite = expected[0].isfinite()
    assert not got[0][~finite].isfinite().any()
    assert (torch.isclose(got[0], expected[0], rtol=1e-9) | got[0].isnan())[finite].all()
    torch.testing.assert_close(got, by_ptr, equal_nan=True)


# What torch gives for one set ``(n, C)``.
INFINITE = {
    "mean": lambda x: x.mean(0),
    "sum": lambda x: x.sum(0),
    "max": lambda x: x.amax(0),
    "min": lambda x: x.amin(0),
    "logsumexp": lambda x: x.logsumexp(0),
    "softmax_hard": lambda x: x.amax(0),
    "softmax_flat": lambda x: x.mean(0),
    "mean+std+max": lambda x: torch.cat([x.mean(0), x.std(0, correction=0), x.amax(0)]),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", INFINITE)
def test_real_infinities_are_kept(name, form):
    case = BY_NAME[name]
    sets = make_sets()
    sets.x[0, 0], sets.x[6, 1], sets.x[5:, 2] = float("inf"), -float("inf"), -float("inf")
    case = case._replace(options={k: v for k, v in case.options.items() if k != "learn_temperature"})
    laid = lay(form, sets, poison=float("nan"))
    pool = Pool(laid.layout, case.reduction, channels=4, **case.options)
    z = first(laid, pool(give(laid, laid.x), **laid.sets), vectors=False)
    torch.testing.assert_close(z[0, 0], INFINITE[name](sets.x[:5]), equal_nan=True)
    torch.testing.assert_close(z[2, 0], INFINITE[name](sets.x[5:]), equal_nan=True)


@pytest.mark.parametrize("form", ["mask", "ptr"])
def test_an_infinity_stays_in_its_own_cell(form):
    sets = make_sets()
    sets.x[0, 0] = float("inf")
    laid = lay(form, sets, coords=True)
    z = Pool(laid.layout, "pyramid", levels=[[1], [5]])(laid.x, **laid.sets)
    assert z[0, :, 0].isinf().tolist() == [True, True, False, False, False, False]
    assert z.isnan().sum() == 0
