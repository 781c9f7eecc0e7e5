"""Blocks built from pooling: a set's pooled vector, given back to its elements or read by a head."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from modalpool.kernels import full_precision
from modalpool.pool import Pool

__all__ = ["ASPP", "PyramidHead", "SqueezeExcite"]

_CONVOLUTIONS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_NORMS: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}


def _one_vector(pool: Pool, block: str) -> None:
    if pool.vectors is not None or pool.keepdim:
        raise ValueError(
            f"pool: {block} gives one vector back to each element, so it needs a pool without a k axis and without "
            f"keepdim, got {pool}"
        )


class SqueezeExcite(nn.Module):
    """Rescale the channels of every element by a gate that sees the whole set (Hu, Shen and Sun 2018, eq. 2 to 4).

    ``yᵢ = xᵢ · σ(W₂ relu(W₁ z + b₁) + b₂)`` with ``z = pool(x)``. Kept axes have gates of their own: behind a pool over
    time, "b c f [t]", every frequency is rescaled by what happens in it; on a graph every node by its graph. With the
    mean it is MONAI's ``ChannelSELayer``, in any number of dimensions.

    Args:
        pool: What squeezes: any reduction with one vector per set.
        channels: C, channels of an element and of the pooled vector.
        ratio: How many times fewer hidden channels there are.

    Shapes:
        ``x`` in the pool's layout, and the output in the same; zero outside the mask.

    Raises:
        ValueError: If the pool gives several vectors per set, or other channels than it takes.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> from modalpool.blocks import SqueezeExcite
        >>> block = SqueezeExcite(Pool("[n] c"), channels=8, ratio=2)
        >>> block(torch.randn(5, 8), index=torch.tensor([0, 0, 1, 1, 1])).shape
        torch.Size([5, 8])
    """

    def __init__(self, pool: Pool, *, channels: int, ratio: int = 16) -> None:
        super().__init__()
        _one_vector(pool, "SqueezeExcite")
        if pool.out_channels not in (None, channels):
            raise ValueError(
                f"channels: the pool turns {channels} channels into {pool.out_channels}; expected as many as it takes"
            )
        hidden = channels // ratio
        if hidden < 1:
            raise ValueError(f"ratio: {channels} channels leave nothing at ratio {ratio}; expected at most {channels}")
        self.pool = pool
        self.excite = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, x: Tensor, **sets: Any) -> Tensor:
        """Rescale ``x``; ``sets`` are the pool's own arguments (mask, lengths, index, ...)."""
        arranged = self.pool.arrange(x, **sets)
        with full_precision(x):
            z = self.pool.pooled(arranged)[0].to(x.dtype)
        gate = self.excite(z)
        y = arranged.sets.hide(arranged.elements).to(x.dtype) * arranged.sets.expand(gate)
        return arranged.restore_elements(y, vectors=False)


class ASPP(nn.Module):
    """Look around every element at several distances, and at the whole set (Chen et al. 2017, section 3.3).

    Branches: a 1×1 convolution, one atrous 3×3 convolution for each rate, and *image pooling*, the pooled vector
    through a linear map, given back to every element. They are concatenated and projected. The image-pooling branch
    has no batch norm: one value per channel has no variance in a batch of one, where the usual form fails.

    Args:
        pool: The image-pooling branch's pool, over all positions of a channels-first layout: "b c [h w]".
        channels: Channels of the input.
        out_channels: Channels of each branch and of the output.
        rates: Dilations of the atrous branches.
        dropout: Dropout on the output.
        image_pooling: False leaves the image-pooling branch out, and of the pool takes the layout only.

    Shapes:
        ``(B, channels, *grid)`` to ``(B, out_channels, *grid)`` for grids of one to three axes. Elements outside a mask
        are zero for the convolutions, and in the output.

    Warns:
        UserWarning: If a rate reaches beyond the grid along every axis: then all taps but the central one see padding
            only, and the branch is a costly 1×1 convolution.

    Raises:
        ValueError: If the layout is not channels-first with all positions pooled, or the pool gives several vectors.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> from modalpool.blocks import ASPP
        >>> block = ASPP(Pool("b c [h w]"), channels=16, out_channels=8, rates=(2, 4))
        >>> block(torch.randn(1, 16, 12, 10)).shape
        torch.Size([1, 8, 12, 10])
    """

    def __init__(
        self,
        pool: Pool,
        *,
        channels: int,
        out_channels: int,
        rates: Sequence[int] = (6, 12, 18),
        dropout: float = 0.0,
        image_pooling: bool = True,
    ) -> None:
        super().__init__()
        _one_vector(pool, "ASPP")
        dims = pool.layout.pooled_axes or 0
        fits = dims in _CONVOLUTIONS and pool.layout.kept_axes == 0 and not pool.layout.ragged
        if not fits or pool.layout.axes(dims + 2).channel != 1:
            raise ValueError(
                f"pool: ASPP needs a channels-first layout of one to three positions, all pooled, like 'b c [h w]', "
                f"got {pool.layout.text!r}"
            )
        convolution, norm = _CONVOLUTIONS[dims], _NORMS[dims]

        def branch(inputs: int, kernel: int, rate: int = 1) -> nn.Sequential:
            around = rate * (kernel // 2)
            layer = convolution(inputs, out_channels, kernel, padding=around, dilation=rate, bias=False)
            return nn.Sequential(layer, norm(out_channels), nn.ReLU())

        self.pool = pool if image_pooling else None
        self.rates = tuple(rates)
        self.near = branch(channels, 1)
        self.atrous = nn.ModuleList(branch(channels, 3, rate) for rate in self.rates)
        if image_pooling:
            self.image = nn.Sequential(nn.Linear(pool.out_channels or channels, out_channels), nn.ReLU())
        branches = 1 + len(self.rates) + image_pooling
        self.project = nn.Sequential(branch(branches * out_channels, 1), nn.Dropout(dropout))

    def forward(self, x: Tensor, *, mask: Tensor | None = None, weight: Tensor | None = None) -> Tensor:
        """Mix the branches; ``mask`` and ``weight`` as in the pool's call."""
        for rate in self.rates:
            if all(rate >= size for size in x.shape[2:]):
                warnings.warn(
                    f"ASPP: rate {rate} reaches beyond the whole grid {tuple(x.shape[2:])}, so its 3x3 kernel sees one "
                    f"element and padding; use rates below {max(x.shape[2:])} or a finer grid",
                    stacklevel=2,
                )
        everywhere = []
        if self.pool is not None:
            z = self.image(self.pool(x, mask=mask, weight=weight))
            everywhere.append(z.reshape(*z.shape, *[1] * (x.ndim - 2)).expand(-1, -1, *x.shape[2:]))
        if mask is not None:
            x = torch.where(mask.unsqueeze(1), x, 0.0)
        y: Tensor = self.project(torch.cat([self.near(x), *(layer(x) for layer in self.atrous), *everywhere], dim=1))
        return y if mask is None else torch.where(mask.unsqueeze(1), y, 0.0)

    def extra_repr(self) -> str:
        """What the submodules do not show."""
        return f"rates={self.rates}"


class PyramidHead(nn.Module):
    """A linear head over a spatial pyramid: it knows roughly where, and takes any size (He et al. 2015, section 2.2).

    ``logits = W [z₁ … z_K] + b`` with one z for each cell of each level.

    Args:
        layout: Axis names with the pooled ones in brackets, as in `Pool`; without kept axes.
        channels: C.
        outputs: Number of logits.
        levels: Cells per pooled axis in each level, a number or one for each axis.
        rule: What pools a cell; He et al. take "max".

    Raises:
        ValueError: If an axis is kept: the head needs as many features for every input.

    Example:
        >>> import torch
        >>> from modalpool.blocks import PyramidHead
        >>> head = PyramidHead("b c [h w]", channels=8, outputs=3, levels=[1, 2])
        >>> [tuple(head(torch.randn(4, 8, n, n)).shape) for n in (7, 20)]
        [(4, 3), (4, 3)]
    """

    def __init__(
        self,
        layout: str,
        *,
        channels: int,
        outputs: int,
        levels: Sequence[int | Sequence[int]] = (1, 2, 4),
        rule: str = "mean",
    ) -> None:
        super().__init__()
        self.pool = Pool(layout, "pyramid", channels=channels, levels=list(levels), rule=rule)
        if self.pool.layout.kept_axes != 0:
            raise ValueError(f"layout: a PyramidHead pools every position, as in 'b c [h w]', got {layout!r}")
        assert self.pool.vectors is not None
        self.linear = nn.Linear(self.pool.vectors * (self.pool.out_channels or channels), outputs)

    def forward(self, x: Tensor, **sets: Any) -> Tensor:
        """Logits ``(B or S, outputs)``; ``sets`` are the pool's own arguments."""
        logits: Tensor = self.linear(self.pool(x, **sets).flatten(1))
        return logits
