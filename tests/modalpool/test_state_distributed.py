"""Two processes that hold half of every set each get what one process with everything gets."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from every import BY_NAME, CHANNELS, close, make

from modalpool import Pool

NAMES = [
    "mean",
    "mean_sum",
    "std",
    "max",
    "power",
    "logsumexp",
    "softmax",
    "attention_projected",
    "attention_gated",
    "regions",
]
PROCESSES = 2


def whole() -> tuple[torch.Tensor, torch.Tensor]:
    """12 elements of four sets; set 1 lies with the first process only, set 2 is empty."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(12, CHANNELS, generator=generator, dtype=torch.float64)
    return x, torch.tensor([0, 1, 1, 0, 3, 1, 3, 0, 0, 3, 3, 0])


def loss(z: torch.Tensor) -> torch.Tensor:
    return (z * torch.linspace(-1, 2, z.numel(), dtype=z.dtype).reshape(z.shape)).sum().sin()


def pool_a_half(rank: int, folder: str) -> None:
    """One process: pool rows ``rank * 6`` to ``rank * 6 + 6`` and save everything worth comparing."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=PROCESSES)
    x, index = whole()
    mine = slice(6 * rank, 6 * rank + 6)
    saved = {}
    for name in NAMES:
        pool = make(BY_NAME[name], "[n] c", dtype=torch.float64)
        for objective in ("mean", "sum"):
            part = x[mine].clone().requires_grad_()
            state = pool.all_merge(pool.update(None, part, index=index[mine], dim_size=4), objective=objective)
            z = pool.finalize(state)
            inputs = [part, *pool.parameters()]
            first = torch.autograd.grad(loss(z), inputs, create_graph=True)
            second = torch.autograd.grad(first[0].square().sum(), part)[0] if objective == "mean" else None
            saved[name, objective] = (z.detach(), [g.detach() for g in first], second)
    nothing = torch.zeros(0, CHANNELS, dtype=torch.float64)  # the second process has no elements at all
    part, numbers = (x, index) if rank == 0 else (nothing, index[:0])
    pool = Pool("[n] c", "mean")
    saved["lonely"] = pool.finalize(pool.all_merge(pool.update(None, part, index=numbers, dim_size=4)))
    torch.save(saved, os.path.join(folder, f"{rank}.pt"))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.start_processes(pool_a_half, args=(str(folder),), nprocs=PROCESSES, start_method="fork")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(PROCESSES)]


@pytest.mark.parametrize("name", NAMES)
def test_two_processes_equal_one(ranks, name):
    pool = make(BY_NAME[name], "[n] c", dtype=torch.float64)
    x, index = whole()
    x.requires_grad_()
    z = pool(x, index=index, dim_size=4)
    first = torch.autograd.grad(loss(z), [x, *pool.parameters()], create_graph=True)
    second = torch.autograd.grad(first[0].square().sum(), x)[0]
    results = [rank[name, "mean"] for rank in ranks]
    assert torch.equal(results[0][0], results[1][0])  # everyone holds the same, to the bit
    close(results[0][0], z.detach(), ulp=64)
    close(torch.cat([gradients[0] for _, gradients, _ in results]), first[0].detach(), ulp=256)
    close(torch.cat([hessian for *_, hessian in results]), second, ulp=2048)


@pytest.mark.parametrize("name", NAMES)
def test_averaged_gradients_of_the_sum_train_parameters(ranks, name):
    """As DistributedDataParallel averages them."""
    pool = make(BY_NAME[name], "[n] c", dtype=torch.float64)
    x, index = whole()
    x.requires_grad_()
    single = torch.autograd.grad(loss(pool(x, index=index, dim_size=4)), [x, *pool.parameters()])
    results = [rank[name, "sum"][1] for rank in ranks]
    close(torch.cat([gradients[0] for gradients in results]), PROCESSES * single[0], ulp=256)
    for i, expected in enumerate(single[1:], start=1):
        close(sum(gradients[i] for gradients in results) / PROCESSES, expected, ulp=256)


def test_a_process_without_elements(ranks):
    x, index = whole()
    for rank in ranks:
        close(rank["lonely"], Pool("[n] c", "mean")(x, index=index, dim_size=4))


def test_the_objective_is_checked_and_a_group_is_needed():
    pool = Pool("b c [t]", "mean")
    state = pool.update(None, torch.ones(1, 1, 2))
    with pytest.raises(ValueError, match="objective: expected 'mean' or 'sum', got 'average'"):
        pool.all_merge(state, objective="average")
    with pytest.raises(RuntimeError, match="call init_process_group first"):
        pool.all_merge(state)
