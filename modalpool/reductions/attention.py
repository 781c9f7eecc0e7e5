"""Attention: weights are a softmax, over the set, of a learned score.

Legend: ``E`` element axes, ``K`` queries, ``H`` heads, ``C`` channels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from modalpool.reductions.base import Average, Count, Partial
from modalpool.reductions.options import Temperature, positive
from modalpool.reductions.scores import Scores, linear
from modalpool.reductions.softmax import hardest
from modalpool.sets import Sets

__all__ = ["Attention"]


class Attention(Average):
    """Weigh the elements of each set by a learned score (Bahdanau et al. 2015; gated form Ilse et al. 2018, eq. 9).

    ``w = softmax(score / temperature)`` over the set and ``z = Σ w x``, with score = content(x) + position(coords).
    Each head has weights of its own for its share of the channels; each query gives a vector of its own.

    The linear content score is a textbook multi-head attention with a learned query, folded through the key matrix: the
    same numbers without a key per element. With ``project`` the value and output matrices come after the sum, which is
    the rest of the textbook (Lee et al. 2019, PMA): z then has all C channels for each head, and y = O(V z).

    Efficient probing (Psomas et al. 2025) is one query a head and no key matrix: ``heads`` are its queries, among which
    the values are shared out, and ``temperature=√C`` is its scale; with its value matrix, ``project="values"``.

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
        project: Whether value and output matrices follow the sum; "values" = the value matrix alone.

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

    merges = True
    """Where scores grow with the size of the set, too: within a call it is known."""

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
        project: bool | str = False,
    ) -> None:
        super().__init__()
        if isinstance(project, str) and project != "values":
            raise ValueError(f"project: expected True, False or 'values', got {project!r}")
        positive(heads=heads, queries=queries)
        if channels % heads:
            raise ValueError(f"heads: expected a divisor of channels={channels}, got {heads}")
        if temperature_scaling not in ("none", "log_n"):
            raise ValueError(f"temperature_scaling: expected 'none' or 'log_n', got {temperature_scaling!r}")
        if temperature_scaling == "log_n" and not (reference_size is not None and reference_size > 1):
            raise ValueError(f"reference_size: 'log_n' needs the training size N0 > 1, got {reference_size}")
        self.channels, self.heads, self.queries = channels, heads, queries
        self.score, self.score_channels, self.grid = score, score_channels, grid
        self.learn_temperature, self.projects = learn_temperature, bool(project)
        self.temperature_scaling, self.reference_size = temperature_scaling, reference_size
        self.vectors = queries if queries > 1 else None
        self.positional = grid is not None
        self.repeats = heads if project else 1
        if temperature_scaling == "log_n":
            self.needs_whole = (
                "temperature_scaling='log_n' needs the size of the whole set, which its chunks do not know; "
                "pool the whole at once, or use temperature_scaling='none'"
            )
        # A constant added to all scores of a set changes nothing, so there is no bias.
        self.scores = Scores(channels, queries * heads, score=score, score_channels=score_channels, grid=grid)
        self.temperature = Temperature(temperature, learned=learn_temperature)
        self.state_size = 3 if self.temperature.hard else 2
        self.values = nn.Linear(channels, channels) if project else None
        self.output = nn.Linear(channels, channels) if project is True else None

    def weigh(self, x: Tensor, sets: Sets, count: Count) -> tuple[Tensor, ...]:
        """See `Average.weigh`; ``(E, *k, H)``."""
        if self.temperature.flat:
            weight, mass = (
                each.expand(*each.shape[:-1], self.queries * self.heads)
                for each in (sets.uniform(x), sets.count(x).log())
            )
            return self._by_query(weight), self._by_query(mass)
        scores = self.scores(x, sets)
        if self.temperature.hard:
            return tuple(self._by_query(each) for each in hardest(scores, sets))
        if self.temperature_scaling == "log_n" and self.reference_size is not None:
            scores = scores * sets.expand(count.size().log() / math.log(self.reference_size))
        return tuple(self._by_query(each) for each in sets.softmax(scores / self.temperature(scores)))

    def in_chunks(self, x: Tensor, sets: Sets) -> bool:
        """See `Reduction.in_chunks`; folded scores have a kernel."""
        return not (self.folds and sets.frugal(x, self.queries * self.heads).attend)

    def partial(self, x: Tensor, sets: Sets, count: Count, *, with_weights: bool = False) -> Partial:
        """See `Reduction.partial`; heads that are projected pool all channels each."""
        weight: Tensor | None = None
        if self.folds and not with_weights:
            z, log_mass = self._attend(x, sets)
            mass = [log_mass.squeeze(-2) if self.queries == 1 else log_mass]
        else:
            weight, *mass = self.weigh(x, sets, count)
            each = (self.queries * self.heads, 1) if self.projects else (self.queries, self.heads)
            z = sets.weighted_sum(weight.reshape(*x.shape[:-1], *each), x)
        if self.projects:  # (set axes, K·H, C)
            z = z.reshape(*z.shape[:-2], self.queries, self.heads * self.channels)
        return (*mass, z if self.queries > 1 else z.squeeze(-2)), weight if with_weights else None

    def _attend(self, x: Tensor, sets: Sets) -> tuple[Tensor, Tensor]:
        assert self.scores.content is not None
        matrix = self.scores.content.weight
        if self.learn_temperature or self.temperature.value != 1:
            matrix = matrix / self.temperature(matrix)
        return sets.attend(x, matrix, queries=self.queries, all_channels=self.projects)

    def _by_query(self, scores: Tensor) -> Tensor:
        """``(*, K · H)`` as ``(*, *k, H)``."""
        return scores.reshape(*scores.shape[:-1], self.queries, self.heads) if self.queries > 1 else scores

    @property
    def folds(self) -> bool:
        """Whether scores are products with a matrix and nothing else, so that no element needs any of its own."""
        content_alone = self.score == "linear" and self.grid is None and self.temperature_scaling == "none"
        return content_alone and not (self.temperature.flat or self.temperature.hard)

    def project(self, z: Tensor, count: Count) -> Tensor:
        """Value matrix head by head, then the output matrix: ``(set axes, *k, H·C)`` to ``(set axes, *k, C)``."""
        if self.values is None:
            return z
        z = z.reshape(*z.shape[:-1], self.heads, self.channels)
        matrix = self.values.weight.to(z.dtype).reshape(self.heads, -1, self.channels)
        values = torch.einsum("...hc,hdc->...hd", z, matrix)
        values = values.flatten(-2) + self.values.bias.to(z.dtype)
        return count.blank(values if self.output is None else linear(self.output, values))

    def option(self, name: str) -> Any:
        """See `Reduction.option`; `project` is a method too."""
        if name != "project":
            return super().option(name)
        return self.output is not None or (self.projects and "values")

    @classmethod
    def from_textbook(
        cls,
        *,
        heads: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        value_bias: Tensor | None = None,
        output: Tensor,
        output_bias: Tensor | None = None,
        scale: float | None = None,
    ) -> Attention:
        """Fold a multi-head attention with learned queries into this form: the same outputs.

        A key bias adds the same to all scores of a head and cancels, so it is not asked for.

        Args:
            heads: Number of heads.
            query: Projected queries (after the query matrix and its bias), ``(K, C)``.
            key: Key matrix ``(C, C)``.
            value: Value matrix ``(C, C)``.
            value_bias: ``(C,)``.
            output: Output matrix ``(C, C)``.
            output_bias: ``(C,)``.
            scale: What scores are multiplied by; None = 1 / √(C / heads).
        """
        queries, channels = query.shape
        pool = cls(channels=channels, heads=heads, queries=queries, project=True).to(query)
        scale = (channels // heads) ** -0.5 if scale is None else scale
        folded = torch.einsum("khd,hdc->khc", query.reshape(queries, heads, -1), key.reshape(heads, -1, channels))
        assert pool.scores.content is not None
        assert pool.values is not None
        assert pool.output is not None
        with torch.no_grad():
            pool.scores.content.weight.copy_(folded.flatten(0, 1) * scale)
            pool.values.weight.copy_(value)
            pool.output.weight.copy_(output)
            for bias, given in ((pool.values.bias, value_bias), (pool.output.bias, output_bias)):
                bias.zero_() if given is None else bias.copy_(given)
        return pool
