"""Attention: weights are a softmax, over the set, of a learned score.

Legend: ``E`` element axes, ``K`` queries, ``H`` heads, ``C`` channels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from modalpool.reductions.base import Average
from modalpool.sets import Sets

__all__ = ["Attention"]


class Attention(Average):
    """Weigh the elements of each set by a learned score (Bahdanau et al. 2015; gated form Ilse et al. 2018, eq. 9).

    ``w = softmax(score / temperature)`` over the set and ``z = Σ w x``, with score = content(x) + position(coords).
    Each head has weights of its own for its share of the channels; each query gives a vector of its own.

    The linear content score is a textbook multi-head attention with a learned query folded through the key matrix:
    the same numbers, without a key per element.

    Args:
        channels: C, channels of an element.
        heads: Number of groups of channels with weights of their own; divides the channels.
        queries: Number of vectors per set; more than one adds the axis k.
        score: Content score: "linear" (w · x), "mlp" (u · tanh(V x)), "gated" (u · (tanh(V x) ⊙ sigmoid(U x))) or
            "none" (position only).
        score_channels: Hidden channels of the "mlp" and "gated" scores.
        grid: Size of a learned grid of position scores along each pooled axis, interpolated to any input size; for
            ragged sets it is read at ``coords``. None = no position score.
        temperature: Divides the scores: 0 = the single best element, inf = the mean, both exact.
        learn_temperature: Whether the temperature is a parameter (it stays positive).
        temperature_scaling: "none", or "log_n": scores grow with log N / log N0, so that one signal among many elements
            keeps its weight when the set grows.
        reference_size: N0, the size of a set at training.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> pool = Pool("b c [d h w]", "attention", channels=8, heads=2, grid=[4, 4, 4])
        >>> z, w = pool(torch.randn(3, 8, 5, 6, 7), return_weights=True)
        >>> z.shape, w.shape
        (torch.Size([3, 8]), torch.Size([3, 2, 5, 6, 7]))
        >>> torch.allclose(w.sum((2, 3, 4)), torch.ones(3, 2))
        True
    """

    def __init__(
        self,
        *,
        channels: int,
        heads: int = 1,
        queries: int = 1,
        score: str = "linear",
        score_channels: int = 128,
        grid: list[int] | None = None,
        temperature: float = 1.0,
        learn_temperature: bool = False,
        temperature_scaling: str = "none",
        reference_size: float | None = None,
    ) -> None:
        super().__init__()
        _positive(heads=heads, queries=queries, score_channels=score_channels)
        if channels % heads:
            raise ValueError(f"heads: expected a divisor of channels={channels}, got {heads}")
        if score not in ("linear", "mlp", "gated", "none"):
            raise ValueError(f"score: expected 'linear', 'mlp', 'gated' or 'none', got {score!r}")
        if score == "none" and grid is None:
            raise ValueError("score: 'none' leaves the position alone to score by; pass grid=[...] too")
        if not temperature >= 0:
            raise ValueError(f"temperature: expected a number >= 0, got {temperature}")
        if learn_temperature and not 0 < temperature < math.inf:
            raise ValueError(f"temperature: a learned one starts positive and finite, got {temperature}")
        if temperature_scaling not in ("none", "log_n"):
            raise ValueError(f"temperature_scaling: expected 'none' or 'log_n', got {temperature_scaling!r}")
        if temperature_scaling == "log_n" and not (reference_size is not None and reference_size > 1):
            raise ValueError(f"reference_size: 'log_n' needs the training size N0 > 1, got {reference_size}")
        self.channels, self.heads, self.queries = channels, heads, queries
        self.score, self.score_channels, self.grid = score, score_channels, grid
        self.temperature, self.learn_temperature = temperature, learn_temperature
        self.temperature_scaling, self.reference_size = temperature_scaling, reference_size
        self.vectors = queries if queries > 1 else None

        outputs = queries * heads
        self.value_layer: nn.Linear | None = None
        self.gate_layer: nn.Linear | None = None
        self.score_layer: nn.Linear | None = None
        if score in ("mlp", "gated"):
            self.value_layer = nn.Linear(channels, score_channels)
            self.gate_layer = nn.Linear(channels, score_channels) if score == "gated" else None
        if score != "none":  # a constant added to all scores changes nothing, so there is no bias
            self.score_layer = nn.Linear(channels if score == "linear" else score_channels, outputs, bias=False)
        self.position = None if grid is None else nn.Parameter(torch.zeros(*grid, outputs))
        self.log_temperature = nn.Parameter(torch.tensor(math.log(temperature))) if learn_temperature else None

    def scores(self, x: Tensor, sets: Sets) -> Tensor:
        """Content plus position, before the temperature: ``(E, K, H)`` in the accumulation type."""
        x = sets.clean(x)  # scores are made in float32 under half precision
        total = x.new_zeros((*x.shape[:-1], self.queries * self.heads))
        if self.score_layer is not None:
            hidden = x
            if self.value_layer is not None:
                hidden = _linear(self.value_layer, x).tanh()
            if self.gate_layer is not None:
                hidden = hidden * _linear(self.gate_layer, x).sigmoid()
            total = total + _linear(self.score_layer, hidden)
        if self.position is not None:
            total = total + interpolate(self.position.to(x.dtype), sets.coords)
        return total.unflatten(-1, (self.queries, self.heads))

    def weigh(self, x: Tensor, sets: Sets) -> tuple[Tensor, Tensor]:
        """See `Average.weigh`."""
        if self.temperature == math.inf:
            uniform, mass = sets.uniform(x)[..., None, :], sets.count(x)[..., None, :].log()
            ones = uniform.new_ones((self.queries, self.heads))
            return uniform * ones, mass * ones
        scores = self.scores(x, sets)
        if self.temperature_scaling == "log_n":
            assert self.reference_size is not None
            growth = sets.size(x).log() / math.log(self.reference_size)
            scores = scores * sets.expand(growth)[..., None, :]
        if self.temperature == 0:
            top = sets.max(scores)
            best = torch.zeros_like(scores).masked_fill(scores != sets.expand(top), -torch.inf)
            weight, mass = sets.softmax(best)
            # In a merge only the part with the better score counts.
            return weight, torch.where(mass == -torch.inf, mass, mass + top.detach() * 1e20)
        if self.log_temperature is not None:
            return sets.softmax(scores / self.log_temperature.to(scores.dtype).exp())
        return sets.softmax(scores / self.temperature)

    def extra_repr(self) -> str:
        """The options that are not the default."""
        defaults = {
            "heads": 1,
            "queries": 1,
            "score": "linear",
            "score_channels": 128,
            "grid": None,
            "temperature": 1.0,
            "learn_temperature": False,
            "temperature_scaling": "none",
            "reference_size": None,
        }
        shown = {name: getattr(self, name) for name in defaults if getattr(self, name) != defaults[name]}
        return ", ".join(f"{name}={value!r}" for name, value in {"channels": self.channels, **shown}.items())


def _linear(layer: nn.Linear, x: Tensor) -> Tensor:
    """Apply a layer in the type of ``x``, whatever the type of its parameters."""
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    return nn.functional.linear(x, layer.weight.to(x.dtype), bias)


def _positive(**values: int) -> None:
    for name, value in values.items():
        if value < 1:
            raise ValueError(f"{name}: expected a positive integer, got {value}")


def interpolate(grid: Tensor, coords: Tensor | None) -> Tensor:
    """Read a grid ``(g1, …, gn, F)`` at coordinates ``(E, n)`` in [0, 1] by multilinear interpolation: ``(E, F)``.

    Grid values sit at cell centres, (j + ½) / g, and continue as constants beyond the outermost ones, as in
    ``torch.nn.functional.interpolate(align_corners=False)``.

    Raises:
        ValueError: If there are no coordinates, or not as many as the grid has axes.
    """
    axes = grid.ndim - 1
    if coords is None:
        raise ValueError("coords: this reduction scores positions; pass coords= (in [0, 1]) for sets given by index")
    if coords.shape[-1] != axes:
        raise ValueError(f"grid: expected one size per pooled axis, {coords.shape[-1]}, got a grid with {axes} axes")
    values = grid
    for axis in range(axes):
        size = grid.shape[axis]
        place = (coords[..., axis, None].to(grid.dtype) * size - 0.5).clamp(0, size - 1)
        hat = (1 - (place - torch.arange(size, device=grid.device)).abs()).clamp(min=0)  # (E, g)
        if axis == 0:
            values = (hat @ grid.flatten(1)).unflatten(-1, grid.shape[1:])  # (E, g2, …, F)
        else:
            values = (hat.reshape(*hat.shape, *[1] * (axes - axis)) * values).sum(hat.ndim - 1)
    return values
