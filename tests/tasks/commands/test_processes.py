"""Two processes train, test and predict as one does with the joined batch."""

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from ranks import in_two_processes
from toy import ROOT

from tasks.__main__ import main

FLAGS = [
    "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu",
    "--outputs.maps=0", "--outputs.every=0", "--outputs.bootstrap=20", "--floors=false",
]  # fmt: skip


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def stored(run):
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize("size", [33, 1])
def test_as_many_samples_as_one_process(plain, tmp_path, size):
    """An odd number of test samples, or one where a process has none; every 16 of a batch are 8 of each process."""
    common = ["-c", "toy.yaml", *FLAGS, "--trainer.max_epochs=2", f"--data.tested={size}"]
    plain("fit", *common[2:], "--data.batch_size=16", "--run.name=one")
    plain("predict", *common[2:], "--data.batch_size=16", "--run.name=one", "--allow_trained")
    in_two_processes(
        ["fit", *common, "--data.batch_size=8", "--run.name=two"],
        ["predict", *common, "--data.batch_size=8", "--run.name=two", "--allow_trained"],
    )
    one, two = tmp_path / "runs/one", tmp_path / "runs/two"
    for name, value in stored(one / "version_0").items():
        torch.testing.assert_close(stored(two / "version_0")[name], value, rtol=1e-5, atol=1e-6)
    for version in ("version_0", "version_1"):
        wanted, found = table(one / version / "predictions.csv"), table(two / version / "predictions.csv")
        assert [row["id"] for row in found] == [row["id"] for row in wanted]
        for theirs, ours in zip(wanted, found, strict=True):
            assert float(ours["p(high)"]) == pytest.approx(float(theirs["p(high)"]), abs=1e-5)
    if size > 1:
        wanted, found = (table(run / "version_0/metrics.csv") for run in (one, two))
        assert len(wanted) == len(found)
        for theirs, ours in zip(wanted, found, strict=True):
            for name, value in theirs.items():
                assert float(ours[name] or 0) == pytest.approx(float(value or 0), abs=2e-5), name
        summaries = [json.loads((run / "version_0/summary.json").read_text())["test"] for run in (one, two)]
        assert summaries[0]["acc"]["value"] == summaries[1]["acc"]["value"]


def test_batch_norms_are_joined_on_gpus_alone(plain):
    flags = ["--trainer.strategy=ddp", "--trainer.devices=1", "--trainer.sync_batchnorm=true"]
    with pytest.raises(
        SystemExit, match="sync_batchnorm: expected GPUs, without which torch joins no batch norms, got"
    ):
        plain("fit", *flags)


# Without statistics of a batch, which each process has of its own part.
SMALL = {
    "graph": [
        "-c", str(ROOT / "configs/graph/motifs.yaml"), "--model.norm=null", "--model.layers=2", "--model.hidden=8",
        "--data.train=48", "--data.val=21", "--data.test=21", "--outputs.maps=2", "--floors=true",
    ],
    "audio": [
        "-c", str(ROOT / "configs/audio/timbre.yaml"), "--model.freeze=true", "--model.mask_frames=0",
        "--data.train=48", "--data.val=21", "--data.test=21",
    ],
    "volume": [
        "-c", str(ROOT / "configs/volume/csv.yaml"), "--model.encoder=plain", "--model.width=4", "--model.norm=group",
        "--data.root=scans.csv", "--data.size=[8,8,8]", "--data.spacing=null", "--data.augment=null",
    ],
}  # fmt: skip


def scans():
    generator = np.random.default_rng(0)
    with Path("scans.csv").open("w") as file:
        print("path,label,split", file=file)
        for number in range(90):
            part = "train" if number < 48 else "val" if number < 69 else "test"
            voxels = generator.random((8, 8, 8)) + np.linspace(0, number % 2, 8)
            nibabel.Nifti1Image(voxels.astype(np.float32), np.eye(4)).to_filename(f"{number}.nii")
            print(f"{number}.nii,{'ill' if number % 2 else 'well'},{part}", file=file)


@pytest.mark.slow
@pytest.mark.parametrize("modality", SMALL)
def test_every_modality(modality, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tasks"])
    if modality == "volume":  # phantoms are mirrored at random
        scans()
    # In double precision, as AdamW makes steps of the rounding of gradients that are zero, of a bias before a norm.
    common = [*FLAGS, *SMALL[modality], "--trainer.max_epochs=2", "--trainer.precision=64-true"]
    main(["fit", *common, "--data.batch_size=16", "--run.name=one"])
    in_two_processes(["fit", *common, "--data.batch_size=8", "--run.name=two"])
    one, two = tmp_path / "runs/one/version_0", tmp_path / "runs/two/version_0"
    for name, value in stored(one).items():
        torch.testing.assert_close(stored(two)[name], value, rtol=1e-3, atol=1e-5)
    wanted, found = table(one / "predictions.csv"), table(two / "predictions.csv")
    assert len(wanted) == 21
    assert [row["id"] for row in found] == [row["id"] for row in wanted]
    for theirs, ours in zip(wanted, found, strict=True):
        for name in theirs:
            if name.startswith("p("):
                assert float(ours[name]) == pytest.approx(float(theirs[name]), abs=1e-4)
    for theirs, ours in zip(table(one / "metrics.csv"), table(two / "metrics.csv"), strict=True):
        for name in theirs:
            assert float(ours[name] or 0) == pytest.approx(float(theirs[name] or 0), abs=1e-3), name
