"""The page on pooling: its code runs, and its table says what the code does."""

import re
from pathlib import Path

import pytest
import torch
from every import BY_NAME, calls, exception, make

from modalpool import Pool
from modalpool.reductions import NAMES, options_of

PAGE = (Path(__file__).parents[3] / "docs" / "pooling.md").read_text(encoding="utf-8")
ROWS = {
    cells[0].strip("` "): [cell.strip() for cell in cells[1:]]
    for line in PAGE.splitlines()
    if len(cells := re.split(r" ?\| ?", line)[1:-1]) == 7 and cells[0].startswith("`")
}


def test_its_code_runs():
    torch.manual_seed(0)
    blocks = re.findall(r"```python\n(.*?)```", PAGE, flags=re.S)
    assert len(blocks) > 5
    exec("\n".join(blocks), {})


def test_its_table_has_every_reduction_and_option():
    assert list(ROWS) == list(NAMES)
    for name, cells in ROWS.items():
        assert re.findall(r"`(\w+)`", cells[1]) == options_of(name)


@pytest.mark.parametrize("name", NAMES)
def test_its_table_says_what_merges_and_adds_up(name):
    case = BY_NAME[name]
    pool, call = make(case, dtype=torch.float64), calls(torch.float64, positive=True)["dense"]
    learned = {option: True for option in options_of(name) if option.startswith("learn_")}
    parameters = list(Pool("b c [t]", name, channels=4, **learned).parameters())
    assert (ROWS[name][2] == "none") == (not parameters)
    z, w = pool(call.x, return_weights=True)
    x = call.x.repeat(1, pool.reduction.repeats, 1)
    full = w if w.shape[-2] in (1, x.shape[1]) else w.repeat_interleave(x.shape[1] // w.shape[-2], dim=-2)
    total = (full * (x if pool.vectors is None else x[:, None])).sum(-1)
    assert torch.allclose(total, z) == (ROWS[name][4] in ("yes", "for x ≥ ε"))
    assert (exception(case, "its parts merge") is None) == ROWS[name][3].startswith("yes")
