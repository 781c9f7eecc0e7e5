"""What volumes' floors are told, against plain numpy and scipy."""

import numpy as np
import pytest
import scipy.ndimage
import torch

from tasks.volume.floors import CELLS, PERCENTILES, volume_floors


@pytest.fixture
def image():
    return torch.rand(2, 16, 24, 16, generator=torch.Generator().manual_seed(0))


def told(image, path="", affine=None):
    affine = torch.eye(4) if affine is None else affine
    return {name: found[0].numpy() for name, found in volume_floors([image], affine[None], [path]).items()}


def test_brightness_is_mean_deviation_and_percentiles_of_each_channel(image):
    voxels = image.double().numpy().reshape(2, -1)
    expected = [*voxels.mean(1), *voxels.std(1), *np.percentile(voxels, PERCENTILES, axis=1).reshape(-1)]
    np.testing.assert_allclose(told(image)["brightness"], expected, atol=1e-6)


def test_the_brightest_spot_is_a_voxel_and_a_mean_of_twenty_seven(image):
    images = image.double().numpy()
    sums, counts = [
        np.stack([scipy.ndimage.uniform_filter(one, 3, mode="constant") for one in each])
        for each in (images, np.ones_like(images))
    ]
    around = sums / counts
    expected = [side(one, axis=(1, 2, 3)) for one in (images, around) for side in (np.max, np.min)]
    np.testing.assert_allclose(told(image)["brightest spot"], np.concatenate(expected), atol=1e-6)


def test_the_coarse_grid_is_means_of_equal_parts(image):
    expected = image.double().numpy().reshape(2, CELLS[0], 2, CELLS[1], 2, CELLS[2], 2).mean((2, 4, 6))
    np.testing.assert_allclose(told(image)["coarse grid"], expected.reshape(-1), atol=1e-6)


def test_the_size_is_the_files_own_whatever_it_was_cut_to(image, save_nifti):
    path = save_nifti("small.nii.gz", np.zeros((10, 20, 5), np.float32), np.diag([2.0, 1.0, 3.0, 1.0]))
    assert told(image, str(path))["size"].tolist() == [20, 20, 15, 6000]
    assert told(image, "", torch.diag(torch.tensor([0.5, 1, 1, 1])))["size"].tolist() == [8, 24, 16, 3072]
