"""A rule that is registered is in the guarantees, and one that does not keep them is found out."""

import os
import re
import subprocess
import sys
from pathlib import Path

import every
import pytest
import reference
import torch
from bad_rules import FORMULAS, RULES
from guarantees import (
    test_compile,
    test_derivatives,
    test_empty,
    test_half_precision,
    test_infinities,
    test_layouts,
    test_masks,
    test_memory,
    test_merging,
    test_weights,
)

from modalpool.reductions import NAMES

# What finds each of the rules out.
CHECKS = {
    "leaks": lambda case: test_masks.test_what_the_mask_hides_may_be_anything(case, "mask"),
    "copies": lambda case: test_memory.check(case, test_memory.lay("first")),
    "rounds": lambda case: test_half_precision.half_precision(case, 2049, "[n] c", torch.float16),
    "forgets": test_merging.test_chunks_of_a_recording_give_the_whole,
    "bounds": lambda case: test_infinities.test_no_infinity_is_lost(case, "ptr", 1),
    "halves": lambda case: test_weights.test_weights_times_elements_are_the_output(case, "mask"),
    "mixes": lambda case: test_layouts.test_batch_mates_and_order_do_not_matter(case, "index"),
    "fills": lambda case: test_empty.test_gradients_stay_finite_on_degenerate_sets(case, "zeros", "[n] c"),
    "waits": lambda case: test_compile.test_nothing_waits_for_the_device_when_sizes_are_given(case, "index"),
    "detaches": lambda case: test_derivatives.test_gradients_backward_and_forward(case, "ptr"),
}


@pytest.fixture(autouse=True)
def _registered(monkeypatch):
    for name, kind in RULES.items():
        monkeypatch.setitem(NAMES, name, kind)
    for name, formula in FORMULAS.items():
        monkeypatch.setitem(reference.BY_CLASS, name, formula)
    test_memory.cut_small(monkeypatch)


def test_there_is_a_case_of_every_rule_that_is_registered():
    names = [case.name for case in every.all_cases()]
    assert set(NAMES) <= set(names)
    assert len(names) == len(set(names))
    assert {case.reduction for case in every.all_cases() if isinstance(case.reduction, str)} <= set(NAMES)


def test_every_exception_is_one_of_a_case():
    named = {name for reasons in every.EXCEPTIONS.values() for name in reasons}
    assert named <= {case.name for case in every.CASES}


@pytest.mark.parametrize("name", CHECKS)
def test_a_good_rule_passes(name):
    CHECKS[name](every.default("twice"))


@pytest.mark.parametrize("name", CHECKS)
def test_a_bad_rule_is_found_out(name):
    with pytest.raises((AssertionError, RuntimeError)):
        CHECKS[name](every.default(name))


@pytest.mark.slow
def test_every_guarantee_tries_a_rule_that_is_only_registered():
    """All of them pass it but the one on the documentation, where it has no line."""
    folder = Path(__file__).parent
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "bad_rules", "-p", "no:cacheprovider", "-v", "--tb=short", "-k", "twice"]
        + [str(path) for path in folder.glob("test_*.py") if path.name != Path(__file__).name],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(folder.parent), os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    results = re.findall(r"/(test_\w+)\.py::\S+?\[.*?\] (PASSED|FAILED)", run.stdout)
    files = {path.stem for path in folder.glob("test_*.py")} - {"test_gpu", Path(__file__).stem}
    assert {file for file, _ in results} == files, run.stdout[-3000:]
    assert {file for file, result in results if result == "FAILED"} == {"test_docs"}, run.stdout[-8000:]
