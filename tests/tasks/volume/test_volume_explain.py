"""One NIfTI file: prepared like the training's, its map over it, value by value."""

import nibabel
import numpy as np
import pytest
import torch
from matplotlib.image import imread

from tasks.data.problems import BadInput
from tasks.outputs.gallery import Gallery
from tasks.volume import CSVData, LesionData, VolumeTask, draw_slices


@pytest.fixture
def study(save_nifti, save_table):
    """Six left-handed, anisotropic files of two classes."""
    rows = []
    for i in range(6):
        affine = np.diag([-1.5, 1.0, 2.0, 1.0])
        affine[:3, 3] = (10, -4, i)
        data = np.random.default_rng(i).normal(50, 10, (9 + i, 10, 8)).astype(np.float32)
        save_nifti(f"{i}.nii.gz", data, affine)
        rows.append({"path": f"{i}.nii.gz", "label": "ab"[i % 2], "split": ["train", "val", "test"][i // 2]})
    return save_table("study.csv", rows)


def test_a_file_alone_is_prepared_like_the_data(study):
    data = CSVData(str(study), size=(12, 8, 16), spacing=(1, 1, 1), pad="edge", intensity="zscore", fit="crop")
    task = VolumeTask(data.spec, width=4, levels=1).eval()
    sample = data.datasets["test"][1]
    batch = task.read(str(study.parent / "5.nii.gz"))
    torch.testing.assert_close(batch["image"][0], sample["image"])
    torch.testing.assert_close(batch["affine"][0], sample["affine"])
    assert batch["id"] == ["5.nii.gz"]


def test_the_map_lies_over_the_file(study, tmp_path):
    data = CSVData(str(study), size=(12, 8, 8))
    torch.manual_seed(0)
    task = VolumeTask(data.spec, width=4, levels=1).eval()
    source = study.parent / "5.nii.gz"
    batch = task.read(str(source))
    (entry,) = Gallery(tmp_path / "maps").add(task, batch, limit=1)
    assert [path.name for path in entry.files] == ["5_map.nii.gz"]
    written, file = nibabel.load(entry.files[0]), nibabel.load(source)
    assert written.shape == file.shape
    np.testing.assert_array_equal(written.affine, file.affine)
    fine = task.choose(task.explain(batch)[1], torch.tensor([0]), batch)[0] / 8
    for voxel in ((2, 3, 4), (11, 9, 1), (0, 5, 5)):
        place = np.linalg.solve(batch["affine"][0].numpy(), file.affine @ [*voxel, 1])[:3].round().astype(int)
        inside = all(0 <= p < n for p, n in zip(place, fine.shape, strict=True))
        expected = float(fine[tuple(place)]) if inside else 0.0
        assert written.get_fdata()[voxel] == pytest.approx(expected, rel=1e-4, abs=1e-7)


def test_a_written_image_explains_like_the_sample_it_came_from(tmp_path):
    data = LesionData(train=2, val=2, test=2, size=8, batch_size=1)
    torch.manual_seed(0)
    task = VolumeTask(data.spec, width=4, levels=1).eval()
    gallery = Gallery(tmp_path / "maps")
    (first,) = gallery.add(task, next(iter(data.test_dataloader())), limit=1)
    (image,) = (path for path in first.files if path.name.endswith("_image.nii.gz"))
    (second,) = gallery.add(task, task.read(str(image)), limit=1)
    assert second.decision.value == pytest.approx(first.decision.value, rel=1e-4)
    assert (first.decision.target, second.decision.target) == ("lesion", "")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none.nii", "none.nii: file does not exist; correct the path or leave it out"),
        ("study.csv", "study.csv: cannot be read as an image"),
        ("flat.nii.gz", "flat.nii.gz: every voxel is 1; a constant volume"),
        ("cut.nii.gz", "cut.nii.gz: .*truncated or damaged"),
    ],
)
def test_what_cannot_be_read_is_said(study, save_nifti, name, message):
    task = VolumeTask(CSVData(str(study), size=(8, 8, 8)).spec, width=4, levels=1)
    save_nifti("flat.nii.gz", np.ones((8, 8, 8), np.float32))
    whole = (study.parent / "5.nii.gz").read_bytes()
    (study.parent / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(BadInput, match=message):
        task.read(str(study.parent / name))


def test_a_model_that_was_trained_otherwise_says_so(study):
    spec = {"kind": "binary", "classes": ["a", "b"], "channels": 1, "class_counts": [1, 1]}
    with pytest.raises(BadInput, match=r"0.nii.gz: the checkpoint does not say how its volumes were prepared; train"):
        VolumeTask(spec, width=4).read(str(study.parent / "0.nii.gz"))


def test_slices_are_drawn_as_they_lie_in_the_head(tmp_path):
    """From one voxel to another, 5 farther right, 3 anterior and 1 superior: so far right and up in each plane."""
    places = []
    for voxel in ((1, 2, 3), (6, 5, 4)):
        values = torch.zeros(8, 8, 8)
        values[voxel] = 1.0
        path = draw_slices(
            {"image": torch.zeros(8, 8, 8)}, values, tmp_path / "a.png", title="t", unit="u", affine=torch.eye(4)
        )
        picture = imread(path)[..., :3]
        red = picture[..., 0] > picture[..., 2] + 0.2
        width = int(0.29 * red.shape[1])  # of a panel: the colour bar has the rest
        places.append([np.argwhere(red[:, i * width : (i + 1) * width]).mean(0) for i in range(3)])
    moved = np.array(places[1]) - places[0]  # (sagittal, coronal, axial) x (rows down, columns right), in pixels
    voxel = moved[1, 1] / 5
    assert voxel > 20
    np.testing.assert_allclose(moved / voxel, [[-1, 3], [-1, 5], [-3, 5]], atol=0.1)
