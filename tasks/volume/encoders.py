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

import torch
from monai.networks.blocks import Convolution, ResidualUnit
from monai.networks.nets import BasicUNet, DenseNet, ResNet, SENet
from torch import Tensor, nn

from tasks.task.network import build_network, try_out


@dataclass
class Encoder:
    """A network without its pooling: ``(B, channels_in, D, H, W)`` to ``(B, channels, d, h, w)``."""

    network: nn.Module
    channels: int
    stride: int | tuple[float, ...]
    """Voxels from cell to cell, for all axes or one each."""
    first: float | tuple[float, ...]


def plain(in_channels: int, *, width: int, depth: int, levels: int, kernel: int, norm: str, dropout: float) -> Encoder:
    """Stack residual units; each level halves the grid by a convolution of kernel 2, later ones double the width.

    So ``levels`` 1, 2, 3 give strides 2, 4, 8; 0 keeps every voxel, with a convolution of kernel 3 in place of the
    halving. With ``kernel`` 1 the units look no farther than that, so that a map marks what decides and not its
    surroundings.
    """
    layers: list[nn.Module] = []
    channels = in_channels
    halve: dict[str, Any] = {"kernel_size": 2, "strides": 2, "padding": 0}
    keep: dict[str, Any] = {"kernel_size": 3}
    for level in range(max(levels, 1)):
        wide = width * 2**level
        common: dict[str, Any] = {"spatial_dims": 3, "act": "relu", "norm": _norm(norm, wide)}
        layers.append(Convolution(in_channels=channels, out_channels=wide, **(halve if levels else keep), **common))
        for _ in range(depth):
            unit = ResidualUnit(
                in_channels=wide, out_channels=wide, kernel_size=kernel, dropout=dropout or None, **common
            )
            layers += [unit, nn.ReLU()]
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
    "plain": (plain, {"width": 16, "depth": 1, "levels": 2, "kernel": 3, "norm": "batch", "dropout": 0.0}),
    "resnet10": (partial(resnet, blocks=1), {"width": 16}),
    "resnet18": (partial(resnet, blocks=2), {"width": 16}),
    "densenet121": (densenet121, {"width": 32, "norm": "batch", "dropout": 0.0}),
    "seresnet": (seresnet, {"depth": 1}),
    "unet": (unet, {"width": 16, "norm": "batch", "dropout": 0.0}),
}
"""Builders by name, with the options that each has and their defaults."""


def build_encoder(name: str, in_channels: int = 1, arguments: dict[str, Any] | None = None, **options: Any) -> Encoder:
    """Build an encoder by name.

    Args:
        name: One of `ENCODERS`, or the path of a class (`own_encoder`).
        in_channels: Channels of the image.
        arguments: What a class is given.
        options: Its own options; those that are None take the encoder's default. A class has none.

    Raises:
        ValueError: If there is no such encoder, or it lacks an option that was given.

    Example:
        >>> encoder = build_encoder("plain", width=8, levels=2)
        >>> encoder.channels, encoder.stride
        (16, 4)
    """
    given = {key: value for key, value in options.items() if value is not None}
    if "." in name:
        if given:
            raise ValueError(f"encoder {name} takes encoder_args, got {', '.join(given)}; leave them out")
        return own_encoder(name, arguments or {}, in_channels)
    if name not in ENCODERS:
        raise ValueError(
            f"expected an encoder of {', '.join(ENCODERS)}, or the path of a class, got '{name}'; choose one of them"
        )
    if arguments:
        raise ValueError(f"encoder_args are for the path of a class, got encoder '{name}'; leave them out")
    build, defaults = ENCODERS[name]
    extra = ", ".join(sorted(given.keys() - defaults))
    if extra:
        raise ValueError(f"encoder '{name}' has the options {', '.join(defaults)}, got {extra}; leave it out")
    return build(in_channels, **{**defaults, **given})


class OwnNetwork(nn.Module):
    """Any module that takes images, (B, C, D, H, W), to features on a grid, or to several, of which the last count.

    ``spatial_dims`` and ``in_channels`` or ``n_input_channels`` of its constructor are filled in unless they are given.
    """

    def __init__(self, path: str, arguments: dict[str, Any], in_channels: int):
        super().__init__()
        known = {"spatial_dims": 3, "in_channels": in_channels, "n_input_channels": in_channels}
        self.network = build_network(path, arguments, known)
        self.grids: dict[tuple[int, ...], tuple[int, ...]] = {}
        """Cells along each axis for images of the shapes that it has met."""

    def forward(self, image: Tensor) -> Tensor:
        """Features, (B, C, d, h, w)."""
        found = self.network(image)
        features: Tensor = found[-1] if isinstance(found, list | tuple) else found
        if isinstance(features, Tensor):
            self.grids[tuple(image.shape[2:])] = tuple(features.shape[2:])
        return features


def own_encoder(path: str, arguments: dict[str, Any], in_channels: int) -> Encoder:
    """Build any network by the path of its class, and find out by trying where its cells lie.

    Cells are taken to lie evenly about the middle of the image. Those of a convolution of stride s and odd width, with
    its usual padding, lie up to (s - 1) / 2 voxels before that.

    Args:
        path: Such as ``monai.networks.nets.SegResNet`` (`tasks.task.network.build_network`).
        arguments: What its constructor is given.
        in_channels: Channels of the image.

    Raises:
        ValueError: If it cannot be built, fails on cubes of 64 and 96 voxels, or returns no grid of features.
    """
    network = OwnNetwork(path, arguments, in_channels)
    grids: list[tuple[int, ...]] = []
    for side in (64, 96):
        found = try_out(path, network, torch.zeros(1, in_channels, *[side] * 3))
        if not isinstance(found, Tensor) or found.ndim != 5:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(
                f"encoder {path}: expected features on a grid, (B, C, d, h, w), got {shape}; give a network without "
                "its own pooling and head, or wrap it in a module of yours that returns what comes before them"
            )
        grids.append(tuple(found.shape))
    channels = grids[0][1]
    if any(large <= small for small, large in zip(grids[0][2:], grids[1][2:], strict=True)):
        raise ValueError(f"encoder {path}: expected a grid that grows with the image, got {grids[0]} and {grids[1]}")
    stride = tuple(32 / (large - small) for small, large in zip(grids[0][2:], grids[1][2:], strict=True))
    first = tuple((63 - step * (cells - 1)) / 2 for step, cells in zip(stride, grids[0][2:], strict=True))
    return Encoder(network, channels, stride, first)


def _norm(name: str, channels: int) -> str | tuple[str, dict[str, Any]]:
    norms: dict[str, str | tuple[str, dict[str, Any]]] = {
        "batch": "batch",
        "group": ("group", {"num_groups": gcd(8, channels)}),
        "instance": ("instance", {"affine": True}),
    }
    if name not in norms:
        raise ValueError(f"expected norm {', '.join(norms)}, got '{name}'; choose one of them")
    return norms[name]
