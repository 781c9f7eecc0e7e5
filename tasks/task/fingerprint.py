"""Fingerprints: a sample's content from afar, the same wherever it lies in its window, for finding copies."""

from collections.abc import Sequence

import torch
from torch import Tensor


def fingerprint(x: Tensor, axes: Sequence[int], *, frequencies: int = 8, mirrored: int | None = None) -> Tensor:
    """Magnitudes of the lowest frequencies along some axes, of what is standardised and fades out at its borders.

    ``|F(w · (x - mean) / std)|`` with F the discrete Fourier transform along ``axes`` and w Hann's window along each. A
    shift changes the phase of F alone, a mirror image turns its frequencies around, a gain and an offset go with mean
    and std, and what is recoded or smoothed differs in high frequencies first (the Fourier-Mellin idea; Casasent and
    Psaltis 1976). Whitened (`tasks.search.whitening`), copies stand out.

    Args:
        x: One sample, any axes.
        axes: Along which it may be shifted.
        frequencies: How many along each axis, in cycles in its length, 0 among them; fewer where it has not as many.
        mirrored: One of ``axes``, not the last, along which a mirror image is a copy.

    Returns:
        A vector.

    Example:
        >>> x = torch.rand(1, 20, 24, 18)
        >>> one, copy = (fingerprint(y, [1, 2, 3], frequencies=4, mirrored=1) for y in (x, 3 * x.flip(1) + 1))
        >>> one.shape, torch.allclose(one, copy, atol=1e-6)
        (torch.Size([112]), True)
    """
    x = (x - x.mean()) / x.std(correction=0).clamp(min=torch.finfo(x.dtype).tiny)
    for axis in axes:
        window = torch.hann_window(x.shape[axis] + 2, periodic=False, dtype=x.dtype, device=x.device)[1:-1]  # no zeros
        x = x * window.view([-1 if place == axis % x.ndim else 1 for place in range(x.ndim)])
    found: Tensor = torch.fft.fftn(x, dim=tuple(axes), norm="forward").abs()
    for axis in axes:
        size = found.shape[axis]
        most = min(frequencies, size // 2 + 1)
        low = torch.arange(most, device=x.device)
        if axis == axes[-1]:  # the others' negative frequencies say the rest
            found = found.index_select(axis, low)
        elif axis == mirrored:
            found = (found.index_select(axis, low) + found.index_select(axis, -low % size)) / 2
        else:
            found = found.index_select(
                axis, torch.tensor(sorted({*low.tolist(), *(-low % size).tolist()}), device=x.device)
            )
    return found.flatten()
