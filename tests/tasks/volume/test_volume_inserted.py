"""Real lesions in healthy heads: what is cut out, where it is put, and that nobody is in two parts."""

import numpy as np
import pytest
import torch

from tasks.data.problems import BadInput
from tasks.volume.inserted import InsertedLesionData
from tasks.volume.lesions import Shape, insert, lesion_shapes
from tasks.volume.tissue import AroundTissue, white_matter
from tasks.volume.transforms import Augment

ZOOMS = (2.0, 2.0, 2.0)


def ball(radius, size):
    away = np.indices((size,) * 3) - (size - 1) / 2
    return (away**2).sum(0) <= radius**2


def test_shapes_are_cut_out_in_mm_and_turned(save_nifti):
    """Two lesions: an L of 5 voxels that touches itself by corners alone, and one voxel; stored left-right turned."""
    mask = np.zeros((8, 6, 5), np.uint8)
    for voxel in ((1, 1, 1), (2, 2, 2), (3, 3, 3), (3, 4, 3), (3, 5, 3)):
        mask[voxel] = 7
    mask[7, 0, 0] = 1
    path = save_nifti("mask.nii.gz", mask, np.array([[-2.0, 0, 0, 14], [0, 1, 0, 0], [0, 0, 1.5, 0], [0, 0, 0, 1]]))
    shapes = lesion_shapes(path)
    assert sorted(shape.mm3 for shape in shapes) == [3.0, 15.0]
    (large,) = lesion_shapes(path, smallest=4)
    assert large.zooms == (2.0, 1.0, 1.5)
    np.testing.assert_array_equal(large.volume, mask[1:4, 1:6, 1:4][::-1] > 0)
    assert not lesion_shapes(path, smallest=4, largest=14)


def test_a_lesion_is_inside_soft_and_as_dark_as_asked():
    image = np.random.default_rng(0).uniform(0.5, 1.0, (30, 30, 30)).astype(np.float32)
    tissue = ball(11, 30)
    shape = Shape(ball(4.5, 11), (1.0, 1.0, 1.0))
    volumes = []
    for seed in range(12):
        generator = np.random.default_rng(seed)
        changed, mask = insert(
            image, shape, tissue, zooms=ZOOMS, contrast=-0.4, edge=1.0, generator=generator, tries=100
        )
        drop = (changed / image - 1) / -0.4
        assert drop.max() == pytest.approx(1, abs=1e-5)  # somewhere all of it
        assert drop.min() > -1e-5
        np.testing.assert_array_equal(mask, drop >= 0.5 - 1e-6)
        assert ((drop > 0.05) & (drop < 0.45)).sum() > mask.sum() / 4  # a soft edge
        assert (mask & tissue).sum() >= 0.9 * mask.sum()
        volumes.append(mask.sum() * 8)
    assert np.mean(volumes) == pytest.approx(shape.mm3, rel=0.25)


def test_a_lesion_at_the_rim_of_the_image():
    tissue = np.zeros((9, 9, 9), dtype=bool)
    tissue[0, 0, 0] = True
    shape = Shape(ball(3, 7), (1.0, 1.0, 1.0))
    generator = np.random.default_rng(0)
    changed, mask = insert(
        np.ones((9, 9, 9)), shape, tissue, zooms=(1, 1, 1), contrast=0.5, edge=0.5, generator=generator
    )
    assert mask[:2, 0, 0].all()
    assert not mask[5:].any()
    assert changed[0, 0, 0] == pytest.approx(1.5, abs=0.05)


def test_white_matter_is_the_bright_core_not_the_scalp():
    """Fluid and grey matter around a white core, dark skull, a scalp as bright as white matter; 4 mm."""
    generator = np.random.default_rng(0)
    away = np.linalg.norm(np.indices((50, 50, 50)) - np.array([25, 25, 27]).reshape(3, 1, 1, 1), axis=0)
    image = np.zeros(away.shape)
    for radius, value in ((21, 0.9), (19, 0.05), (17, 0.3), (16, 0.6), (9, 0.9)):
        image[away < radius] = value
    image[away < 2] = 0.3  # a ventricle
    image = (image + 0.02 * generator.normal(size=image.shape)).clip(0)
    found = white_matter(image, (4.0, 4.0, 4.0))
    truth = (away < 9) & (away >= 2)
    assert (found & ~truth).sum() == 0
    assert found.sum() > 0.5 * truth.sum()
    assert not white_matter(np.zeros((5, 5, 5)), (4.0, 4.0, 4.0)).any()
    assert not white_matter(np.ones((5, 5, 5)), (4.0, 4.0, 4.0)).any()


@pytest.fixture
def study(save_nifti, save_table, tmp_path):
    """Six heads with white-matter masks, six patients with a lesion each; a bright spot marks a place of every head."""
    rows = []
    affine = np.array([[-2.0, 0, 0, 40], [0, 2, 0, -30], [0, 0, 2, -20], [0, 0, 0, 1]])
    for i in range(6):
        image = np.random.default_rng(i).uniform(0.4, 0.5, (22, 26, 24)).astype(np.float32)
        image[5 + i, 12, 9] = 9
        save_nifti(f"head{i}.nii.gz", image, affine)
        tissue = np.zeros(image.shape, np.uint8)
        tissue[4:18, 6:20, 4:20] = 1
        save_nifti(f"white{i}.nii.gz", tissue, affine)
        save_nifti(f"masks/p{i}.nii.gz", np.pad(ball(2 + i / 4, 7), 5).astype(np.uint8))
        rows.append({"path": f"head{i}.nii.gz", "white": f"white{i}.nii.gz"})
    table = save_table("heads.csv", rows)

    def make(**options):
        given = {"masks": str(tmp_path / "masks"), "tissue": "white", "size": (16, 20, 18), "folds": 3, "val": 0.4}
        given |= {"train": 8, "validate": 4, "test": 6, "volume": (10, 1e4), "lesions": (1, 2), "batch_size": 2}
        return InsertedLesionData(str(table), **given | options)

    return make


def test_no_head_and_no_mask_is_in_two_parts(study):
    seen = []
    for fold in (0, 1, 2):
        data = study(fold=fold)
        assert data.spec["classes"] == ["healthy", "lesion"]
        assert data.spec["class_counts"] == [4, 4]
        heads = {
            part: {sample["id"].split("_")[0] for sample in data.datasets[part]} for part in ("train", "val", "test")
        }
        for parts in (heads, {part: set(members) for part, members in data.patients.items()}):
            assert all(parts.values())
            assert sum(map(len, parts.values())) == len(set.union(*parts.values())) == 6
        seen += [heads["test"], set(data.patients["test"])]
    assert set.union(*seen) == {f"head{i}" for i in range(6)} | {f"p{i}.nii.gz" for i in range(6)}


def test_every_second_sample_has_lesions_and_the_truth_knows_where(study):
    data = study(augment=None, intensity="none")
    data.setup()
    assert data.folds == [0, 1, 2]
    for part in ("train", "val", "test"):
        for number, sample in enumerate(data.datasets[part]):
            assert sample["target"] == 1 - number % 2
            assert bool(sample["mask"].any()) == bool(sample["target"])
            assert sample["image"].shape == sample["mask"].shape == (1, 16, 20, 18)
    ill, well = data.datasets["test"][0], data.datasets["test"][1]  # the same head
    change = ill["image"] / well["image"] - 1
    assert float(change[ill["mask"]].max()) < -0.14
    assert float(change[~ill["mask"]].min()) > -0.26
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (2, 1, 16, 20, 18)
    assert batch["affine"].shape == (2, 4, 4)


def test_evaluation_is_fixed_and_training_is_new_each_time(study):
    one, two, other = study(), study(), study(seed=5)
    for data in (one, two, other):
        data.setup()
    assert torch.equal(one.datasets["test"][2]["image"], two.datasets["test"][2]["image"])
    assert not torch.equal(one.datasets["test"][2]["image"], one.datasets["val"][2]["image"])
    assert not torch.equal(one.datasets["test"][2]["image"], other.datasets["test"][2]["image"])
    torch.manual_seed(0)
    first, second = one.datasets["train"][0]["image"], one.datasets["train"][0]["image"]
    torch.manual_seed(0)
    assert torch.equal(two.datasets["train"][0]["image"], first)
    assert not torch.equal(first, second)
    kept = study(fresh=False)
    kept.setup()
    assert torch.equal(kept.datasets["train"][0]["image"], kept.datasets["train"][0]["image"])
    assert not torch.equal(kept.datasets["train"][0]["image"], kept.datasets["train"][2]["image"])
    with pytest.raises(IndexError):
        one.datasets["test"][6]


def test_the_affine_follows_the_look(study):
    """The bright spot of each head is found at its millimetres however the head was moved and mirrored."""
    data = study(
        augment=Augment(probability=0.8, flip=(0,), rotate=10, shift=2, bias_field=0, contrast=0, noise=0),
        test=20,
        intensity="none",
    )
    data.setup()
    mirrored = 0
    for sample in data.datasets["test"]:
        bright = sample["image"][0].double().clamp(min=0.8) - 0.8
        spot = torch.stack(
            [(bright * axis).sum() for axis in torch.meshgrid(*map(torch.arange, bright.shape), indexing="ij")]
        )
        mm = sample["affine"].numpy() @ [*(spot / bright.sum()).tolist(), 1]
        expected = [40 - 2 * (5 + int(sample["id"][4])), -30 + 24, -20 + 18]
        np.testing.assert_allclose(mm[:3], expected, atol=1.3)
        mirrored += float(sample["affine"][0, 0]) < 0
    assert 0 < mirrored < 20


def test_what_is_wrong_is_said(study, save_nifti, tmp_path):
    with pytest.raises(BadInput, match=r"folder of lesion masks nowhere does not exist; give --data\.masks DIR"):
        study(masks="nowhere").setup()
    with pytest.raises(BadInput, match=r"masks of masks: 0 have a lesion of 5000 to 6000 mm³: .*, or add masks"):
        study(volume=(5000, 6000)).setup()
    with pytest.raises(ValueError, match=r"contrast: expected the smaller number first, got \[-0.2, -0.4\]; turn them"):
        study(contrast=(-0.2, -0.4))
    with pytest.raises(ValueError, match=r"lesions: expected at least 1, got 0; healthy samples come by themselves"):
        study(lesions=(0, 2))
    head = {"image": torch.zeros(1, 8, 8, 8), "affine": torch.eye(4).double(), "id": "a.nii.gz"}
    with pytest.raises(
        BadInput, match=r"a\.nii\.gz: expected a T1-weighted head with a bright core, found none; give a"
    ):
        AroundTissue((4, 4, 4))(dict(head))
    with pytest.raises(
        BadInput, match=r"a\.nii\.gz: its tissue mask is empty; give a white-matter mask with --data\.t"
    ):
        AroundTissue((4, 4, 4))({**head, "mask": torch.zeros(1, 8, 8, 8, dtype=torch.bool)})
    save_nifti("masks/p9.nii.gz", np.zeros((3, 3, 3), np.uint8))
    with pytest.raises(BadInput, match=r"mask p9\.nii\.gz: every voxel is 0"):
        study().setup()


@pytest.mark.slow
def test_lesions_in_real_heads(shared_data):
    """Inside the brain of every IXI head, whose white matter is bright, and darker than what is around them."""
    volumes = shared_data / "volume"
    data = InsertedLesionData(
        str(volumes / "IXI10" / "manifest.csv"),
        masks=str(volumes / "MS_LESION" / "lesion_masks_mni"),
        subject="id",
        size=(48, 60, 48),
        spacing=(3, 3, 3),
        val=0.25,
        test=20,
        augment=None,
    )
    data.setup()
    for fold_head in (data.datasets["test"].heads, data.datasets["train"].heads):
        for head in fold_head:
            litres = float(head["tissue"].sum()) * 27e-6
            assert 0.08 < litres < 0.3
            assert head["image"][head["tissue"]].mean() > 0.8
    for number in range(0, 20, 2):
        ill, well = data.datasets["test"][number], data.datasets["test"][number + 1]
        assert ill["image"][ill["mask"]].mean() < 0.8 * well["image"][ill["mask"]].mean()
        assert 0.3 < 27e-3 * float(ill["mask"].sum()) < 80  # ml
