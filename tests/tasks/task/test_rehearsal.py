"""A GPU's training step without a GPU: on fake tensors, which have a device, a dtype and a shape but no numbers.

Tensors of two devices in one operation raise here as on a GPU, and so does whatever reads a number of a tensor, which
there would wait until the device has done all that was asked of it before.
"""

import pytest
import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
)
from torchmetrics import Metric
from toy import ToyData, ToyTask

from tasks.audio import AudioTask, RhythmData, TimbreData
from tasks.graph import GraphTask, MotifData
from tasks.volume import LesionData, VolumeTask

SMALL = {"train": 8, "val": 4, "test": 4, "batch_size": 4}
MODALITIES = {
    "audio time": lambda: (TimbreData(**SMALL), lambda spec: AudioTask(spec, widths=[4, 8], mixup=0.3, noise_db=1.0)),
    "audio frequency": lambda: (
        RhythmData(cycles=1, **SMALL),
        lambda spec: AudioTask(spec, widths=[4, 8], pool="frequency", reduction="attention", pitch=1.0, mask_bands=4),
    ),
    "volume": lambda: (
        LesionData(size=16, **SMALL),
        lambda spec: VolumeTask(spec, width=4, depth=1, levels=2, reduction="attention", balance=True),
    ),
    "graph": lambda: (MotifData(**SMALL), lambda spec: GraphTask(spec, hidden=8, layers=2)),
    **{
        kind: lambda kind=kind: (ToyData(kind=kind, batch_size=4), lambda spec: ToyTask(spec, pooled_mixup=0.3))
        for kind in ("binary", "multiclass", "multilabel", "regression")
    },
}


def fake(value):
    """The tensors in a batch as fakes on a GPU; other values, like names, stay."""
    if isinstance(value, torch.Tensor):
        return torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cuda")
    if isinstance(value, dict):
        return {key: fake(one) for key, one in value.items()}
    return value.clone().apply(fake) if hasattr(value, "apply") else value


def move(task):
    """Do to a task what ``.to("cuda")`` does: parameters, buffers and the metrics' sums, and nothing else, move."""
    for module in task.modules():
        for name, given in module._parameters.items():
            module._parameters[name] = None if given is None else torch.nn.Parameter(fake(given), given.requires_grad)
        for name, given in module._buffers.items():
            module._buffers[name] = None if given is None else fake(given)
        if isinstance(module, Metric):
            module._device = torch.device("cuda")
            for name in module._defaults:
                setattr(module, name, fake(getattr(module, name)))
    return task


@pytest.mark.parametrize("modality", MODALITIES)
def test_a_training_step_stays_on_the_device(modality, monkeypatch):
    for user in ("tasks.task.base", "tasks.audio.task"):  # drawn on the CPU, where nothing waits
        monkeypatch.setattr(f"{user}.own_share", lambda strength: 0.7)
    data, make = MODALITIES[modality]()
    torch.manual_seed(0)
    data.setup()
    real = next(iter(data.train_dataloader()))
    task = make(data.spec)
    with FakeTensorMode(allow_non_fake_inputs=True):
        move(task)
        batch = fake(real)
        loss = task.training_step(batch, 0)
        assert isinstance(loss, FakeTensor)
        assert loss.device.type == "cuda"
        found = task.validation_step(batch, 0)
        assert found["predictions"].device.type == "cuda"


WAITS = {
    "how many arcs are left": (MotifData, {}, lambda spec: GraphTask(spec, hidden=8, layers=2, drop_edges=0.1)),
    "which volumes have one size": (
        LesionData,
        {"size": [8, 16]},
        lambda spec: VolumeTask(spec, width=4, depth=1, levels=1),
    ),
}


@pytest.mark.parametrize("reason", WAITS)
def test_these_wait_by_nature(reason):
    """Their shapes depend on numbers; whoever frees one of them takes it off this list."""
    kind, options, make = WAITS[reason]
    data = kind(**SMALL, **options)
    data.setup()
    real, task = data.collate([data.datasets["train"][number] for number in range(4)]), make(data.spec)
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(DynamicOutputShapeException):
        move(task).training_step(fake(real), 0)


class Waiting(ToyTask):
    def encode(self, batch):
        x, sets = super().encode(batch)
        return x if float(x.sum()) else -x, sets


class Left(ToyTask):
    def encode(self, batch):
        x, sets = super().encode(batch)
        return x * torch.ones(8), sets  # stays on the CPU


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        (Waiting, DataDependentOutputException, "local_scalar_dense"),
        (Left, RuntimeError, "two different devices cuda:0, cpu"),
    ],
)
def test_the_rehearsal_finds_waits_and_mixed_devices(kind, error, message):
    data = ToyData(batch_size=4)
    data.setup()
    real, task = next(iter(data.train_dataloader())), kind(data.spec)
    with FakeTensorMode(allow_non_fake_inputs=True), pytest.raises(error, match=message):
        move(task).training_step(fake(real), 0)
