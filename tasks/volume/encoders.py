"""MONAI's 3-D networks up to the pooling: features on a grid, and where the grid's cells lie in the input.

Along each axis, cell ``j`` of the grid is centred on input voxel ``first + stride * j``. A network of odd kernels with
same padding starts at voxel 0 whatever its stride; a kernel of 2 with stride 2 starts half a voxel in. Maps that
ignored this would be drawn up to ``stride / 2`` voxels off.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import gcd
from typing import Any

from monai.networks.blocks import Convolution, ResidualUnit
from monai.networks.nets import BasicUNet, DenseNet, ResNet, SENet
from torch import nn


@dataclass
class Encoder:
    """A network without its pooling: ``(B, channels_in, D, H, W)`` to ``(B, channels, d, h, w)``."""

    network: nn.Module
    channels: int
    stride: int
    first: float


def plain(in_channels: int, *, width: int, depth: int, levels: int, norm: str, dropout: float) -> Encoder:
    """Stack residual units; each level halves the grid by a convolution of kernel 2, later ones double the width.

    So ``levels`` 1, 2, 3 give strides 2, 4, 8.
    """
    layers: list[nn.Module] = []
    channels = in_channels
    for level in range(levels):
        wide = width * 2**level
        common: dict[str, Any] = {"spatial_dims": 3, "act": "relu", "norm": _norm(norm, wide)}
        layers.append(
            Convolution(in_channels=channels, out_channels=wide, kernel_size=2, strides=2, padding=0, **common)
        )
        for _ in range(depth):
            layers += [ResidualUnit(in_channels=wide, out_channels=wide, dropout=dropout or None, **common), nn.ReLU()]
        channels = wide
    stride = 2**levels
    return Encoder(nn.Sequential(*layers), channels, stride, (stride - 1) / 2)


def resnet(in_channels: int, *, width: int, blocks: int) -> Encoder:
    """ResNet-10 (one block a level) or ResNet-18 (two), stem without stride or max-pooling so that the stride is 8."""
    net = ResNet(
        "basic",
        [blocks] * 4,
        [width * 2**level for level in range(4)],
        n_input_channels=in_channels,
        conv1_t_size=7,
        conv1_t_stride=1,
        no_max_pool=True,
        feed_forward=False,
    )
    layers = [net.conv1, net.bn1, net.act, net.layer1, net.layer2, net.layer3, net.layer4]
    return Encoder(nn.Sequential(*layers), 8 * width, 8, 0.0)


def densenet121(in_channels: int, *, width: int, norm: str, dropout: float) -> Encoder:
    """DenseNet-121, stride 32: for inputs of 96 voxels a side and more."""
    net = DenseNet(
        3, in_channels, 1, init_features=width, growth_rate=width // 2, dropout_prob=dropout, norm=_norm(norm, width)
    )
    channels = int(net.get_parameter("class_layers.out.weight").shape[1])
    # The stem (7 and 3 wide, stride 4) starts at 0; each of three averages of 2 adds half of the stride before it.
    return Encoder(nn.Sequential(net.features, nn.ReLU()), channels, 32, (4 + 8 + 16) / 2)


def seresnet(in_channels: int, *, depth: int) -> Encoder:
    """Squeeze-and-excitation ResNet with bottlenecks, ``depth`` blocks a level, stride 32, 2048 channels."""
    net = SENet(
        3, in_channels, "se_resnet_bottleneck", [depth] * 4, 1, 16, None, inplanes=64, downsample_kernel_size=1,
        input_3x3=False,
    )  # fmt: skip
    # Its max-pooling of 3 has no padding, so it is centred one voxel of stride 2 further in.
    layers = [net.layer0, net.layer1, net.layer2, net.layer3, net.layer4]
    return Encoder(nn.Sequential(*layers), 2048, 32, 2.0)


def unet(in_channels: int, *, width: int, norm: str, dropout: float) -> Encoder:
    """BasicUNet: features at every voxel of the input, for exact boundaries; input sides are multiples of 16."""
    features = (width, width, 2 * width, 4 * width, 8 * width, width)
    net = BasicUNet(3, in_channels, 1, features, norm=_norm(norm, width), dropout=dropout)
    net.final_conv = nn.Identity()
    return Encoder(net, width, 1, 0.0)


ENCODERS: dict[str, tuple[Callable[..., Encoder], dict[str, Any]]] = {
    "plain": (plain, {"width": 16, "depth": 1, "levels": 2, "norm": "batch", "dropout": 0.0}),
    "resnet10": (partial(resnet, blocks=1), {"width": 16}),
    "resnet18": (partial(resnet, blocks=2), {"width": 16}),
    "densenet121": (densenet121, {"width": 32, "norm": "batch", "dropout": 0.0}),
    "seresnet": (seresnet, {"depth": 1}),
    "unet": (unet, {"width": 16, "norm": "batch", "dropout": 0.0}),
}
"""Builders by name, with the options that each has and their defaults."""


def build_encoder(name: str, in_channels: int = 1, **options: Any) -> Encoder:
    """Build an encoder by name.

    Args:
        name: One of `ENCODERS`.
        in_channels: Channels of the image.
        options: Its own options; those that are None take the encoder's default.

    Raises:
        ValueError: If there is no such encoder, or it lacks an option that was given.

    Example:
        >>> encoder = build_encoder("plain", width=8, levels=2)
        >>> encoder.channels, encoder.stride
        (16, 4)
    """
    if name not in ENCODERS:
        raise ValueError(f"expected an encoder of {', '.join(ENCODERS)}, got '{name}'; choose one of them")
    build, defaults = ENCODERS[name]
    given = {key: value for key, value in options.items() if value is not None}
    extra = ", ".join(sorted(given.keys() - defaults))
    if extra:
        raise ValueError(f"encoder '{name}' has the options {', '.join(defaults)}, got {extra}; leave it out")
    return build(in_channels, **{**defaults, **given})


def _norm(name: str, channels: int) -> str | tuple[str, dict[str, Any]]:
    norms: dict[str, str | tuple[str, dict[str, Any]]] = {
        "batch": "batch",
        "group": ("group", {"num_groups": gcd(8, channels)}),
        "instance": ("instance", {"affine": True}),
    }
    if name not in norms:
        raise ValueError(f"expected norm {', '.join(norms)}, got '{name}'; choose one of them")
    return norms[name]
