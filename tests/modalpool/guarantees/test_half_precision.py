"""Half precision adds up in float32: within two units in the last place, whatever the number of elements."""

import itertools

import pytest
import torch
from every import EVERY, Case, make, one_each

LAYOUTS = ["b c [t]", "[n] c"]
DTYPES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])


@DTYPES
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [1, 256, 2049, 20_011])
@EVERY
def test_half_precision_adds_up_in_float32(case, size, layout, dtype):
    half_precision(case, size, layout, dtype)


@one_each("kind", list(itertools.product(LAYOUTS, [torch.float16, torch.bfloat16])))
def test_half_precision_adds_up_a_million(case, kind):
    """Each rule in one layout and type here, all of them in the slow suite."""
    half_precision(case, 1_000_000, *kind, channels=1)


@pytest.mark.slow
@DTYPES
@pytest.mark.parametrize("layout", LAYOUTS)
@EVERY
def test_half_precision_adds_up_a_million_in_every_layout(case, layout, dtype):
    half_precision(case, 1_000_000, layout, dtype)


def half_precision(
    case: Case, size: int, layout: str, dtype: torch.dtype, device: str = "cpu", channels: int = 2
) -> None:
    """Two units in the last place of the float64 result; what the type cannot hold is infinite in both."""
    generator = torch.Generator().manual_seed(size)
    x = (torch.rand(size, channels, generator=generator) + 1.0).to(dtype)
    ptr = torch.tensor([0, size])
    with torch.no_grad():
        exact = make(case, "[n] c", dtype=torch.float64, channels=channels)(x.double(), ptr=ptr)
        pool, given = make(case, layout, channels=channels).to(device), x.to(device)
        got = pool(given, ptr=ptr.to(device)) if layout == "[n] c" else pool(given.mT[None])
        got = got.cpu()
    assert got.dtype == dtype
    info = torch.finfo(dtype)
    ulp = info.eps * torch.exp2(torch.floor(torch.log2(exact.abs().clamp(min=info.smallest_normal))))
    held = exact.abs() <= info.max
    assert (got[~held].isinf() & (got[~held].sign() == exact[~held].sign())).all()
    assert ((got.double() - exact).abs() <= 2 * ulp + info.smallest_normal * info.eps)[held].all()
