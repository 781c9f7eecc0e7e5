"""Views of volumes: boxes of the volume itself, at their place in the file."""

import pytest
import torch

from tasks.volume.batches import collate_volumes
from tasks.volume.crops import VolumeCrops

NOTHING = VolumeCrops(gain=0, noise=0, blur=0, multiple=2)


def batch(*shapes):
    torch.manual_seed(0)
    affine = torch.tensor([[0.0, 2, 0, 5], [1, 0, 0, 6], [0, 0, 3, 7], [0, 0, 0, 1]], dtype=torch.float64)
    return collate_volumes([{"image": torch.rand(1, *shape), "affine": affine, "id": "x"} for shape in shapes])


@pytest.mark.parametrize("shapes", [[(12, 10, 8)] * 3, [(12, 10, 8), (6, 8, 8)]], ids=["one size", "two sizes"])
def test_a_crop_is_a_box_at_its_place(shapes):
    whole = batch(*shapes)
    small = NOTHING.crop(whole, 0.3, 0.6)
    for number, shape in enumerate(shapes):
        sides = small["shape"][number].tolist() if "shape" in small else list(small["image"].shape[2:])
        box = small["image"][number, 0, : sides[0], : sides[1], : sides[2]]
        assert all(side % 2 == 0 or side == full for side, full in zip(sides, shape, strict=True))
        inverse = torch.linalg.inv(whole["affine"][number])
        start = (inverse @ small["affine"][number][:, 3])[:3].round().long().tolist()
        cut = tuple(slice(a, a + n) for a, n in zip(start, sides, strict=True))
        assert torch.equal(whole["image"][number, 0][cut], box)
        assert torch.equal(small["affine"][number][:3, :3], whole["affine"][number][:3, :3])


def test_flips_happen_where_they_are_allowed_alone():
    whole = batch((8, 8, 8))
    for axis in range(3):
        crops, seen = VolumeCrops(flip=(axis,), gain=0, noise=0, blur=0), set()
        for _ in range(20):
            view = crops.change(whole)["image"]
            same = torch.equal(view, whole["image"])
            assert same or torch.equal(view, whole["image"].flip(2 + axis))
            seen.add(same)
        assert seen == {True, False}
    assert torch.equal(NOTHING.change(whole)["image"], whole["image"])


def test_changes_follow_from_torchs_seed_and_are_each_samples_own():
    crops, whole = VolumeCrops(probability=1.0), batch((8, 8, 8)) | {"affine": torch.eye(4).expand(2, 4, 4)}
    whole["image"] = whole["image"].expand(2, 1, 8, 8, 8)
    views = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        views.append(crops.change(whole)["image"])
    assert torch.equal(views[0], views[1])
    assert not torch.allclose(views[0], views[2])
    assert not torch.allclose(views[0][0], views[0][1])
    assert type(views[0]) is torch.Tensor


def test_padding_of_smaller_volumes_changes_nothing():
    views = []
    for padding in (0.0, 9.0):
        whole = batch((12, 10, 8), (6, 8, 8))
        whole["image"][1, :, 6:] = padding
        torch.manual_seed(1)
        views.append(VolumeCrops(multiple=2).view(whole, (0.5, 0.9)))
    assert torch.equal(views[0]["image"], views[1]["image"])
    assert torch.equal(views[0]["shape"], views[1]["shape"])
