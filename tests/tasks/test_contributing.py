"""CONTRIBUTING.md does what it says: its rule pools, its commands train, judge and explain a modality of one's own."""

import csv
import json
import re
import runpy
import shlex

import pytest
import torch
from toy import ROOT

from modalpool import Pool, contributions, reductions
from tasks.__main__ import main
from tasks.data.problems import BadInput

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^python -m ((?:tasks|examples\.timeseries) .*)$", PAGE, flags=re.MULTILINE)
QUIET = [
    "--trainer.accelerator=cpu",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
    "--outputs.bootstrap=20",
    "--outputs.maps=2",
    "--outputs.every=0",
]


def test_its_rule_pools(monkeypatch):
    monkeypatch.setitem(reductions.NAMES, "norm", None)  # taken back afterwards
    exec(re.search(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)[1], {})
    x, mask = torch.randn(2, 4, 9, dtype=torch.float64), torch.arange(9) < torch.tensor([[9], [5]])
    length = x.norm(dim=1, keepdim=True) * mask[:, None]
    expected = (x * length).sum(-1) / length.sum(-1)

    pool = Pool("b c [t]", "norm")
    torch.testing.assert_close(pool(x.masked_fill(~mask[:, None], torch.nan), mask=mask), expected)
    nodes, index = x.mT[mask], mask.nonzero()[:, 0]
    torch.testing.assert_close(Pool("[n] c", "norm")(nodes, index=index), expected)
    state = None
    for chunk, there in zip(x.split(4, -1), mask.split(4, -1), strict=True):
        state = pool.update(state, chunk, mask=there)
    torch.testing.assert_close(pool.finalize(state), expected)
    head = torch.nn.Linear(4, 3).double()
    logits, maps = contributions(pool, head, x, mask=mask)
    torch.testing.assert_close(maps.sum(-1) + head.bias, logits)
    assert Pool("b c [t]", ["norm", "mean"])(x).shape == (2, 8)


def test_its_modality_trains_judges_and_explains(tmp_path, monkeypatch, capsys):
    assert [command.split()[:2] for command in COMMANDS] == [
        ["examples.timeseries", "series.csv"],
        *(["tasks", name] for name in ("fit", "test", "judge", "explain", "diagnose")),
    ]
    monkeypatch.chdir(tmp_path)
    for command in COMMANDS:
        module, *words = shlex.split(command)
        words = [str(ROOT / word) if word.endswith(".yaml") else word for word in words]
        if module == "tasks":
            monkeypatch.setattr("sys.argv", ["tasks"])
            main([*words, *([] if words[0] == "explain" else QUIET)])
        else:
            monkeypatch.setattr("sys.argv", [module, *words])
            runpy.run_module(module, run_name="__main__")

    run = tmp_path / "runs" / "timeseries" / "version_0"
    assert json.loads((run / "summary.json").read_text())["test"]["acc"]["value"] > 0.9  # chance is a half
    with (run / "localisation.csv").open() as file:
        precision = {row["map"]: float(row["precision"]) for row in csv.DictReader(file)}
    assert precision["contributions"] > precision["size"] > precision["random"]  # the floor that knows no network
    explained = capsys.readouterr().out
    assert re.search(r"^prediction (up|down) \(p = ", explained, flags=re.MULTILINE)
    (table,) = (run / "explained_0").glob("*_map.csv")
    with table.open() as file:
        added = [float(row["value"]) for row in csv.DictReader(file)]
    assert len(added) == len((tmp_path / "one.csv").read_text().splitlines()) - 1
    (said,) = re.findall(r"= map (\S+) \+ bias", explained)
    assert sum(added) == pytest.approx(float(said.replace("−", "-")), abs=0.01)
    assert (run / "diagnostics.csv").stat().st_size > 0


def test_a_series_stands_for_itself_whatever_it_is_padded_with(tmp_path):
    from examples.timeseries import SeriesData, SeriesTask
    from examples.timeseries.data import write_example

    write_example(tmp_path / "series.csv", count=40)
    data = SeriesData(str(tmp_path / "series.csv"), batch_size=40)
    task = SeriesTask(data.spec).eval()
    samples = data.datasets["train"]
    together = task(data.collate(samples))
    torch.testing.assert_close(together, torch.cat([task(data.collate([sample])) for sample in samples]))
    _, maps = task.explain(data.collate(samples))
    assert [len(one) for one in task.to_inputs(maps[:, 0], data.collate(samples))] == [len(s["x"]) for s in samples]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a,up,1", "a,up,x", "b,down,2"], r"row 2.*expected a number in left; correct it"),
        (["a,up,1", "a,down,1", "b,down,2"], r"series a: has the labels down and up; expected one"),
        (["a,up,1", "b,up,2"], r"column label: expected at least two classes, got 1; add the others"),
    ],
)
def test_bad_series_are_reported_by_row(lines, message, tmp_path):
    from examples.timeseries import SeriesData

    path = tmp_path / "series.csv"
    path.write_text("\n".join(["id,label,left", *lines]) + "\n")
    with pytest.raises(BadInput, match=message):
        SeriesData(str(path)).setup()
