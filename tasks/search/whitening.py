"""PCA-whitening: vectors whose directions all count the same, before their angles are compared."""

from typing import NamedTuple

import numpy as np
from sklearn.decomposition import PCA

NOTHING = 1e-9
"""Share of the largest variance below which a direction is rounding."""


class Whitening(NamedTuple):
    """z = W (x - μ) / ‖W (x - μ)‖: centred, the first principal directions scaled to one variance, of length one.

    Cosine similarity of z is what `search` compares. Pooled vectors share a large mean and a few loud directions, which
    plain cosines see and little else (Jégou and Chum 2012, "Negative evidences and co-occurences in image retrieval").

    Args:
        mean: μ, (D,).
        matrix: W, (K, D).

    Example:
        >>> x = np.random.default_rng(0).normal(5, [1, 100], (1000, 2))
        >>> z = fit_whitening(x)(x)
        >>> bool(abs(np.linalg.norm(z, axis=1) - 1).max() < 1e-6), abs(np.cov(z.T)).round(1).tolist()
        (True, [[0.5, 0.0], [0.0, 0.5]])
    """

    mean: np.ndarray
    matrix: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Whiten vectors (N, D) to (N, K) in float32; what lies at the mean stays zero."""
        return unit((x - self.mean) @ self.matrix.T)


def fit_whitening(x: np.ndarray, dims: int = 64) -> Whitening:
    """Fit to the vectors of an index.

    Args:
        x: (N, D).
        dims: Directions that are kept, at most; those whose variance is rounding never are. Scaled up, directions of
            little variance are noise.

    Raises:
        ValueError: If the vectors do not differ.
    """
    x = np.asarray(x, np.float64)
    if not np.ptp(x, axis=0).any():
        raise ValueError(f"expected vectors that differ, got {len(x)} that do not; search with --whiten 0")
    most = min(dims, *x.shape)
    solver = "covariance_eigh" if x.shape[1] <= 1024 < len(x) else "full" if min(x.shape) <= 4 * most else "randomized"
    found = PCA(most, svd_solver=solver, random_state=0).fit(x)
    variance = found.explained_variance_
    kept = variance > NOTHING * variance.max()
    return Whitening(found.mean_, found.components_[kept] / np.sqrt(variance[kept])[:, None])


def unit(x: np.ndarray) -> np.ndarray:
    """Vectors of length one, float32; zeros stay zero."""
    length = np.linalg.norm(x, axis=1, keepdims=True)
    scaled: np.ndarray = (x / np.where(length > 0, length, 1.0)).astype(np.float32)
    return scaled
