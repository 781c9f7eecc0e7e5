"""Federated averaging: against training in one place, numpy, and steps written out; what stays at a site stays."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import mse_loss
from toy import ToyData, ToyTask

from examples.federated import POOLS, Fields, FieldTask, joined
from tasks.data.problems import BadInput
from tasks.federate import agree, average, federate, score, shared, train
from tasks.task.base import PoolingTask

SGD = {"optimizer": lambda parameters: torch.optim.SGD(parameters, lr=0.1)}


def doubled(sample):
    return {key: value.double() if torch.is_tensor(value) else value for key, value in sample.items()}


class WholeFields(Fields):
    """In double precision, all in one batch."""

    def __init__(self, **sizes):
        super().__init__(batch_size=1000, **sizes)

    def load(self):
        super().load()
        self.datasets = {part: [doubled(sample) for sample in samples] for part, samples in self.datasets.items()}


def sites(kind=Fields):
    return [kind(side=8, train=10, test=4), kind(side=12, train=6, test=4, power=3.0)]


def copies(data, **options):
    torch.manual_seed(0)
    task = FieldTask(agree([one.spec for one in data]), width=4, levels=1, depth=0, norm="batch", **options)
    return [deepcopy(task) for _ in data]


@pytest.mark.parametrize("pool", POOLS)
def test_one_step_on_all_samples_is_the_step_in_one_place(pool):
    """Volumes of two sizes, not equally many: the mean of steps by number of samples is the step on the mean loss."""
    data = sites(WholeFields)
    torch.manual_seed(0)
    task = FieldTask(
        agree([one.spec for one in data]), width=6, levels=1, depth=0, norm="group", **POOLS[pool]
    ).double()
    start = shared(task)
    found = average([train(task, one, start, **SGD) for one in data])
    central, count = train(task, joined(data), start, **SGD)
    assert count == 16
    assert all((found[name] - start[name]).abs().max() > 1e-6 for name in start)
    for name in start:
        torch.testing.assert_close(found[name], central[name], rtol=0, atol=1e-12)
    equal = average([train(task, one, start, **SGD) for one in data], equal=True)
    assert not torch.allclose(equal["head.2.weight"], central["head.2.weight"])


def test_two_steps_of_fedprox_are_those_written_out():
    data = ToyData("regression", train=12, batch_size=12)
    task = ToyTask(data.spec)
    start, mu = shared(task), 0.7
    found, _ = train(task, data, start, epochs=2, mu=mu, **SGD)
    (batch,) = data.train_dataloader()
    mean, std = (torch.tensor(data.spec[name]) for name in ("target_mean", "target_std"))
    names = [name for name, _ in task.named_parameters()]
    now = {name: start[name].clone().requires_grad_() for name in names}
    for _ in range(2):
        z = (batch["x"] @ now["encoder.weight"].T + now["encoder.bias"]).mean(1)
        loss = mse_loss(z @ now["head.2.weight"].T + now["head.2.bias"], (batch["y"] - mean) / std)
        loss = loss + mu / 2 * sum(((now[name] - start[name]) ** 2).sum() for name in names)
        slopes = torch.autograd.grad(loss, list(now.values()))
        now = {
            name: (now[name] - 0.1 * slope).detach().requires_grad_() for name, slope in zip(names, slopes, strict=True)
        }
    for name in names:
        torch.testing.assert_close(found[name], now[name].detach())


def test_without_a_pull_fedprox_is_fedavg_and_a_strong_one_holds():
    data = sites()
    plain, none, strong = (
        federate(copies(data), data, rounds=2, epochs=3, **mu) for mu in ({}, {"mu": 0.0}, {"mu": 100.0})
    )
    start = shared(copies(data)[0])
    assert all(torch.equal(plain[name], none[name]) for name in plain)
    away = [
        sum((one[name] - start[name]).square().sum() for name, _ in copies(data)[0].named_parameters())
        for one in (plain, strong)
    ]
    assert away[1] < away[0] / 2


@given(
    counts=st.lists(st.integers(1, 10_000), min_size=1, max_size=5),
    shape=st.lists(st.integers(1, 3), max_size=3),
    equal=st.booleans(),
)
@settings(max_examples=50, deadline=None)
def test_the_average_is_that_of_numpy(counts, shape, equal):
    values = np.random.default_rng(len(counts)).normal(size=(len(counts), *shape)).astype(np.float32)
    updates = [({"w": torch.from_numpy(np.array(value))}, count) for value, count in zip(values, counts, strict=True)]
    found = average(updates, equal=equal)["w"]
    expected = np.average(values.astype(np.float64), axis=0, weights=None if equal else counts)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6, atol=1e-7)
    low, high = values.min(0), values.max(0)  # it lies between the sites
    assert np.all((found.numpy() >= low - 1e-6) & (found.numpy() <= high + 1e-6))


def test_the_average_of_one_site_is_its_own_and_sites_may_come_in_any_order():
    one, other = ({"w": torch.randn(3)}, 5), ({"w": torch.randn(3)}, 9)
    assert torch.equal(average([one])["w"], one[0]["w"])
    torch.testing.assert_close(average([one, other]), average([other, one]))
    torch.testing.assert_close(average([one, other, other]), average([one, ({"w": other[0]["w"]}, 18)]))


def test_own_norms_stay_at_their_sites():
    data = sites()
    tasks = copies(data)
    names = shared(tasks[0], own_norms=True)
    assert shared(tasks[0]).keys() - names.keys() == {
        f"encoder.0.adn.N.{name}" for name in ("weight", "bias", "running_mean", "running_var")
    }
    common = federate(tasks, data, rounds=2, own_norms=True)
    assert common.keys() == names.keys()
    states = [task.state_dict() for task in tasks]
    for name in shared(tasks[0]):
        assert torch.equal(states[0][name], states[1][name]) == (name in common), name
    tasks = copies(data)
    common = federate(tasks, data, rounds=2)
    assert all(torch.equal(tasks[0].state_dict()[name], tasks[1].state_dict()[name]) for name in common)


def test_a_round_is_the_same_wherever_it_runs():
    """A process that lives through all rounds and one that begins with the last give the same weights."""
    data, fresh, third = (Fields(side=8, train=20, batch_size=8) for _ in range(3))
    torch.manual_seed(0)
    task = FieldTask(data.spec, width=4, levels=1, depth=0, dropout=0.3)
    start, again = shared(task), deepcopy(task)
    train(task, data, start, number=0, rounds=3, seed=5)
    torch.rand(7)
    here, _ = train(task, data, start, number=1, rounds=3, seed=5)
    there, _ = train(again, fresh, start, number=1, rounds=3, seed=5)
    other, _ = train(again, third, start, number=1, rounds=3, seed=6)
    trained = [name for name in start if "running" not in name]
    assert all(torch.equal(here[name], there[name]) for name in trained)
    assert not torch.equal(other["head.2.weight"], there["head.2.weight"])


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "regression"])
def test_every_kind_of_task_learns_together(kind):
    data = [ToyData(kind, train=48, fold=fold) for fold in (0, 1)]
    spec = agree([one.spec for one in data])
    torch.manual_seed(0)
    tasks: list[PoolingTask] = [ToyTask(spec, lr=0.1)]
    tasks.append(deepcopy(tasks[0]))
    before = score(tasks[0], data[0])
    federate(tasks, data, rounds=6)
    after = score(tasks[0], data[0])
    name = {"regression": "test/r2", "multilabel": "test/ap"}.get(kind, "test/acc")
    assert after[name] > max(before[name], 0.7)
    assert after == score(tasks[1], data[0])


def test_weights_of_another_task_and_what_a_round_cannot_do_are_named():
    data = ToyData()
    task = ToyTask(data.spec)
    with pytest.raises(BadInput, match=r"weights: expected those of this task, got nose; build it alike at all sites"):
        train(task, data, {**shared(task), "nose": torch.ones(1)})
    for options in ({"consistency": 1.0}, {"pooled_mixup": 0.2}):
        with pytest.raises(BadInput, match=r"expected consistency 0 and pooled_mixup 0, got .*; leave them out"):
            train(ToyTask(data.spec, **options), data, shared(task))
