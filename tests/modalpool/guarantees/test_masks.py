"""Elements outside the mask may be anything: output and gradients do not see them."""

import pytest
import torch
from every import EVERY, run
from forms import SIZES, make_sets


@EVERY
@pytest.mark.parametrize("form", ["mask", "mask_channels_last", "lengths", "volume", "kept"])
def test_what_the_mask_hides_may_be_anything(case, form):
    sets = make_sets()
    _, laid, z, grad = run(case, form, sets)
    for poison in (float("nan"), -float("inf")):
        _, _, poisoned, poisoned_grad = run(case, form, sets, poison=poison)
        torch.testing.assert_close(poisoned, z, rtol=0, atol=0)
        torch.testing.assert_close(poisoned_grad, grad, rtol=0, atol=0)
    if laid.name in ("mask", "lengths"):
        hidden = torch.ones(3, 6, dtype=torch.bool)
        for s, n in enumerate(SIZES):
            hidden[s, :n] = False
        assert (grad.mT[hidden] == 0).all()
