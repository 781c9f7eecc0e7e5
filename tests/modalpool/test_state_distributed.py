"""Two processes that hold half of every set each get what one process with everything gets."""

import os
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from every import BY_NAME, CASES, CHANNELS, close, exception, make

from modalpool import Pool

PROCESSES = 2
MERGING = [case.name for case in CASES if exception(case, "its parts merge") is None]


def whole(start: int = 0, stop: int = 12) -> tuple[torch.Tensor, dict[str, Any]]:
    """12 elements of four sets; set 1 lies with the first process only, set 2 is empty."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, CHANNELS, generator=generator, dtype=torch.float64)
    index = torch.tensor([0, 1, 1, 0, 3, 1, 3, 0, 0, 3, 3, 0])
    coords = torch.rand(12, 1, generator=generator, dtype=torch.float64)
    part = slice(start, stop)
    return x[part], {"index": index[part], "coords": coords[part], "dim_size": 4}


def gradients(z: torch.Tensor, inputs: list[torch.Tensor], **options: bool) -> tuple[torch.Tensor, ...]:
    """Zero for what z does not depend on."""
    return torch.autograd.grad(z, inputs, allow_unused=True, materialize_grads=True, **options)


def loss(z: torch.Tensor) -> torch.Tensor:
    return (z * torch.linspace(-1, 2, z.numel(), dtype=z.dtype).reshape(z.shape)).sum().sin()


def pool_a_half(rank: int, folder: str) -> None:
    """One process: pool rows ``rank * 6`` to ``rank * 6 + 6`` and save everything worth comparing."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=PROCESSES)
    mine, sets = whole(6 * rank, 6 * rank + 6)
    saved = {}
    for name in MERGING:
        pool = make(BY_NAME[name], "[n] c", dtype=torch.float64)
        for objective in ("mean", "sum"):
            part = mine.clone().requires_grad_()
            state = pool.all_merge(pool.update(None, part, **sets), objective=objective)
            z = pool.finalize(state)
            inputs = [part, *pool.parameters()]
            first = gradients(loss(z), inputs, create_graph=True)
            second = gradients(first[0].square().sum(), [part])[0] if objective == "mean" else None
            saved[name, objective] = (z.detach(), [g.detach() for g in first], second)
    part, sets = whole(stop=12 if rank == 0 else 0)  # the second process has no elements at all
    pool = Pool("[n] c", "mean")
    saved["lonely"] = pool.finalize(pool.all_merge(pool.update(None, part, **sets)))
    torch.save(saved, os.path.join(folder, f"{rank}.pt"))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.start_processes(pool_a_half, args=(str(folder),), nprocs=PROCESSES, start_method="fork")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(PROCESSES)]


@pytest.mark.parametrize("name", MERGING)
def test_two_processes_equal_one(ranks, name):
    pool = make(BY_NAME[name], "[n] c", dtype=torch.float64)
    x, sets = whole()
    x.requires_grad_()
    z = pool(x, **sets)
    first = gradients(loss(z), [x, *pool.parameters()], create_graph=True)
    second = gradients(first[0].square().sum(), [x])[0]
    results = [rank[name, "mean"] for rank in ranks]
    assert torch.equal(results[0][0], results[1][0])  # everyone holds the same, to the bit
    close(results[0][0], z.detach(), ulp=64)
    close(torch.cat([slopes[0] for _, slopes, _ in results]), first[0].detach(), ulp=256)
    close(torch.cat([hessian for *_, hessian in results]), second, ulp=2048)


@pytest.mark.parametrize("name", MERGING)
def test_averaged_gradients_of_the_sum_train_parameters(ranks, name):
    """As DistributedDataParallel averages them."""
    pool = make(BY_NAME[name], "[n] c", dtype=torch.float64)
    x, sets = whole()
    x.requires_grad_()
    single = gradients(loss(pool(x, **sets)), [x, *pool.parameters()])
    results = [rank[name, "sum"][1] for rank in ranks]
    close(torch.cat([slopes[0] for slopes in results]), PROCESSES * single[0], ulp=256)
    for i, expected in enumerate(single[1:], start=1):
        close(sum(slopes[i] for slopes in results) / PROCESSES, expected, ulp=256)


def test_a_process_without_elements(ranks):
    x, sets = whole()
    for rank in ranks:
        close(rank["lonely"], Pool("[n] c", "mean")(x, **sets))


def test_the_objective_is_checked_and_a_group_is_needed():
    pool = Pool("b c [t]", "mean")
    state = pool.update(None, torch.ones(1, 1, 2))
    with pytest.raises(ValueError, match="objective: expected 'mean' or 'sum', got 'average'"):
        pool.all_merge(state, objective="average")
    with pytest.raises(RuntimeError, match="call init_process_group first"):
        pool.all_merge(state)
