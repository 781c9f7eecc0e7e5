"""Options of the pool and of its reductions: which there are, what they may be, and how the command line sees them."""

import pytest
import torch

from modalpool import Pool, functional
from modalpool.reductions import NAMES, Mean


@pytest.mark.parametrize(
    ("reduction", "options", "error", "message"),
    [
        ("average", {}, ValueError, "reduction: expected one of mean, sum, .*, got 'average'"),
        ("mean", {"heads": 2}, TypeError, "'mean' does not take heads; it takes grad_scale"),
        ("sum", {"p": 2.0}, TypeError, "'sum' does not take p; it takes no options"),
        (["mean", "power"], {"heads": 2}, TypeError, "none of them takes heads; mean takes grad_scale; power takes p"),
        (Mean(), {"grad_scale": "sum"}, TypeError, "belong to the reduction that was passed ready-made"),
        ("mean", {"grad_scale": "root"}, ValueError, "expected 'mean', 'sqrt', 'sum' or a positive number, got 'root'"),
        ("mean", {"grad_scale": -1.0}, ValueError, "grad_scale: expected a positive number, got -1.0"),
        ("mean", {"empty_value": "zero"}, ValueError, "empty_value: expected a number, 'nan' or 'raise', got 'zero'"),
        ("attention", {"channels": None}, ValueError, "reduction 'attention' has parameters; pass channels="),
        ("attention", {"heads": 3}, ValueError, "heads: expected a divisor of channels=4, got 3"),
        ("attention", {"heads": 0}, ValueError, "heads: expected a positive integer, got 0"),
        ("attention", {"queries": 0}, ValueError, "queries: expected a positive integer, got 0"),
        ("attention", {"score": "dot"}, ValueError, "score: expected 'linear', 'mlp', 'gated' or 'none', got 'dot'"),
        ("attention", {"score": "none"}, ValueError, r"leaves the position alone to score by; pass grid="),
        ("attention", {"temperature": -1.0}, ValueError, "temperature: expected a number >= 0, got -1.0"),
        ("attention", {"temperature": 0.0, "learn_temperature": True}, ValueError, "a learned one starts positive"),
        ("attention", {"temperature_scaling": "n"}, ValueError, "expected 'none' or 'log_n', got 'n'"),
        ("attention", {"temperature_scaling": "log_n"}, ValueError, "'log_n' needs the training size N0 > 1, got None"),
        ("power", {"p": 0.0}, ValueError, "p: expected a positive finite exponent, got 0.0"),
        ("power", {"eps": 0.0}, ValueError, "eps: expected a positive number, got 0.0"),
        ("logsumexp", {"temperature": float("inf")}, ValueError, "inf needs normalize=True"),
        ("size_law", {"law": "log"}, ValueError, "law: expected 'power' or 'mixture', got 'log'"),
        ("size_law", {"law": "mixture", "beta": 2.0}, ValueError, "a mixture needs a share between 0 and 1"),
        ("size_law", {"reference_size": 0.0}, ValueError, "reference_size: expected a positive number of elements"),
        ("regions", {"regions": 0}, ValueError, "regions: expected a positive integer, got 0"),
        ("pyramid", {"levels": [[1, 0]]}, ValueError, "levels: expected positive parts for each of 2 pooled axes"),
        ("pyramid", {"levels": []}, ValueError, "levels: expected positive parts"),
        (["mean", "regions"], {}, ValueError, "expected a list of equally many vectors each"),
    ],
)
def test_options_that_mean_nothing(reduction, options, error, message):
    with pytest.raises(error, match=message):
        Pool("b c [h w]", reduction, **{"channels": 4, **options})


def test_layouts_an_option_does_not_fit():
    with pytest.raises(ValueError, match="a number of parts needs a known number of pooled axes"):
        Pool("b c [...]", "pyramid", levels=[2])
    with pytest.raises(ValueError, match="has no batch axis, its pooled axes become the set axis"):
        Pool("[n] c", keepdim=True)


@pytest.mark.parametrize("name", NAMES)
def test_channels_are_always_accepted_and_sizes_known(name):
    pool = Pool("b c [t]", name, channels=6)
    z = pool(torch.rand(2, 6, 8))
    assert pool.out_channels == z.shape[-1] == 6 * pool.reduction.repeats
    assert z.shape[:-1] == ((2,) if pool.vectors is None else (2, pool.vectors))


def test_each_option_goes_to_the_members_of_a_list_that_take_it():
    pool = Pool("b c [t]", ["power", "attention", "mean"], channels=4, p=2.0, heads=2, grad_scale="sum")
    power, attention, mean = pool.reduction.members
    assert (power.p, attention.heads, mean.grad_scale) == (2.0, 2, "sum")
    assert pool.out_channels == 12


def test_functions_are_the_module():
    x = torch.rand(2, 3, 6)
    lengths = torch.tensor([6, 2])
    for name in ("mean", "sum", "max", "min", "var", "std", "power", "logsumexp", "softmax"):
        expected = Pool("b c [t]", name)(x, lengths=lengths)
        torch.testing.assert_close(getattr(functional, f"{name}_pool")(x, "b c [t]", lengths=lengths), expected)
    torch.testing.assert_close(functional.size_pool(x, "b c [t]", beta=1.0), x.sum(-1))
    z, w = functional.pyramid_pool(x, "b c [t]", levels=[1, 2], return_weights=True)
    assert z.shape == (2, 3, 3)
    assert w.shape == (2, 3, 1, 6)
    with pytest.raises(ValueError, match="'logsumexp' has parameters; use the module Pool"):
        functional.logsumexp_pool(x, "b c [t]", learn_temperature=True)


class Task:
    """A task as an application has it.

    Args:
        reduction: Rule.
    """

    def __init__(self, layout: str, *, reduction: str = "mean", channels: int = 8, **pool_options):
        self.pool = Pool(layout, reduction, channels=channels, **pool_options)


class GraphTask(Task):
    """A task of its own width."""

    def __init__(self, *, hidden: int = 8, **options):
        super().__init__("[n] c", channels=hidden, **options)


def test_the_command_line_shows_every_option_with_type_and_help(capsys):
    jsonargparse = pytest.importorskip("jsonargparse")
    parser = jsonargparse.ArgumentParser()
    parser.add_class_arguments(GraphTask, "model")
    text = parser.format_help()
    for flag, kind in (
        ("heads", "int"), ("queries", "int"), ("temperature", "float"), ("learn_temperature", "bool"), ("p", "float"),
        ("grid", "list[int] | null"), ("grad_scale", "float | str"), ("regions", "int"), ("beta", "float"),
    ):  # fmt: skip
        assert f"--model.{flag} " in text
        assert f"(type: {kind}" in " ".join(text.split()).split(f"--model.{flag} {flag.upper()}")[-1] or kind == "bool"
    assert "groups of channels with weights of their" in " ".join(text.split())
    got = parser.instantiate(parser.parse_args(["--model.reduction", "attention", "--model.heads", "4"])).model.pool
    assert got.reduction.heads == 4
    # A flag that is not given does not reach the reduction, which would refuse it.
    assert isinstance(parser.instantiate(parser.parse_args([])).model.pool.reduction, Mean)
    with pytest.raises(SystemExit):
        parser.parse_args(["--model.reduction", "attention", "--model.heads", "four"])
    assert "heads" in capsys.readouterr().err


def test_the_same_option_means_the_same_everywhere():
    import inspect

    kinds: dict[str, set[str]] = {}
    for kind in NAMES.values():
        for name, parameter in inspect.signature(kind.__init__).parameters.items():
            if parameter.kind == parameter.KEYWORD_ONLY and name not in ("channels", "axes"):
                kinds.setdefault(name, set()).add(str(parameter.annotation))
    assert {name for name, annotations in kinds.items() if len(annotations) > 1} == set()
