"""What a pool, or a network that ends in one, does to its input: a number for each claim made about pooling.

Every function takes ``function``, anything from elements to pooled vectors (a `Pool`, or an encoder and a pool), and
has a closed form for the mean that its docstring states. So the same call tells what holds at the pool and what is left
of it behind a network.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

__all__ = [
    "checkerboard",
    "cutmix_gap",
    "laplacian_modes",
    "mixup_gap",
    "occlusion_response",
    "pooled_variance",
    "response",
    "shift_response",
    "sinusoid",
]

Function = Callable[[Tensor], Tensor]


def _energy(z: Tensor) -> Tensor:
    """Root mean square over everything but the batch, ``(B,)``."""
    return z.flatten(1).square().mean(1).sqrt()


def pooled_variance(
    function: Function,
    sizes: Sequence[int],
    *,
    correlation: float = 0.0,
    channels: int = 16,
    samples: int = 256,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Measure the variance of the pooled feature for sets of N standard normal elements, for each N.

    Elements are ``xᵢ = √ρ u + √(1-ρ) vᵢ``, so that any two correlate by ρ. For the mean the variance is
    ``ρ + (1 - ρ) / N``, for the sum ``N + N (N - 1) ρ``, for the size law with β = ½ and ρ = 0 it is 1 at any N.

    Args:
        function: From ``(samples, N, channels)`` (layout "b [n] c") to ``(samples, ...)``.
        sizes: The N to try.
        correlation: ρ, from 0 to 1.
        channels: Channels of an element.
        samples: Sets drawn for each N.
        generator: Where the numbers come from; None = torch's own.

    Returns:
        One variance for each size, ``(len(sizes),)``.

    Raises:
        ValueError: If ρ is not between 0 and 1.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> from tasks.maps.diagnostics import pooled_variance
        >>> torch.manual_seed(0)
        <torch._C.Generator object at ...>
        >>> [round(v, 1) for v in pooled_variance(Pool("b [n] c"), [1, 1000], correlation=0.5).tolist()]
        [1.0, 0.5]
    """
    if not 0 <= correlation <= 1:
        raise ValueError(f"correlation: expected a number from 0 to 1, got {correlation}")
    variances = []
    for size in sizes:
        common = torch.randn(samples, 1, channels, generator=generator)
        own = torch.randn(samples, size, channels, generator=generator)
        with torch.no_grad():
            z = function(math.sqrt(correlation) * common + math.sqrt(1 - correlation) * own)
        variances.append(z.var(0, correction=1).mean())
    return torch.stack(variances)


def checkerboard(sizes: Sequence[int]) -> Tensor:
    """The finest pattern of a grid, ``(-1)^(i + j + ...)``, in the given sizes.

    Its mean is 0 if any size is even, else 1 / (number of elements).

    Example:
        >>> from tasks.maps.diagnostics import checkerboard
        >>> checkerboard([3, 3]).sum().item(), checkerboard([3, 4]).sum().item()
        (1.0, 0.0)
    """
    parity = torch.zeros(tuple(sizes), dtype=torch.long)
    for axis, size in enumerate(sizes):
        parity = parity + torch.arange(size).reshape([-1 if i == axis else 1 for i in range(len(sizes))])
    return 1.0 - 2.0 * (parity % 2)


def sinusoid(sizes: Sequence[int], cycles: Sequence[float]) -> Tensor:
    """A plane wave ``cos(2π Σ cycles · (i + ½) / size)`` on a grid.

    Along one axis of size n with k cycles the mean is ``sin(2πk) / (2n sin(πk / n))``: zero for whole cycles.

    Args:
        sizes: The grid.
        cycles: Periods along each axis, from end to end.

    Raises:
        ValueError: If there are not as many cycles as sizes.

    Example:
        >>> from tasks.maps.diagnostics import sinusoid
        >>> abs(sinusoid([10, 8], [2, 0]).mean().item()) < 1e-6
        True
    """
    if len(sizes) != len(cycles):
        raise ValueError(f"cycles: expected one for each of {len(sizes)} axes, got {len(cycles)}")
    phase = torch.zeros(tuple(sizes), dtype=torch.float64)
    for axis, (size, k) in enumerate(zip(sizes, cycles, strict=True)):
        line = 2 * math.pi * k * (torch.arange(size, dtype=torch.float64) + 0.5) / size
        phase = phase + line.reshape([-1 if i == axis else 1 for i in range(len(sizes))])
    return phase.cos().float()


def laplacian_modes(edge_index: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """The waves of a graph: eigenvalues and eigenvectors of its Laplacian L = D - A, smooth ones first.

    The eigenvectors have length one. On a connected graph the mean of the first is ±1 / √n and that of all others zero.

    Args:
        edge_index: ``(2, E)``, undirected: every edge in both directions, once.
        nodes: n.

    Returns:
        ``(n,)`` eigenvalues, and ``(n, n)`` with a mode in each column.

    Raises:
        ValueError: If an edge lacks its other direction.

    Example:
        >>> import torch
        >>> from tasks.maps.diagnostics import laplacian_modes
        >>> frequency, modes = laplacian_modes(torch.tensor([[0, 1, 1, 2], [1, 0, 2, 1]]), 3)
        >>> [round(value, 3) for value in frequency.abs().tolist()]
        [0.0, 1.0, 3.0]
    """
    adjacency = torch.zeros(nodes, nodes, dtype=torch.float64)
    adjacency[edge_index[0], edge_index[1]] = 1.0
    if not torch.equal(adjacency, adjacency.T):
        raise ValueError("edge_index: expected every edge in both directions; use torch_geometric.utils.to_undirected")
    adjacency.fill_diagonal_(0.0)
    values, vectors = torch.linalg.eigh(adjacency.sum(0).diag() - adjacency)
    return values.float(), vectors.float()


def response(function: Function, x: Tensor, pattern: Tensor, *, amplitude: float = 1.0) -> Tensor:
    """How much of a pattern comes through: ``rms(f(x + a p) - f(x)) / a``.

    For the mean it is ``|mean(p)|``: nothing of a checkerboard on an even grid, nothing of whole cycles. Behind a
    network it need not be: a ReLU gives a checkerboard a mean.

    Args:
        function: From elements to pooled vectors.
        x: Elements, ``(B, ...)``.
        pattern: What is added; broadcasts to ``x``.
        amplitude: a.

    Returns:
        ``(B,)``, per unit of amplitude.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> from tasks.maps.diagnostics import checkerboard, response
        >>> x, p, pool = torch.zeros(1, 2, 4, 4), checkerboard([4, 4]), Pool("b c [h w]")
        >>> response(pool, x, p).item(), response(lambda x: pool(x.relu()), x, p).item()
        (0.0, 0.5)
    """
    with torch.no_grad():
        return _energy(function(x + amplitude * pattern) - function(x)) / amplitude


def mixup_gap(function: Function, a: Tensor, b: Tensor, *, share: float = 0.5) -> Tensor:
    """How far pooling is from linear: ``rms(f(λa + (1-λ)b) - λf(a) - (1-λ)f(b)) / rms(λf(a) + (1-λ)f(b))``.

    Zero for every rule whose weights do not look at the elements (mean, sum, size law, fixed regions), to rounding.

    Args:
        function: From elements to pooled vectors.
        a: Elements, ``(B, ...)``.
        b: Elements to mix with, the same shape.
        share: λ.

    Returns:
        ``(B,)``, relative.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> from tasks.maps.diagnostics import mixup_gap
        >>> a, b = torch.tensor([[[4.0, 0.0]]]), torch.tensor([[[0.0, 4.0]]])
        >>> mixup_gap(Pool("b c [t]", "mean"), a, b).item(), mixup_gap(Pool("b c [t]", "max"), a, b).item()
        (0.0, 0.5)
    """
    with torch.no_grad():
        return _relative_gap(function(share * a + (1 - share) * b), function(a), function(b), share)


def cutmix_gap(function: Function, a: Tensor, b: Tensor, *, mask: Tensor) -> Tensor:
    """The same for an input cut together: ``a`` where the mask is true, ``b`` elsewhere; λ is the share of the mask.

    For the mean the numerator is ``|Σ_{i in mask} ((aᵢ - ā) - (bᵢ - b̄))| / N``: zero if the parts are like the wholes.

    Args:
        function: From elements to pooled vectors.
        a: Elements, ``(B, ...)``.
        b: Elements to cut in, the same shape.
        mask: bool; broadcasts to ``a``.

    Returns:
        ``(B,)``, relative.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> from tasks.maps.diagnostics import cutmix_gap
        >>> a, b = torch.ones(1, 1, 4), torch.full((1, 1, 4), 3.0)
        >>> cutmix_gap(Pool("b c [t]"), a, b, mask=torch.tensor([True, False, False, False])).item()
        0.0
    """
    share = mask.expand(a.shape).double().mean().item()
    with torch.no_grad():
        return _relative_gap(function(torch.where(mask, a, b)), function(a), function(b), share)


def _relative_gap(mixed: Tensor, a: Tensor, b: Tensor, share: float) -> Tensor:
    line = share * a + (1 - share) * b
    return _energy(mixed - line) / _energy(line).clamp(min=torch.finfo(line.dtype).tiny)


def shift_response(function: Function, x: Tensor, *, axis: int, steps: int) -> Tensor:
    """What a circular shift changes: ``rms(f(shifted x) - f(x))``; zero for every rule that does not look at positions.

    Args:
        function: From elements to pooled vectors.
        x: Elements, ``(B, ...)``.
        axis: The axis of ``x`` that is shifted.
        steps: By how many elements.

    Returns:
        ``(B,)``.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> from tasks.maps.diagnostics import shift_response
        >>> shift_response(Pool("b c [t]", "max"), torch.randn(1, 3, 8), axis=2, steps=3).item()
        0.0
    """
    with torch.no_grad():
        return _energy(function(x.roll(steps, axis)) - function(x))


def occlusion_response(function: Function, x: Tensor, *, mask: Tensor, fill: float = 0.0) -> Tensor:
    """What hiding some elements changes: ``rms(f(x with fill where the mask is true) - f(x))``.

    For the mean it is ``|Σ_{i in mask} (fill - xᵢ)| / N``: in proportion to what is hidden.

    Args:
        function: From elements to pooled vectors.
        x: Elements, ``(B, ...)``.
        mask: bool, what is hidden; broadcasts to ``x``.
        fill: What stands there instead.

    Returns:
        ``(B,)``.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> from tasks.maps.diagnostics import occlusion_response
        >>> hidden = torch.tensor([True, True, False, False])
        >>> occlusion_response(Pool("b c [t]"), torch.ones(1, 3, 4), mask=hidden).item()
        0.5
    """
    with torch.no_grad():
        return _energy(function(torch.where(mask, fill, x)) - function(x))
