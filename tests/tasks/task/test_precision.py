"""Mixed precision: what a modality computes in half precision is what it computes in full, to the format's width."""

import csv

import pytest
import torch
import yaml

from tasks.__main__ import main
from tasks.audio import AudioTask, RhythmData
from tasks.graph import GraphTask, MotifData
from tasks.volume import LesionData, VolumeTask

SIZES = {"train": 8, "val": 2, "test": 2, "batch_size": 8}
HALF = {torch.bfloat16: 2**-8, torch.float16: 2**-11}  # distance from 1 to the number below it


def build(name):
    """A small task of a modality and a batch of its training data."""
    torch.manual_seed(0)
    if name == "graph":
        data, options = MotifData(**SIZES), {"layers": 2}
        task = GraphTask(data.spec, **options)
    elif name == "volume":
        data = LesionData(size=16, **SIZES)
        task = VolumeTask(data.spec, width=4, levels=1, reduction="attention", heads=2)
    else:
        data = RhythmData(cycles=1, **SIZES)
        task = AudioTask(data.spec, pool=name, widths=[4, 6], mels=24, hop_ms=16, pattern_s=0.3)
    data.setup()
    return task.train(), next(iter(data.train_dataloader()))


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("name", ["graph", "time", "frequency", "both", "volume"])
def test_half_precision_gives_the_same_loss_and_gradients(name, dtype):
    task, batch = build(name)
    losses, gradients = [], []
    for enabled in (False, True):
        task.zero_grad()
        with torch.autocast("cpu", dtype=dtype, enabled=enabled):
            loss = task.batch_loss(task(batch), batch)
        (loss * 1024).backward()  # as a gradient scaler does, so that fp16 holds small gradients
        losses.append(loss.item())
        gradients.append(torch.cat([p.grad.float().flatten() / 1024 for p in task.parameters() if p.grad is not None]))
    assert losses[1] == pytest.approx(losses[0], rel=16 * HALF[dtype])
    assert gradients[1].isfinite().all()
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 1 - 16 * HALF[dtype]


def fit(folder, name, accelerator="cpu", **how):
    """Train the toy modality with a precision, by its name or ``how``; the rows of predictions.csv."""
    how = how or {"precision": name}
    config = {
        "run": {"name": name, "root": str(folder)},
        "model": {"class_path": "toy.ToyTask", "init_args": {"lr": 0.02}},
        "data": {"class_path": "toy.ToyData"},
        "trainer": {"max_epochs": 8, "accelerator": accelerator, "enable_progress_bar": False, **how},
    }
    path = folder / "toy.yaml"
    path.write_text(yaml.safe_dump(config))
    main(["fit", "-c", str(path), "--outputs.bootstrap=5", "--outputs.maps=1"])
    with (folder / name / "version_0" / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def accuracy(rows):
    return sum(row["target"] == row["prediction"] for row in rows) / len(rows)


def test_bf16_trains_and_fp16_is_bf16_where_there_is_no_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["tasks"])
    full, brain = fit(tmp_path, "32-true"), fit(tmp_path, "bf16-mixed")
    assert abs(accuracy(full) - accuracy(brain)) <= 3 / 32
    with pytest.warns(
        UserWarning, match="AMP with fp16 is not supported on CPU. Using `precision='bf16-mixed'` instead"
    ):
        assert fit(tmp_path, "16-mixed") == brain


@pytest.mark.slow
def test_fp16_itself_trains_on_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["tasks"])
    plugin = {"class_path": "lightning.pytorch.plugins.MixedPrecision"}
    plugin["init_args"] = {"precision": "16-mixed", "device": "cpu"}
    full, half = fit(tmp_path, "32-true"), fit(tmp_path, "fp16", plugins=[plugin])
    assert abs(accuracy(full) - accuracy(half)) <= 3 / 32
    saved = torch.load(next((tmp_path / "fp16").rglob("last.ckpt")), weights_only=True)
    assert saved["MixedPrecision"]["scale"] > 1  # losses were scaled, as only float16 needs it


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_fp16_trains_on_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.argv", ["tasks"])
    full, half = fit(tmp_path, "32-true", "gpu"), fit(tmp_path, "16-mixed", "gpu")
    assert abs(accuracy(full) - accuracy(half)) <= 3 / 32
