"""A pool is an ordinary module: it is copied, saved, loaded, moved and printed."""

import copy
import io
import pickle

import pytest
import torch
from every import CASES, CHANNELS, EVERY, Case, calls, close, every, make

from modalpool import Pool
from modalpool.reductions import NAMES


@EVERY
def test_copies_pickles_and_files_pool_the_same(case: Case):
    pool, x = make(case), torch.randn(2, CHANNELS, 6)
    file = io.BytesIO()
    torch.save(pool, file)
    file.seek(0)
    for other in (copy.deepcopy(pool), pickle.loads(pickle.dumps(pool)), torch.load(file, weights_only=False)):
        assert torch.equal(other(x), pool(x))
        assert str(other) == str(pool)
        assert not {p.data_ptr() for p in other.parameters()} & {p.data_ptr() for p in pool.parameters()}


@EVERY
def test_a_used_pool_can_still_be_copied(case: Case):
    pool, x = make(case), torch.randn(2, CHANNELS, 6, requires_grad=True)
    z = pool(x)
    z.sum().backward()
    assert torch.equal(pickle.loads(pickle.dumps(copy.deepcopy(pool)))(x), z)


@EVERY
def test_the_state_dict_goes_round(case: Case):
    pool, fresh = make(case), Pool("b c [t]", case.reduction, channels=CHANNELS, **case.options).eval()
    file = io.BytesIO()
    torch.save(pool.state_dict(), file)
    file.seek(0)
    fresh.load_state_dict(torch.load(file, weights_only=True), strict=True)
    x = torch.randn(2, CHANNELS, 6)
    assert torch.equal(fresh(x), pool(x))


@EVERY
def test_the_printed_reduction_is_its_call(case: Case):
    reduction = make(case).reduction
    for member in getattr(reduction, "members", [reduction]):
        call = f"{type(member).__name__}({member.extra_repr()})"
        again = eval(call, {kind.__name__: kind for kind in NAMES.values()} | {"inf": float("inf")})
        assert again.extra_repr() == member.extra_repr()
        assert {k: v.shape for k, v in again.state_dict().items()} == {
            k: v.shape for k, v in member.state_dict().items()
        }


@pytest.mark.parametrize("case", [case for case in CASES if case.options], ids=lambda case: case.name)
def test_every_option_that_is_not_a_default_is_printed(case: Case):
    shown = make(case).reduction.extra_repr()
    for name, value in case.options.items():
        assert f"{name}={value!r}" in shown


def test_the_printed_pool_is_its_call():
    for pool in (
        Pool("b c [t]"),
        Pool("b c f [t]", keepdim=True),
        Pool("[n] c", empty_value="nan"),
        Pool("b c [...]", empty_value=-1.0, keepdim=True),
    ):
        again = eval(f"Pool({pool.extra_repr()})")
        assert (again.layout, again.keepdim, again.empty_value) == (pool.layout, pool.keepdim, pool.empty_value)


@every("its parameters train")
def test_parameters_are_registered_and_all_of_them_train(case: Case):
    pool = make(case)
    call = calls(positive=True)["dense"]
    z = pool(call.x.requires_grad_())
    (z * torch.linspace(-1, 2, z.numel()).reshape(z.shape)).sum().backward()
    for name, parameter in pool.named_parameters():
        assert parameter.grad is not None, f"{name} would stop DistributedDataParallel"
        assert parameter.grad.abs().max() > 0, name


@EVERY
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_module_moves_between_types(case: Case, dtype: torch.dtype):
    pool, x = make(case), torch.randn(2, CHANNELS, 6).to(dtype)
    z = pool.to(dtype)(x)
    assert z.dtype == dtype
    reference = make(case, dtype=torch.float64)
    reference.load_state_dict({name: value.double() for name, value in pool.state_dict().items()})
    close(z.double(), reference(x.double()), ulp=4 * torch.finfo(dtype).eps / torch.finfo(torch.float64).eps)


@EVERY
def test_out_channels_and_vectors_tell_the_shape(case: Case):
    pool = make(case)
    z = pool(torch.randn(2, CHANNELS, 6))
    assert z.shape == (2, *([] if pool.vectors is None else [pool.vectors]), pool.out_channels)
