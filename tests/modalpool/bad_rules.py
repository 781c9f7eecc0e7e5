"""Rules of our own, one good and the others each at fault in one way, to see that the guarantees find out.

As a plugin (``pytest -p bad_rules``) they are registered like any other rule, before the guarantees are collected.
"""

import torch
from reference import BY_CLASS, total

from modalpool.reductions import NAMES, Sum


class Twice(Sum):
    """Twice the sum, and nothing wrong with it."""

    def partial(self, x, sets, count, *, with_weights=False):
        (z,), weight = super().partial(x, sets, count, with_weights=with_weights)
        return (2 * z,), 2 * weight if with_weights else None


class Leaks(Twice):
    """Looks at what the mask hides."""

    def partial(self, x, sets, count, *, with_weights=False):
        (z,), weight = super().partial(x, sets, count, with_weights=with_weights)
        return (z + 0 * x.sum(),), weight


class Copies(Twice):
    """Holds its input thirteen times."""

    def partial(self, x, sets, count, *, with_weights=False):
        return super().partial(torch.stack([x] * 13)[0], sets, count, with_weights=with_weights)


class Rounds(Twice):
    """Adds up in bfloat16 what is not double."""

    def partial(self, x, sets, count, *, with_weights=False):
        (z,), weight = super().partial(x, sets, count, with_weights=with_weights)
        return (z if z.dtype == torch.float64 else z.bfloat16().to(z.dtype),), weight


class Forgets(Twice):
    """Does not merge, and does not say so."""

    def merge(self, a, b, m, n):
        return b


class Bounds(Twice):
    """Makes a number of an infinity."""

    def finalize(self, state, count):
        return super().finalize(state, count).nan_to_num()


class Halves(Twice):
    """Hands out weights that are not its own."""

    def partial(self, x, sets, count, *, with_weights=False):
        state, weight = super().partial(x, sets, count, with_weights=with_weights)
        return state, weight / 2 if with_weights else None


class Mixes(Twice):
    """Lets the sets of a batch see each other."""

    def finalize(self, state, count):
        z = super().finalize(state, count)
        return z + z.flatten(0, -2).mean(0)


class Fills(Twice):
    """Has an opinion of nothing, whatever it was told: its gradient there is not finite."""

    def finalize(self, state, count):
        z = super().finalize(state, count)
        return z * z.square().sqrt() / z.square().sqrt()


class Waits(Twice):
    """Asks the device for a number."""

    def finalize(self, state, count):
        z = super().finalize(state, count)
        return z if z.isnan().any().item() else z * 1


class Detaches(Twice):
    """Keeps half of its gradient to itself."""

    def partial(self, x, sets, count, *, with_weights=False):
        (z,), weight = super().partial(x, sets, count, with_weights=with_weights)
        return ((z + z.detach()) / 2,), weight


RULES = {
    kind.__name__.lower(): kind
    for kind in (Twice, Leaks, Copies, Rounds, Forgets, Bounds, Halves, Mixes, Fills, Waits, Detaches)
}
FORMULAS = {kind.__name__: lambda x, a, u, r: 2 * total(x, a, u, r) for kind in RULES.values()}


def pytest_configure(config):
    NAMES.update(RULES)
    BY_CLASS.update(FORMULAS)
