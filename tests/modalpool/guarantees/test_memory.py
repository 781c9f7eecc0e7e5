"""No pool allocates a buffer of the size of its input: forward nothing near it, backward only the gradient.

What a call needs besides is a chunk, and a few numbers an element: its set, its scores. So chunks are small here, and
elements wide: what is left over grows with the input and is as wide as it.
"""

import every
import pytest
import torch
from every import BY_NAME, make, needs_coords, one_each
from measure import peak_bytes

from modalpool.kernels import tuning

CHANNELS = 64
SETS, LENGTH = 8, 1024
CHUNK = 2**14
FORMS = ["first", "first masked", "first weighted", "last", "last masked", "last weighted"]
FORMS += ["sorted", "unsorted", "ptr", "ptr masked", "ptr weighted"]
FORWARD, BACKWARD = 0.5, 1.5
"""Bounds in sizes of x; a buffer as large as x besides the gradient would be one more."""


def cut_small(monkeypatch):
    for name, limit in {"CHUNK": CHUNK, "RULE_CHUNK": CHUNK, "MANY": 2 * CHUNK, "FEW": 0}.items():
        monkeypatch.setattr(tuning, name, limit)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    cut_small(monkeypatch)


def lay(name, device="cpu", length=LENGTH):
    """A call of a form: `SETS` sets of ``length`` elements on average."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(SETS, length, CHANNELS, generator=generator) + 0.1
    many = torch.rand(SETS, length, generator=generator)
    kind, _, extra = name.partition(" ")
    sets = {"": {}, "masked": {"mask": many < 0.7}, "weighted": {"weight": many}}[extra]
    if kind == "first":
        call = every.Call(name, "b c [t]", x.mT.contiguous(), sets)
    elif kind == "last":
        call = every.Call(name, "b [t] c", x, sets)
    else:
        nodes, sets = x.flatten(0, 1), {key: given.flatten() for key, given in sets.items()}
        index = torch.randint(SETS, (len(nodes),), generator=generator)
        if kind == "ptr":
            sets["ptr"] = torch.cat([torch.zeros(1, dtype=torch.long), index.bincount(minlength=SETS).cumsum(0)])
        else:
            sets |= {"index": index if kind == "unsorted" else index.sort().values, "dim_size": SETS}
            sets["coords"] = torch.rand(len(nodes), 1, generator=generator)
        call = every.Call(name, "[n] c", nodes, sets)
    sets = {key: given.to(device) if isinstance(given, torch.Tensor) else given for key, given in call.sets.items()}
    return call._replace(x=call.x.to(device), sets=sets)


def peaks(case, call):
    """New memory of the forward pass and of both passes, in sizes of x."""
    pool = make(case, call.layout, channels=CHANNELS).to(call.x.device)
    given = needs_coords(pool, call)
    leaf = call.x.requires_grad_()
    wanted = [leaf, *pool.parameters()]

    def forward():
        with torch.no_grad():
            return pool(leaf, **given)

    def both():
        z = pool(leaf, **given)
        return torch.autograd.grad(z, wanted, torch.ones_like(z), allow_unused=True)

    device = leaf.device.type
    return [peak_bytes(function, device) / leaf.nbytes for function in (forward, both)]


def check(case, call, besides=0.0):
    forward, both = peaks(case, call)
    assert forward < FORWARD + besides
    assert both < BACKWARD + besides


@one_each("form", FORMS)
def test_no_pool_needs_memory_of_the_size_of_its_input(case, form):
    check(case, lay(form))


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@every.every("it needs no memory of its input's size")
def test_no_pool_needs_memory_of_the_size_of_its_input_in_any_form(case, form):
    check(case, lay(form))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.skipif(not tuning.TRITON, reason="the definition has buffers of the size of its input: MODALPOOL_TRITON=0")
@pytest.mark.parametrize("form", FORMS)
@every.every("it needs no memory of its input's size")
def test_no_pool_needs_memory_of_the_size_of_its_input_on_a_gpu(case, form):
    call = lay(form, "cuda", length=2**15)
    pool = make(case, call.layout, channels=CHANNELS).cuda()
    arranged = pool.arrange(call.x, **needs_coords(pool, call))
    if pool.reduction.in_chunks(arranged.elements, arranged.sets):
        pytest.xfail("no kernel for a GPU, where nothing is reduced in chunks")
    # Torch's own sum, which plain dense sums are, has room for the results of its blocks: 128 MB on an H200.
    check(case, call, peak_bytes(lambda: call.x.sum(1), "cuda") / call.x.nbytes if form == "last" else 0.0)


WEIGHING = [BY_NAME[name] for name in ("max", "softmax")]
WEIGHING += [every.case(f"attention_{score}", "attention", heads=16, score=score) for score in ("gated", "linear")]


@pytest.mark.parametrize("case", WEIGHING, ids=[case.name for case in WEIGHING])
@pytest.mark.parametrize("form", ["first masked", "ptr"])
def test_weights_are_only_written_down_when_asked_for(case, form):
    call = lay(form)
    pool = make(case, call.layout, channels=CHANNELS).requires_grad_(False)
    weights = pool(call.x, **call.sets, return_weights=True)[1].nbytes
    assert peak_bytes(lambda: pool(call.x, **call.sets, return_weights=True), "cpu") >= weights
    assert peak_bytes(lambda: pool(call.x, **call.sets), "cpu") < weights
