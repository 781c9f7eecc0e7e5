"""Volumes of several sizes in a batch: each is what it would be alone, for features, logits, maps and pictures."""

from types import SimpleNamespace

import nibabel
import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from tasks.volume import CSVData, LesionData, VolumeTask
from tasks.volume.batches import collate_volumes, stack_padded, unpadded
from tasks.volume.inserted import InsertedLesionData

BINARY = {"kind": "binary", "classes": ["well", "ill"], "channels": 1, "class_counts": [3, 3]}
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def samples(*shapes):
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "image": torch.randn(1, *shape, generator=generator),
            "mask": torch.rand(1, *shape, generator=generator) > 0.9,
            "affine": torch.eye(4),
            "target": number % 2,
            "id": str(number),
            "path": "",
        }
        for number, shape in enumerate(shapes)
    ]


MIXED = ((8, 9, 11), (13, 8, 8), (8, 9, 11))
MIDDLE = ((16, 16, 16), (32, 16, 18))
LARGE = ((32, 33, 32), (48, 32, 35))


def test_a_batch_is_padded_only_where_it_must_be():
    batch = collate_volumes(samples(*MIXED))
    assert batch["image"].shape == batch["mask"].shape == (3, 1, 13, 9, 11)
    assert batch["mask"].dtype == torch.bool
    assert batch["shape"].tolist() == [list(shape) for shape in MIXED]
    assert batch["affine"].shape == (3, 4, 4)
    for key in ("image", "mask"):
        for sample, own, whole in zip(samples(*MIXED), unpadded(batch, key), batch[key], strict=True):
            assert torch.equal(own, sample[key])
            assert whole.count_nonzero() == own.count_nonzero()
    same = collate_volumes(samples((8, 9, 11), (8, 9, 11)))
    assert "shape" not in same
    assert same["image"].shape == (2, 1, 8, 9, 11)


@pytest.mark.parametrize(
    ("options", "shapes"),
    [
        ({"width": 4}, MIXED),
        ({"width": 4, "norm": "instance", "reduction": "attention", "heads": 2}, MIXED),
        ({"width": 8, "norm": "group", "reduction": "max"}, MIXED),
        ({"encoder": "resnet10", "width": 2}, MIXED),
        ({"encoder": "unet", "width": 2}, MIDDLE),
        pytest.param({"encoder": "densenet121", "width": 4}, LARGE, marks=pytest.mark.slow),
        pytest.param({"encoder": "seresnet"}, LARGE, marks=pytest.mark.slow),
    ],
    ids=lambda value: "-".join(map(str, value.values())) if isinstance(value, dict) else "",
)
def test_in_evaluation_a_volume_is_the_same_alone_and_among_others(options, shapes):
    """Batch, group and instance norm, squeeze-and-excitation: nothing of it sees padding or other volumes."""
    torch.manual_seed(0)
    task = VolumeTask(BINARY, **options).eval()
    batch = collate_volumes(samples(*shapes))
    with torch.no_grad():
        logits, (_, maps) = task(batch), task.explain(batch)
        shown = task.to_inputs(maps[:, 0], batch)
        for number, sample in enumerate(samples(*shapes)):
            alone = collate_volumes([sample])
            torch.testing.assert_close(logits[number : number + 1], task(alone), atol=1e-4, rtol=1e-4)
            _, single = task.explain(alone)
            # It has as many cells, zeros beyond them, and its map lies on its own voxels.
            assert task.grid(sample["image"].shape[1:]) == single.shape[2:]
            d, h, w = single.shape[2:]
            torch.testing.assert_close(maps[number, :, :d, :h, :w], single[0], atol=1e-4, rtol=1e-4)
            assert maps[number].count_nonzero() == single.count_nonzero()
            assert shown[number].shape == sample["image"].shape[1:]
            torch.testing.assert_close(shown[number], task.to_inputs(single[:, 0], alone)[0], atol=1e-4, rtol=1e-4)


def test_in_training_a_batch_norm_has_each_sizes_own_statistics():
    """What docs/sizes.md says does not hold while training: with a batch norm, unlike with an instance norm."""
    batch, alone = collate_volumes(samples(*MIXED)), collate_volumes([samples(*MIXED)[0]])
    for norm, same in (("instance", True), ("batch", False)):
        torch.manual_seed(0)
        task = VolumeTask(BINARY, width=4, norm=norm).train()
        assert torch.allclose(task(batch)[:1], task(alone), atol=1e-4) is same  # volume 2 has volume 0's size


def test_what_hides_outlines_and_rivals_see_is_each_volumes_own(tmp_path):
    batch = collate_volumes(samples(*MIXED))
    task = VolumeTask(BINARY, width=4).eval()
    for sample, truth, bright in zip(
        samples(*MIXED), task.truth(batch), task.rival_maps(batch)["intensity"], strict=True
    ):
        assert torch.equal(truth, sample["mask"][0])
        assert torch.equal(bright, sample["image"][0])
    hidden = task.hide(batch, task.truth(batch))
    for sample, one in zip(samples(*MIXED), unpadded(hidden), strict=True):
        expected = torch.where(sample["mask"], sample["image"].median(), sample["image"])
        assert torch.equal(one, expected)
    embedding = task.embed(batch)
    for sample, features, places in zip(samples(*MIXED), embedding.features, embedding.places, strict=True):
        cells = torch.tensor(task.grid(sample["image"].shape[1:]))
        assert len(features) == len(places) == int(cells.prod())
        assert torch.equal(places.amax(0), task.first + task.stride * (cells - 1.0))
    decision = SimpleNamespace(title="ill", label="share", note="share")
    written = task.export(batch, 1, torch.zeros(13, 8, 8), decision, tmp_path / "a.png")
    task.draw(batch, 1, torch.rand(13, 8, 8), decision, tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 10_000
    assert [nibabel.load(path).shape for path in written] == [(13, 8, 8)] * 2


def test_files_keep_their_own_size_and_train(save_nifti, save_table):
    rows = []
    for i in range(8):
        data = np.random.default_rng(i).normal(50, 10, (8 + i % 3, 9, 8)).astype(np.float32)
        save_nifti(f"{i}.nii.gz", data)
        part = "train" if i < 4 else "val" if i < 6 else "test"
        rows.append({"path": f"{i}.nii.gz", "label": "ab"[i % 2], "split": part})
    data = CSVData(str(save_table("scans.csv", rows)), size=None, batch_size=4, buckets=2)
    data.setup()
    batch = next(iter(data.train_dataloader()))
    assert sorted(batch["shape"][:, 0].tolist()) == [8, 8, 9, 10]
    task = VolumeTask(data.spec, width=4, levels=1)
    Trainer(max_epochs=1, accelerator="cpu", **QUIET).fit(task, datamodule=data)
    assert task.read(str(save_nifti("new.nii.gz")))["image"].shape == (1, 1, 8, 9, 7)
    task.eval()
    torch.testing.assert_close(
        task(collate_volumes([data.datasets["test"][0], data.datasets["test"][1]]))[:1],
        task(collate_volumes([data.datasets["test"][0]])),
    )


def test_phantoms_take_turns_in_size():
    data = LesionData(train=8, val=2, test=4, size=[8, 12], batch_size=4)
    data.setup()
    train = data.datasets["train"].samples
    assert [(one["target"], one["image"].shape[1]) for one in train[:4]] == [(1, 8), (0, 8), (1, 12), (0, 12)]
    widths = {round(float(one["affine"][0, 0]) * one["image"].shape[1], 6) for one in train}
    assert widths == {160.0}  # one head in mm
    assert data.spec["preprocessing"]["size"] is None


def test_a_crop_around_tissue_needs_a_size():
    with pytest.raises(ValueError, match="size: expected three numbers of voxels to crop around the tissue, got null"):
        InsertedLesionData("heads.csv", masks="masks", size=None)


def test_stacking_pads_at_the_ends():
    a, b = torch.ones(2, 1, 3, 2), torch.ones(2, 2, 1, 2)
    stacked = stack_padded([a, b])
    assert torch.equal(stacked[0, :, :1, :3, :2], a)
    assert torch.equal(stacked[1, :, :2, :1, :2], b)
    assert stacked.sum() == a.sum() + b.sum()
