"""The mean is torch's own where there is one, and stays a mean of many."""

import pytest
import torch

from modalpool import Layout, Pool


@pytest.mark.parametrize("layout", ["b c [t]", "b c f [t]", "b c [f] t", "b c [d h w]", "b d c [h w]", "b c [d] h [w]"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
def test_a_dense_mean_is_torchs_own_to_the_bit(layout, dtype, channels_last):
    names = layout.replace("[", "").replace("]", "").split()
    x = torch.randn([2 + 3 * i for i in range(len(names))]).to(dtype)
    if channels_last and x.ndim in (4, 5):
        x = x.contiguous(memory_format=torch.channels_last if x.ndim == 4 else torch.channels_last_3d)
    axes = Layout(layout).axes(x.ndim)
    assert torch.equal(Pool(layout)(x), x.mean(axes.pooled))


@pytest.mark.parametrize("layout", ["b c [t]", "[n] c"])
@pytest.mark.parametrize("index", [False, True])
def test_a_million_equal_numbers_have_their_own_mean(layout, index):
    x = torch.full((1_000_000, 1), 1.1)
    if layout == "[n] c":
        sets = {"index": torch.zeros(len(x), dtype=torch.long), "dim_size": 1} if index else {}
        z = Pool(layout)(x, **sets)
    else:
        z = Pool(layout)(x.mT[None])
    assert abs(z.item() - 1.1) < 3e-6
