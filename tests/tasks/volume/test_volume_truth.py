"""Truth, maps and rivals stand on the voxels of the network's input, and what is hidden says nothing."""

import pytest
import torch

from tasks.volume import LesionData, VolumeTask


@pytest.fixture(scope="module")
def data():
    made = LesionData(train=2, val=2, test=4, size=16, batch_size=4)
    made.setup()
    return made


@pytest.fixture
def batch(data):
    return next(iter(data.test_dataloader()))


def network(data, **options):
    torch.manual_seed(0)
    return VolumeTask(data.spec, **({"width": 4, "levels": 1} | options)).eval()


@pytest.mark.parametrize("options", [{"levels": 1}, {"levels": 2}, {"encoder": "resnet10", "levels": None}], ids=str)
def test_all_is_on_the_inputs_voxels(data, batch, options):
    task = network(data, **options)
    for maps in (task.truth(batch), task.sample_maps(batch), task.rival_maps(batch)["intensity"]):
        assert [tuple(one.shape) for one in maps] == [(16, 16, 16)] * 4
    for sample, truth, image in zip(
        data.datasets["test"], task.truth(batch), task.rival_maps(batch)["intensity"], strict=True
    ):
        assert torch.equal(truth, sample["mask"][0])
        assert bool(truth.any()) == bool(sample["target"])
        assert torch.equal(image, sample["image"][0])


@pytest.mark.parametrize("levels", [1, 2])
def test_a_cell_is_drawn_in_the_middle_of_its_own_voxels(data, batch, levels):
    """Interpolated back, a map's centre of mass stays where the cells' was, as voxels count."""
    task = network(data, levels=levels)
    cells = torch.zeros(4, *[16 // 2**levels] * 3)
    at = (1, 0, cells.shape[-1] - 1)
    cells[0, at[0], at[1], at[2]] = 1.0
    fine = task.to_inputs(cells, batch)[0]
    highest = (fine == fine.max()).nonzero().double().mean(0)
    edge = 2**levels
    # At the border the outermost cell goes on, so its flat top lies there.
    assert highest[0] == pytest.approx((edge - 1) / 2 + edge * at[0])
    assert highest[1] == pytest.approx((edge / 2 - 1) / 2)
    assert highest[2] == pytest.approx(15 - (edge / 2 - 1) / 2)


def test_a_healthy_heads_map_speaks_for_healthy(data, batch):
    task = network(data, levels=1, reduction="mean")
    _, maps = task.explain(batch)
    for i, one in enumerate(task.sample_maps(batch)):
        sign = 1 if int(batch["target"][i]) else -1
        expected = task.to_inputs(sign * maps[i, 0].expand(4, -1, -1, -1), batch)[0]
        torch.testing.assert_close(one, expected)


def test_volumes_without_masks_have_no_truth(data, batch):
    del batch["mask"]
    assert network(data).truth(batch) is None


def test_hidden_voxels_have_the_images_median(data, batch):
    task = network(data)
    hidden = task.hide(batch, task.truth(batch))
    assert torch.equal(hidden["image"][~batch["mask"]], batch["image"][~batch["mask"]])
    for i in range(4):
        values = hidden["image"][i][batch["mask"][i]]
        assert (values == batch["image"][i].flatten().sort().values[(16**3 - 1) // 2]).all()
