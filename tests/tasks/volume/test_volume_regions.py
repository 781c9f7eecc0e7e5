"""Sums of maps over an atlas's regions, and group maps: by hand, and with the sums that make the logit."""

import csv
from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import torch
from scipy import stats
from toy import ToyTask
from undrawn import undrawn  # noqa: F401

from tasks.__main__ import main
from tasks.data.problems import BadInput
from tasks.volume.regions import Regions, region_names


def decision(name, target="ill", sure=0.9):
    return SimpleNamespace(
        id=name, target=target, prediction="ill", about="ill", bias=0.5, missing=0.0, sure=sure, value=1.0
    )


@pytest.fixture
def atlas(tmp_path, save_nifti):
    """Left and right halves of a box of 8 x 6 x 6 voxels, and a border that belongs to none."""
    labels = np.zeros((8, 6, 6), np.uint8)
    labels[1:4, 1:5, 1:5], labels[4:7, 1:5, 1:5] = 3, 17
    (tmp_path / "atlas.tsv").write_text("index\tname\n3\tleft\n17\tright\n")
    return save_nifti("atlas.nii.gz", labels)


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_sums_by_hand_on_the_atlass_own_grid(atlas, tmp_path):
    values = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    regions = Regions(str(atlas))
    batch = {"affine": torch.eye(4)[None].repeat(2, 1, 1)}
    for number, name in enumerate("ab"):
        regions.add(batch, number, values[number], decision(name))
    table, mean, t = regions.write(tmp_path / "out")
    for row, one in zip(read(table), values, strict=True):
        left, right = float(one[1:4, 1:5, 1:5].sum()), float(one[4:7, 1:5, 1:5].sum())
        assert [float(row[name]) for name in ("left", "right")] == pytest.approx([left, right], abs=1e-4)
        assert float(row["no region"]) == pytest.approx(float(one.sum()) - left - right, abs=1e-4)
        assert (float(row["sum"]), float(row["beyond the atlas"])) == pytest.approx((float(one.sum()), 0), abs=1e-4)
    np.testing.assert_allclose(nibabel.load(mean).get_fdata(), values.mean(0), atol=1e-6)
    expected = stats.ttest_1samp(values.double().numpy(), 0).statistic
    np.testing.assert_allclose(nibabel.load(t).get_fdata(), expected, rtol=1e-4, atol=1e-5)
    assert (mean.name, t.name) == ("ill_mean.nii.gz", "ill_t.nii.gz")
    assert nibabel.load(t).header["descrip"].item().decode() == "t over 2 maps, ill"


def test_a_coarser_map_elsewhere_adds_up(atlas, tmp_path, capsys):
    """What lies more than a voxel of it beyond the atlas is said to; what lies in it is shared by the regions."""
    place = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0]))
    place[:3, 3] = 0.5
    values = torch.ones(8, 3, 3)  # 16 mm wide, the atlas 8
    regions = Regions(str(atlas))
    regions.add({"affine": place[None]}, 0, values, decision("wide", sure=float("nan")))
    values = torch.zeros(8, 3, 3)
    values[7] = 1
    regions.add({"affine": place[None]}, 0, values, decision("away", sure=float("nan")))
    table, *groups = regions.write(tmp_path / "out")
    wide, away = read(table)
    assert float(wide["beyond the atlas"]) == pytest.approx(27)
    parts = [float(wide[name]) for name in ("left", "right", "no region", "beyond the atlas")]
    assert sum(parts) == pytest.approx(float(wide["sum"])) == pytest.approx(72)
    assert parts[0] == pytest.approx(parts[1])
    assert float(away["beyond the atlas"]) == pytest.approx(9)
    assert [path.name for path in groups] == ["all_mean.nii.gz", "all_t.nii.gz"]
    assert "atlas.nii.gz: more than half of the map lies beyond the atlas for away" in capsys.readouterr().out


def test_names_from_beside(tmp_path):
    path = tmp_path / "a.nii.gz"
    assert region_names(path) == {}
    (tmp_path / "a.txt").write_text('# a comment\n  0 Unknown 0 0 0 0\n 17  Left-Hippocampus  220 216 20 0\n\n'
                                    ' 5  255 0 0  1 1 1  "white matter"\n 6 b 1 1 1 1\n 7 b 1 1 1 1\n')  # fmt: skip
    assert region_names(path) == {0: "Unknown", 17: "Left-Hippocampus", 5: "white matter", 6: "b (6)", 7: "b (7)"}
    (tmp_path / "a.csv").write_text("index,name\n1,one\n")
    assert region_names(path) == {1: "one"}


def test_what_is_no_atlas(save_nifti, tmp_path):
    with pytest.raises(BadInput, match=r"atlas .*a.nii.gz: expected whole numbers from 0, got -?\d"):
        Regions(str(save_nifti("a.nii.gz")))
    with pytest.raises(BadInput, match=r"atlas gone.nii: file does not exist"):
        Regions("gone.nii")
    with pytest.raises(BadInput, match=r"atlas: ToyTask's samples share no space; leave --outputs.atlas out"):
        ToyTask({"kind": "binary", "classes": ["a", "b"], "class_counts": [1, 1], "channels": 4}).survey("a.nii.gz")


def test_from_the_command_line(tmp_path, save_nifti, save_table):
    """Every test sample is in the table, and its sums, bias and gap make the logit of its prediction."""
    rows = []
    for i in range(12):
        save_nifti(f"{i}.nii.gz", np.random.default_rng(i).normal(50, 10, (9, 9, 9)).astype(np.float32))
        part = "train" if i < 4 else "val" if i < 6 else "test"
        rows.append({"path": f"{i}.nii.gz", "label": "abc"[i % 3], "split": part})
    labels = np.zeros((9, 9, 9), np.uint8)
    labels[2:7, 2:7, 2:7] = 1
    atlas = save_nifti("labels.nii.gz", labels)
    common = ["--run.root", str(tmp_path / "runs"), "--run.name", "a", "--trainer.accelerator", "cpu"]
    arguments = ["--model", "tasks.volume.VolumeTask", "--model.width", "4", "--model.levels", "1",
                 "--data", "tasks.volume.CSVData", "--data.root", str(save_table("a.csv", rows)), "--data.size", "null",
                 "--trainer.max_epochs", "1", "--outputs.maps", "0", "--outputs.bootstrap", "0", *common]  # fmt: skip
    with pytest.raises(SystemExit, match=r"atlas gone.nii: file does not exist"):
        main(["fit", *arguments, "--outputs.atlas", "gone.nii"])
    main(["fit", *arguments, "--outputs.atlas", str(atlas)])
    (folder,) = (tmp_path / "runs" / "a").glob("*/regions")
    table = read(folder / "regions.csv")
    assert [row["id"] for row in table] == [f"{i}.nii.gz" for i in range(6, 12)]
    assert all(row["about"] == row["target"] for row in table)
    assert {path.name for path in folder.glob("*.nii.gz")} == {f"{c}_{k}.nii.gz" for c in "abc" for k in ("mean", "t")}
    for row in table:
        parts = float(row["region 1"]) + float(row["no region"]) + float(row["beyond the atlas"])
        assert parts == pytest.approx(float(row["sum"]), abs=1e-4)
