"""Real scans beside the project: whole heads stored posterior-superior-right, and crops of many sizes and scales."""

import nibabel
import numpy as np
import pytest
import torch

from tasks.maps.grids import upsample
from tasks.outputs.gallery import Gallery
from tasks.volume import CSVData, VolumeTask

pytestmark = pytest.mark.slow


def test_map_of_a_whole_head_lies_over_its_file(shared_data, tmp_path):
    """Resampled to 3 mm, cropped, padded and turned; a map's value at a voxel of the file, interpolated by hand."""
    table = shared_data / "volume" / "IXI10" / "manifest.csv"
    data = CSVData(str(table), target="sex", subject="id", size=(64, 80, 64), spacing=(3, 3, 3), folds=3, val=0.3)
    torch.manual_seed(0)
    task = VolumeTask(data.spec, encoder="plain", width=4, levels=3).eval()
    batch = data.collate([data.datasets["test"][0]])
    (entry,) = Gallery(tmp_path).add(task, batch, limit=1)
    assert entry.picture.stat().st_size > 10_000
    (path,) = tmp_path.glob("*_map.nii.gz")
    written, file = nibabel.load(path), nibabel.load(batch["path"][0])
    assert written.shape == file.shape
    np.testing.assert_array_equal(written.affine, file.affine)

    _, maps = task.explain(batch)
    fine = (upsample(maps[0, 0], (64, 80, 64), stride=task.stride, first=task.first) / task.stride**3).numpy()
    pull = np.linalg.inv(batch["affine"][0].numpy()) @ file.affine
    stored = written.get_fdata()
    for voxel in np.random.default_rng(0).integers(20, 70, (50, 3)):
        place = (pull @ [*voxel, 1])[:3]
        low = np.floor(place).astype(int)
        expected = 0.0
        for corner in np.ndindex(2, 2, 2):
            near = low + corner
            if (near >= 0).all() and (near < fine.shape).all():
                share = np.prod(np.where(corner, place - low, 1 - (place - low)))
                expected += share * fine[tuple(near)]
        assert stored[tuple(voxel)] == pytest.approx(expected, abs=1e-5 * np.abs(stored).max())


def test_hippocampus_crops_come_out_alike(shared_data):
    """One shape, one intensity scale, the published split, the targets' mean of the training part."""
    table = shared_data / "volume" / "HIPPO" / "manifest.csv"
    options = {"size": (36, 52, 40), "pad": "edge", "intensity": "zscore", "batch_size": 8}
    data = CSVData(str(table), target="volume_mm3", task="regression", **options)
    data.setup()
    assert [len(data.datasets[part]) for part in ("train", "val", "test")] == [102, 34, 34]
    assert 3000 < data.spec["target_mean"][0] < 3500
    images = torch.stack([data.datasets["test"][i]["image"] for i in range(34)])
    assert images.shape == (34, 1, 36, 52, 40)
    assert float(images.abs().max()) < 8  # the files' scales differ by four orders of magnitude
