"""A map lies over its file: values at known voxels, in every orientation, against MONAI's own inversion and by hand."""

import nibabel
import numpy as np
import pytest
import torch
from monai.data import decollate_batch, list_data_collate
from monai.transforms import Compose, Invertd, LoadImaged, Orientationd, ResizeWithPadOrCropd
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

from tasks.volume.maps import to_file_space, to_grid, write_map
from tasks.volume.transforms import preprocessing


def oriented(codes, zooms=(1.0, 1.0, 1.0), shape=(10, 12, 9)):
    """Affine of a file whose axes point to ``codes``."""
    ornt = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(tuple(codes)))
    ras_shape = np.empty(3, int)
    for ras, (axis, _) in enumerate(ornt):
        ras_shape[ras] = shape[int(axis)]
    ras = np.diag([1.0, 1.0, 1.0, 1.0])
    ras[:3, 3] = (-4.0, 7.0, 2.5)
    affine = ras @ inv_ornt_aff(ornt, ras_shape)
    return affine @ np.diag([*zooms, 1.0])


def oblique():
    angle = np.deg2rad(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ oriented("LPS")


CASES = [
    pytest.param(oriented("RAS"), id="RAS"),
    pytest.param(oriented("LPS"), id="LPS"),
    pytest.param(oriented("PSR"), id="PSR"),
    pytest.param(oriented("AIL"), id="AIL"),
    pytest.param(oblique(), id="oblique"),
    pytest.param(oriented("RAS", zooms=(1.0, 1.0, 3.0)), id="anisotropic"),
    pytest.param(oriented("SLA", zooms=(2.0, 0.8, 1.2)), id="anisotropic-SLA"),
]


GEOMETRIES = [
    pytest.param({"size": (16, 12, 24), "spacing": None, "fit": "crop"}, id="crop"),
    pytest.param({"size": (16, 20, 14), "spacing": (1.3, 0.7, 0.9), "fit": "crop"}, id="spacing"),
    pytest.param({"size": (12, 30, 16), "spacing": None, "fit": "resize"}, id="resize"),
]


@pytest.mark.parametrize("affine", CASES)
def test_without_resampling_the_file_comes_back_exactly(affine, save_nifti):
    """Cropped along one axis, padded along others: inside every voxel as it was, outside zero."""
    data = np.random.default_rng(0).uniform(1, 2, (10, 12, 9)).astype(np.float32)
    path = save_nifti("a.nii.gz", data, affine)
    steps = preprocessing(size=(16, 8, 16), spacing=None, fit="crop", intensity="none")
    sample = Compose(steps)({"image": str(path)})
    back = to_file_space(sample["image"][0].numpy(), sample["affine"].numpy(), path)
    stored = nibabel.load(path)
    assert back.shape == stored.shape
    assert back.get_data_dtype() == np.float32
    np.testing.assert_array_equal(back.affine, stored.affine)
    # The anterior-posterior axis has been cropped to its 8 middle voxels, by hand:
    codes = nibabel.aff2axcodes(affine)
    axis = next(i for i, code in enumerate(codes) if code in "AP")
    n = data.shape[axis]
    first = (n - 8) // 2 if codes[axis] == "A" else n - 8 - (n - 8) // 2
    kept = [slice(None)] * 3
    kept[axis] = slice(first, first + 8)
    expected = np.zeros_like(data)
    expected[tuple(kept)] = data[tuple(kept)]
    np.testing.assert_allclose(back.get_fdata(), expected, rtol=1e-6)


@pytest.mark.parametrize("affine", CASES)
def test_a_marked_place_in_millimetres_stays_there(affine, save_nifti):
    """A smooth blob, resampled to 1.5 mm and resized: its centre of mass in the file does not move."""
    grid = np.stack(np.meshgrid(*map(np.arange, (10, 12, 9)), indexing="ij"), -1)
    spot = np.array([6.0, 4.0, 5.0])
    data = np.exp(-((grid - spot) ** 2).sum(-1) / 4).astype(np.float32)
    path = save_nifti("blob.nii.gz", data, affine)
    for fit in ("crop", "resize"):
        steps = preprocessing(size=(24, 24, 24), spacing=(0.75, 0.75, 0.75), fit=fit, intensity="none")
        sample = Compose(steps)({"image": str(path)})
        back = to_file_space(sample["image"][0].numpy(), sample["affine"].numpy(), path).get_fdata()
        weight = back * (back > 0.3)
        centre = (grid * weight[..., None]).sum((0, 1, 2)) / weight.sum()
        truth = data * (data > 0.3)
        expected = (grid * truth[..., None]).sum((0, 1, 2)) / truth.sum()
        np.testing.assert_allclose(centre, expected, atol=0.35)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("affine", CASES)
def test_a_ramp_in_millimetres_comes_back_voxel_by_voxel(affine, geometry, save_nifti):
    """Linear interpolation does not change a linear function of the place, however it is turned, resampled or resized.

    So both the network's volume and what comes back must be that function at every voxel, as long as its neighbours lie
    in the other's field of view; and farther than a voxel outside it must be zero.
    """
    ramp = lambda place: 40 + place @ (1.0, -2.0, 0.5)  # noqa: E731
    grid = np.stack(np.meshgrid(*map(np.arange, (20, 22, 19)), indexing="ij"), -1)
    path = save_nifti("ramp.nii.gz", ramp(grid @ affine[:3, :3].T + affine[:3, 3]), affine)
    sample = Compose(preprocessing(**geometry, intensity="none"))({"image": str(path)})
    network, place = sample["image"][0].numpy(), sample["affine"].numpy()

    cells = np.stack(np.meshgrid(*map(np.arange, network.shape), indexing="ij"), -1)
    millimetres = cells @ place[:3, :3].T + place[:3, 3]
    inside = within(millimetres, affine, (20, 22, 19), margin=2)
    assert inside.mean() > 0.1
    np.testing.assert_allclose(network[inside], ramp(millimetres)[inside], atol=2e-3)

    back = to_file_space(ramp(millimetres), place, path).get_fdata()
    millimetres = grid @ affine[:3, :3].T + affine[:3, 3]
    inside = within(millimetres, place, network.shape, margin=0)
    assert inside.mean() > 0.1
    np.testing.assert_allclose(back[inside], ramp(millimetres)[inside], atol=2e-3)
    assert not back[~within(millimetres, place, network.shape, margin=-1)].any()


def within(millimetres, affine, shape, margin):
    """Whether places lie in a grid, at least ``margin`` voxels from its outermost centres."""
    inverse = np.linalg.inv(affine)
    voxels = millimetres @ inverse[:3, :3].T + inverse[:3, 3]
    return ((voxels >= margin - 1e-6) & (voxels <= np.array(shape) - 1 - margin + 1e-6)).all(-1)


@pytest.mark.parametrize("affine", CASES)
def test_agrees_with_monai_inversion(affine, save_nifti):
    """The same map, carried back by MONAI's Invertd, which undoes one transform after the other."""
    path = save_nifti("a.nii.gz", np.random.default_rng(1).normal(size=(10, 12, 9)).astype(np.float32), affine)
    pre = Compose(
        [
            LoadImaged("image", ensure_channel_first=True, image_only=True),
            Orientationd("image", axcodes="RAS", labels=None),
            ResizeWithPadOrCropd("image", spatial_size=(16, 16, 16)),
        ]
    )
    batch = list_data_collate([pre({"image": str(path)})])
    ours = Compose(preprocessing(size=(16, 16, 16), spacing=None, fit="crop", intensity="none"))({"image": str(path)})
    assert torch.equal(ours["image"], batch["image"][0].as_tensor())
    assert torch.equal(ours["affine"], batch["image"][0].affine)
    noise = torch.randn(1, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    sample = decollate_batch(batch)[0]
    place = sample["image"].affine.numpy().copy()
    sample["heat"] = sample["image"].clone()
    sample["heat"][:] = noise[0]
    expected = Invertd("heat", pre, orig_keys="image", nearest_interp=False)(sample)["heat"][0].numpy()
    back = to_file_space(noise[0, 0].numpy(), place, path)
    np.testing.assert_allclose(back.get_fdata(), expected, atol=1e-5)


def test_trailing_axis_of_one_is_kept(save_nifti):
    path = save_nifti("a.nii.gz", np.ones((4, 5, 6, 1), np.float32) * np.arange(6)[:, None])
    back = to_file_space(np.arange(120.0).reshape(4, 5, 6), np.eye(4), path)
    assert back.shape == (4, 5, 6, 1)
    assert back.get_fdata()[1, 2, 3, 0] == 1 * 30 + 2 * 6 + 3


def test_generated_volumes_get_an_image_beside_the_map(tmp_path):
    affine = torch.diag(torch.tensor([2.0, 2.0, 2.0, 1.0]))
    written = write_map(torch.rand(4, 4, 4), tmp_path / "x_map.nii.gz", affine=affine, image=torch.rand(1, 4, 4, 4))
    assert [path.name for path in written] == ["x_map.nii.gz", "x_image.nii.gz"]
    for path in written:
        np.testing.assert_array_equal(nibabel.load(path).affine, affine.numpy())


# The sum of what is written: by value, in every kind of source.

FINE = [
    pytest.param({"size": None, "spacing": (2.4, 2.4, 2.4), "fit": "crop"}, id="coarser"),
    pytest.param({"size": None, "spacing": (0.6, 0.6, 0.6), "fit": "crop"}, id="finer"),
    pytest.param({"size": None, "spacing": (1.3, 0.7, 2.9), "fit": "crop"}, id="anisotropic"),
    pytest.param({"size": None, "spacing": None, "fit": "crop"}, id="same"),
    pytest.param({"size": (7, 21, 13), "spacing": None, "fit": "resize"}, id="resize"),
]


@pytest.mark.parametrize("geometry", FINE)
@pytest.mark.parametrize("affine", [*CASES, pytest.param(np.diag([0.9, 0.9, 5.0, 1.0]), id="thick")])
def test_the_sum_is_that_of_the_networks_map(affine, geometry, save_nifti):
    """Whole, and of each sign: no voxel's share goes to where it was not, or twice."""
    path = save_nifti("a.nii.gz", np.random.default_rng(0).uniform(1, 2, (20, 22, 19)).astype(np.float32), affine)
    sample = Compose(preprocessing(**geometry, intensity="none"))({"image": str(path)})
    place, shape = sample["affine"].numpy(), sample["image"].shape[1:]
    noise = np.random.default_rng(1).normal(0.1, 1, shape)
    for values in (noise, noise.clip(0), -noise.clip(None, 0)):
        back = to_file_space(values, place, path, totals=True).get_fdata()
        assert back.sum() == pytest.approx(values.sum(), rel=1e-5, abs=1e-3)
    cells = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), -1) @ place[:3, :3].T + place[:3, 3]
    inside = (np.random.default_rng(2).random(shape) > 0.5) & within(cells, affine, (20, 22, 19), margin=0)
    back = to_file_space(noise * inside, place, path, totals=True, inside=inside).get_fdata()
    assert back.sum() == pytest.approx((noise * inside).sum(), rel=1e-5, abs=1e-3)
    # A mass in one voxel stays where it is, in millimetres.
    spot = np.array(shape) // 2
    values = np.zeros(shape)
    values[tuple(spot)] = 7.0
    back = to_file_space(values, place, path, totals=True).get_fdata()
    grid = np.stack(np.meshgrid(*map(np.arange, back.shape), indexing="ij"), -1)
    centre = affine[:3, :3] @ ((grid * back[..., None]).sum((0, 1, 2)) / 7) + affine[:3, 3]
    reach = np.abs(affine[:3, :3]).sum(1) / 2 + 1e-6  # half a voxel of the file
    assert (np.abs(centre - place[:3, :3] @ spot - place[:3, 3]) <= reach).all()


@pytest.mark.parametrize("ratio", [2, 3])
def test_values_are_divided_by_the_voxels_that_share_them(ratio):
    """The factor that was missing: 8 voxels of 1 mm in one of 2 mm, 27 in one of 3."""
    coarse, fine = np.diag([ratio, ratio, ratio, 1.0]), np.eye(4)
    coarse[:3, 3] = (ratio - 1) / 2
    values = np.ones((6, 6, 6))
    shape = (6 * ratio,) * 3
    inner = (slice(2 * ratio, -2 * ratio),) * 3  # at its border a volume falls off to zero
    kept = to_grid(values, coarse, onto=fine, shape=shape)
    shared = to_grid(values, coarse, onto=fine, shape=shape, totals=True)
    np.testing.assert_allclose(kept[inner], 1)
    np.testing.assert_allclose(shared[inner], 1 / ratio**3)
    back = to_grid(shared, fine, onto=coarse, shape=(6, 6, 6), totals=True)
    assert back.sum() == pytest.approx(216)


def test_against_a_slow_reference():
    """Each voxel's value, divided among those of the other grid by how far away they are along each axis."""
    turn = oblique()
    affine = turn @ np.diag([1.7, 0.8, 1.1, 1.0])
    values = np.random.default_rng(0).normal(size=(4, 6, 5))
    shape = (10, 9, 8)
    pull = np.linalg.inv(affine) @ turn
    expected, lost = np.zeros(shape), 0.0
    places = {f: pull[:3, :3] @ f + pull[:3, 3] for f in np.ndindex(shape)}
    for v in np.ndindex(values.shape):
        shares = {f: np.prod(np.clip(1 - np.abs(place - v), 0, None)) for f, place in places.items()}
        total = sum(shares.values())
        if total > 1e-12:
            for f, share in shares.items():
                expected[f] += values[v] * share / total
            continue
        near = tuple(np.rint(np.linalg.inv(pull)[:3] @ [*v, 1]).astype(int))
        if all(0 <= i < n for i, n in zip(near, shape, strict=True)):
            expected[near] += values[v]
        else:
            lost += values[v]
    found = to_grid(values, affine, onto=turn, shape=shape, totals=True)
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert found.sum() + lost == pytest.approx(values.sum())


def test_the_header_says_what_the_numbers_are_and_what_lies_beyond(save_nifti, tmp_path):
    path = save_nifti("a.nii.gz")  # 8 x 9 x 7
    (written,) = write_map(torch.ones(10, 9, 7), tmp_path / "m.nii.gz", affine=torch.eye(4), source=str(path), note="n")
    header = nibabel.load(written).header
    assert header["descrip"].item().decode() == "n; sum 504; beyond the file 126"
    assert [one.get_content() for one in header.extensions] == [b"n; sum 504; beyond the file 126"]
    assert header.get_xyzt_units()[0] == "mm"
