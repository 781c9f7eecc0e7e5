"""For users of timm: the select-adaptive-pool shape for 1D to 3D, and timm's latent attention pool with its weights.

    from modalpool.compat.timm import AttentionPoolLatent, SelectAdaptivePool2d
    model.global_pool = SelectAdaptivePool2d(pool_type="catavgmax", flatten=True)
    model.attn_pool = AttentionPoolLatent(model.attn_pool)      # the same numbers; takes masks and gives weights

Nothing here imports timm.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from modalpool.pool import Pool
from modalpool.reductions import Attention

__all__ = [
    "AttentionPoolLatent",
    "SelectAdaptivePool",
    "SelectAdaptivePool1d",
    "SelectAdaptivePool2d",
    "SelectAdaptivePool3d",
    "attention_from_latent",
]

_RULES: dict[str, str | list[str]] = {"avg": "mean", "avgmax": ["mean", "max"], "catavgmax": ["mean", "max"]}


class SelectAdaptivePool(nn.Module):
    """Pool everything but batch and channels, by a rule chosen by name.

    Args:
        output_size: 1; there for timm's sake.
        pool_type: "avg", "max", "avgmax" (their mean), "catavgmax" (both, on the channel axis), any of them after
            "fast", any short name of `Pool`, or "" for no pooling.
        flatten: Whether pooled axes go, or stay with size one.
        input_fmt: Order of the axes: N, C and one letter for every axis that is pooled, as in "NCHW" or "NDHWC"; None =
            channels first, of an image unless the class says otherwise.
        channels: Size of C, for rules with parameters.
        options: The rule's own options.

    Raises:
        ValueError: If ``output_size``, ``pool_type`` or ``input_fmt`` has no meaning here.

    Example:
        >>> import torch
        >>> from modalpool.compat.timm import SelectAdaptivePool3d
        >>> pool = SelectAdaptivePool3d(pool_type="catavgmax", flatten=True)
        >>> pool(torch.randn(2, 8, 3, 4, 5)).shape, pool.feat_mult()
        (torch.Size([2, 16]), 2)
    """

    spatial: int | None = None
    """How many axes ``input_fmt`` has to have besides N and C."""
    usual = "NCHW"
    """The ``input_fmt`` that need not be said."""

    def __init__(
        self,
        output_size: int = 1,
        pool_type: str = "fast",
        flatten: bool = False,
        input_fmt: str | None = None,
        *,
        channels: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        if output_size not in (1, (1,), (1, 1), (1, 1, 1)):
            raise ValueError(
                f"output_size: expected 1, the whole input, got {output_size}; for windows use "
                "torch.nn.AdaptiveAvgPool, for cells of the input pool_type='pyramid'"
            )
        input_fmt = input_fmt or self.usual
        letters = list(input_fmt)
        axes = len(letters) - 2
        if letters[:1] != ["N"] or letters.count("C") != 1 or len(set(letters)) != len(letters) or axes < 1:
            raise ValueError(
                f"input_fmt: expected N, C and letters for the pooled axes, as in 'NCHW', got {input_fmt!r}"
            )
        if self.spatial not in (None, axes):
            raise ValueError(f"input_fmt: {type(self).__name__} pools {self.spatial} axes, got {input_fmt!r}")
        self.pool_type = pool_type or ""
        self.flatten, self.input_fmt, self.channels = flatten, input_fmt, channels
        rule = self.pool_type.lower().removeprefix("fast") or "avg"
        names = {"N": "b", "C": "c"}
        layout = " ".join(names.get(letter, f"[{letter.lower()}]") for letter in letters)
        self.mixes = rule == "avgmax"
        self.pool: Pool | None = None
        if not self.is_identity():
            self.pool = Pool(layout, _RULES.get(rule, rule), channels=channels, keepdim=not flatten, **options)

    def is_identity(self) -> bool:
        """Whether nothing is pooled."""
        return not self.pool_type

    def feat_mult(self) -> int:
        """Features of the flattened output per input channel."""
        if self.pool is None or self.mixes:
            return 1
        channels = self.channels or 1
        features = self.pool.reduction.out_channels(channels) or channels
        return features * (self.pool.vectors or 1) // channels

    def forward(self, x: Tensor, **sets: Any) -> Tensor:
        """Pool ``x``; ``mask``, ``weight`` and ``lengths`` as in `Pool`."""
        if self.pool is None:
            return x.flatten(1) if self.flatten else x
        z: Tensor = self.pool(x, **sets)
        if self.mixes:
            channel = 1 if self.flatten else self.input_fmt.index("C")
            mean, top = z.chunk(2, dim=channel)
            z = 0.5 * mean + 0.5 * top
        return z.flatten(1) if self.flatten else z

    def __repr__(self) -> str:
        return f"{type(self).__name__}(pool_type={self.pool_type}, flatten={self.flatten})"


class SelectAdaptivePool1d(SelectAdaptivePool):
    """`SelectAdaptivePool` of signals, ``(N, C, L)``."""

    spatial = 1
    usual = "NCL"


class SelectAdaptivePool2d(SelectAdaptivePool):
    """`SelectAdaptivePool` of images, ``(N, C, H, W)``."""

    spatial = 2


class SelectAdaptivePool3d(SelectAdaptivePool):
    """`SelectAdaptivePool` of volumes, ``(N, C, D, H, W)``."""

    spatial = 3
    usual = "NCDHW"


def attention_from_latent(module: nn.Module) -> Attention:
    """Fold the attention of a `timm.layers.AttentionPoolLatent` into ours: the same numbers, many times faster.

    The latent goes through the query matrix and the key matrix once, here, and the value matrix is applied to the
    pooled vectors. The output projection comes along where it is square; norm, MLP and position embedding are not part
    of the attention: see `AttentionPoolLatent` for all of it.

    Raises:
        ValueError: If the module normalises its keys, which no query can absorb.
    """
    timm: Any = module
    if not isinstance(timm.k_norm, nn.Identity):
        raise ValueError("module: expected a pool without qk_norm; normalised keys cannot be folded into the query")
    with torch.no_grad():
        queries = timm.q(timm.latent)[0]
        queries = timm.q_norm(queries.reshape(len(queries), timm.num_heads, -1)).flatten(1)
        key, value = timm.kv.weight.chunk(2)
        square = _square(timm)
        return Attention.from_textbook(
            heads=timm.num_heads,
            query=queries,
            key=key,
            value=value,
            value_bias=None if timm.kv.bias is None else timm.kv.bias.chunk(2)[1],
            output=timm.proj.weight if square else torch.eye(len(value)).to(value),
            output_bias=timm.proj.bias if square else None,
            scale=timm.scale,
        )


def _square(timm: Any) -> bool:
    return isinstance(timm.proj, nn.Linear) and timm.proj.in_features == timm.proj.out_features


class AttentionPoolLatent(nn.Module):
    """Take over a `timm.layers.AttentionPoolLatent` with its weights.

    Args:
        module: timm's pool, which is copied.

    Raises:
        ValueError: If the module normalises its keys.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        timm: Any = copy.deepcopy(module)
        self.pool = Pool("b [n] c", attention_from_latent(timm))
        self.latent_len, self.pool_type, self.out_features = timm.latent_len, timm.pool, timm.out_features
        self.pos_embed = timm.pos_embed
        self.proj = nn.Identity() if _square(timm) else timm.proj
        self.proj_drop, self.norm, self.mlp = timm.proj_drop, timm.norm, timm.mlp

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """Pool tokens ``(B, N, C)``.

        Args:
            x: Tokens.
            attn_mask: bool, True = the token counts, ``(B, N)`` or, as in timm, ``(B, 1, 1, N)``.

        Raises:
            ValueError: If the mask is not one mask per set of tokens.
        """
        mask = attn_mask
        if mask is not None:
            if mask.ndim == 4 and mask.shape[1] == mask.shape[2] == 1:
                mask = mask[:, 0, 0]
            if mask.dtype != torch.bool or mask.ndim != 2:
                raise ValueError(
                    f"attn_mask: expected bool (B, N) or (B, 1, 1, N), True = the token counts, got {mask.dtype} with "
                    f"shape {tuple(mask.shape)}"
                )
        if self.pos_embed is not None:
            x = x + self.pos_embed.to(x.dtype)
        z: Tensor = self.pool(x, mask=mask)
        z = z.unsqueeze(1) if self.latent_len == 1 else z  # (B, K, C)
        z = self.proj_drop(self.proj(z))
        if self.mlp is not None:
            z = z + self.mlp(self.norm(z))
        if self.pool_type == "token":
            return z[:, 0]
        return z.mean(1) if self.pool_type == "avg" else z
