"""Several reductions at once, side by side on the channel axis."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from modalpool.reductions.base import Count, Partial, Reduction, State
from modalpool.sets import Sets

__all__ = ["Concatenation"]


class Concatenation(Reduction):
    """Pool in several ways and concatenate the results on the channel axis, in the order given.

    Statistics pooling (Snyder et al. 2018) is ``["mean", "std"]``. All members give the same number of vectors.

    Args:
        members: Ready-made reductions.

    Raises:
        ValueError: If there are none, or their numbers of vectors differ.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> pool = Pool("b c [t]", ["mean", "std", "max"], channels=4)
        >>> pool(torch.randn(2, 4, 9)).shape, pool.out_channels
        (torch.Size([2, 12]), 12)
    """

    def __init__(self, members: Sequence[Reduction]) -> None:
        super().__init__()
        kinds = {member.vectors for member in members}
        if len(kinds) != 1:
            raise ValueError(f"reduction: expected a list of equally many vectors each, got {sorted(map(str, kinds))}")
        self.members = nn.ModuleList(members)
        self.vectors = members[0].vectors
        self.needs_whole = next((member.needs_whole for member in members if member.needs_whole), None)
        self.positional = any(member.positional for member in members)
        self.repeats = sum(member.repeats for member in members)
        self.state_size = sum(member.state_size for member in members)

    def _members(self) -> list[Reduction]:
        return [member for member in self.members if isinstance(member, Reduction)]

    def _split(self, state: State) -> list[tuple[Reduction, State]]:
        """Each member with its own state."""
        pairs, start = [], 0
        for member in self._members():
            pairs.append((member, state[start : start + member.state_size]))
            start += member.state_size
        return pairs

    def out_channels(self, channels: int | None) -> int | None:
        """The sum of the members' channels."""
        each = [member.out_channels(channels) for member in self._members()]
        return None if None in each else sum(filter(None, each))

    def in_chunks(self, x: Tensor, sets: Sets) -> bool:
        """See `Reduction.in_chunks`; several members write a gradient each before it is added up."""
        return self.merges and (len(self.members) > 1 or self._members()[0].in_chunks(x, sets))

    @property
    def merges(self) -> bool:
        return all(member.merges for member in self._members())

    def partial(self, x: Tensor, sets: Sets, count: Count, *, with_weights: bool = False) -> Partial:
        """See `Reduction.partial`; the state is the members' states one after the other."""
        state: list[Tensor] = []
        weights: list[Tensor] = []
        for member in self._members():
            own, weight = member.partial(x, sets, count, with_weights=with_weights)
            state.extend(own)
            if weight is not None:  # one weight per channel of z, for all members alike
                channels = x.shape[-1] * member.repeats
                weight = weight.expand(*x.shape[:-1], *weight.shape[x.ndim - 1 :])
                weights.append(weight.repeat_interleave(channels // weight.shape[-1], dim=-1))
        return tuple(state), torch.cat(weights, dim=-1) if with_weights else None

    def merge(self, a: State, b: State, m: Count, n: Count) -> State:
        merged: list[Tensor] = []
        for (member, left), (_, right) in zip(self._split(a), self._split(b), strict=True):
            merged.extend(member.merge(left, right, m, n))
        return tuple(merged)

    def finalize(self, state: State, count: Count) -> Tensor:
        return torch.cat([member.finalize(own, count) for member, own in self._split(state)], dim=-1)

    def project(self, z: Tensor, count: Count) -> Tensor:
        """Each member's own, on its own channels."""
        members = self._members()
        each = torch.split(z, [z.shape[-1] // self.repeats * member.repeats for member in members], dim=-1)
        return torch.cat([member.project(own, count) for member, own in zip(members, each, strict=True)], dim=-1)

    def empty(self, z: Tensor, state: State, count: Count) -> Tensor | None:
        """See `Reduction.empty`: each member's own, for its own channels."""
        widths = [member.out_channels(1) or 1 for member in self._members()]
        each = torch.split(z, [z.shape[-1] // sum(widths) * width for width in widths], dim=-1)
        found = [
            (member.empty(own, part, count), own) for own, (member, part) in zip(each, self._split(state), strict=True)
        ]
        if all(empty is None for empty, _ in found):
            return None
        none = torch.zeros((), dtype=torch.bool, device=z.device)
        return torch.cat([(none if empty is None else empty).expand_as(own) for empty, own in found], dim=-1)
