"""Attentive statistics, per channel: the mean and the standard deviation under a softmax of a learned score."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from modalpool.reductions.base import Count, Partial, Reduction, State
from modalpool.reductions.moments import deviation, inverse, join_deviations, moments, scale_of
from modalpool.reductions.options import positive
from modalpool.reductions.scores import linear
from modalpool.sets import Sets

__all__ = ["Statistics"]


class Statistics(Reduction):
    """Concatenate a weighted mean and standard deviation, each channel under an attention of its own.

    ``w_c = softmax over the set of v_c · tanh(W x + b)``, ``μ = Σ w x``, ``σ = √(Σ w (x - μ)²)``: the pooling of
    ECAPA-TDNN (Desplanques, Thienpondt and Demuynck 2020, eq. 1 to 4; a constant per channel would cancel). With
    ``context`` the score sees W [x, m, s], m and s the plain mean and deviation of the whole set. As Σ w x the second
    half has the signed shares ``w (x - μ) / σ``, exactly.

    Args:
        channels: C; the output has 2 C.
        score_channels: Hidden channels of the score.
        context: Whether scores see the whole set; large inputs are then not worked on in chunks.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> pool = Pool("b c [t]", "statistics", channels=8, context=True)
        >>> pool(torch.randn(2, 8, 100), lengths=torch.tensor([100, 60])).shape, pool.out_channels
        (torch.Size([2, 16]), 16)
    """

    repeats = 2
    state_size = 3

    def __init__(self, *, channels: int, score_channels: int = 128, context: bool = False) -> None:
        super().__init__()
        positive(score_channels=score_channels)
        self.channels, self.score_channels, self.context = channels, score_channels, context
        self.hidden = nn.Linear(channels, score_channels)
        self.around = nn.Linear(2 * channels, score_channels, bias=False) if context else None
        self.score = nn.Linear(score_channels, channels, bias=False)
        if context:
            self.needs_whole = (
                "context=True looks at the mean and deviation of the whole set before it weighs an element; "
                "pool the whole at once, or use context=False"
            )

    def out_channels(self, channels: int | None) -> int | None:
        """Twice as many."""
        return None if channels is None else 2 * channels

    def in_chunks(self, x: Tensor, sets: Sets) -> bool:
        return not self.context

    def partial(self, x: Tensor, sets: Sets, count: Count, *, with_weights: bool = False) -> Partial:
        """See `Reduction.partial`; the state is (log of the weights' sum, mean, deviation)."""
        x = sets.clean(x)
        hidden = linear(self.hidden, x)
        if self.around is not None:
            mean, var, known = moments(x, sets)
            hidden = hidden + sets.expand(linear(self.around, torch.cat([mean, deviation(var, known)], dim=-1)))
        weight, log_mass = sets.softmax(linear(self.score, hidden.tanh()))
        mean = sets.weighted_sum(weight.unsqueeze(-2), x, exact_zeros=True).squeeze(-2)
        centred = sets.clean(x - sets.expand(mean))
        scale = scale_of(sets.max(centred.detach().abs()))
        squares = (centred / sets.expand(scale)).square()
        var = sets.weighted_sum(weight.unsqueeze(-2), squares, exact_zeros=True).squeeze(-2)
        if with_weights:
            weight = torch.cat([weight, weight * centred * sets.expand(inverse(var, scale))], dim=-1)
        return (log_mass, mean, deviation(var, scale)), weight if with_weights else None

    def merge(self, a: State, b: State, m: Count, n: Count) -> State:
        masses = torch.stack((a[0], b[0])).clamp(-1e30, 1e30)  # an empty chunk has -inf
        p, q = masses.softmax(0)
        gap = torch.where(p * q > 0, b[1] - a[1], 0.0)
        mean = torch.where(p > 0, a[1], b[1]) + q * gap
        return masses.logsumexp(0), mean, join_deviations(a[2], b[2], q, gap)

    def finalize(self, state: State, count: Count) -> Tensor:
        return torch.cat(state[1:], dim=-1)
