"""Two processes with half of a batch each get the loss and, averaged, the gradient of one with all of it."""

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from pretraining import make

from tasks.pretrain import distil, reconstruct
from tasks.pretrain.elements import Hidden, measure

PROCESSES = 2
KINDS = {
    "ntxent": {"objective": "ntxent"},
    "dino": {"objective": "dino", "koleo": 0.5},
    "centre": {"objective": "dino", "centring": "centre"},
    "ibot": {"objective": "dino", "ibot": 1.0},
    "masked": {"objective": "masked"},
}


def hide_three(task, batch, token, *_, **__):
    """The first three elements of every sample: what is drawn at random would not be the same in other processes."""
    x = batch["x"].clone()
    x[:, :3] = token
    mask = torch.zeros(x.shape[:2], dtype=torch.bool)
    mask[:, :3] = True
    return Hidden({**batch, "x": x}, mask)


def views(rank=None):
    generator = torch.Generator().manual_seed(1)
    made = [torch.randn(8, 7, 4, generator=generator) for _ in range(3)]
    part = slice(None) if rank is None else slice(4 * rank, 4 * rank + 4)
    return [{"x": one[part], "id": [str(i) for i in range(8)][part]} for one in made]


def gradients(kind, rank=None):
    """Loss and gradients, as Lightning's strategy averages them, and the centre after the step."""
    module, data = make(**KINDS[kind])
    module.build_objective(measure(module.student, data.few()))
    module.train()
    step = module.objective.step(module.student, module.teacher, views(rank), 0.5)
    step.loss.backward()
    found = {name: one.grad.clone() for name, one in module.named_parameters() if one.grad is not None}
    loss = step.loss.detach().clone()
    if rank is not None:
        for value in (*found.values(), loss):
            dist.all_reduce(value)
            value /= PROCESSES
    return found, loss, {name: one for name, one in module.objective.named_buffers() if name.startswith("centres")}


def half(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=PROCESSES)
    distil.hide = reconstruct.hide = hide_three
    torch.save({kind: gradients(kind, rank) for kind in KINDS}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    mp.start_processes(half, args=(str(folder),), nprocs=PROCESSES, start_method="fork")
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(PROCESSES)]


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_equal_one(kind, ranks, monkeypatch):
    monkeypatch.setattr(distil, "hide", hide_three)
    monkeypatch.setattr(reconstruct, "hide", hide_three)
    wanted, loss, centres = gradients(kind)
    assert wanted
    rounding = 1e-5 * max(float(gradient.abs().max()) for gradient in wanted.values())  # sums in another order, float32
    for found, averaged, moved in (one[kind] for one in ranks):
        torch.testing.assert_close(averaged, loss)
        assert found.keys() == wanted.keys()
        for name, gradient in wanted.items():
            torch.testing.assert_close(
                found[name], gradient, rtol=1e-4, atol=rounding, msg=lambda m, n=name: f"{n}: {m}"
            )
        for name, centre in centres.items():
            torch.testing.assert_close(moved[name], centre)
