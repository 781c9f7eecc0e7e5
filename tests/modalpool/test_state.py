"""What a state is: pure, small, kept in float32, and only of the same sets."""

import math

import pytest
import torch
from every import BY_NAME, CHANNELS, close, make

from modalpool import Pool
from modalpool.kernels import tuning


def test_a_state_is_not_changed_and_can_be_mapped():
    pool = Pool("b c [t]", "std")
    state = pool.update(None, torch.randn(2, 3, 4, requires_grad=True))
    before = [tensor.clone() for tensor in state.tensors]
    pool.update(state, torch.randn(2, 3, 4))
    assert all(torch.equal(a, b) for a, b in zip(before, state.tensors, strict=True))
    assert not any(tensor.requires_grad for tensor in state.map(torch.Tensor.detach).tensors)


def test_a_thousand_chunks_keep_the_mean():
    x = torch.randn(1, 2, 20_000, generator=torch.Generator().manual_seed(0)) + 3
    pool, state = Pool("b c [t]", "mean"), None
    for chunk in x.split(20, dim=-1):
        state = pool.update(state, chunk)
    exact = x.double().mean(-1)
    assert ((pool.finalize(state) - exact) / exact).abs().max() < 4e-6


def test_half_precision_chunks_are_kept_in_float32():
    x = torch.randn(1, 2, 3000, dtype=torch.bfloat16) + 1
    pool, state = Pool("b c [t]", "mean"), None
    for chunk in x.split(7, dim=-1):
        state = pool.update(state, chunk)
    z = pool.finalize(state)
    assert z.dtype == torch.bfloat16
    close(z.double(), x.double().mean(-1).to(torch.bfloat16).double(), ulp=0.008 / torch.finfo(torch.float64).eps)
    assert pool.finalize(pool.update(state, x.float())).dtype == torch.float32


def test_keepdim_and_kept_axes_survive():
    x = torch.randn(2, 3, 4, 10)
    pool = Pool("b c f [t]", "max", keepdim=True)
    state = pool.update(pool.update(None, x[..., :6]), x[..., 6:])
    assert torch.equal(pool.finalize(state), pool(x))
    pool = Pool("b c f [t]", "attention", channels=3, queries=2)
    state = pool.update(pool.update(None, x[..., :6]), x[..., 6:])
    close(pool.finalize(state), pool(x))


def test_a_draw_from_parts_is_a_draw_from_the_whole():
    pool = Pool("b c [t]", "stochastic").train()
    torch.manual_seed(0)
    x = torch.tensor([1.0, 2.0, 5.0]).expand(4000, 1, 3)
    z = pool.finalize(pool.update(pool.update(None, x[..., :2]), x[..., 2:]))
    shares = torch.stack([(z == value).float().mean() for value in (1.0, 2.0, 5.0)])
    assert (shares - torch.tensor([1, 2, 5]) / 8).abs().max() < 0.03  # 4 standard deviations


def test_the_whole_size_cannot_be_known_from_parts():
    pool = make(BY_NAME["attention_log_n"])
    state = pool.update(None, torch.randn(2, CHANNELS, 3))
    with pytest.raises(NotImplementedError, match=r"log_n.*size of the whole set"):
        pool.update(state, torch.randn(2, CHANNELS, 3))


def test_but_within_a_call_parts_are_told(monkeypatch):
    monkeypatch.setattr(tuning, "MANY", 0)
    monkeypatch.setattr(tuning, "RULE_CHUNK", 12)
    pool = Pool("[n] c", "attention", channels=3, temperature_scaling="log_n", reference_size=4).double()
    sizes = [5, 0, 11, 1]
    index = torch.repeat_interleave(torch.arange(4), torch.tensor(sizes))
    x = torch.randn(17, 3, dtype=torch.float64)
    z = pool(x, index=index, dim_size=4)
    for i, size in enumerate(sizes):
        part = x[index == i]
        scores = part @ pool.reduction.scores.content.weight[0] * math.log(max(size, 1)) / math.log(4)
        close(z[i], scores.softmax(0) @ part)


def test_states_of_other_sets_are_refused():
    pool = Pool("[n] c", "mean")
    a = pool.update(None, torch.randn(4, 2), index=torch.tensor([0, 0, 1, 2]))
    with pytest.raises(ValueError, match=r"same sets, got set axes \(3,\) and \(2,\).*same dim_size"):
        pool.update(a, torch.randn(4, 2), index=torch.tensor([0, 0, 1, 1]))


@pytest.mark.parametrize("name", ["max", "std", "attention", ["mean", "std"]])
def test_a_state_is_saved_and_loaded_by_default(name, tmp_path):
    """`torch.load` reads nothing but tensors and what is known to be safe."""
    pool, x = Pool("b c [t]", name, channels=4), torch.randn(2, 4, 9)
    state = pool.update(None, x[..., :5])
    torch.save({"state": state.map(torch.Tensor.detach)}, tmp_path / "state.pt")
    loaded = torch.load(tmp_path / "state.pt")["state"]
    torch.testing.assert_close(pool.finalize(pool.update(loaded, x[..., 5:])), pool(x))


def test_a_state_knows_its_pool():
    x = torch.randn(2, 4, 9)
    largest, least = Pool("b c [t]", "max"), Pool("b c [t]", "min")
    state = largest.update(None, x)
    for refused in (
        lambda: least.finalize(state),
        lambda: least.update(state, x),
        lambda: least.merge(state, state),
        lambda: largest.merge(state, least.update(None, x)),
    ):
        with pytest.raises(
            ValueError, match=r"state: expected one of M\w+\(\), got one of M\w+\(\); give it to the pool"
        ):
            refused()
    with pytest.raises(ValueError, match=r"expected one of Power\(p=2.0\), got one of Power\(\)"):
        Pool("b c [t]", "power", p=2.0).finalize(Pool("b c [t]", "power").update(None, x))
