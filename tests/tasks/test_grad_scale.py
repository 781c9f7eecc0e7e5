"""The experiment on gradients in half precision: its task, what it counts, and what it writes."""

import importlib.util

import pytest
import torch
from toy import ROOT

spec = importlib.util.spec_from_file_location("grad_scale", ROOT / "examples" / "grad_scale.py")
grad_scale = importlib.util.module_from_spec(spec)
spec.loader.exec_module(grad_scale)


def test_the_classes_differ_by_nothing_but_the_axis():
    torch.manual_seed(0)
    x, classes = grad_scale.stripes(16)
    assert (x.shape, classes.tolist()) == ((2, 1, 16, 16, 16), [0.0, 1.0])
    along = [x[:, 0].mean([axis for axis in (1, 2, 3) if axis != kept]).std(1) for kept in (1, 2, 3)]
    assert along[0][0] > 5 * along[0][1]
    assert along[1][1] > 5 * along[1][0]
    # Isotropic filters see the same in both: turned by 90 degrees, one is the other.
    clean = x - x + torch.stack([x[0], x[0].transpose(1, 2)])
    network = grad_scale.Network(torch.float32)
    torch.testing.assert_close(*network(clean)[0])


def test_an_underflowing_mean_learns_nothing_and_a_scaled_one_learns():
    """At 16 voxels a side nothing underflows; gradients as small as at 128 a side are made by a larger set's scale."""
    huge = {"grad_scale": 192.0**3}
    rules = {"huge": huge, "sqrt": {"grad_scale": "sqrt"}, "huge, float32": huge}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(grad_scale, "RULES", rules)
        found = {rule: grad_scale.train(rule, 16, 12) for rule in rules}
    assert found["huge"][0]["zero"] == 1.0
    assert found["sqrt"][0]["zero"] < 0.9
    assert found["huge, float32"][0]["zero"] < 0.9
    last = {rule: rows[-1]["loss"] for rule, rows in found.items()}
    assert last["sqrt"] < last["huge"] - 0.1
    assert last["huge, float32"] == pytest.approx(last["sqrt"], abs=0.05)  # AdamW does not mind the scale
    assert not any(row["not finite"] for rows in found.values() for row in rows)


def test_it_writes_a_table_and_a_picture(tmp_path, capsys):
    rows = grad_scale.main(sizes=(8,), steps=2, folder=tmp_path)
    assert len(rows) == 5 * 2
    assert len((tmp_path / "grad_scale.csv").read_text().splitlines()) == 1 + len(rows)
    assert (tmp_path / "grad_scale.png").stat().st_size > 5_000
    assert "8³ sqrt" in capsys.readouterr().out
