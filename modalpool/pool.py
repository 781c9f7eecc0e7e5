"""The layer: a layout plus a reduction."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from modalpool import state as states
from modalpool.arrange import Arranged, arrange
from modalpool.chunks import partial, whole
from modalpool.layout import Layout
from modalpool.padding import Lengths
from modalpool.reductions import Reduction, State, build, several
from modalpool.state import PoolState

__all__ = ["Pool"]


class Pool(nn.Module):
    """Pool the elements of each set into one vector, or into K.

    Args:
        layout: Axis names in the input's order; b is the batch, c the channels, brackets mark what is pooled, as in
            'b c [h w]', 'b [n] c', 'b c f [t]' or '[n] c'.
        reduction: Rule for the weights: mean, sum, size_law, max, min, var, std, power, logsumexp, softmax, attention,
            regions, pyramid, stochastic, or a list of them (concatenated on channels).
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
            self.reduction = several(list(reduction), channels, self.layout.pooled_axes, options)
        self.out_channels = self.reduction.out_channels(channels)

    @property
    def vectors(self) -> int | None:
        """K, the number of vectors per set, or None when the output has no k axis."""
        return self.reduction.vectors

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
            return_weights: Whether to return the weights too.

        Returns:
            The pooled tensor: what is not bracketed, in the layout's order, with k after b; for ragged layouts the set
            axis first. With ``return_weights``, also w in the input's layout, its channel axis of size 1 (all channels
            share the weight), heads, or C; with k after b. Σ w x is the output wherever the reduction says so.
        """
        arranged = arrange(
            self.layout,
            x,
            mask=mask,
            weight=weight,
            lengths=lengths,
            index=index,
            ptr=ptr,
            dim_size=dim_size,
            coords=coords,
            batch=batch,
            channels=self.channels,
        )
        device = "cpu" if x.is_cpu else x.device.type
        if not x.is_meta and torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return self._pool(arranged, x.dtype, return_weights)
        return self._pool(arranged, x.dtype, return_weights)

    def _pool(self, arranged: Arranged, dtype: torch.dtype, return_weights: bool) -> Any:
        """What is left to do when the elements are in order."""
        if return_weights:
            state, weights = self.reduction.partial(arranged.elements, arranged.sets, with_weights=True)
            assert weights is not None
            y = self.restore(self._finish(state, arranged), arranged).to(dtype)
            return y, self.restore_weights(weights, arranged)
        z = whole(self.reduction, arranged.elements, arranged.sets) if self.empty_value == 0.0 else None
        if z is None:
            y = self.restore(self.pooled(arranged), arranged)
        else:
            y = arranged.axes.restore_sets(z, vectors=False, keepdim=self.keepdim)
        return y if y.dtype == dtype else y.to(dtype)

    def pooled(self, arranged: Arranged) -> Tensor:
        """Pooled vectors ``(set axes, K, C)`` in the accumulation type, empty sets filled."""
        return self._finish(partial(self.reduction, arranged.elements, arranged.sets), arranged)

    def _finish(self, state: State, arranged: Arranged) -> Tensor:
        reduction = self.reduction
        z = reduction.project(reduction.finalize(state))
        if self.empty_value != 0.0 or not reduction.zero_if_empty:
            if arranged.sets.full and reduction.absent(state) is None:
                return z
            z = self.fill_empty(z, arranged.sets.count(arranged.elements), state)
        return z

    def fill_empty(self, z: Tensor, count: Tensor, state: State) -> Tensor:
        """Put ``empty_value`` into what has no elements: z ``(set axes, K, C)``, count ``(set axes, 1)``."""
        empty = (count <= 0)[..., None]
        absent = self.reduction.absent(state)
        if absent is not None:
            empty = empty | absent
        if self.empty_value == "raise":
            if bool(empty.any()):
                raise ValueError(
                    "empty_value='raise': a set has no elements; mask less, drop the set or choose a number"
                )
            return z
        return z.masked_fill(empty, float(self.empty_value))

    def restore(self, z: Tensor, arranged: Arranged) -> Tensor:
        """Pooled vectors ``(set axes, K, C)`` in the layout's order."""
        vectors = self.vectors is not None
        return arranged.axes.restore_sets(z if vectors else z.squeeze(-2), vectors=vectors, keepdim=self.keepdim)

    def restore_weights(self, weights: Tensor, arranged: Arranged) -> Tensor:
        """Weights ``(element axes, K, G)`` in the input's layout."""
        vectors = self.vectors is not None
        return arranged.restore_elements(weights if vectors else weights.squeeze(-2), vectors=vectors)

    def update(self, state: PoolState | None, x: Tensor, **sets: Any) -> PoolState:
        """Add the elements of a chunk to a state (None = nothing yet); see `modalpool.state.update`."""
        return states.update(self, state, x, **sets)

    def merge(self, a: PoolState, b: PoolState) -> PoolState:
        """Join two states of the same sets; see `modalpool.state.merge`."""
        return states.merge(self, a, b)

    def all_merge(self, state: PoolState, **options: Any) -> PoolState:
        """Join the states of all processes; see `modalpool.state.all_merge`."""
        return states.all_merge(self, state, **options)

    def finalize(self, state: PoolState) -> Tensor:
        """Give the pooled tensor of everything a state has seen; see `modalpool.state.finalize`."""
        return states.finalize(self, state)

    def extra_repr(self) -> str:
        """Reads like the constructor call."""
        shown = repr(self.layout.text)
        if self.keepdim:
            shown += ", keepdim=True"
        return shown if self.empty_value == 0.0 else f"{shown}, empty_value={self.empty_value!r}"
