"""Layouts: which axes of a tensor are sets, elements and channels.

A layout names the axes in the tensor's own order: ``b`` is the batch, ``c`` the channels, every other name a position.
Brackets mark the positions that are pooled; the other positions are kept. ``...`` stands for any number of axes.

    "b c f [t]"     over time, one vector per frequency      (B, C, F, T)    -> (B, C, F)
    "b c [d h w]"   a volume                                 (B, C, D, H, W) -> (B, C)
    "b c [...]"     any rank, channels first                 (B, C, ...)     -> (B, C)
    "b [n] c"       tokens                                   (B, N, C)       -> (B, C)
    "[n] c"         ragged: the sets come with the call      (N, C)          -> (S, C)

Inside the package elements are always seen in one order, the *canonical* one: ``(b, kept…, pooled…, c)`` where there is
a batch axis and ``(element, kept…, c)`` where there is none; what a pooling gives is ``(b or set, kept…, [k], c)``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

__all__ = ["Axes", "Layout"]

USUAL = 8
"""Up to how many axes of ``...`` layouts are worked out beforehand."""

_TOKEN = re.compile(r"\[|\]|\.\.\.|[A-Za-z_][A-Za-z0-9_]*|\S")


@dataclass(frozen=True)
class Axes:
    """The axes of one tensor, as positions in its shape."""

    batch: int | None
    channel: int
    kept: tuple[int, ...]
    pooled: tuple[int, ...]

    ragged: bool = field(init=False, repr=False)
    """Whether the sets come from an index, not from a batch axis."""
    order: tuple[int, ...] = field(init=False, repr=False)
    """The permutation into the canonical order."""
    straight: bool = field(init=False, repr=False)
    """Whether that is the order there is."""
    inverse: tuple[int, ...] = field(init=False, repr=False)
    """The permutation back."""
    back: tuple[int, ...] = field(init=False, repr=False)
    """The same for what is left when the pooled axes are gone: from the input's order to the canonical one."""
    same: bool = field(init=False, repr=False)
    """Whether elements come as they are to be seen."""
    joins: bool = field(init=False, repr=False)
    """Whether several axes of ragged elements become one."""

    def __post_init__(self) -> None:
        """Work out once what every call asks for."""
        first = self.pooled + self.kept if self.batch is None else (self.batch, *self.kept, *self.pooled)
        order = (*first, self.channel)
        object.__setattr__(self, "ragged", self.batch is None)
        object.__setattr__(self, "order", order)
        object.__setattr__(self, "straight", order == tuple(range(len(order))))
        object.__setattr__(self, "inverse", tuple(sorted(range(len(order)), key=order.__getitem__)))
        left = [axis for axis in order if axis not in self.pooled]
        object.__setattr__(self, "back", tuple(sorted(left).index(axis) for axis in left))
        object.__setattr__(self, "joins", self.batch is None and len(self.pooled) > 1)
        object.__setattr__(self, "same", self.straight and not self.joins)

    def canonical(self, x: Tensor) -> Tensor:
        """View ``x`` in the canonical order; ragged elements become one axis."""
        x = x if self.straight else x.permute(self.order)
        return x.flatten(0, len(self.pooled) - 1) if self.joins else x

    def canonical_mask(self, mask: Tensor) -> Tensor:
        """The same for a tensor of the shape of ``x`` without channels."""
        order = [axis - (axis > self.channel) for axis in self.order[:-1]]
        mask = mask.permute(order)
        return mask.flatten(0, len(self.pooled) - 1) if self.joins else mask

    def restore_sets(self, y: Tensor, *, vectors: bool, keepdim: bool) -> Tensor:
        """Put pooled vectors ``(b or set, kept…, [k], c)`` into the order of the layout, the vectors' axis after b."""
        if not self.kept and not keepdim and (self.batch is None or self.batch < self.channel):
            return y  # as it is: b, k, c
        first = -1 if self.batch is None else self.batch  # ragged sets come first, and the rest as it stood
        here = {first: 0, self.channel: y.ndim - 1} | {axis: 1 + i for i, axis in enumerate(self.kept)}
        order = []
        for axis in sorted(here):
            order.append(here[axis])
            if axis == first and vectors:
                order.append(y.ndim - 2)
        y = y.permute(order)
        if keepdim:
            for axis in self.pooled:
                y = y.unsqueeze(axis + (vectors and axis > first))
        return y

    def restore_elements(self, w: Tensor, shape: torch.Size, *, vectors: bool) -> Tensor:
        """Put ``(element axes…, [k], channels)`` back into the order of the input, which had this ``shape``."""
        if self.joins:
            w = w.reshape(*(shape[axis] for axis in self.pooled), *w.shape[1:])
        inverse = list(self.inverse)
        inverse[self.channel] = w.ndim - 1
        if vectors:
            at = 0 if self.batch is None else self.batch + 1
            inverse.insert(at, w.ndim - 2)
        return w.permute(inverse)


@dataclass(frozen=True)
class Layout:
    """A parsed layout.

    Args:
        text: Axis names in the tensor's order, pooled ones in brackets.

    Raises:
        ValueError: If the text is not a layout; the message says which rule it breaks.

    Example:
        >>> Layout("b c [d h w]").axes(5)
        Axes(batch=0, channel=1, kept=(), pooled=(2, 3, 4))
        >>> Layout("b c [...]").axes(4).pooled
        (2, 3)
    """

    text: str
    _pairs: tuple[tuple[str, bool], ...] = field(init=False, repr=False, compare=False)
    _axes: dict[int, Axes] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the text once, when the layout is made, and find the axes of the tensors that are to be expected."""
        pairs = self._parse()
        object.__setattr__(self, "_pairs", pairs)
        fewest = sum(name != "..." for name, _ in pairs)
        fits = {ndim: self._expand(ndim) for ndim in range(fewest, USUAL + 1 if fewest < len(pairs) else fewest + 1)}
        known = {ndim: self._find(pairs) for ndim, pairs in fits.items() if any(pooled for _, pooled in pairs)}
        object.__setattr__(self, "_axes", known)

    def _parse(self) -> tuple[tuple[str, bool], ...]:
        """Split the text into ``(name, pooled)`` pairs."""
        pairs: list[tuple[str, bool]] = []
        inside = False
        for token in _TOKEN.findall(self.text):
            if token == "[" and not inside:
                inside = True
            elif token == "]" and inside:
                inside = False
            elif token == "..." or token[0].isalpha() or token[0] == "_":
                pairs.append((token, inside))
            else:
                raise self._error(f"{token!r} is out of place")
        names = [name for name, _ in pairs]
        if inside:
            raise self._error("a bracket is not closed")
        if len(set(names)) < len(names):
            raise self._error("a name is used twice")
        if "c" not in names or ("c", True) in pairs or ("b", True) in pairs:
            raise self._error("it needs an unbracketed channel axis c, and b may not be bracketed")
        if not any(pooled for _, pooled in pairs):
            raise self._error("nothing is bracketed, so nothing would be pooled")
        return tuple(pairs)

    def _error(self, problem: str) -> ValueError:
        return ValueError(
            f"layout {self.text!r}: {problem}; expected axis names in the input's order with the pooled ones in "
            "brackets, like 'b c [h w]', 'b [n] c', 'b c f [t]' or '[n] c'"
        )

    @property
    def ragged(self) -> bool:
        """Whether there is no batch axis: the sets come from ``index`` or ``ptr``."""
        return all(name != "b" for name, _ in self._pairs)

    @property
    def pooled_axes(self) -> int | None:
        """How many axes are pooled; None where ``...`` leaves it open."""
        pooled = [name for name, pooled in self._pairs if pooled]
        return None if "..." in pooled else len(pooled)

    @property
    def kept_axes(self) -> int | None:
        """How many positions are kept; None where ``...`` leaves it open."""
        kept = [name for name, pooled in self._parse() if not pooled and name not in ("b", "c")]
        return None if "..." in kept else len(kept)

    def axes(self, ndim: int) -> Axes:
        """Find the axes of a tensor with ``ndim`` axes.

        Raises:
            ValueError: If a tensor of that rank does not fit the layout.
        """
        if ndim in self._axes:
            return self._axes[ndim]
        pairs = self._expand(ndim)
        if len(pairs) != ndim:
            raise ValueError(f"layout {self.text!r} describes {len(pairs)} axes, got a tensor with {ndim}")
        if not any(pooled for _, pooled in pairs):
            raise ValueError(f"layout {self.text!r}: a tensor with {ndim} axes leaves nothing to pool")
        return self._find(pairs)

    def name(self, axis: int, ndim: int) -> str:
        """The name of an axis of a tensor with ``ndim`` axes."""
        return self._expand(ndim)[axis][0]

    def _expand(self, ndim: int) -> list[tuple[str, bool]]:
        """The pairs with as many names for ``...`` as ``ndim`` axes leave for it."""
        pairs = list(self._pairs)
        at = next((i for i, (name, _) in enumerate(pairs) if name == "..."), None)
        if at is not None and ndim >= len(pairs) - 1:
            extra = ndim - len(pairs) + 1
            pairs[at : at + 1] = [(f"...{i}", pairs[at][1]) for i in range(extra)]
        return pairs

    @staticmethod
    def _find(pairs: Sequence[tuple[str, bool]]) -> Axes:
        """The axes of a tensor with one axis per name."""
        names = [name for name, _ in pairs]
        return Axes(
            batch=names.index("b") if "b" in names else None,
            channel=names.index("c"),
            kept=tuple(i for i, (name, pooled) in enumerate(pairs) if not pooled and name not in ("b", "c")),
            pooled=tuple(i for i, (_, pooled) in enumerate(pairs) if pooled),
        )

    def without_batch(self) -> Layout:
        """The layout of the values of a jagged tensor: the same without ``b``."""
        words = [f"[{name}]" if pooled else name for name, pooled in self._pairs if name != "b"]
        return Layout(" ".join(words))

    def __str__(self) -> str:
        return self.text
