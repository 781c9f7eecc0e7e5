"""The largest-blob experiment: its truth is the largest blob, and only image pooling sees the whole image."""

import importlib.util

import pytest
import torch
from scipy.ndimage import gaussian_filter, label
from toy import ROOT

spec = importlib.util.spec_from_file_location("largest", ROOT / "examples" / "largest.py")
largest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(largest)


def test_the_truth_is_the_largest_of_the_blobs():
    images, masks = largest.make_images(3, 6)
    for image, mask in zip(images[:, 0], masks, strict=True):
        blobs, count = label(gaussian_filter(image.numpy(), 1.0) > 0.5)
        sizes = torch.bincount(torch.from_numpy(blobs).flatten())[1:]
        found = torch.from_numpy(blobs == int(sizes.argmax()) + 1)
        assert (sizes > 8).sum() == largest.BLOBS == count - int((sizes <= 8).sum())
        assert (found & mask).sum() > 0.8 * (found | mask).sum()
    assert torch.equal(largest.make_images(3, 6)[0], images)


@pytest.mark.parametrize("branch", largest.BRANCHES)
def test_only_image_pooling_sees_further_than_39_pixels(branch):
    torch.manual_seed(0)
    network = largest.Network(branch).eval()
    x = largest.make_images(0, 1)[0].requires_grad_()
    (slope,) = torch.autograd.grad(network(x)[0, 46:50, 46:50].sum(), x)
    seen = slope[0, 0] != 0
    far = torch.ones_like(seen)
    far[48 - 24 : 48 + 24, 48 - 24 : 48 + 24] = False  # 39 pixels around the four cells that are interpolated
    assert seen[~far].any()
    assert seen[far].any() == (branch != "none")


def test_the_experiment_scores_and_draws_every_network(tmp_path, capsys):
    picture = tmp_path / "largest.png"
    scores = largest.main(steps=1, seeds=2, tested=6, picture=str(picture))
    assert list(scores) == list(largest.BRANCHES)
    assert all(len(values) == 2 and all(0 <= value <= 1 for value in values) for values in scores.values())
    assert picture.stat().st_size > 5_000
    printed = capsys.readouterr().out
    assert all(name in printed for name in largest.BRANCHES.values())
