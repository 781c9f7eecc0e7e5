"""The task: encoders with their geometry, exact maps, pictures and NIfTI, a run from configuration to files."""

import csv

import nibabel
import numpy as np
import pytest
import torch
from torch import nn

from tasks.__main__ import main
from tasks.maps.grids import upsample
from tasks.volume import LesionData, VolumeTask
from tasks.volume.encoders import ENCODERS, build_encoder
from tasks.volume.maps import to_file_space

BINARY = {"kind": "binary", "classes": ["well", "ill"], "channels": 1, "class_counts": [3, 3]}
SIDES = {"plain": 48, "resnet10": 96, "densenet121": 96, "seresnet": 96, "unet": 32}


@pytest.mark.parametrize("name", [name for name in ENCODERS if name != "resnet18"])
def test_cells_lie_where_the_encoder_says(name):
    """With positive weights a cell's gradient is a symmetric bump: its centre must be voxel first + stride * j."""
    side = SIDES[name]
    options = {} if name == "seresnet" else {"width": 4}
    encoder = build_encoder(name, **options)
    network = encoder.network.eval()
    for module in network.modules():
        if isinstance(module, nn.Conv3d | nn.ConvTranspose3d):
            nn.init.constant_(module.weight, 1 / module.weight[0].numel())
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    # A line of voxels along the first axis tells as much as a cube; the other axes keep one full cell.
    shape = (side, 32, 32) if name in ("densenet121", "seresnet", "unet") else (side, 16, 16)
    image = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0)).add_(0.5).requires_grad_()
    features = network(image)
    assert features.shape[1] == encoder.channels
    assert features.shape[2] == side // encoder.stride
    cell = features.shape[2] // 2 if encoder.stride < 32 else 1
    (gradient,) = torch.autograd.grad(features[0, :, cell].sum(), image)
    weight = gradient[0, 0].sum((1, 2)).abs()
    centre = float((weight * torch.arange(side)).sum() / weight.sum())
    # Max-pooling picks one of its voxels, and U-Net's skip levels reach out unevenly: within half a stride of theirs.
    slack = {"plain": 0.01, "resnet10": 0.1, "densenet121": 4.0, "seresnet": 4.0, "unet": 1.0}[name]
    assert centre == pytest.approx(encoder.first + encoder.stride * cell, abs=slack)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("resnet50", {}, "expected an encoder of plain, resnet10, .*, got 'resnet50'; choose one of them"),
        ("unet", {"levels": 2}, "encoder 'unet' has the options width, norm, dropout, got levels; leave it out"),
        ("resnet10", {"norm": "group"}, "encoder 'resnet10' has the options width, got norm"),
        ("plain", {"norm": "layer"}, "expected norm batch, group, instance, got 'layer'"),
    ],
)
def test_options_an_encoder_does_not_have(name, options, words):
    with pytest.raises(ValueError, match=words):
        build_encoder(name, **options)


@pytest.mark.parametrize(("levels", "kernel", "seen"), [(0, 1, 3), (0, 3, 7), (1, 1, 2), (1, 3, 10)])
def test_how_far_a_cell_of_plain_looks(levels, kernel, seen):
    """Without a level every voxel is a cell; pointwise units see no more than the convolution before them."""
    encoder = build_encoder("plain", width=4, depth=1, levels=levels, kernel=kernel)
    assert (encoder.stride, encoder.first) == (2**levels, (2**levels - 1) / 2)
    image = torch.rand(1, 1, 24, 24, 24, generator=torch.Generator().manual_seed(0)).requires_grad_()
    features = encoder.network.eval()(image)
    assert features.shape[2:] == (24 // encoder.stride,) * 3
    cell = features.shape[2] // 2
    for parameter in encoder.network.parameters():
        torch.nn.init.uniform_(parameter, 0.1, 1)
    (gradient,) = torch.autograd.grad(encoder.network(image)[0, :, cell, cell, cell].sum(), image)
    lines = gradient[0, 0].abs().sum((1, 2)).nonzero()[:, 0]
    assert len(lines) == seen
    assert lines.double().mean() == pytest.approx(encoder.first + encoder.stride * cell)


def test_options_change_the_network():
    assert build_encoder("plain", width=6, levels=3).channels == 24
    assert build_encoder("plain", levels=3).stride == 8
    count = lambda encoder: sum(p.numel() for p in encoder.network.parameters())  # noqa: E731
    assert count(build_encoder("plain", depth=2)) > count(build_encoder("plain", depth=1))
    for norm, kind in (("batch", nn.BatchNorm3d), ("group", nn.GroupNorm), ("instance", nn.InstanceNorm3d)):
        network = build_encoder("plain", width=6, norm=norm).network
        assert any(isinstance(module, kind) for module in network.modules())


@pytest.mark.parametrize("reduction", ["mean", "attention"])
def test_maps_add_up_to_the_logit(reduction):
    torch.manual_seed(0)
    task = VolumeTask(BINARY, width=4, levels=1, reduction=reduction).eval()
    batch = {"image": torch.randn(2, 1, 8, 8, 8)}
    _, maps = task.explain(batch)
    assert maps.shape == (2, 1, 4, 4, 4)
    bias = task.head[-1].bias
    torch.testing.assert_close(maps.sum((2, 3, 4)) + bias, task(batch), atol=1e-5, rtol=1e-5)


def test_regression_maps_add_up_to_the_prediction():
    """In the target's unit, per voxel: an interior map sums to the prediction less what no voxel says."""
    torch.manual_seed(0)
    spec = {"kind": "regression", "classes": ["age"], "channels": 1, "target_mean": [40.0], "target_std": [12.0]}
    task = VolumeTask(spec, width=4, levels=1).eval()
    predictions, maps = task.explain({"image": torch.randn(1, 1, 8, 8, 8)})
    rest = 40 + 12 * task.head[-1].bias
    torch.testing.assert_close(maps.sum((2, 3, 4))[0] + rest, predictions[0])


def test_features_lie_channels_last_also_after_a_checkpoint():
    task = VolumeTask(BINARY, width=4, levels=1)
    task.encoder.load_state_dict(
        {name: value.clone().contiguous() for name, value in task.encoder.state_dict().items()}
    )
    image = torch.rand(2, 1, 8, 8, 8)
    features, _ = task.eval().encode({"image": image})
    assert features.is_contiguous(memory_format=torch.channels_last_3d)
    plain = build_encoder("plain", width=4, levels=1).network.eval()
    plain.load_state_dict(task.encoder.state_dict())
    torch.testing.assert_close(features, plain(image))


def test_checkpoint_loads_from_a_script(tmp_path):
    from lightning.pytorch import Trainer

    data = LesionData(train=4, val=2, test=2, size=8, batch_size=2)
    task = VolumeTask(data.spec, width=4, levels=1, reduction="attention", heads=2)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(max_epochs=1, accelerator="cpu", **quiet)
    trainer.fit(task, datamodule=data)
    trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    again = VolumeTask.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    batch = next(iter(data.test_dataloader()))
    torch.testing.assert_close(again.eval()(batch), task.eval()(batch))


def test_fit_on_files_leaves_maps_over_them(save_nifti, save_table, tmp_path, monkeypatch):
    """One run of the command line: oblique, left-handed files of different shapes; every map lies over its file."""
    monkeypatch.setattr("sys.argv", ["tasks"])  # Lightning warns of arguments that it finds there
    rows = []
    for i in range(8):
        angle = 0.1 * i
        affine = np.diag([-1.5, -1.0, 2.0, 1.0])
        affine[:2, :2] = affine[:2, :2] @ [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        data = np.random.default_rng(i).normal(50, 10, (9 + i % 3, 10, 8)).astype(np.float32)
        name = f"scans/{i}.nii.gz"
        save_nifti(name, data, affine)
        part = ["train", "train", "train", "train", "val", "val", "test", "test"][i]
        rows.append({"path": name, "age": 30 + 5 * i, "split": part})
    table = save_table("study.csv", rows)
    main([
        "fit", "-c", "configs/volume/csv.yaml", f"--data.root={table}", "--data.target=age", "--data.task=regression",
        "--data.size=[8,8,8]", "--data.spacing=null", "--model.encoder=plain", "--model.width=4", "--model.levels=1",
        "--data.batch_size=2", "--trainer.max_epochs=1", "--trainer.accelerator=cpu", f"--run.root={tmp_path / 'runs'}",
        "--run.name=x", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false",
    ])  # fmt: skip
    run = tmp_path / "runs" / "x" / "version_0"
    predictions = list(csv.DictReader((run / "predictions.csv").open()))
    assert [row["id"] for row in predictions] == ["scans/6.nii.gz", "scans/7.nii.gz"]
    task = VolumeTask.load_from_checkpoint(
        run / "checkpoints" / "best.ckpt", weights_only=True, map_location="cpu"
    ).eval()
    for number in (6, 7):
        assert (run / "maps" / f"scans_{number}.png").stat().st_size > 10_000
        written, file = (
            nibabel.load(p) for p in (run / "maps" / f"scans_{number}_map.nii.gz", tmp_path / f"scans/{number}.nii.gz")
        )
        assert written.shape == file.shape
        np.testing.assert_allclose(written.affine, file.affine, atol=1e-5)
        assert np.isfinite(written.get_fdata()).all()
        assert np.abs(written.get_fdata()).max() > 0
    # The last one again, step by step: the map's value at one voxel of the file, found through millimetres by hand.
    from tasks.volume import CSVData

    data = CSVData(str(table), target="age", task="regression", size=(8, 8, 8), batch_size=2)
    data.setup()
    batch = next(iter(data.test_dataloader()))
    _, maps = task.explain(batch)
    fine = upsample(maps[1, 0], (8, 8, 8), stride=task.stride, first=task.first) / task.stride**3
    voxel = np.linalg.solve(file.affine, batch["affine"][1].numpy() @ [3, 4, 5, 1])[:3]
    assert np.allclose(voxel, voxel.round(), atol=1e-4)  # no resampling here, so centres meet
    stored = nibabel.load(run / "maps" / "scans_7_map.nii.gz").get_fdata()
    assert stored[tuple(voxel.round().astype(int))] == pytest.approx(float(fine[3, 4, 5]), rel=1e-4)
    assert to_file_space(fine.numpy(), batch["affine"][1].numpy(), tmp_path / "scans/7.nii.gz").shape == stored.shape


def test_a_pyramids_levels_are_not_the_encoders():
    spec = {"kind": "regression", "classes": ["ml"], "channels": 1}
    task = VolumeTask(spec, width=4, levels=1, reduction="pyramid", pyramid_levels=[1, [1, 2, 3]]).eval()
    assert task.stride == 2
    x, sets = task.encode({"image": torch.randn(2, 1, 8, 8, 12)})
    z = task.pool(x, **sets)
    assert z.shape == (2, 1 + 6, 4)
    torch.testing.assert_close(z[:, 0], x.mean((2, 3, 4)))
    torch.testing.assert_close(z[:, 2], x[:, :, :, :2, 2:4].mean((2, 3, 4)))
    with pytest.raises(TypeError, match="does not take levels"):
        VolumeTask(spec, reduction="mean", pyramid_levels=[2])
