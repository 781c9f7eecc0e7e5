"""The same numbers on a GPU, and not one moment of waiting for it when sizes are given."""

import pytest
import torch
from every import EVERY, make
from forms import FORMS, lay, make_sets
from guarantees.test_half_precision import half_precision

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
DENSE_AND_RAGGED = [form for form in FORMS if "jagged" not in form]


def results(pool, form, device):
    pool = pool.to(device)
    x = form.x.to(device).detach().requires_grad_()
    sets = {name: t.to(device) if isinstance(t, torch.Tensor) else t for name, t in form.sets.items()}
    z = pool(x, **sets)
    slope = torch.linspace(-1, 2, z.numel(), dtype=z.dtype, device=device).reshape(z.shape)
    grads = torch.autograd.grad(z, [x, *pool.parameters()], slope, allow_unused=True, materialize_grads=True)
    return [t.detach() for t in (z, *grads)]


@EVERY
@pytest.mark.parametrize("form", DENSE_AND_RAGGED)
def test_a_gpu_gives_the_numbers_of_the_cpu(case, form):
    sets = make_sets(weighted=True)
    positional = make(case, "[n] c").reduction.positional
    form = lay(form, sets, weighted=True, coords=positional, poison=float("nan"))
    pool = make(case, form.layout, dtype=torch.float64)
    expected = results(pool, form, "cpu")
    for got, wanted in zip(results(pool, form, "cuda"), expected, strict=True):
        torch.testing.assert_close(got.cpu(), wanted, rtol=1e-9, atol=1e-11)


@EVERY
@pytest.mark.parametrize("form", DENSE_AND_RAGGED)
def test_nothing_waits_for_the_device(case, form):
    sets = make_sets(dtype=torch.float32)
    form = lay(form, sets, coords=make(case, "[n] c").reduction.positional)
    pool = make(case, form.layout).to("cuda")
    x = form.x.cuda().requires_grad_()
    given = {name: t.cuda() if isinstance(t, torch.Tensor) else t for name, t in form.sets.items()}
    pool(x, **given).sum().backward()  # what is loaded on first use may wait
    torch.cuda.set_sync_debug_mode("error")
    try:
        pool(x, **given).sum().backward()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [257, 2049, 1_000_000])
@pytest.mark.parametrize("layout", ["b c [t]", "[n] c"])
@EVERY
def test_half_precision_adds_up_in_float32(case, layout, size, dtype):
    half_precision(case, size, layout, dtype, device="cuda")
