"""Several sequences of a subject are the channels of one image; pooling in a mask counts its voxels alone."""

import json

import nibabel
import numpy as np
import pytest
import torch
from monai.transforms import Compose

from tasks.__main__ import main
from tasks.data.problems import BadInput
from tasks.volume import CSVData, DecathlonData, VolumeTask
from tasks.volume.crops import VolumeCrops
from tasks.volume.load import DropSequences, find_body
from tasks.volume.transforms import Augment, preprocessing

PLAIN = {"size": None, "spacing": None, "fit": "crop", "intensity": "none"}


def ramp(affine, shape):
    """A linear function of the place in mm, which linear resampling does not change."""
    grid = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1)
    return (50 + (grid @ affine[:3, :3].T + affine[:3, 3]) @ (1.0, -2.0, 0.5)).astype(np.float32)


def test_the_second_sequence_comes_to_the_grid_of_the_first(save_nifti):
    """Other voxels, other axes, other place: in every voxel the same function of millimetres."""
    one = np.diag([-1.0, 1.0, 2.0, 1.0])
    other = np.array([[0, 1.5, 0, -14.0], [0, 0, 1.2, -4.0], [0.9, 0, 0, -3.0], [0, 0, 0, 1]])
    first = save_nifti("t1.nii.gz", ramp(one, (9, 10, 8)), one)
    second = save_nifti("flair.nii.gz", 3 * ramp(other, (30, 20, 20)), other)
    sample = Compose(preprocessing(**PLAIN))({"image": [str(first), str(second)]})
    assert sample["image"].shape == (2, 9, 10, 8)
    torch.testing.assert_close(sample["image"][1], 3 * sample["image"][0], atol=1e-2, rtol=1e-4)
    torch.testing.assert_close(sample["affine"][:3, :3].diagonal(), torch.tensor([1.0, 1.0, 2.0]).double())


def test_each_sequence_has_a_scale_of_its_own(save_nifti):
    data = np.random.default_rng(0).normal(100, 20, (8, 8, 8)).astype(np.float32)
    files = [str(save_nifti("a.nii.gz", data)), str(save_nifti("b.nii.gz", 1e4 * data + 7))]
    for intensity in ("percentile", "zscore", "foreground"):
        image = Compose(preprocessing(**{**PLAIN, "intensity": intensity}))({"image": files})["image"]
        torch.testing.assert_close(image[0], image[1], atol=1e-3, rtol=1e-3)
        assert image.abs().max() <= 6


def test_missing_sequences_are_zero_and_the_first_that_is_there_gives_the_grid(save_nifti):
    path = save_nifti("b.nii.gz")
    sample = Compose(preprocessing(**{**PLAIN, "intensity": "zscore"}))({"image": ["", str(path), ""]})
    assert sample["image"].shape == (3, 8, 9, 7)
    assert [bool(channel.any()) for channel in sample["image"]] == [False, True, False]


def test_a_file_of_several_volumes_is_several_channels(save_nifti):
    data = np.random.default_rng(0).normal(size=(8, 9, 7, 3)).astype(np.float32)
    path = save_nifti("stack.nii.gz", data)
    image = Compose(preprocessing(**PLAIN))({"image": [str(path)]})["image"]
    np.testing.assert_array_equal(image.numpy(), data.transpose(3, 0, 1, 2))
    taken = Compose(preprocessing(**PLAIN, take=[2, 0]))({"image": [str(path)]})["image"]
    assert torch.equal(taken, image[[2, 0]])


@pytest.mark.parametrize("probability", [0.3, 1.0])
def test_dropout_of_sequences_leaves_one_that_is_there(probability):
    image = torch.ones(3, 2, 2, 2)
    image[1] = 0
    drop = DropSequences(probability)
    drop.set_random_state(0)
    kept = torch.stack([drop({"image": image})["image"][:, 0, 0, 0] for _ in range(400)])
    assert (kept.sum(1) >= 1).all()
    assert not kept[:, 1].any()
    expected = (1 - probability) + probability**2 / 2  # kept, or both dropped and this one drawn
    assert kept[:, 0].mean() == pytest.approx(expected, abs=0.08)


@pytest.fixture
def study(save_nifti, save_table):
    """Twelve subjects with T1 and FLAIR; the second lacks its FLAIR."""
    generator, rows = np.random.default_rng(0), []
    for i in range(12):
        for name in ("t1", "flair"):
            save_nifti(f"{i}_{name}.nii.gz", generator.normal(100, 20, (12, 12, 12)).astype(np.float32))
        inside = np.zeros((12, 12, 12), np.uint8)
        inside[2:9, 3:10, 2:8] = 1
        save_nifti(f"{i}_brain.nii.gz", inside)
        part = "train" if i < 6 else "val" if i < 9 else "test"
        row = {"T1": f"{i}_t1.nii.gz", "FLAIR": f"{i}_flair.nii.gz", "brain": f"{i}_brain.nii.gz", "split": part}
        rows.append({**row, "label": "ab"[i % 2]} | ({"FLAIR": ""} if i == 1 else {}))
    return str(save_table("study.csv", rows))


def test_what_is_missing_is_named_or_filled(study):
    words = r"row 2 \(1_t1.nii.gz\): no FLAIR; add it, leave the image out, or take zeros in its place with"
    with pytest.raises(BadInput, match=words):
        CSVData(study, images="T1,FLAIR", size=None).setup()
    data = CSVData(study, images="T1,FLAIR", size=None, missing="zero", batch_size=2)
    assert (data.spec["channels"], data.spec["images"]) == (2, ["T1", "FLAIR"])
    still = data.still("train")
    assert [bool(still[1]["image"][channel].any()) for channel in (0, 1)] == [True, False]
    assert all(still[i]["image"].any((1, 2, 3)).all() for i in (0, 2, 3, 4, 5))  # nothing is dropped in a test
    drawn = torch.stack([data.datasets["train"][i]["image"].any() for i in range(6) for _ in range(20)])
    assert drawn.all()
    dropped = [not data.datasets["train"][0]["image"][channel].any() for channel in (0, 1) for _ in range(40)]
    assert 2 < sum(dropped) < 40
    with pytest.raises(ValueError, match="expected one column where each file holds 2 volumes"):
        CSVData(study, images="T1,FLAIR", volumes=2)


def test_two_sequences_from_fit_to_explain(study, tmp_path, capsys):
    """Trained, drawn with a row for each sequence, explained by files with a comma between."""
    common = ["--run.root", str(tmp_path / "runs"), "--run.name", "two", "--trainer.accelerator", "cpu"]
    main(
        ["fit", "--model", "tasks.volume.VolumeTask", "--model.width", "4", "--model.levels", "1",
         "--data", "tasks.volume.CSVData", "--data.root", study, "--data.images", "T1,FLAIR", "--data.missing", "zero",
         "--data.size", "null", "--data.pool_mask", "brain", "--data.augment", "{}", "--trainer.max_epochs", "1",
         "--data.batch_size", "2", "--outputs.maps", "1", "--outputs.mistakes", "0", "--outputs.bootstrap", "0",
         *common]
    )  # fmt: skip
    run = next((tmp_path / "runs" / "two").iterdir())
    (written,) = (run / "maps").glob("*_map.nii.gz")
    inside = nibabel.load(tmp_path / f"{written.name[0]}_brain.nii.gz").get_fdata() > 0
    values = nibabel.load(written).get_fdata()
    assert not values[~inside].any()
    assert values[inside].any()
    files = [str(tmp_path / f"3_{name}.nii.gz") for name in ("t1", "flair", "brain")]
    best = str(run / "checkpoints" / "best.ckpt")
    capsys.readouterr()
    main(["explain", "--ckpt_path", best, "--input", ",".join(files), "--output", str(tmp_path / "out")])
    assert "logit of" in capsys.readouterr().out
    main(["predict", "--ckpt_path", best, "--input", f"{files[0]},,{files[2]}", "--output", str(tmp_path / "out")])
    words = "expected 3 files, T1, FLAIR, the mask brain, with commas between, got 1; name them in this order"
    with pytest.raises(SystemExit, match=words):
        main(["predict", "--ckpt_path", best, "--input", files[0], "--output", str(tmp_path / "out")])


def test_modalities_of_a_decathlon(save_nifti, tmp_path):
    for i in range(6):
        save_nifti(f"{i}.nii.gz", np.random.default_rng(i).normal(size=(8, 8, 8, 3)).astype(np.float32))
    entries = [{"image": f"{i}.nii.gz", "label": i % 2} for i in range(6)]
    content = {"modality": {"0": "FLAIR", "1": "T1w", "2": "T2w"}, "training": entries}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    options = {"size": None, "folds": 3, "intensity": "none"}
    whole, some = DecathlonData(str(tmp_path), **options), DecathlonData(str(tmp_path), images="T2w,FLAIR", **options)
    assert whole.spec["images"] == ["FLAIR", "T1w", "T2w"]
    assert some.spec["channels"] == 2
    one, other = whole.datasets["train"][0], some.datasets["train"][0]
    assert torch.equal(other["image"], one["image"][[2, 0]])
    with pytest.raises(BadInput, match=r"modality: expected some of FLAIR, T1w, T2w, got PD; correct --data.images"):
        DecathlonData(str(tmp_path), images="PD", **options).setup()
    save_nifti("5.nii.gz", np.random.default_rng(5).normal(size=(8, 8, 8, 2)).astype(np.float32))
    with pytest.raises(BadInput, match="expected 3 volumes in one file, got shape 8 x 8 x 8 x 2"):
        DecathlonData(str(tmp_path), **options).setup()


SPEC = {"kind": "binary", "classes": ["well", "ill"], "channels": 1, "class_counts": [3, 3]}


def batch_of(*shapes, seed=0):
    generator = torch.Generator().manual_seed(seed)
    from tasks.volume.batches import collate_volumes

    return collate_volumes(
        [
            {"image": torch.randn(1, *shape, generator=generator), "affine": torch.eye(4), "target": 0, "id": str(i),
             "path": "", "pool_mask": (torch.rand(1, *shape, generator=generator) > 0.6).float()}
            for i, shape in enumerate(shapes)
        ]
    )  # fmt: skip


@pytest.mark.parametrize("shapes", [((8, 8, 8), (8, 8, 8)), ((8, 9, 11), (13, 8, 8))], ids=["same", "mixed"])
def test_a_mean_in_a_mask_by_hand_and_its_map(shapes):
    """A cell weighs what share of its voxels the mask holds; the map adds up to the logit and is 0 outside."""
    torch.manual_seed(0)
    task = VolumeTask(SPEC, width=4, levels=1).eval()
    batch = batch_of(*shapes)
    with torch.no_grad():
        features, _ = task.encode(batch)
        pooled, _ = task.pooled(batch)
        logits, maps = task(batch), task.explain(batch)[1]
        shown = task.to_inputs(maps[:, 0], batch)
    for number, (d, h, w) in enumerate(shapes):
        mask = batch["pool_mask"][number, 0, :d, :h, :w].double()
        cells = task.grid((d, h, w))
        weight = torch.zeros(cells, dtype=torch.float64)
        count = torch.zeros(cells)
        for place in np.ndindex(d, h, w):  # every voxel belongs to the cell that holds it: cells are 2 voxels wide
            cell = tuple(min(i // 2, n - 1) for i, n in zip(place, cells, strict=True))
            weight[cell] += mask[place]
            count[cell] += 1
        weight = weight / count
        own = features[number, :, : cells[0], : cells[1], : cells[2]].double()
        torch.testing.assert_close(pooled[number].double(), (own * weight).sum((1, 2, 3)) / weight.sum())
        assert not shown[number][mask == 0].any()
        total = shown[number].sum() / task.cell + task.head[-1].bias
        torch.testing.assert_close(total, logits[number], atol=1e-5, rtol=1e-5)


def test_tiles_pool_in_the_mask_too():
    torch.manual_seed(0)
    task = VolumeTask(SPEC, width=4, levels=1).eval()
    batch = batch_of((24, 16, 16))
    with torch.no_grad():
        whole = task(batch)
        task.tile = 8.0
        torch.testing.assert_close(task(batch), whole, atol=1e-5, rtol=1e-5)


def test_the_body_of_a_head_in_noise():
    """A bright ball with a dark hole, a small bright spot beside it, and noisy air."""
    generator = torch.Generator().manual_seed(0)
    axis = torch.linspace(-1, 1, 24)
    radius = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij")).norm(dim=0)
    head = radius < 0.7
    image = 0.05 * torch.rand(24, 24, 24, generator=generator) + head * (radius > 0.2)
    image[0, 0, 0] = 5.0
    assert torch.equal(find_body(image[None], "otsu"), head)
    assert torch.equal(find_body((image * head)[None], "foreground"), head)


def test_a_mask_beside_the_image_is_named(study, save_nifti, tmp_path):
    save_nifti("3_brain.nii.gz", np.zeros((12, 12, 12), np.uint8))
    with pytest.raises(BadInput, match=r"pool mask 3_brain.nii.gz: is empty; mark the voxels that count"):
        CSVData(study, images="T1", size=None, pool_mask="brain").setup()
    far = np.eye(4)
    far[:3, 3] = 500
    save_nifti("3_brain.nii.gz", np.ones((12, 12, 12), np.uint8), far)
    with pytest.raises(RuntimeError) as error:  # MONAI's, of which the command line tells the cause
        CSVData(study, images="T1", size=None, pool_mask="brain").setup()
    assert str(error.value.__cause__) == (
        "3_t1.nii.gz: no voxel of the mask to pool in lies in the image; correct the mask or --data.size"
    )


def test_a_mask_moves_with_its_image(save_nifti, save_table):
    """Training changes place and voxels: what was the mask of bright voxels still is."""
    rows = []
    for i in range(6):
        inside = np.zeros((16, 16, 16), np.float32)
        inside[3:9, 4:13, 5:12] = 1
        save_nifti(f"{i}.nii.gz", inside + 0.01 * np.random.default_rng(i).random((16, 16, 16), np.float32))
        save_nifti(f"{i}_mask.nii.gz", inside)
        rows.append({"path": f"{i}.nii.gz", "brain": f"{i}_mask.nii.gz", "label": i % 2})
    augment = Augment(probability=1.0, flip=(0, 1, 2), rotate=20, shift=2, bias_field=0, contrast=0, noise=0)
    data = CSVData(str(save_table("a.csv", rows)), size=None, folds=3, pool_mask="brain", augment=augment)
    data.setup()
    for _ in range(3):
        sample = data.datasets["train"][0]
        bright = sample["image"] > 0.5
        assert (bright == (sample["pool_mask"] > 0)).float().mean() > 0.97
        assert set(sample["pool_mask"].unique().tolist()) == {0.0, 1.0}
    batch = data.collate([data.datasets["val"][0], data.datasets["val"][1]])
    crops = VolumeCrops(flip=(0, 1), gain=0, noise=0, blur=0)
    view = crops.change(crops.crop(batch, 0.6, 0.8))
    assert ((view["image"] > 0.5) == (view["pool_mask"] > 0)).all()
