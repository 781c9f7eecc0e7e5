"""Batches of similar sizes: every sample once, little padding, the same order in every process, in every modality."""

from itertools import chain, pairwise
from types import SimpleNamespace

import pytest
import torch
from toy import ToyData

from tasks.audio import RhythmData
from tasks.data.buckets import Buckets
from tasks.data.problems import BadInput
from tasks.graph import MotifData
from tasks.volume import LesionData

NONE_YET = SimpleNamespace(current=SimpleNamespace(ready=0, processed=0), is_last_batch=False)
EPOCH = SimpleNamespace(epoch_progress=NONE_YET, epoch_loop=SimpleNamespace(batch_progress=NONE_YET))


@pytest.fixture
def sizes():
    return torch.randint(1, 1000, (83,), generator=torch.Generator().manual_seed(0)).tolist()


def batches(sampler, size):
    order = list(sampler)
    return [order[i : i + size] for i in range(0, len(order), size)]


@pytest.mark.parametrize("buckets", [1, 3, 10, 50])
def test_every_sample_comes_once_and_batches_of_different_buckets_do_not_overlap_in_size(sizes, buckets):
    found = batches(Buckets(sizes, batch=8, buckets=buckets, seed=0), 8)
    assert sorted(chain(*found)) == list(range(83))
    assert [len(batch) for batch in found] == [8] * 10 + [3]
    spans = sorted((min(sizes[i] for i in batch), max(sizes[i] for i in batch)) for batch in found[:-1])
    separate = sum(high <= low for (_, high), (low, _) in pairwise(spans))
    assert separate >= min(buckets, 10) - 1  # between any two buckets
    if buckets == 1:
        assert separate == 0


def test_padding_shrinks_with_the_number_of_buckets(sizes):
    def padding(buckets):
        found = batches(Buckets(sizes, batch=8, buckets=buckets, seed=0), 8)
        return sum(max(sizes[i] for i in batch) * len(batch) - sum(sizes[i] for i in batch) for batch in found[:-1])

    assert padding(10) < padding(3) < padding(1)
    assert padding(10) < 0.2 * padding(1)


def test_epochs_differ_and_processes_agree(sizes):
    one = Buckets(sizes, batch=8, buckets=3, seed=5)
    torch.rand(17)  # a process that has drawn other numbers since
    other = Buckets(sizes, batch=8, buckets=3, seed=5)
    first = list(one)
    assert first == list(other)
    assert first != list(one)
    assert first != list(Buckets(sizes, batch=8, buckets=3, seed=6))
    one.set_epoch(7)
    seventh = list(one)
    other.set_epoch(7)
    assert seventh == list(other) != first  # whatever was looked at before


def test_fewer_samples_than_a_batch():
    assert sorted(Buckets([3, 1, 2], batch=8, buckets=2, seed=0)) == [0, 1, 2]


@pytest.mark.parametrize("buckets", [0, -1])
def test_too_few_buckets(buckets):
    with pytest.raises(BadInput, match=f"expected 1 or more buckets, got {buckets}; 1 shuffles all samples together"):
        Buckets([1, 2], batch=2, buckets=buckets, seed=0)


def test_data_without_sizes_says_so():
    data = ToyData(buckets=2)
    data.setup()
    with pytest.raises(BadInput, match="expected 1 bucket, as ToyData does not tell its samples' sizes, got 2; use 1"):
        data.train_dataloader()


def test_a_batch_of_all_processes_comes_from_one_bucket():
    data = LesionData(train=16, val=2, test=2, size=[8, 16], batch_size=2, buckets=2)
    data.setup()
    orders = []
    for rank in (0, 1):
        data.trainer = SimpleNamespace(fit_loop=EPOCH, world_size=2, global_rank=rank, lightning_module=None)
        orders.append(torch.tensor(list(data.train_dataloader().sampler)).view(-1, 2))
    order = torch.cat(orders, 1)
    assert sorted(order.flatten().tolist()) == list(range(16))
    sides = torch.tensor([data.datasets["train"][i]["image"].shape[1] for i in order.flatten()]).view(-1, 4)
    assert (sides == sides[:, :1]).all()


SMALL = {"val": 6, "test": 6, "batch_size": 3}


@pytest.mark.parametrize(
    ("data", "sizes"),
    [
        (lambda n: RhythmData(train=12, cycles=[1, 2], sample_rate=4000, buckets=n, **SMALL), lambda b: b["lengths"]),
        (lambda n: LesionData(train=24, size=[8, 12], buckets=n, **SMALL), lambda b: b["affine"][:, 0, 0]),
        (lambda n: MotifData(train=12, min_nodes=10, max_nodes=60, buckets=n, **SMALL), lambda b: b.ptr.diff()),
    ],
    ids=["audio", "volume", "graph"],
)
def test_every_modality_sorts_its_training_batches_and_leaves_the_others(data, sizes):
    torch.manual_seed(0)
    spread = {}
    for number in (1, 2):
        made = data(number)
        made.setup()
        loader = made.train_dataloader()
        spread[number] = sum(float(sizes(batch).float().std()) for batch in loader)
        tested = made.datasets["test"]
        assert [name for batch in made.test_dataloader() for name in batch["id"]] == [tested[i]["id"] for i in range(6)]
    assert spread[2] < 0.7 * spread[1]
