"""The size law: what it keeps when a set grows."""

import pytest
import torch

from modalpool import Pool

X = torch.rand(2, 4, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 0.1


@pytest.mark.parametrize("law", ["power", "mixture"])
@pytest.mark.parametrize("repeat", [2, 7])
def test_the_corrected_size_law_does_not_see_tiling(law, repeat):
    for layout, x, tiled in (
        ("b c [t]", X, X.repeat(1, 1, repeat)),
        ("[n] c", X[0].mT, X[0].mT.repeat(repeat, 1)),
    ):
        plain = Pool(layout, "size_law", law=law, learn_beta=True)
        corrected = Pool(layout, "size_law", law=law, learn_beta=True, reference_size=9)
        corrected.load_state_dict(plain.state_dict())
        torch.testing.assert_close(corrected(x), plain(x))
        torch.testing.assert_close(corrected(tiled), plain(x))
        assert not torch.allclose(plain(tiled), plain(x))


def test_the_square_root_law_keeps_the_variance():
    torch.manual_seed(0)
    x = torch.randn(4000, 1, 64)
    assert Pool("b c [t]", "size_law", beta=0.5)(x).var().item() == pytest.approx(1.0, rel=0.1)
