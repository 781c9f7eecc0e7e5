"""The same sets in every form a call can take: dense, masked, ragged, jagged, with and without weights and kept axes.

`SETS` are three sets of 5, 0 and 3 elements, each with a multiplicity and a position. A form lays them out; `lay` gives
the call, and `read` finds the elements of the sets again in anything that has the input's layout.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

SIZES = (5, 0, 3)
FORMS = [
    "mask",
    "mask_channels_last",
    "lengths",
    "volume",
    "kept",
    "kept_channels_last",
    "index",
    "index_kept",
    "ptr",
    "jagged",
    "jagged_channels_first",
]
# Position of the elements of each set in the padded forms, shuffled where order is free.
ORDER = torch.tensor([5, 1, 0, 7, 2, 4, 3, 6])


class Sets(NamedTuple):
    x: Tensor  # (8, C)
    weight: Tensor  # (8,)
    coords: Tensor  # (8, 1)


class Form(NamedTuple):
    name: str
    layout: str
    x: Tensor
    sets: dict[str, Any]


def make_sets(channels: int = 4, *, dtype=torch.float64, weighted: bool = False, seed: int = 0) -> Sets:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(sum(SIZES), channels, generator=generator, dtype=torch.float64).to(dtype)
    weight = torch.rand(sum(SIZES), generator=generator, dtype=torch.float64) + 0.5
    coords = torch.cat([(torch.arange(n) + 0.5) / max(n, 1) for n in SIZES])[:, None]
    return Sets(x, weight.to(dtype) if weighted else torch.ones(sum(SIZES), dtype=dtype), coords.to(dtype))


def pad(rows: Tensor, length: int, fill: float) -> Tensor:
    """``(8, *)`` as ``(3, length, *)``."""
    out = rows.new_full((len(SIZES), length, *rows.shape[1:]), fill)
    for s, part in enumerate(rows.split(SIZES)):
        out[s, : len(part)] = part
    return out


def lay(name: str, sets: Sets, *, weighted: bool = False, coords: bool = False, poison: float = 0.0) -> Form:
    """The call of a form; ``poison`` fills the padding. Kept forms hold the sets twice, the second time negated."""
    x = sets.x
    mask = pad(torch.ones(len(x)), 6, 0.0).bool()
    lengths = torch.tensor(SIZES)
    ptr = torch.tensor([0, *torch.tensor(SIZES).cumsum(0)])
    index = torch.repeat_interleave(torch.arange(3), lengths)
    extra: dict[str, Any] = {}
    if name in ("mask", "lengths", "mask_channels_last"):
        padded = pad(x, 6, poison)
        layout, full = ("b [n] c", padded) if name == "mask_channels_last" else ("b c [t]", padded.mT.contiguous())
        extra = {"lengths": lengths} if name == "lengths" else {"mask": mask}
        extra |= {"weight": pad(sets.weight, 6, 0.0)} if weighted else {}
        extra |= {"coords": pad(sets.coords, 6, 0.0)} if coords else {}
    elif name == "volume":
        layout, full = "b c [d h w]", pad(x, 6, poison).mT.reshape(3, -1, 1, 2, 3)
        extra = {"mask": mask.reshape(3, 1, 2, 3)}
        extra |= {"weight": pad(sets.weight, 6, 0.0).reshape(3, 1, 2, 3)} if weighted else {}
        extra |= {"coords": pad(sets.coords, 6, 0.0).reshape(3, 1, 2, 3, 1)} if coords else {}
    elif name.startswith("kept"):
        padded = torch.stack([pad(x, 6, poison), pad(-x, 6, poison)], dim=1)  # (B, F, T, C)
        layout, full = ("b f [t] c", padded) if name == "kept_channels_last" else ("b c f [t]", padded.movedim(-1, 1))
        extra = {"mask": mask[:, None]}
        extra |= {"weight": pad(sets.weight, 6, 0.0)[:, None]} if weighted else {}
        extra |= {"coords": pad(sets.coords, 6, 0.0)[:, None]} if coords else {}
    elif name == "index":
        layout, full, extra = "[n] c", x[ORDER], {"index": index[ORDER], "dim_size": 3}
        extra |= {"weight": sets.weight[ORDER]} if weighted else {}
        extra |= {"coords": sets.coords[ORDER]} if coords else {}
    elif name == "index_kept":
        layout, full = "[n] f c", torch.stack([x, -x], dim=1)[ORDER]
        extra = {"index": index[ORDER], "dim_size": 3}
        extra |= {"weight": sets.weight[ORDER, None]} if weighted else {}
        extra |= {"coords": sets.coords[ORDER, None]} if coords else {}
    elif name == "ptr":
        layout, full, extra = "[n] c", x, {"ptr": ptr}
        extra |= {"weight": sets.weight} if weighted else {}
        extra |= {"coords": sets.coords} if coords else {}
    else:
        layout, full = ("b c [t]" if "first" in name else "b [n] c"), x
        extra |= {"weight": sets.weight} if weighted else {}
        extra |= {"coords": sets.coords} if coords else {}
    return Form(name, layout, full, extra)


def give(form: Form, x: Tensor) -> Tensor:
    """What the pool is called with: the leaf itself, or a jagged tensor made from it."""
    if not form.name.startswith("jagged"):
        return x
    jagged = torch.nested.nested_tensor_from_jagged(x, torch.tensor([0, *torch.tensor(SIZES).cumsum(0)]))
    return jagged.transpose(1, 2) if "first" in form.name else jagged


def read(form: Form, full: Tensor) -> Tensor:
    """The elements ``(8, *)`` of a tensor in the input's layout, in the order of the sets; of kept forms the first."""
    if full.is_nested:
        full = full.transpose(1, 2) if "first" in form.name else full
        return full.values()
    if form.name == "volume":
        full = full.reshape(*full.shape[:-3], 6)
    if form.name in ("kept", "kept_channels_last"):
        full = full.select(-2 if form.name == "kept" else 1, 0)
    if form.name in ("index", "index_kept"):
        full = full[:, 0] if form.name == "index_kept" else full
        return full[torch.argsort(ORDER)]
    if form.name in ("ptr", "jagged", "jagged_channels_first"):
        return full
    full = full if "last" in form.name else full.mT
    return torch.cat([full[s, :n] for s, n in enumerate(SIZES)])


def first(form: Form, z: Tensor, *, vectors: bool) -> Tensor:
    """The output for the sets themselves, ``(3, K, C)``, without the negated copies of kept forms."""
    if form.name == "kept":  # (B, [K], C, F)
        z = z[..., 0]
    elif form.name in ("kept_channels_last", "index_kept"):  # (B, [K], F, C)
        z = z.select(2 if vectors else 1, 0)
    return z if vectors else z[:, None]
