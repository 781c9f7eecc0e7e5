"""Numbers of the README made again: what is run, what is noted, and the tables that follow from it."""

import csv
import json
import statistics

import pytest
import yaml

from tasks.__main__ import main
from tasks.commands import results
from tasks.commands.tables import write_csv

MARKS = "before\n<!-- results -->\nold\n<!-- end of results -->\nafter\n"


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A project of one row whose command writes a cross-validation at once, and the commands that it was given."""
    row = {"title": "TOY", "pool": "mean", "metric": "acc", "needs": "TOY/toy.csv", "readme": True}
    row["command"] = "crossval --data DATA/TOY"
    (tmp_path / "results.yaml").write_text(yaml.safe_dump({"rows": {"toy": row}}))
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "docs/results.md"):
        (tmp_path / name).write_text(MARKS)
    data = tmp_path / "data" / "TOY"
    data.mkdir(parents=True)
    (data / "toy.csv").touch()
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setattr(results, "LIST", tmp_path / "results.yaml")
    monkeypatch.setattr(results, "RECORD", tmp_path / "docs" / "results.csv")
    monkeypatch.setattr(results, "commit", lambda: "abc1234")
    commands = []

    def run(command, **kwargs):
        commands.append(command[3:])
        folder = tmp_path / "runs" / "results" / "toy" / "crossval_0"
        folder.mkdir(exist_ok=True, parents=True)
        crossval(folder)
        return type("Done", (), {"returncode": kwargs.get("code", 0)})

    monkeypatch.setattr(results.subprocess, "run", run)
    return commands


def crossval(folder):
    """Two folds with two seeds each; seeds differ by .2, folds by .4, and the floor is at .5."""
    accs = {("0", "0"): 0.2, ("1", "0"): 0.6, ("0", "1"): 0.4, ("1", "1"): 0.8}
    write_csv(folder / "crossval.csv", [{"fold": fold, "seed": seed, "acc": acc} for (fold, seed), acc in accs.items()])
    floors = {"majority": (0.3, 0.3), "degrees": (0.4, 0.6)}
    rows = [{"fold": k, "floor": name, "acc": acc} for name, both in floors.items() for k, acc in enumerate(both)]
    write_csv(folder / "floors.csv", rows)
    (folder / "crossval.json").write_text(json.dumps({"folds": [0, 1], "seeds": [0, 1]}))


def record(tmp_path):
    with (tmp_path / "docs" / "results.csv").open() as file:
        return list(csv.DictReader(file))


def test_spreads_are_over_folds_and_over_seeds_and_the_best_floor_is_named(tmp_path):
    crossval(tmp_path)
    found = results.measured(tmp_path, "acc")
    assert found["mean"] == pytest.approx(0.5)
    assert found["sd_folds"] == pytest.approx(statistics.stdev([0.3, 0.7]))
    assert found["sd_seeds"] == pytest.approx(statistics.stdev([0.4, 0.6]))
    assert (found["floor"], found["floor_mean"], found["folds"], found["seeds"]) == ("degrees", 0.5, 2, 2)


def test_a_row_is_run_once_noted_and_put_into_the_tables(house, tmp_path, capsys):
    main(["results", "--data", str(tmp_path / "nowhere"), str(tmp_path / "data")])
    assert house == [[
        "crossval", "--data", f"{tmp_path}/data/TOY", f"--run.root={tmp_path}/runs/results", "--run.name=toy",
    ]]  # fmt: skip
    (row,) = record(tmp_path)
    assert (row["name"], row["commit"], float(row["mean"])) == ("toy", "abc1234", 0.5)
    assert "torch" in row["versions"]
    readme = (tmp_path / "README.md").read_text()
    assert readme.startswith("before\n<!-- results -->\n| data")
    assert readme.endswith("<!-- end of results -->\nafter\n")
    line = "| TOY | mean | **50.0 ± 28.3 %**, seeds ± 14.1 | 50.0 ± 14.1 % (degrees) |"
    assert line in readme
    assert line in (tmp_path / "docs" / "results.md").read_text()
    assert "`python -m tasks crossval --data DIR/TOY`" in readme

    main(["results", "--data", str(tmp_path / "data")])
    assert len(house) == 1
    assert "toy: finished before, at abc1234" in capsys.readouterr().out
    main(["results", "--data", str(tmp_path / "data"), "--again"])
    assert len(house) == 2


def test_an_interrupted_row_goes_on_in_the_same_state_of_the_code_only(house, tmp_path, monkeypatch):
    state = tmp_path / "runs" / "results" / "toy" / "state.json"
    state.parent.mkdir(parents=True)
    begun = {"command": "crossval --data DATA/TOY", "commit": "abc1234", "minutes": 2.0, "done": False}
    state.write_text(json.dumps(begun))
    main(["results", "--data", str(tmp_path / "data")])
    assert house[-1][-1] == "--resume"
    assert float(record(tmp_path)[0]["minutes"]) == pytest.approx(2.0, abs=0.1)
    state.write_text(json.dumps(begun))
    monkeypatch.setattr(results, "commit", lambda: "def5678")
    main(["results", "--data", str(tmp_path / "data")])
    assert house[-1][-1] == "--run.name=toy"
    assert record(tmp_path)[0]["commit"] == "def5678"


def test_data_that_are_not_there_are_named_and_their_row_stays(house, tmp_path, capsys):
    results.note("toy", {"mean": 0.7, "sd_folds": 0.1, "folds": 10, "seeds": 1, "commit": "0000000", "minutes": 3})
    main(["results", "--data", str(tmp_path / "nowhere")])
    assert house == []
    assert f"toy: skipped, no TOY/toy.csv in {tmp_path}/nowhere" in capsys.readouterr().out
    assert (
        "| TOY | mean | **70.0 ± 10.0 %** | | | 10 × 1 | 3 | 0000000 | `python"
        in (tmp_path / "docs/results.md").read_text()
    )


def test_unknown_rows_and_failures_end_in_an_error(house, tmp_path, monkeypatch):
    with pytest.raises(SystemExit, match="expected rows of toy, got other; correct --only"):
        main(["results", "--only", "other"])
    failing = type("Done", (), {"returncode": 1})
    monkeypatch.setattr(results.subprocess, "run", lambda *args, **kwargs: failing)
    results.note("toy", {"mean": 0.7, "folds": 10, "seeds": 1})
    with pytest.raises(SystemExit, match="results: toy did not finish; what went wrong stands above"):
        main(["results", "--data", str(tmp_path / "data")])
    assert record(tmp_path)[0]["mean"] == "0.7"


def test_a_row_that_was_ended_before_its_last_fold_is_not_noted(house, tmp_path, monkeypatch):
    run = results.subprocess.run

    def ended(command, **kwargs):
        code = run(command, **kwargs)
        (tmp_path / "runs/results/toy/crossval_0/crossval.json").write_text('{"folds": [0, 1, 2], "seeds": [0, 1]}')
        return code

    monkeypatch.setattr(results.subprocess, "run", ended)
    results.note("toy", {"mean": 0.7, "folds": 10, "seeds": 1})
    with pytest.raises(SystemExit, match="toy did not finish"):
        main(["results", "--data", str(tmp_path / "data")])
    assert record(tmp_path)[0]["mean"] == "0.7"
    assert not json.loads((tmp_path / "runs/results/toy/state.json").read_text())["done"]


def test_the_rows_of_the_project_name_configs_that_are_there():
    rows = yaml.safe_load(results.LIST.read_text())["rows"]
    for name, row in rows.items():
        words = row["command"].split()
        assert words[0] == "crossval", name
        assert (results.ROOT / words[words.index("-c") + 1]).is_file(), name
        assert {"title", "pool", "metric"} <= row.keys(), name
        assert ("needs" in row) == ("DATA" in row["command"]), name
    assert {row["name"] for row in results._read(results.RECORD)} <= rows.keys()
