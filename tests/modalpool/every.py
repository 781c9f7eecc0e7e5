"""Every reduction and the main layouts, for the guarantees: what holds for all of them.

A rule is here from the line of `modalpool.reductions.NAMES` that registers it.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import pytest
import torch
from forms import first, give, lay
from torch import Tensor

from modalpool import Pool
from modalpool.reductions import NAMES, options_of

CHANNELS = 4


class Case(NamedTuple):
    """A reduction with options: ``reduction`` and ``options`` as `Pool` takes them."""

    name: str
    reduction: str | list[str]
    options: dict[str, Any]


def case(name: str, reduction: str | list[str] | None = None, **options: Any) -> Case:
    return Case(name, reduction or name, options)


# What a rule can be besides its default. New variants are welcome here; a new rule needs none.
VARIANTS = [
    case("mean_sqrt", "mean", grad_scale="sqrt"),
    case("mean_sum", "mean", grad_scale="sum"),
    case("mean_as_7", "mean", grad_scale=7.0),
    case("size_law_mixture", "size_law", law="mixture", reference_size=9.0),
    case("logsumexp_normalized", "logsumexp", normalize=True),
    case("softmax_flat", "softmax", temperature=float("inf")),
    case("softmax_hard", "softmax", temperature=0.0),
    case("attention_heads", "attention", heads=2),
    case("attention_gated", "attention", score="gated", score_channels=3, queries=2, learn_temperature=True),
    case("attention_projected", "attention", heads=2, project=True),
    case("attention_grid", "attention", grid=[3]),
    case("attention_hard", "attention", temperature=0.0),
    case("attention_log_n", "attention", temperature_scaling="log_n", reference_size=9.0),
    case("topk_share", "topk", k=0.4),
    case("quantile_low", "quantile", q=0.1),
    case("statistics_context", "statistics", score_channels=3, context=True),
    case("mean+std+max", ["mean", "std", "max"]),
]

# Which cases do not keep a guarantee, by case or by rule, and why. A test that one of them passes after all fails.
EXCEPTIONS = {
    "its gradient is that of its output": {
        "mean_sqrt": "grad_scale rescales the gradient on purpose",
        "mean_sum": "grad_scale rescales the gradient on purpose",
        "mean_as_7": "grad_scale rescales the gradient on purpose",
    },
    "the slope of a weight of zero is the formula's": {
        **dict.fromkeys(("mean_sqrt", "mean_sum", "mean_as_7"), "grad_scale rescales the gradient on purpose"),
        **dict.fromkeys(("max", "min", "mean+std+max"), "an extreme asks only whether an element is there"),
        **dict.fromkeys(("softmax_hard", "attention_hard"), "an argmax asks only whether an element is there"),
        **dict.fromkeys(("topk", "quantile", "quantile_low"), "an element of any weight takes a place"),
    },
    "its parameters train": {"attention_hard": "an argmax has no slope"},
    "it is nothing at zero": {"attention_projected": "a bias comes after the sum"},
    "it fits into an ONNX file": dict.fromkeys(
        ("topk_share", "quantile", "quantile_low"), "ONNX cannot look at the bits of a number"
    ),
    "it needs no memory of its input's size": {"statistics_context": "its scores look at the whole set first"},
    "its shares add up": {"logsumexp": "they miss T times the entropy of the weights"},
}


def default(name: str) -> Case:
    """A registered rule as it comes, but with every parameter that it can learn."""
    return case(name, **{option: True for option in options_of(name) if option.startswith("learn_")})


def all_cases() -> list[Case]:
    """Every rule that is registered at this moment, then the variants."""
    return [*map(default, NAMES), *VARIANTS]


def exception(case: Case, guarantee: str) -> str | None:
    """Why a case does not keep a guarantee; None = it does."""
    if guarantee == "its parts merge":  # a fact that the rule states itself
        return make(case).reduction.needs_whole
    reasons = EXCEPTIONS[guarantee]
    return reasons.get(case.name, reasons.get(str(case.reduction)))


def every(*guarantees: str) -> pytest.MarkDecorator:
    """Try every case; one that is an exception from one of these guarantees has to fail."""

    def param(case: Case) -> Any:
        reasons = [reason for guarantee in guarantees if (reason := exception(case, guarantee))]
        mark = [pytest.mark.xfail(reason="; ".join(reasons), strict=True)] if reasons else []
        return pytest.param(case, id=case.name, marks=mark)

    return pytest.mark.parametrize("case", [param(case) for case in CASES])


def every_layout(
    *guarantees: str, name: str = "layout", values: Sequence[str] = (), differ: Sequence[str] = ("dense", "index")
) -> pytest.MarkDecorator:
    """Try every rule in every layout, its variants in those that differ, and in the others in the slow suite."""

    def param(one: Any, layout: str) -> Any:
        case = one.values[0]
        here = case.name in NAMES or layout in differ
        marks = [*one.marks, *([] if here else [pytest.mark.slow])]
        return pytest.param(case, layout, id=f"{case.name}-{layout}", marks=marks)

    cases = every(*guarantees).args[1]
    return pytest.mark.parametrize(("case", name), [param(one, each) for one in cases for each in values or calls()])


def one_each(name: str, values: Sequence[str]) -> pytest.MarkDecorator:
    """Try every rule once, with one of the values in turn: for what is slow."""
    rules = [case for case in CASES if case.name in NAMES or isinstance(case.reduction, list)]
    params = [
        pytest.param(case, value, id=f"{case.name}-{value}")
        for case, value in zip(rules, itertools.cycle(values), strict=False)
    ]
    return pytest.mark.parametrize(("case", name), params)


def make(
    case: Case,
    layout: str = "b c [t]",
    *,
    dtype: torch.dtype = torch.float32,
    channels: int | None = None,
    coordinates: int = 1,
    **options: Any,
) -> Pool:
    """The pool of a case, in evaluation, with parameters away from their start; positions have one coordinate."""
    torch.manual_seed(7)
    channels = channels or CHANNELS
    axes = "b [" + " ".join("xyz"[:coordinates]) + "] c"
    sizes = {"grid": case.options["grid"] * coordinates} if "grid" in case.options else {}
    rule = Pool(axes, case.reduction, channels=channels, **case.options | sizes).reduction
    pool = Pool(layout, rule, channels=channels, **options).eval()
    with torch.no_grad():
        for parameter in pool.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return pool.to(dtype)  # after the draw, which another type would have otherwise


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


CASES = all_cases()
BY_NAME = {case.name: case for case in CASES}
EVERY = every()
LAYOUTS = pytest.mark.parametrize("layout", list(calls()))
EVERY_LAYOUT = every_layout()
DIAGONAL = one_each("layout", ["index", "dense", "mask", "ptr", "lengths"])


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


def needs_coords(pool: Pool, call: Call) -> dict[str, Any]:
    """The call's arguments, without coordinates where nobody reads them."""
    return call.sets if pool.reduction.positional else {k: v for k, v in call.sets.items() if k != "coords"}


def close(got: Tensor, expected: Tensor, *, ulp: float = 8) -> None:
    """Assert equality to a few units in the last place of the largest number involved."""
    eps = torch.finfo(got.dtype).eps
    scale = max(1.0, expected.detach().abs().nan_to_num().max().item()) if expected.numel() else 1.0
    torch.testing.assert_close(got, expected, rtol=ulp * eps, atol=ulp * eps * scale, equal_nan=True)


def slope_of(z):
    """Some slope that is the same for the same output."""
    return torch.linspace(-1.0, 2.0, z[0].numel(), dtype=z.dtype).reshape(z[0].shape).expand_as(z)


def run(case, name, sets, **options):
    """Output (3, K, C) and the gradient of every element (8, C) in one form."""
    weighted = options.pop("weighted", False)
    poison = options.pop("poison", 0.0)
    pool = make(case, "[n] c", dtype=sets.x.dtype)
    coords = pool.reduction.positional
    form = lay(name, sets, weighted=weighted, coords=coords, poison=poison)
    pool = make(case, form.layout, dtype=sets.x.dtype, **options)
    x = form.x.clone().requires_grad_()
    z = first(form, pool(give(form, x), **form.sets), vectors=pool.vectors is not None)
    (grad,) = torch.autograd.grad(z, x, slope_of(z))
    return pool, form, z.detach(), grad
