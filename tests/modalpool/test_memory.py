"""No pool allocates a buffer of the size of its input: forward nothing near it, backward only the gradient."""

import pytest
import torch
from every import BY_NAME, make
from torch.profiler import ProfilerActivity, profile

from modalpool import chunks

ELEMENTS = 2**15


def peak(function):
    """The most bytes that were allocated at one time during a call, its results included."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        result = function()
    del result
    now = most = 0
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


@pytest.mark.parametrize("name", ["mean", "max", "softmax", "std", "power", "logsumexp"])
def test_memory_is_that_of_a_chunk(name, monkeypatch):
    monkeypatch.setattr(chunks, "MANY", 2**14)
    monkeypatch.setattr(chunks, "CHUNK", 2**11)
    torch.manual_seed(0)
    x = torch.rand(8, ELEMENTS // 8, 4) + 0.1
    pool = make(BY_NAME[name]._replace(name=name, options={}), "b [n] c")
    size = x.numel() * x.element_size()
    with torch.no_grad():
        assert peak(lambda: pool(x)) < 0.6 * size
    leaf = x.requires_grad_()
    assert peak(lambda: torch.autograd.grad(pool(leaf).sum(), leaf)) < 1.6 * size
