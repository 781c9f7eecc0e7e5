"""The weights that are handed out, times the elements, are the output; where the rule is a mean they sum to one."""

import pytest
import torch
from every import every, make
from forms import FORMS, SIZES, first, give, lay, make_sets, read

from modalpool.reductions import Average, Count, Mean

ONE = Count(lambda: torch.ones(1, 1))


@every("its shares add up")
@pytest.mark.parametrize("form", FORMS)
def test_weights_times_elements_are_the_output(case, form):
    sets = make_sets(weighted=True)
    sets = sets._replace(x=sets.x.abs() + 0.1)  # the power mean's shares are exact where x >= eps
    pool = make(case, "[n] c", dtype=torch.float64)
    laid = lay(form, sets, weighted=True, coords=pool.reduction.positional)
    pool = make(case, laid.layout, dtype=torch.float64)
    z, w = pool(give(laid, laid.x), **laid.sets, return_weights=True)
    vectors = pool.vectors is not None
    z = first(laid, z, vectors=vectors)
    start = 0
    for s, n in enumerate(SIZES):
        total = torch.zeros_like(z[s])
        for k in range(pool.vectors or 1):
            one = w
            if vectors:
                one = w[k] if laid.layout.startswith("[") else w.select(1, k)
            one = read(laid, one)[start : start + n]
            x = sets.x[start : start + n].repeat(1, pool.reduction.repeats)
            share = one.repeat_interleave(x.shape[1] // one.shape[1], dim=1) * x
            total[k] = pool.reduction.project(share.sum(0)[None], ONE)[0] if n else 0.0
            if n and isinstance(pool.reduction, Mean | Average):
                sums = one.sum(0)
                present = sums > 0
                torch.testing.assert_close(sums[present], torch.ones_like(sums[present]))
        torch.testing.assert_close(total, z[s], rtol=1e-9, atol=1e-10)
        start += n
