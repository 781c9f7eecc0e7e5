"""The layer: a layout plus a reduction."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from modalpool import state as states
from modalpool.arrange import Arranged, arrange
from modalpool.chunks import state_of
from modalpool.kernels import full_precision
from modalpool.layout import Axes, Layout
from modalpool.padding import Lengths
from modalpool.reductions import Count, Reduction, State, build, concatenate
from modalpool.state import PoolState
from modalpool.weightings import by_weighting

__all__ = ["Pool"]


class Pool(nn.Module):
    """Pool the elements of each set into one vector, or into K.

    Args:
        layout: Axis names in the input's order; b is the batch, c the channels, brackets mark what is pooled, as in
            'b c [h w]', 'b [n] c', 'b c f [t]' or '[n] c'.
        reduction: Rule for the weights, by its name in `modalpool.reductions.NAMES`, or ready-made; or a list of names,
            whose results are concatenated on channels.
        channels: Size of the axis c; needed by reductions with parameters, accepted by all.
        keepdim: Whether pooled axes stay, with size one.
        empty_value: Result of a set without elements: a number, "nan", or "raise" (which waits for the device).
        options: The reduction's own options.

    Attributes:
        out_channels: Channels of each output vector (None if ``channels`` was not given).
        vectors: K, vectors per set, or None when the output has no k axis.

    Raises:
        ValueError: If an argument has no meaning here; the message says what was expected.
        TypeError: If an option belongs to another reduction.

    Example:
        >>> import torch
        >>> from modalpool import Pool
        >>> pool = Pool("b c f [t]", "attention", channels=8, heads=4)
        >>> pool(torch.randn(2, 8, 5, 100), lengths=torch.tensor([100, 60])).shape
        torch.Size([2, 8, 5])
        >>> Pool("[n] c", "mean")(torch.ones(3, 2), index=torch.tensor([0, 2, 2]), dim_size=4)
        tensor([[1., 1.],
                [0., 0.],
                [1., 1.],
                [0., 0.]])
    """

    def __init__(
        self,
        layout: str,
        reduction: str | list[str] | Reduction = "mean",
        *,
        channels: int | None = None,
        keepdim: bool = False,
        empty_value: float | str = 0.0,
        **options: Any,
    ) -> None:
        super().__init__()
        self.layout = Layout(layout)
        self.channels = channels
        if isinstance(empty_value, str) and empty_value not in ("nan", "raise"):
            raise ValueError(f"empty_value: expected a number, 'nan' or 'raise', got {empty_value!r}")
        if keepdim and self.layout.ragged:
            raise ValueError(f"keepdim: layout {layout!r} has no batch axis, its pooled axes become the set axis")
        self.keepdim = keepdim
        self.empty_value = empty_value
        if isinstance(reduction, Reduction):
            if options:
                raise TypeError(
                    f"options {', '.join(options)}: they belong to the reduction that was passed ready-made"
                )
            self.reduction = reduction
        elif isinstance(reduction, str):
            self.reduction = build(reduction, channels, self.layout.pooled_axes, **options)
        else:
            self.reduction = concatenate(list(reduction), channels, self.layout.pooled_axes, options)
        self.out_channels = self.reduction.out_channels(channels)
        self.vectors = self.reduction.vectors
        self.rule = repr(self.reduction)  # what a state is of

    def arrange(self, x: Tensor, **sets: Any) -> Arranged:
        """Check the inputs of a call and bring them into canonical order."""
        return arrange(self.layout, x, channels=self.channels, **sets)

    def forward(
        self,
        x: Tensor,
        batch: None = None,
        *,
        mask: Tensor | None = None,
        weight: Tensor | None = None,
        lengths: Lengths | None = None,
        index: Tensor | None = None,
        ptr: Tensor | None = None,
        dim_size: int | None = None,
        coords: Tensor | None = None,
        weight_axes: str | None = None,
        return_weights: bool = False,
    ) -> Any:
        """Pool ``x``.

        Args:
            x: Elements in the layout.
            batch: Refused, with what to write: what says which elements make a set goes by its name.
            mask: bool, or integers 0 and 1: whether the element counts; shaped like ``x`` without channels, sizes of 1
                broadcast. What it hides may be anything, in x and in all that comes with it.
            weight: Multiplicity of each element, >= 0, same shape; 2 is the element twice, 0 not at all.
            lengths: ``(B,)`` integers: only the first ``lengths`` elements along the one pooled axis count. By name,
                ``{"t": ...}``, along any positions, kept ones too; where a kept position comes last, only by name.
            index: ``(N,)`` integers: the set of each element, in any order (layouts without b).
            ptr: ``(S + 1,)`` integers: set s is elements ptr[s] to ptr[s + 1] (layouts without b).
            dim_size: Number of sets S; without it and ``ptr`` the device is asked for the largest index that the mask
                shows.
            coords: Positions in [0, 1], the mask's shape and one axis more, for rules that look at positions; known
                without asking for dense inputs, ``ptr`` and jagged tensors.
            weight_axes: Names of the axes of a ``weight`` that has one more: "b k t" are K weightings, each with a
                vector of its own, ``(B, K, C)``; "b c t" is a weight for each channel.
            return_weights: Whether to return the weights too.

        Returns:
            The pooled tensor: what is not bracketed, in the layout's order, with k after b; for ragged layouts the set
            axis first. With ``return_weights``, also w in the input's layout, its channel axis of size 1 (all channels
            share the weight), heads, or C; with k after b. Σ w x is the output wherever the reduction says so.
        """
        sets: dict[str, Any] = {"mask": mask, "lengths": lengths, "index": index, "ptr": ptr, "dim_size": dim_size}
        sets["coords"] = coords
        if weight_axes is not None:
            return by_weighting(self, x, weight, weight_axes, sets | {"return_weights": return_weights})
        arranged = arrange(self.layout, x, weight=weight, batch=batch, channels=self.channels, **sets)
        if not x.is_meta and torch.is_autocast_enabled("cpu" if x.is_cpu else x.device.type):
            with full_precision(x):
                return self._pool(arranged, x.dtype, return_weights)
        return self._pool(arranged, x.dtype, return_weights)

    def _pool(self, arranged: Arranged, dtype: torch.dtype, return_weights: bool) -> Any:
        """What is left to do when the elements are in order."""
        z, weights = self.pooled(arranged, with_weights=return_weights)
        y = self.restore(z, arranged.axes)
        y = y if y.dtype == dtype else y.to(dtype)
        if weights is None:
            return y
        return y, arranged.restore_elements(weights, vectors=self.vectors is not None)

    def pooled(self, arranged: Arranged, *, with_weights: bool = False) -> tuple[Tensor, Tensor | None]:
        """Pooled vectors ``(set axes, *k, C)`` in the accumulation type, and the weights if asked for."""
        reduction, x, sets = self.reduction, arranged.elements, arranged.sets
        count = Count.of(sets, x)
        if with_weights:
            state, weights = reduction.partial(x, sets, count, with_weights=True)
        else:
            state, weights = state_of(reduction, x, sets, count), None
        return self.fill(reduction.project(reduction.finalize(state, count), count), state, count), weights

    def fill(self, z: Tensor, state: State, count: Count) -> Tensor:
        """Put ``empty_value`` into projected vectors ``(set axes, *k, C)`` without elements, which are zero already."""
        if self.empty_value == 0.0:
            return z
        empty = self.reduction.empty(z, state, count)
        if empty is None:
            return z
        if self.empty_value != "raise":
            return z.masked_fill(empty, float(self.empty_value))
        if bool(empty.any()):
            raise ValueError("empty_value='raise': a set has no elements; mask less, drop the set or choose a number")
        return z

    def restore(self, z: Tensor, axes: Axes) -> Tensor:
        """Pooled vectors ``(set axes, *k, C)`` in the layout's order."""
        return axes.restore_sets(z, vectors=self.vectors is not None, keepdim=self.keepdim)

    def update(self, state: PoolState | None, x: Tensor, **sets: Any) -> PoolState:
        """Add the elements of one chunk to a state; see `modalpool.state`.

        Args:
            state: What came before, or None.
            x: Elements in the layout.
            sets: ``mask``, ``weight``, ``lengths``, ``index``, ``ptr``, ``dim_size``, ``coords``, as in the call; all
                chunks have the same batch and kept axes, or number the same sets (``dim_size``).

        Returns:
            The new state; the old one is as it was.

        Raises:
            ValueError: If the chunk has other sets than the state, or the rule looks at positions and has no
                ``coords``.
            NotImplementedError: If the reduction cannot be merged.

        Example:
            >>> import torch
            >>> from modalpool import Pool
            >>> pool, state, recording = Pool("b c [t]", "std"), None, torch.randn(2, 8, 1000)
            >>> for chunk in recording.split(300, dim=-1):
            ...     state = pool.update(state, chunk)
            >>> torch.allclose(pool.finalize(state), pool(recording), atol=1e-6)
            True
        """
        if self.reduction.positional and sets.get("coords") is None:
            raise ValueError(
                "coords: this reduction looks at positions, and a chunk does not know its place in the whole; "
                "pass coords= (in [0, 1] over the whole)"
            )
        return states.update(self.reduction, state, self.arrange(x, **sets), self.rule)

    def merge(self, a: PoolState, b: PoolState) -> PoolState:
        """Join two states of the same sets; see `modalpool.state.merge`."""
        return states.merge(self.reduction, a.of(self.rule), b)

    def all_merge(self, state: PoolState, **options: Any) -> PoolState:
        """Join the states of all processes; see `modalpool.state.all_merge`."""
        return states.all_merge(self.reduction, state.of(self.rule), **options)

    def finalize(self, state: PoolState) -> Tensor:
        """Give the pooled tensor of everything the state has seen: what the call gives for all at once, to rounding."""
        count = state.of(self.rule).counted()
        with full_precision(state.count):
            z = self.reduction.project(self.reduction.finalize(state.own, count), count)
            z = self.fill(z, state.own, count)
        return self.restore(z, state.axes).to(state.dtype)

    def extra_repr(self) -> str:
        """Reads like the constructor call."""
        shown = repr(self.layout.text)
        if self.keepdim:
            shown += ", keepdim=True"
        return shown if self.empty_value == 0.0 else f"{shown}, empty_value={self.empty_value!r}"
