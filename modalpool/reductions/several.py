"""Several reductions at once, side by side on the channel axis."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from modalpool.reductions.base import Reduction, State
from modalpool.sets import Sets

__all__ = ["Several"]


class Several(Reduction):
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
        self.sized = any(member.sized for member in members)
        self.zero_if_empty = all(member.zero_if_empty for member in members)
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
        known = [size for size in each if size is not None]
        return sum(known) if len(known) == len(each) else None

    def in_chunks(self, x: Tensor, sets: Sets) -> bool:
        """See `Reduction.in_chunks`; several members write a gradient each before it is added up."""
        return len(self.members) > 1 or self._members()[0].in_chunks(x, sets)

    def partial(self, x: Tensor, sets: Sets, *, with_weights: bool = False) -> tuple[State, Tensor | None]:
        """See `Reduction.partial`; the state is the members' states one after the other."""
        state: list[Tensor] = []
        weights: list[Tensor] = []
        for member in self._members():
            part, weight = member.partial(x, sets, with_weights=with_weights)
            state.extend(part)
            if weight is not None:  # one weight per channel of z, for all members alike
                channels = x.shape[-1] * member.repeats
                weight = weight.expand(*x.shape[:-1], *weight.shape[-2:])
                weights.append(weight.repeat_interleave(channels // weight.shape[-1], dim=-1))
        return tuple(state), torch.cat(weights, dim=-1) if with_weights else None

    def merge(self, a: State, b: State) -> State:
        """See `Reduction.merge`."""
        merged: list[Tensor] = []
        for (member, left), (_, right) in zip(self._split(a), self._split(b), strict=True):
            merged.extend(member.merge(left, right))
        return tuple(merged)

    def finalize(self, state: State) -> Tensor:
        """See `Reduction.finalize`."""
        return torch.cat([member.finalize(part) for member, part in self._split(state)], dim=-1)

    def project(self, z: Tensor) -> Tensor:
        """Each member's own, on its own channels."""
        channels = z.shape[-1] // self.repeats
        parts = torch.split(z, [channels * member.repeats for member in self._members()], dim=-1)
        return torch.cat([member.project(part) for member, part in zip(self._members(), parts, strict=True)], dim=-1)

    def absent(self, state: State) -> Tensor | None:
        """Each member's own, for its own channels."""
        parts = [(member, member.absent(part), member.finalize(part)) for member, part in self._split(state)]
        if all(absent is None for _, absent, _ in parts):
            return None
        full = []
        for member, absent, z in parts:
            width = member.project(z).shape[-1]
            none = torch.zeros((*z.shape[:-1], width), dtype=torch.bool, device=z.device)
            full.append(none if absent is None else absent.expand_as(none))
        return torch.cat(full, dim=-1)
