"""Comparing pools: the interval against scipy and by hand, the runs against crossval, resuming, what is said."""

import csv
import math
import time

import numpy as np
import pytest
import scipy.stats
import yaml
from toy import ToyData, ToyTask

from tasks.__main__ import main
from tasks.commands.costs import measure_costs
from tasks.commands.paired import difference

QUICK = ["--trainer.max_epochs=1", "--outputs.bootstrap=0"]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A folder to run in, with a config of the toy modality; calls `main` there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tasks"])
    config = {
        "run": {"name": "toy"},
        "model": {"class_path": "toy.ToyTask", "init_args": {"lr": 0.02}},
        "data": {"class_path": "toy.ToyData", "init_args": {"kind": "binary"}},
        "trainer": {"accelerator": "cpu", "logger": True},
    }
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(config))
    return lambda command, *flags: main([command, "-c", "toy.yaml", *QUICK, *flags])


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def rows(values, folds=None, seeds=None):
    return [
        {"fold": fold, "seed": seed, "acc": value}
        for value, fold, seed in zip(values, folds or range(len(values)), seeds or [0] * len(values), strict=True)
    ]


def test_interval_of_a_fixed_split_is_that_of_a_paired_t_test():
    ours, theirs = [0.71, 0.74, 0.69, 0.8], [0.70, 0.69, 0.70, 0.74]
    seeds = {"folds": [0] * 4, "seeds": [0, 1, 2, 3]}
    found = difference(rows(ours, **seeds), rows(theirs, **seeds), "acc", folds=1)
    expected = scipy.stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    assert found == pytest.approx((np.mean(ours) - np.mean(theirs), expected.low, expected.high))


def test_folds_share_training_samples_so_their_interval_is_wider():
    ours, theirs = np.random.default_rng(0).normal(0.8, 0.05, (2, 10))
    found = difference(rows(ours), rows(theirs), "acc", folds=10)
    plain = scipy.stats.ttest_rel(ours, theirs).confidence_interval(0.95)
    # A tenth tests and nine tenths train: the variance counts 1/10 + 1/9 times instead of 1/10 times.
    assert found.high - found.low == pytest.approx((plain.high - plain.low) * math.sqrt((1 / 10 + 1 / 9) / (1 / 10)))
    assert found.mean == pytest.approx((plain.high + plain.low) / 2)


def test_seeds_of_a_fold_are_one_difference_and_runs_without_a_partner_none():
    ours = rows([0.9, 0.7, 0.6, 0.6, 0.1], folds=[0, 0, 1, 1, 2], seeds=[0, 1, 0, 1, 0])
    theirs = rows([0.5, 0.5, 0.5, 0.5, 0.9], folds=[1, 1, 0, 0, 3], seeds=[0, 1, 0, 1, 0])
    folded = difference(rows([0.8, 0.6]), rows([0.5, 0.5]), "acc", folds=5)
    assert difference(ours, theirs, "acc", folds=5) == pytest.approx(folded)
    assert math.isnan(difference(rows([0.8]), rows([0.5]), "acc", folds=5).low)


def test_costs_are_those_of_the_pool_and_of_the_whole_batch():
    data = ToyData()
    plain, slow = ToyTask(data.spec), ToyTask(data.spec, reduction="attention", heads=2)
    pool = slow.pool.forward
    slow.pool.forward = lambda x, **sets: (time.sleep(0.02), pool(x, **sets))[1]
    found = measure_costs({"plain": plain, "slow": slow}, next(iter(data.train_dataloader())), rounds=3)
    assert found["plain"].parameters == 4 * 8 + 8 + 8 + 1  # encoder and head, weights and biases
    assert found["slow"].parameters - found["plain"].parameters == sum(p.numel() for p in slow.pool.parameters()) > 0
    assert min(found["slow"].pool_ms, found["slow"].batch_ms) >= 20 > found["plain"].pool_ms


def test_null_takes_back_an_option_of_the_config(toy, tmp_path):
    toy(
        "compare",
        "--model.reduction=attention",
        "--model.heads=2",
        "--reductions=mean:heads=null,attention",
        "--folds=0",
    )
    folder = tmp_path / "runs" / "toy" / "comparison_0"
    parameters = {row["reduction"]: int(row["parameters"]) for row in table(folder / "comparison.csv")}
    assert parameters == {"mean:heads=null": 49, "attention": 49 + 2 * 8}  # two heads, each with a query


def test_the_tables_say_what_the_runs_say(toy, drawn, tmp_path, capsys):
    toy("compare", "--reductions=mean,attention:heads=2:temperature=0.5", "--seeds=3", "--folds=1")
    folder = tmp_path / "runs" / "toy" / "comparison_0"
    names = {"mean": "mean", "attention:heads=2:temperature=0.5": "attention_heads=2_temperature=0.5"}
    found = {(row["reduction"], row["metric"]): row for row in table(folder / "comparison.csv")}
    assert {name for name, _ in found} == set(names)
    assert set(found) >= {(name, metric) for name in names for metric in ("acc", "auroc", "f1")}
    values = {}
    for name, place in names.items():
        run = folder / place / "fold_1_seed_3"
        rows = table(run / "predictions.csv")
        values[name] = sum(row["target"] == row["prediction"] for row in rows) / len(rows)
        assert float(found[name, "acc"]["mean"]) == pytest.approx(values[name])
        config = yaml.safe_load((run / "config.yaml").read_text())
        assert (config["seed_everything"], config["data"]["init_args"]["fold"]) == (3, 1)
        assert config["model"]["init_args"]["reduction"] == name.split(":")[0]
    assert config["model"]["init_args"]["heads"] == 2
    assert float(found[name, "acc"]["difference"]) == pytest.approx(values[name] - values["mean"])
    text = (folder / "comparison.md").read_text()
    assert f"| mean | {values['mean']:.4g} ± 0 | 1 |  | 49 | " in text
    assert text in capsys.readouterr().out
    assert (folder / "comparison.png").stat().st_size > 0


def test_an_interrupted_comparison_goes_on_and_takes_further_pools(toy, tmp_path, monkeypatch, capsys):
    begun, start = [], ToyTask.on_train_start

    def interrupted(self):
        begun.append(str(self.pool))
        if len(begun) == 2:
            raise KeyboardInterrupt
        start(self)

    monkeypatch.setattr(ToyTask, "on_train_start", interrupted)
    with pytest.raises(SystemExit):
        toy("compare", "--reductions=max,std", "--folds=0")
    folder = tmp_path / "runs" / "toy" / "comparison_0"
    assert [row["reduction"] for row in table(folder / "comparison.csv") if row["metric"] == "acc"] == ["max"]
    finished = (folder / "max" / "fold_0_seed_0" / "summary.json").stat().st_mtime_ns

    monkeypatch.setattr(ToyTask, "on_train_start", start)
    toy("compare", "--resume", "--reductions=mean+max")
    names = [row["reduction"] for row in table(folder / "comparison.csv") if row["metric"] == "acc"]
    assert names == ["max", "std", "mean+max"]
    assert (folder / "max" / "fold_0_seed_0" / "summary.json").stat().st_mtime_ns == finished
    assert "to max, 95 % interval" in capsys.readouterr().out  # the first one, where the mean is not among them

    with pytest.raises(SystemExit, match=r"settings that runs/toy/comparison_0 was started with.*lr 0\.02, now 0\.5\)"):
        toy("compare", "--resume", "--model.lr=0.5")


@pytest.mark.slow
def test_every_pool_runs_as_crossval_would_run_it_alone(toy, tmp_path):
    toy("compare", "--reductions=mean,attention:heads=2")
    toy("crossval", "--model.reduction=attention", "--model.heads=2")
    both = [tmp_path / "runs" / "toy" / name for name in ("comparison_0/attention_heads=2", "crossval_0")]
    assert (both[0] / "crossval.csv").read_text() == (both[1] / "crossval.csv").read_text()


@pytest.mark.parametrize(
    ("reductions", "message"),
    [
        pytest.param("", "expected --reductions like mean,max,attention:heads=4, got none", id="none"),
        pytest.param("max,mean,max", "expected --reductions .* got max twice", id="twice"),
        pytest.param("mean,maxx", "maxx: reduction: expected one of mean, sum, .* got 'maxx'", id="name"),
        pytest.param("mean:heads=4", "mean:heads=4: reduction 'mean' does not take heads", id="another's option"),
        pytest.param("mean,attention:4", "attention:4: expected NAME:OPTION=VALUE:.*, got '4'", id="option"),
        pytest.param("attention:heads=3", "attention:heads=3: .*8.*3", id="value"),
    ],
)
def test_what_is_wrong_with_a_pool_is_said_before_anything_is_trained(toy, tmp_path, reductions, message):
    with pytest.raises(SystemExit, match=rf"^error: compare: {message}"):
        toy("compare", f"--reductions={reductions}")
    assert not (tmp_path / "runs").exists()


def test_an_option_of_the_wrong_type_is_refused_by_the_parser(toy, tmp_path, capsys):
    with pytest.raises(SystemExit) as stopped:
        toy("compare", "--reductions=attention:heads=several")
    assert stopped.value.code == 2
    assert "heads" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
