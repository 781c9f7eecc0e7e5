"""The walk of docs/volume.md, by its own commands, on a generated study: a bright spot in the FLAIR of patients."""

import csv
import re
import shlex

import nibabel
import numpy as np
import pytest
from toy import ROOT
from undrawn import unchosen, undrawn  # noqa: F401

from tasks.__main__ import main

QUICK = [
    "--data.size=[24,24,24]", "--data.spacing=[4,4,4]", "--data.batch_size=4", "--data.cache=memory",
    "--data.augment=null", "--data.intensity=foreground",
    "--model.encoder=plain", "--model.width=6", "--model.levels=1", "--model.reduction=max", "--model.lr=0.01",
    "--trainer.max_epochs=8", "--outputs.maps=2", "--outputs.mistakes=0", "--outputs.bootstrap=5", "--outputs.every=0",
    "--trainer.enable_model_summary=false", "--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false",
]  # fmt: skip
AFFINE = np.diag([3.5, 3.5, 4.5, 1.0])


def page():
    return (ROOT / "docs" / "volume.md").read_text(encoding="utf-8").partition("## A walk: ")[2]


def commands():
    """The words of each command of the walk, with the config where it is."""
    block = re.search(r"```\n(python.*?)```", page(), flags=re.DOTALL)[1]
    lines = [line.partition(" # ")[0] for line in block.splitlines()]
    return [[word.replace("configs/", f"{ROOT}/configs/") for word in shlex.split(line)[3:]] for line in lines]


def write(path, data, affine=AFFINE):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data.astype(np.float32), affine), path)


@pytest.fixture
def work(tmp_path, monkeypatch):
    """Sixteen people of two hospitals, whose scanners differ in brightness; an atlas with the place of the spots."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tasks"])
    (tmp_path / "study.yaml").write_text(re.search(r"```yaml\n(.*?)```", page(), flags=re.DOTALL)[1])
    generator, rows = np.random.default_rng(0), ["participant_id\tgroup\tsite\tage\tsex"]
    grid = np.stack(np.meshgrid(*[np.arange(22)] * 3, indexing="ij"), -1)
    brain = np.linalg.norm(grid - 10.5, axis=-1) < 9
    for i in range(16):
        name, ill, site = f"sub-{i + 1:02d}", i % 2, i // 8
        group, hospital = ("control", "patient")[ill], ("north", "south")[site]
        rows.append(f"{name}\t{group}\t{hospital}\t{30 + 2 * i}\t{'FM'[i % 3 // 2]}")
        tissue = (1 + 2 * site) * brain * (100 + 8 * generator.standard_normal(brain.shape))
        place = np.array([6, 10, 12]) + generator.integers(-1, 2, 3)
        spot = (np.abs(grid - place).max(-1) < 3) * (1 + 2 * site) * 130 * ill
        anat, derived = (tmp_path / "study" / folder / name / "anat" for folder in ("", "derivatives/fmriprep"))
        write(anat / f"{name}_T1w.nii.gz", tissue)
        write(anat / f"{name}_FLAIR.nii.gz", tissue + spot)
        write(derived / f"{name}_desc-brain_mask.nii.gz", brain)
    (tmp_path / "study" / "participants.tsv").write_text("\n".join(rows))
    labels = np.zeros(brain.shape)
    labels[brain] = 1
    labels[3:10, 7:14, 9:16] = 2
    nibabel.save(nibabel.Nifti1Image(labels.astype(np.uint8), AFFINE), tmp_path / "atlas.nii.gz")
    (tmp_path / "atlas.tsv").write_text("index\tname\n1\trest of the brain\n2\tplace of the spots\n")
    return tmp_path


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_patients_and_controls_of_two_hospitals(work, capsys, caplog):
    floors, crossval, fit, test, explain, age = commands()
    runs = work / "runs" / "volume" / "bids"

    main([*floors, *QUICK])
    assert "brightness" in capsys.readouterr().out
    main([*crossval, *QUICK, "--trainer.max_epochs=1"])
    said = capsys.readouterr().out
    assert {"north", "south"} <= set(said.split())
    assert "this network" in said

    main([*fit, *QUICK])
    capsys.readouterr()
    main([*test, *QUICK])
    (regions,) = runs.rglob("regions.csv")
    rows = table(regions)
    ill = [row for row in rows if row["target"] == "patient"]
    assert ill
    spots = [float(row["place of the spots"]) / abs(float(row["sum"])) for row in ill]

    assert np.mean(spots) > 0.5  # by chance 10 % of the brain's voxels
    folder = regions.parent.parent
    for row in rows:  # the NIfTI of those that were drawn sum to what stands in the table
        path = folder / "maps" / f"{row['id'].replace('/', '_').removesuffix('.nii.gz')}_map.nii.gz"
        if path.is_file():
            assert nibabel.load(path).get_fdata().sum() == pytest.approx(float(row["sum"]), abs=1e-3)
    assert {path.name for path in regions.parent.glob("*_t.nii.gz")} == {"control_t.nii.gz", "patient_t.nii.gz"}

    capsys.readouterr()
    main(explain)
    said = capsys.readouterr().out
    assert said.startswith("sub-01_T1w.nii.gz\nprediction ")

    with caplog.at_level("INFO"):
        main([*age, *QUICK, "--trainer.max_epochs=1"])
    assert "targets are taken as if sex, site were the training part's mean" in caplog.text
    assert (work / "runs" / "study" / "age" / "version_0" / "predictions.csv").is_file()
