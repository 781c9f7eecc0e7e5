"""Whole scans by tiles: the logit and the map of one pass, or a line that says why not."""

import csv

import nibabel
import numpy as np
import pytest
import torch

from tasks.__main__ import main
from tasks.data.problems import BadInput
from tasks.task.decisions import decide
from tasks.volume import VolumeTask

SPEC = {
    "kind": "binary",
    "classes": ["no", "yes"],
    "channels": 1,
    "class_counts": [1, 1],
    "preprocessing": {"size": None, "spacing": None, "fit": "crop", "pad": "constant", "intensity": "percentile"},
}


class Flat(torch.nn.Module):
    """Strides that differ between axes."""

    def __init__(self, in_channels):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv3d(in_channels, 4, 3, stride=(1, 2, 4), padding=1), torch.nn.ReLU(),
            torch.nn.Conv3d(4, 6, (3, 1, 3), padding=(1, 0, 1)),
        )  # fmt: skip

    def forward(self, image):
        return self.layers(image)


def task(**options):
    torch.manual_seed(0)
    made = VolumeTask(SPEC, **options).eval()
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
    return made


@pytest.fixture
def scan(tmp_path):
    voxels = np.random.default_rng(0).random((45, 38, 52), np.float32)
    voxels[30:36, 10:16, 20:26] += 2
    path = tmp_path / "scan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(voxels, np.diag([1.0, 1.0, 2.0, 1.0])), path)
    return str(path)


@pytest.mark.parametrize(
    "options",
    [
        {"width": 4, "levels": 1, "reduction": "power"},
        {"width": 4, "levels": 2, "reduction": "attention", "heads": 2},
        {"width": 4, "levels": 1, "reduction": "attention", "grid": [2, 2, 2]},
        {"width": 4, "reduction": "topk", "k": 0.05},
        {"encoder": f"{__name__}.Flat", "reduction": "max"},
    ],
    ids=str,
)
def test_tiles_give_the_logit_and_the_map_of_one_pass(scan, options):
    made = task(**options)
    batch = made.read(scan)
    with torch.no_grad():
        once = made(batch)
    ((first,), (expected,)) = decide(made, batch)
    made.tile = 16
    parts, _ = made.in_parts(batch)
    assert len(parts.tiles) > 20
    assert not any(view.whole for view in made.views)
    with torch.no_grad():
        torch.testing.assert_close(made(batch), once, rtol=0, atol=1e-4)
    ((second,), (found,)) = decide(made, batch)
    assert found.shape == expected.shape == batch["image"].shape[2:]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert second.missing == pytest.approx(first.missing, abs=1e-3)
    made.tile = 64
    assert made.in_parts(batch) is None


def test_a_norm_of_the_image_is_said(scan, capsys):
    made = task(width=4, levels=1, norm="instance")
    made.tile = 16
    with torch.no_grad():
        assert made(made.read(scan)).isfinite().all()
    said = capsys.readouterr().out
    assert "scan.nii.gz: the network looks at the whole of what it is given (a norm with" in said
    assert "tiles of 16 voxels do not give quite the logit of one pass; a larger --tile comes nearer" in said


def test_a_tile_is_not_smaller_than_what_repeats(scan):
    made = task(width=4, levels=2)
    made.tile = 3
    with pytest.raises(BadInput, match=r"scan.nii.gz: expected a --tile of at least 4 voxels, .* got 3"):
        made(made.read(scan))


def test_explain_and_predict_take_tiles(scan, tmp_path, capsys):
    made = task(width=4, levels=1)
    state = {"state_dict": made.state_dict(), "hyper_parameters": dict(made.hparams)}
    torch.save({**state, "pytorch-lightning_version": "2.6.0"}, tmp_path / "a.ckpt")
    (tmp_path / "a.yaml").write_text("model: {class_path: tasks.volume.VolumeTask}")
    flags = ["-c", str(tmp_path / "a.yaml"), "--ckpt_path", str(tmp_path / "a.ckpt"), "--input", scan]
    main(["explain", *flags, "--output", str(tmp_path / "once")])
    main(["explain", *flags, "--output", str(tmp_path / "tiles"), "--tile", "16", "--class", "yes"])
    main(["predict", *flags, "--output", str(tmp_path / "predicted"), "--tile", "16"])
    first, second = (nibabel.load(tmp_path / name / "scan_map.nii.gz").get_fdata() for name in ("once", "tiles"))
    np.testing.assert_allclose(second, first, rtol=1e-3, atol=1e-4 * np.abs(first).max())
    found = [
        float(next(csv.DictReader((tmp_path / name / "predictions.csv").open()))["p(yes)"])
        for name in ("once", "tiles", "predicted")
    ]
    assert found[1:] == pytest.approx(found[:1] * 2, abs=1e-5)
    capsys.readouterr()
