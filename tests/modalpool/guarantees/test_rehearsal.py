"""A GPU rehearsed without one: every rule in every form, on tensors that have a device, and no values.

What mixes devices fails here, and so does what asks for a value, which on a card is a wait for it. (A backward needs a
context of the device, and stays out.)
"""

import pytest
import torch
from every import CASES, make
from forms import FORMS, SIZES, lay, make_sets
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from modalpool import Pool, contributions
from modalpool.reductions import NAMES

EVERY = pytest.mark.parametrize("rule", CASES, ids=lambda rule: rule.name)


class Card:
    """A device that is not there."""

    def __init__(self, *, jagged: bool = False) -> None:
        # Jagged tensors have a size that is a symbol; with symbols a value could be asked for unnoticed.
        self.mode = FakeTensorMode(shape_env=ShapeEnv() if jagged else None)

    def hold(self, value):
        """A tensor without its values; anything else as it is."""
        return self.mode.from_tensor(value, static_shapes=True).to("cuda") if isinstance(value, torch.Tensor) else value

    def move(self, module):
        """A module whose parameters and buffers are held."""
        for part in module.modules():
            for name, parameter in part._parameters.items():
                if parameter is not None:
                    part._parameters[name] = torch.nn.Parameter(self.hold(parameter).detach())
            for name, buffer in part._buffers.items():
                part._buffers[name] = self.hold(buffer)
        return module


def rehearse(rule, form, *, weighted=False, training=False):
    """All that a pool offers for one form, and where the results are."""
    jagged = form.startswith("jagged")
    positional = make(rule, "[n] c").reduction.positional
    given = make_sets(dtype=torch.float32, weighted=weighted)
    if form in ("dense", "one"):
        layout, x, sets = ("b c [t]", torch.randn(2, 4, 5), {}) if form == "dense" else ("[n] c", given.x, {})
        sets = {"coords": given.coords} if form == "one" and positional else sets
    else:
        _, layout, x, sets = lay(form, given, weighted=weighted, coords=positional)
    pool = make(rule, layout, empty_value="nan" if weighted else 0.0).train(training)
    card = Card(jagged=jagged)
    with card.mode:
        pool, x, sets = card.move(pool), card.hold(x), {name: card.hold(value) for name, value in sets.items()}
        if jagged:
            x = torch.nested.nested_tensor_from_jagged(x, card.hold(torch.tensor([0, *SIZES]).cumsum(0)))
            x = x.transpose(1, 2) if "first" in form else x
        results = [pool(x, **sets), *pool(x, return_weights=True, **sets)]
        if training:
            results.append(pool.finalize(pool.update(None, x, **sets)))
    return {result.device.type for result in results}


DIFFER = ("dense", "mask", "index", "jagged")  # for a rule; the others are these in another memory or another word
ALIKE = [form for form in ("one", *FORMS) if form not in DIFFER]


def forms(number, rule):
    """Those that differ for a rule, and of the others some in turn; all of them in the slow suite."""
    here = {*DIFFER, *((ALIKE * 2)[number % len(ALIKE) :][:2] if rule.name in NAMES else ())}
    return [
        pytest.param(rule, form, id=f"{rule.name}-{form}", marks=[] if form in here else pytest.mark.slow)
        for form in ("dense", "one", *FORMS)
    ]


@pytest.mark.parametrize(("rule", "form"), [param for both in enumerate(CASES) for param in forms(*both)])
def test_every_rule_in_every_form_stays_on_the_device_and_asks_for_nothing(rule, form):
    assert rehearse(rule, form) == {"cuda"}


@EVERY
@pytest.mark.parametrize("form", ["mask", "index"])
def test_weights_and_training_stay_on_the_device_too(rule, form):
    assert rehearse(rule, form, weighted=True, training=True) == {"cuda"}


def test_what_is_said_to_wait_waits():
    """An index without the number of sets, ``empty_value="raise"``, maps of ragged sets: a value has to be known."""
    card = Card()
    x, index = torch.randn(5, 4), torch.tensor([0, 0, 1, 1, 1])
    with card.mode:
        x, index = card.hold(x), card.hold(index)
        with pytest.raises(ValueError, match="dim_size: expected it where an index has no values"):
            Pool("[n] c")(x, index=index)
        with pytest.raises(DataDependentOutputException):
            Pool("[n] c", "max", empty_value="raise")(x, index=index, dim_size=2)
        with pytest.raises(DataDependentOutputException):
            contributions(Pool("[n] c"), torch.nn.Linear(4, 3, device="cuda"), x, index=index, dim_size=2)
