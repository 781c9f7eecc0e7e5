"""Cubes of scans: every one from where the table says, and no voxel in two parts."""

import numpy as np
import pytest
import torch
from monai.transforms import Compose

from tasks.data.problems import BadInput
from tasks.volume.patches import PatchData
from tasks.volume.transforms import preprocessing

AFFINE = np.array([[-1.0, 0, 0, 9], [0, 0, 2, -4], [0, 1.5, 0, 3], [0, 0, 0, 1]])  # left, superior, anterior


@pytest.fixture
def study(save_nifti, save_table, tmp_path):
    """Three patients; every voxel of a scan has a value of its own, so that a cube tells where it was cut."""
    rows = []
    for number in range(3):
        scan = 1 + np.random.default_rng(number).permutation(20 * 10 * 9).reshape(20, 10, 9).astype(np.float32)
        scan[scan > 1790] *= 10  # far above the rest: clipped
        scan[:, :, 8] = 0  # background
        save_nifti(f"p{number}/FLAIR.nii.gz", scan, AFFINE)
        save_nifti(f"masks/p{number}.nii.gz", (scan > 900).astype(np.uint8), AFFINE)
        for i in range(0, 17, 2):
            for j in (0, 3, 6):
                rows.append({"patient": f"p{number}", "i": i, "j": j, "k": 4, "size": 4, "label": (i // 2 + j) % 2})

    def make(change=None, **options):
        if change:
            change(rows)
        given = {"images": "{patient}/FLAIR.nii.gz", "mask": "masks/{patient}.nii.gz", "batch_size": 4}
        return PatchData(str(save_table("cubes.csv", rows)), **given | options)

    make.folder = tmp_path
    return make


def original(study, patient):
    import nibabel

    return nibabel.load(study.folder / patient / "FLAIR.nii.gz").get_fdata()


def test_cubes_are_cut_where_the_table_says(study):
    """Each voxel of a cube, taken to millimetres and back to the file, has the file's value, normalised."""
    data = study()
    data.setup()
    assert data.folds == [0, 1, 2]
    for sample in list(data.datasets["test"])[::5] + list(data.datasets["train"])[::5]:
        patient, *corner = sample["id"].split("-")
        scan = original(study, patient)
        inside = scan[scan != 0]
        middle = np.median(inside)
        normal = np.clip((scan - middle) / (1.4826 * np.median(np.abs(inside - middle))), -3, 6)
        assert sample["image"].shape == sample["mask"].shape == (1, 4, 4, 4)
        assert sample["mask"].dtype == torch.bool
        voxels = set()
        for at in np.ndindex(4, 4, 4):
            voxel = np.round(np.linalg.inv(AFFINE) @ sample["affine"].numpy() @ [*at, 1])[:3].astype(int)
            assert float(sample["image"][0][at]) == pytest.approx(normal[tuple(voxel)], abs=1e-5)
            assert bool(sample["mask"][0][at]) == (scan[tuple(voxel)] > 900)
            voxels.add(tuple(voxel - [int(first) for first in corner]))
        assert voxels == set(np.ndindex(4, 4, 4))


@pytest.mark.parametrize("slab", [0, 1])
def test_one_patient_tests_and_no_voxel_is_in_two_parts(study, slab):
    for fold in range(3):
        data = study(fold=fold, slab=slab)
        data.setup()
        assert {sample["id"][:2] for sample in data.datasets["test"]} == {f"p{fold}"}
        assert len(data.datasets["test"]) == 27
        voxels = {"train": set(), "val": set()}
        for part, found in voxels.items():
            for sample in data.datasets[part]:
                patient, *corner = sample["id"].split("-")
                assert patient != f"p{fold}"
                found |= {(patient, *np.add([int(c) for c in corner], at).tolist()) for at in np.ndindex(4, 4, 4)}
        assert voxels["train"]
        assert voxels["val"]
        assert not voxels["train"] & voxels["val"]


def test_the_batch_is_what_the_task_expects(study):
    data = study(mask=None)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 1, 4, 4, 4)
    assert batch["target"].dtype == torch.int64
    assert "mask" not in batch
    assert data.spec["kind"] == "binary"


def test_a_whole_scan_is_prepared_as_its_cubes_were(study):
    """What was learnt on cubes can be asked of the scan: `explain`."""
    data = study()
    path = study.folder / "p0" / "FLAIR.nii.gz"
    whole = Compose(preprocessing(**data.spec["preprocessing"]))({"image": str(path)})
    assert whole["image"].shape == (1, 20, 9, 10)
    cube = data.datasets["test"][0]
    for at in ((0, 0, 0), (3, 1, 2)):
        there = np.linalg.inv(whole["affine"].numpy()) @ cube["affine"].numpy() @ [*at, 1]
        voxel = tuple(np.round(there[:3]).astype(int))
        assert float(whole["image"][0][voxel]) == pytest.approx(float(cube["image"][0][at]), abs=1e-5)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("i", 17, r"row 1 \(p0\): expected a cube inside \(20, 10, 9\), got 4 voxels from \(17, 0, 4\); correct"),
        ("j", "x", r"row 1 \(p0\): expected whole numbers from 0 as corner and size, got \['0', 'x', '4', '4'\]"),
        ("k", "", r"row 1 \(p0\): column k is empty; fill it in or delete the row"),
        ("size", 5, r"column size: expected one size, got \['4', '5'\]; use a table a size"),
        ("patient", "p8", r"row 1 \(p8\): file does not exist"),
    ],
)
def test_bad_rows_are_named(study, column, value, message):
    with pytest.raises(BadInput, match=message):
        study(lambda rows: rows[0].update({column: value})).setup()


def test_bad_sets_are_named(study, save_nifti):
    with pytest.raises(BadInput, match="expected two or more subjects to leave one out, got \\['p0'\\]; add some"):
        study(lambda rows: [row.update(patient="p0") for row in rows]).setup()
    save_nifti("masks/p0.nii.gz", np.ones((5, 5, 5), np.uint8), AFFINE)
    with pytest.raises(BadInput, match=r"expected a mask of shape \(20, 10, 9\), got \(5, 5, 5\); resample it to the"):
        study().setup()


def test_what_cannot_be_split_is_said(study):
    with pytest.raises(ValueError, match="expected a fold between 0 and 2, got 3; choose another fold"):
        study(fold=3).setup()
    with pytest.raises(BadInput, match=r"no cube is left to train; change --data\.val or --data\.slab"):
        study(slab=2).setup()


@pytest.mark.slow
def test_real_cubes_have_the_lesions_that_the_table_counts(shared_data):
    table = shared_data / "volume" / "MS_LESION" / "patches24.csv"
    data = PatchData(
        str(table), images="{patient}/FLAIR.nii.gz", mask="lesion_masks_mni/{patient}_lesion.nii.gz", fold=0
    )
    data.setup()
    counts = {tuple(map(int, row.split(",")[1:4])): int(row.split(",")[6]) for row in table.read_text().split()[1:]
              if row.startswith("patient07")}  # fmt: skip
    assert len(data.datasets["test"]) == len(counts) == 348
    for sample in data.datasets["test"]:
        corner = tuple(map(int, sample["id"].split("-")[1:]))
        assert int(sample["mask"].sum()) == counts[corner]
