"""MONAI as the judge: what its networks pool by, its squeeze layer, its multiple-instance heads, its class maps."""

import pytest
import torch
from every import close
from torch import nn

pytest.importorskip("monai", reason="MONAI is not installed: pip install 'modalpool[volume]'")
from monai.networks.blocks import ChannelSELayer
from monai.networks.layers.factories import Pool as Factory
from monai.networks.nets import MILModel
from monai.visualize import CAM

from modalpool import Pool, contributions

RANKS = pytest.mark.parametrize("rank", [1, 2, 3])


def volume(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@RANKS
@pytest.mark.parametrize(("kind", "rule"), [("ADAPTIVEAVG", "mean"), ("ADAPTIVEMAX", "max")])
def test_global_pooling_of_its_networks(kind, rule, rank):
    x, y = (volume(2, 3, *(4, 5, 6)[:rank]).requires_grad_() for _ in range(2))
    z = Pool("b c [...]", rule, keepdim=True)(x)
    expected = Factory[kind, rank](1)(y)
    close(z, expected)
    slope = torch.linspace(-1, 2, z.numel(), dtype=torch.float64).reshape(z.shape)
    z.backward(slope)
    expected.backward(slope)
    close(x.grad, y.grad)


@RANKS
def test_the_squeeze_layer(rank):
    torch.manual_seed(1)
    theirs = ChannelSELayer(rank, 4).double()
    x, y = (volume(2, 4, *(4, 5, 6)[:rank]).requires_grad_() for _ in range(2))
    expected = theirs(y)
    z = x * theirs.fc(Pool("b c [...]", "mean")(x)).reshape(2, 4, *[1] * rank)
    close(z, expected)
    close(torch.autograd.grad(z.square().sum(), x)[0], torch.autograd.grad(expected.square().sum(), y)[0], ulp=64)
    theirs.avg_pool = Pool("b c [...]", "mean", keepdim=True)  # and as a part of its layer
    close(theirs(y), expected)


@RANKS
@pytest.mark.parametrize("size", [12, 6])
def test_pyramid_cells_where_sizes_divide(rank, size):
    x = volume(2, 3, *[size] * rank)
    levels = [1, 2, 3]
    expected = torch.cat([Factory["ADAPTIVEAVG", rank](level)(x).flatten(2) for level in levels], dim=2)
    z = Pool("b c [...]", "pyramid", levels=[[level] * rank for level in levels])(x)
    close(z, expected.transpose(1, 2), ulp=64)


def test_pyramid_cells_of_other_sizes_tile_where_adaptive_windows_overlap():
    x = volume(1, 1, 5, 7)
    z, w = Pool("b c [h w]", "pyramid", levels=[[2, 3]])(x, return_weights=True)
    assert not torch.allclose(z[0, :, 0], Factory["ADAPTIVEAVG", 2]((2, 3))(x).flatten())
    assert ((w[0, :, 0] > 0).sum(0) == 1).all()  # every voxel in one cell, and so
    close(((w[0, :, 0] > 0).sum((1, 2)) * z[0, :, 0]).sum(), x.sum(), ulp=64)


@pytest.mark.parametrize("mode", ["mean", "max", "att"])
def test_multiple_instance_heads(mode):
    torch.manual_seed(2)
    model = MILModel(3, mil_mode=mode, pretrained=False, backbone=nn.Identity(), backbone_num_features=8).double()
    x = volume(2, 6, 8)
    if mode == "att":
        pool = Pool("b [n] c", "attention", channels=8, score="mlp", score_channels=2048).double()
        pool.reduction.scores.hidden.load_state_dict(model.attention[0].state_dict())
        pool.reduction.scores.content.load_state_dict({"weight": model.attention[2].weight})  # its bias cancels
        z = model.myfc(pool(x))
    else:
        z = Pool("b [n] c", mode)(model.myfc(x))  # MONAI applies the head to the instances
    close(z, model.calc_head(x), ulp=256)


class Net(nn.Module):
    """A network as MONAI's maps want it: features, global pooling, one linear layer."""

    def __init__(self, rank):
        super().__init__()
        convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
        self.features = nn.Sequential(convolution(1, 6, 3, padding=1), nn.ReLU())
        self.pool = Pool("b c [...]", "mean")
        self.fc = nn.Linear(6, 3)

    def forward(self, x):
        return self.fc(self.pool(self.features(x)))


@RANKS
def test_exact_maps_are_its_class_maps_over_the_number_of_voxels(rank):
    torch.manual_seed(3)
    net = Net(rank).double()
    x = volume(2, 1, *(4, 5, 6)[:rank])
    with torch.no_grad():
        logits, maps = contributions(net.pool, net.fc, net.features(x))
        close(logits, net(x), ulp=64)
        peer = CAM(net, target_layers="features", fc_layers="fc", upsampler=lambda size: lambda maps: maps)
        for i in range(3):
            theirs = peer.compute_map(x, class_idx=torch.tensor([i, i]))[:, 0]  # W x + b in every voxel
            close(maps[:, i], (theirs - net.fc.bias[i]) / x[0, 0].numel(), ulp=256)
    close(maps.flatten(2).sum(-1) + net.fc.bias, logits, ulp=256)
