"""Commands that fit many times: what they refuse before training, and what they keep when they go on."""

import csv

import pytest


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "command", [["crossval"], ["compare", "--reductions=mean,max"], ["heads", "--hidden=0"]], ids=lambda words: words[0]
)
def test_folds_and_seeds_are_looked_at_before_training(plain, tmp_path, command):
    name, *flags = command
    for given, message in {
        "--folds=0,99": "expected --folds of 0, 1, which the data have, got 99",
        "--folds=1,0,1": "expected each of --folds once, got 1 twice; name each once",
        "--seeds=3,3": "expected each of --seeds once, got 3 twice; name each once",
    }.items():
        with pytest.raises(SystemExit, match=f"^error: {name}: {message}"):
            plain(name, *flags, given)
    with pytest.raises(SystemExit):
        plain(name, *flags, "--folds=first")
    assert not (tmp_path / "runs").exists()


def test_a_damaged_summary_is_named_and_its_run_made_again(plain, tmp_path, capsys):
    plain("crossval", "--trainer.max_epochs=1")
    folder = tmp_path / "runs/toy/crossval_0"
    before = rows(folder / "crossval.csv")
    (folder / "fold_1_seed_0" / "summary.json").write_text("")
    stamp = (folder / "fold_0_seed_0" / "summary.json").stat().st_mtime_ns
    plain("crossval", "--trainer.max_epochs=1", "--resume")
    said = capsys.readouterr().err
    assert "fold_1_seed_0/summary.json is damaged (Expecting value: line 1 column 1 (char 0)); its run is made" in said
    assert rows(folder / "crossval.csv") == before
    assert (folder / "fold_0_seed_0" / "summary.json").stat().st_mtime_ns == stamp
    (folder / "settings.json").write_text("{")
    with pytest.raises(SystemExit, match=r"^error: .*settings.json is damaged \(.*\); delete it"):
        plain("crossval", "--trainer.max_epochs=1", "--resume")


def test_what_was_started_goes_on_without_being_named_again(plain, tmp_path):
    few = ["--trainer.max_epochs=1", "--folds=0"]
    plain("crossval", *few, "--seeds=3,4")
    plain("crossval", "--trainer.max_epochs=1", "--resume")
    assert [row["seed"] for row in rows(tmp_path / "runs/toy/crossval_0/crossval.csv")] == ["3", "4"]
    plain("heads", *few, "--hidden=0,6")
    plain("heads", "--trainer.max_epochs=1", "--resume")
    found = [row["head"] for row in rows(tmp_path / "runs/toy/heads_0/heads.csv") if row["metric"] == "acc"]
    assert found == ["pooled", "flatten_0", "flatten_6"]
    plain("heads", "--trainer.max_epochs=1", "--resume", "--hidden=5")
    found = [row["head"] for row in rows(tmp_path / "runs/toy/heads_0/heads.csv") if row["metric"] == "acc"]
    assert found == ["pooled", "flatten_0", "flatten_6", "flatten_5"]
