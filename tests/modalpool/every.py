"""Every reduction and the main layouts, for the tests that hold for all of them."""

import copy
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from modalpool import Pool

CHANNELS = 4


class Case(NamedTuple):
    """A reduction with options: ``reduction`` and ``options`` as `Pool` takes them."""

    name: str
    reduction: str | list[str]
    options: dict[str, Any]


def case(name: str, reduction: str | list[str] | None = None, **options: Any) -> Case:
    return Case(name, reduction or name, options)


CASES = [
    case("mean"),
    case("mean_sqrt", "mean", grad_scale="sqrt"),
    case("mean_sum", "mean", grad_scale="sum"),
    case("mean_as_7", "mean", grad_scale=7.0),
    case("sum"),
    case("size_law", learn_beta=True),
    case("size_law_mixture", "size_law", law="mixture", reference_size=9.0),
    case("max"),
    case("min"),
    case("var"),
    case("std"),
    case("power", learn_p=True),
    case("logsumexp", learn_temperature=True),
    case("logsumexp_normalized", "logsumexp", normalize=True),
    case("softmax", learn_temperature=True),
    case("softmax_flat", "softmax", temperature=float("inf")),
    case("softmax_hard", "softmax", temperature=0.0),
    case("attention", heads=2),
    case("attention_gated", "attention", score="gated", score_channels=3, queries=2, learn_temperature=True),
    case("attention_projected", "attention", heads=2, project=True),
    case("attention_grid", "attention", grid=[3]),
    case("attention_hard", "attention", temperature=0.0),
    case("attention_log_n", "attention", temperature_scaling="log_n", reference_size=9.0),
    case("regions", regions=3),
    case("pyramid", levels=[[1], [2]]),
    case("stochastic"),
    case("mean+std+max", ["mean", "std", "max"]),
]
BY_NAME = {case.name: case for case in CASES}
SMOOTH = [case for case in CASES if case.name not in ("attention_hard", "softmax_hard")]
EVERY = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def make(case: Case, layout: str = "b c [t]", *, dtype: torch.dtype = torch.float32, **options: Any) -> Pool:
    """The pool of a case, in evaluation, with parameters away from their start."""
    torch.manual_seed(7)
    pool = Pool(layout, copy.deepcopy(case.reduction), channels=CHANNELS, **case.options, **options).to(dtype).eval()
    with torch.no_grad():
        for parameter in pool.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return pool


class Call(NamedTuple):
    """One way to say what the sets are; all of them hold the same three sets, of 5, 0 and 2 elements.

    ``dense`` is the exception: two sets of five, nothing masked.
    """

    name: str
    layout: str
    x: Tensor
    sets: dict[str, Any]


def calls(dtype: torch.dtype = torch.float32, *, positive: bool = False) -> dict[str, Call]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(3, CHANNELS, 5, generator=generator, dtype=torch.float64)
    x = (x.abs() + 0.1 if positive else x).to(dtype)
    lengths = torch.tensor([5, 0, 2])
    mask = torch.arange(5) < lengths[:, None]
    nodes = x.movedim(1, 2)[mask]
    coords = ((torch.arange(5) + 0.5) / lengths.clamp(min=1)[:, None])[mask][:, None].to(dtype)
    index = torch.tensor([0, 0, 0, 0, 0, 2, 2])
    order = torch.tensor([5, 1, 0, 6, 2, 4, 3])
    return {
        call.name: call
        for call in (
            Call("dense", "b c [t]", x[:2].clone(), {}),
            Call("mask", "b c [t]", x, {"mask": mask, "coords": _padded(coords, mask)}),
            Call("lengths", "b c [t]", x, {"lengths": lengths}),
            Call("index", "[n] c", nodes[order], {"index": index[order], "dim_size": 3, "coords": coords[order]}),
            Call("ptr", "[n] c", nodes, {"ptr": torch.tensor([0, 5, 5, 7])}),
        )
    }


def _padded(coords: Tensor, mask: Tensor) -> Tensor:
    full = coords.new_zeros(*mask.shape, 1)
    full[mask] = coords
    return full


LAYOUTS = pytest.mark.parametrize("layout", ["dense", "mask", "lengths", "index", "ptr"])


def larger(call: Call) -> Call:
    """The same call with every element twice: other sizes for everything."""
    if call.layout == "[n] c":
        x = call.x.repeat(2, 1)
        if "ptr" in call.sets:
            ptr = call.sets["ptr"]
            return call._replace(x=x, sets={"ptr": torch.cat([ptr, ptr[1:] + ptr[-1]])})
        sets = call.sets
        index = torch.cat([sets["index"], sets["index"] + sets["dim_size"]])
        return call._replace(
            x=x, sets={"index": index, "dim_size": 2 * sets["dim_size"], "coords": sets["coords"].repeat(2, 1)}
        )
    sets = {name: given.repeat(2, *[1] * (given.ndim - 1)) for name, given in call.sets.items()}
    for name in ("mask", "coords"):
        if name in sets:
            sets[name] = sets[name].repeat(1, 2, *[1] * (sets[name].ndim - 2))
    return call._replace(x=call.x.repeat(2, 1, 2), sets=sets)


# One of each kind of reduction, in one layout each: for what is slow to try.
_KINDS = {str(case.reduction): case for case in reversed(CASES)}
DIAGONAL = pytest.mark.parametrize(
    ("case", "layout"),
    [
        pytest.param(case, layout, id=f"{case.name}-{layout}")
        for case, layout in zip(
            reversed(_KINDS.values()), ["index", "dense", "mask", "ptr", "lengths"] * 3, strict=True
        )
    ],
)


def needs_coords(pool: Pool, call: Call) -> dict[str, Any]:
    """The call's arguments, without coordinates where nobody reads them."""
    return call.sets if pool.reduction.positional else {k: v for k, v in call.sets.items() if k != "coords"}


def close(got: Tensor, expected: Tensor, *, ulp: float = 8) -> None:
    """Assert equality to a few units in the last place of the largest number involved."""
    eps = torch.finfo(got.dtype).eps
    scale = max(1.0, expected.detach().abs().nan_to_num().max().item()) if expected.numel() else 1.0
    torch.testing.assert_close(got, expected, rtol=ulp * eps, atol=ulp * eps * scale, equal_nan=True)
