"""Slow, independent formulas in float64: Python loops over sets and elements, one function per reduction.

Each takes one set, x ``(n, C)`` with multiplicities a ``(n,)`` and positions u ``(n, d)``, and gives ``(K, C)``;
nothing here knows axes, masks or batches. Parameters are read from the pool they check.
"""

import math

import numpy as np


def mean(x, a, u, r):
    total, size = np.zeros(x.shape[1]), 0.0
    for xi, ai in zip(x, a, strict=True):
        total, size = total + ai * xi, size + ai
    return (total / size)[None]


def total(x, a, u, r):
    return mean(x, a, u, r) * a.sum()


def size_law(x, a, u, r):
    n = a.sum() if r.reference_size is None else r.reference_size
    beta = r.beta if r.raw_beta is None else r.raw_beta.item()
    return mean(x, a, u, r) * (n**beta if r.law == "power" else (1 - beta) + beta * n)


def largest(x, a, u, r):
    return x.max(0)[None]


def smallest(x, a, u, r):
    return x.min(0)[None]


def var(x, a, u, r):
    return mean((x - mean(x, a, u, r)) ** 2, a, u, r)


def std(x, a, u, r):
    return np.sqrt(var(x, a, u, r))


def power(x, a, u, r):
    p = r.p if r.log_p is None else math.exp(r.log_p.item())
    return mean(np.maximum(x, r.eps) ** p, a, u, r) ** (1 / p)


def temperature(t):
    return t.value if t.log is None else np.exp(t.log.detach().numpy())


def logsumexp(x, a, u, r):
    t = temperature(r.temperature)
    result = np.log(sum(ai * np.exp(xi / t) for xi, ai in zip(x, a, strict=True)))
    return (t * (result - (np.log(a.sum()) if r.normalize else 0.0)))[None]


def weigh(scores, a, t):
    """Softmax weights ``(n, F)`` at temperature t, with the limits."""
    if np.ndim(t) == 0 and t == 0:
        best = (scores == scores.max(0)) * a[:, None]
    elif np.ndim(t) == 0 and t == math.inf:
        best = np.ones_like(scores) * a[:, None]
    else:
        best = np.exp((scores - scores.max(0)) / t) * a[:, None]
    return best / best.sum(0)


def softmax(x, a, u, r):
    return (weigh(x, a, temperature(r.temperature)) * x).sum(0)[None]


def layer(linear, x):
    bias = 0 if linear.bias is None else linear.bias.detach().numpy()
    return x @ linear.weight.detach().numpy().T + bias


def scores(x, u, module):
    result = np.zeros((len(x), module.outputs))
    if module.content is not None:
        hidden = x if module.hidden is None else np.tanh(layer(module.hidden, x))
        hidden = hidden if module.gate is None else hidden / (1 + np.exp(-layer(module.gate, x)))
        result += layer(module.content, hidden)
    if module.position is not None:  # one axis: numpy's own linear interpolation, constant beyond the outermost values
        grid = module.position.detach().numpy()
        centres = (np.arange(len(grid)) + 0.5) / len(grid)
        result += np.stack([np.interp(u[:, 0], centres, column) for column in grid.T], axis=1)
    return result


def attention(x, a, u, r):
    s = scores(x, u, r.scores)
    if r.temperature_scaling == "log_n":
        s = s * math.log(a.sum()) / math.log(r.reference_size)
    w = weigh(s, a, temperature(r.temperature)).reshape(len(x), r.queries, r.heads)
    width = x.shape[1] // r.heads
    result = []
    for k in range(r.queries):
        heads = []
        for h in range(r.heads):
            # Where there is a value matrix it comes first, then the sum: the textbook's order.
            values = layer(r.values, x) if r.projects else x
            heads.append((w[:, k, h, None] * values[:, h * width : (h + 1) * width]).sum(0))
        z = np.concatenate(heads)
        result.append(layer(r.output, z) if r.projects else z)
    return np.stack(result)


def parts(assignment, x, a):
    """Weighted mean of each part; zero where nothing belongs to one."""
    result = []
    for column in assignment.T:
        w = column * a
        result.append((w[:, None] * x).sum(0) / w.sum() if w.sum() > 0 else np.zeros(x.shape[1]))
    return np.stack(result)


def regions(x, a, u, r):
    s = scores(x, u, r.scores)
    e = np.exp(s - s.max(1, keepdims=True))
    return parts(e / e.sum(1, keepdims=True), x, a)


def pyramid(x, a, u, r):
    assignment = []
    for level in r.levels:
        cells = np.zeros((len(x), int(np.prod(level))))
        for i, place in enumerate(u):
            cell = [min(int(v * size), size - 1) for v, size in zip(place, level, strict=True)]
            cells[i, np.ravel_multi_index(cell, level)] = 1
        assignment.append(cells)
    return parts(np.concatenate(assignment, axis=1), x, a)


def stochastic(x, a, u, r):
    p = np.maximum(x, 0) + 1e-12
    return mean_of_channels(x, p * a[:, None])


def mean_of_channels(x, w):
    return ((w * x).sum(0) / w.sum(0))[None]


def quantile(x, a, u, r):
    """One channel after the other: sort, and walk until enough elements have been passed."""
    result = []
    for column in x.T:
        order = np.argsort(column)
        rank = r.q * max(a.sum() - 1, 0)
        upto = np.cumsum(a[order])
        low = column[order][np.searchsorted(upto, math.floor(rank), side="right")]
        higher = column[column > low]
        one_more = upto[column[order] == low].max() > math.floor(rank) + 1 or len(higher) == 0
        high = low if one_more else higher.min()
        result.append(low if rank == math.floor(rank) else low + (rank - math.floor(rank)) * (high - low))
    return np.array(result)[None]


def topk(x, a, u, r):
    """One channel after the other: take the largest until all places are taken."""
    result = []
    for column in x.T:
        left = max(r.k * a.sum(), min(1, a.sum())) if r.shares else r.k
        pairs = []
        for i in np.argsort(-column):
            places = a[i] if r.shares else max(a[i], 1.0)
            used = min(places, left)
            pairs.append((a[i] * used / places, column[i]))
            left -= used
        # Those that tie share what is left for them.
        values = [v for w, v in pairs]
        tied = {v: sum(w for w, other in pairs if other == v) for v in set(values)}
        result.append(sum(w * v for v, w in tied.items()) / sum(tied.values()))
    return np.array(result)[None]


def statistics(x, a, u, r):
    """Desplanques et al. 2020, eq. 1 to 4, element by element."""
    w, b = r.hidden.weight.detach().numpy(), r.hidden.bias.detach().numpy()
    if r.around is not None:
        w = np.concatenate([w, r.around.weight.detach().numpy()], axis=1)
        m, s = mean(x, a, u, r)[0], std(x, a, u, r)[0]
    v = r.score.weight.detach().numpy()
    e = []
    for h in x:
        seen = h if r.around is None else np.concatenate([h, m, s])
        e.append(v @ np.tanh(w @ seen + b))
    alpha = a[:, None] * np.exp(np.array(e))
    alpha = alpha / alpha.sum(0)
    mu = (alpha * x).sum(0)
    sigma = np.sqrt(np.maximum((alpha * x**2).sum(0) - mu**2, 0))
    return np.concatenate([mu, sigma])[None]


def concatenation(x, a, u, r):
    return np.concatenate([pooled(x, a, u, member) for member in r.members], axis=1)


BY_CLASS = {
    "Mean": mean,
    "Sum": total,
    "SizeLaw": size_law,
    "Max": largest,
    "Min": smallest,
    "Var": var,
    "Std": std,
    "Power": power,
    "LogSumExp": logsumexp,
    "Softmax": softmax,
    "Attention": attention,
    "Regions": regions,
    "Pyramid": pyramid,
    "Stochastic": stochastic,
    "TopK": topk,
    "Quantile": quantile,
    "Statistics": statistics,
    "Concatenation": concatenation,
}


def pooled(x, a, u, reduction):
    """The pooled vectors ``(K, C')`` of one set by this reduction, zero for an empty one."""
    here = np.nonzero(a > 0)[0]
    if len(here) == 0:
        return np.zeros((reduction.vectors or 1, reduction.out_channels(x.shape[1])))
    formula = BY_CLASS.get(type(reduction).__name__)
    if formula is None:
        raise NotImplementedError(f"write the formula of {type(reduction).__name__} in {__file__}")
    return formula(x[here], a[here], u[here], reduction)
