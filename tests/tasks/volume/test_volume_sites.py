"""One site is left out, and what a target owes to covariates is taken off it by what the training part says."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LinearRegression
from undrawn import unchosen, undrawn  # noqa: F401

from tasks.__main__ import main
from tasks.data.problems import BadInput
from tasks.volume import CSVData
from tasks.volume.covariates import fit_covariates, without_covariates
from tasks.volume.records import Record

PARTS = ("train", "val", "test")


@pytest.fixture
def study(save_nifti, save_table):
    """Twenty-four subjects of three sites, whose score depends on age, sex and chance."""

    def make(**changed):
        generator, rows = np.random.default_rng(0), []
        for i in range(24):
            save_nifti(f"{i}.nii.gz", generator.normal(size=(8, 8, 8)).astype(np.float32))
            age, sex = 20 + 2 * i % 37, "FMFFM"[i % 5]
            score = 3 + 0.5 * age - 4 * (sex == "M") + generator.normal()
            row = {
                "path": f"{i}.nii.gz",
                "site": ("Oslo", "10", "9")[i % 3],
                "age": age,
                "sex": sex,
                "label": "ab"[i % 2],
            }
            rows.append({**row, "score": score, "subject": f"s{i}"} | {k: v[i] for k, v in changed.items() if i in v})
        return str(save_table("study.csv", rows))

    return make


def test_every_site_is_a_fold(study):
    path = study()
    data = CSVData(path, size=None, leave_out="site")
    assert (data.folds, data.fold_names) == ([0, 1, 2], {0: "9", 1: "10", 2: "Oslo"})
    for fold, site in data.fold_names.items():
        data = CSVData(path, size=None, leave_out="site", fold=fold)
        sites = {part: {one.columns["site"] for one in data.samples(part)} for part in PARTS}
        assert sites["test"] == {site}
        assert sites["train"] | sites["val"] == {"9", "10", "Oslo"} - {site}
        assert len(data.samples("test")) == 8
        assert 2 <= len(data.samples("val")) <= 4
    with pytest.raises(ValueError, match="expected a fold between 0 and 2, got 3"):
        CSVData(path, size=None, leave_out="site", fold=3).setup()


def test_what_cannot_be_left_out_is_named(study):
    with pytest.raises(BadInput, match=r"row 4 \(3.nii.gz\): subject s0 is of site Oslo, too; delete one, or correct"):
        CSVData(study(subject={3: "s0"}, site={3: "9"}), size=None, leave_out="site").setup()
    with pytest.raises(BadInput, match=r"row 2 \(1.nii.gz\): column site is empty; fill it in or delete the row"):
        CSVData(study(site={1: ""}), size=None, leave_out="site").setup()
    one = {i: "Oslo" for i in range(24)}
    with pytest.raises(BadInput, match=r"column site: expected two or more values to leave one out, got \['Oslo'\]"):
        CSVData(study(site=one), size=None, leave_out="site").setup()
    with pytest.raises(BadInput, match=r"split: expected none beside --data.leave_out site"):
        CSVData(study(split=dict.fromkeys(range(24), "train")), size=None, leave_out="site").setup()


def test_crossval_names_the_sites(study, tmp_path, capsys):
    """From the command line, and a test of one fold's checkpoint holds the same site out."""
    common = ["--run.root", str(tmp_path / "runs"), "--run.name", "a", "--trainer.accelerator", "cpu"]
    given = ["--model", "tasks.volume.VolumeTask", "--model.width", "4", "--model.levels", "1", "--data",
             "tasks.volume.CSVData", "--data.root", study(), "--data.size", "null", "--data.leave_out", "site",
             "--outputs.maps", "0", "--outputs.bootstrap", "0", *common]  # fmt: skip
    main(["crossval", *given, "--trainer.max_epochs", "1", "--folds", "Oslo"])
    assert "Oslo" in capsys.readouterr().out
    (best,) = (tmp_path / "runs").rglob("best.ckpt")
    main(["test", *given, "--data.fold", "2", "--ckpt_path", str(best)])
    tables = list((tmp_path / "runs").rglob("predictions.csv"))
    assert len(tables) == 2
    for table in tables:
        with table.open(newline="") as file:
            assert {row["id"] for row in csv.DictReader(file)} == {f"{3 * i}.nii.gz" for i in range(8)}


def records(path):
    with Path(path).open(newline="") as file:
        rows = list(csv.DictReader(file))
    targets = [torch.tensor([float(row["score"]), 2 * float(row["score"])]) for row in rows]
    path = (Path("a"),)
    return [Record(path, "", "", str(i), row, target=targets[i]) for i, row in enumerate(rows)]


def test_against_scikit_learn(study):
    """The residual of a regression on age, a number, and sex, a dummy, at the means of what was fitted."""
    train = records(study())
    fitted = fit_covariates(train, ["age", "sex"])
    x = np.array([[float(one.values["age"]), one.values["sex"] == "M"] for one in train], dtype=float)
    y = torch.stack([one.target for one in train]).double().numpy()
    model = LinearRegression().fit(x, y)
    expected = y - model.predict(x) + model.predict(x.mean(0, keepdims=True))
    found = torch.stack([without_covariates(one, fitted) for one in train])
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert [(one["column"], one["value"]) for one in fitted["regressors"]] == [("age", None), ("sex", "M")]
    assert found.std(0)[0] < 0.5 * y.std(0)[0]
    assert fit_covariates(train, ["label"])["regressors"][0]["value"] == "b"


def test_nothing_of_the_test_part_is_fitted(study, caplog):
    """Other scores of the test part change neither slopes nor the training's targets, and a model keeps its slopes."""
    options = {
        "size": None,
        "target": "score",
        "task": "regression",
        "covariates": "age,sex",
        "folds": 3,
        "split": None,
    }
    with caplog.at_level("INFO"):
        data = CSVData(study(), **options)
        spec = data.spec
    assert "as if age, sex were the training part's mean, by slopes fitted there:\n  age: +0.4" in caplog.text
    tested = {int(one.id.split(".")[0]): 1e6 for one in data.samples("test")}
    other = CSVData(study(score=tested), **options)
    assert other.spec["covariates"] == spec["covariates"]
    for part in ("train", "val"):
        for one, same in zip(data.samples(part), other.samples(part), strict=True):
            assert torch.equal(one.target, same.target)
    assert min(float(one.target) for one in other.samples("test")) > 9e5
    with pytest.raises(ValueError, match="covariates: expected regression, whose target they are taken off"):
        CSVData(study(), covariates="age")
    with pytest.raises(BadInput, match=r"row 6 \(5.nii.gz\): column age is empty; fill it in"):
        CSVData(study(age={5: ""}), **options).setup()


def test_a_model_is_tested_with_its_own_slopes(study, tmp_path):
    common = ["--run.root", str(tmp_path / "runs"), "--run.name", "a", "--trainer.accelerator", "cpu"]
    given = ["--model", "tasks.volume.VolumeTask", "--model.width", "4", "--model.levels", "1", "--data",
             "tasks.volume.CSVData", "--data.root", study(), "--data.size", "null", "--data.target", "score",
             "--data.task", "regression", "--outputs.maps", "0", "--outputs.bootstrap", "0", *common]  # fmt: skip
    main(["fit", *given, "--data.covariates", "age,sex", "--trainer.max_epochs", "1", "--floors=false"])
    (best,) = (tmp_path / "runs").rglob("best.ckpt")
    test = ["test", *given, "--ckpt_path", str(best), "--data.covariates"]
    main([*test, "age,sex"])
    with pytest.raises(SystemExit, match="covariates: expected the model's, age,sex, got age"):
        main([*test, "age"])
