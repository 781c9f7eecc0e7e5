"""One file in, its prediction, picture and map out; from a checkpoint alone or through a config."""

import csv
import shutil

import pytest
import torch
import yaml
from toy import ToyData, ToyTask

from tasks.__main__ import main

QUIET = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--outputs.bootstrap=0"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a config, a finished run and two inputs."""
    folder = tmp_path_factory.mktemp("explain")
    config = {
        "run": {"name": "toy", "root": str(folder / "runs")},
        "model": {"class_path": "toy.ToyTask"},
        "data": {"class_path": "toy.ToyData"},
        "trainer": {"max_epochs": 1, "accelerator": "cpu"},
        "outputs": {"maps": 0},
    }
    (folder / "toy.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["tasks"])
        main(["fit", "-c", str(folder / "toy.yaml"), *QUIET])
    for name, value in (("a", 1.0), ("b", -1.0)):
        (folder / f"{name}.txt").write_text(" ".join(str(value * i) for i in range(8)))
    return folder


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """The same in a place of its own, which is the working directory."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    config = yaml.safe_load((tmp_path / "toy.yaml").read_text())
    config["run"]["root"] = "runs"
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs" / "toy" / "version_0"


def rows(folder):
    with (folder / "predictions.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_checkpoint_alone_is_enough(run, capsys):
    main(["explain", "--ckpt_path", str(run / "checkpoints" / "best.ckpt"), "--input", "a.txt"])
    folder = run / "explained_0"
    task = ToyTask.load_from_checkpoint(run / "checkpoints" / "best.ckpt").eval()
    predictions, maps = task.explain({"x": torch.arange(8.0).view(1, 2, 4)})
    (row,) = rows(folder)
    assert (row["id"], row["target"]) == ("a", "")
    assert float(row["p(high)"]) == pytest.approx(float(predictions[0, 1]), rel=1e-4)
    lines = (folder / "a.png").read_text().splitlines()  # the toy's picture is text
    assert [float(value) for value in lines[-1].split()] == pytest.approx(maps[0, :, 0].tolist(), abs=1e-4)
    said = capsys.readouterr().out.splitlines()
    assert said[-4:-1] == lines[:3]
    assert said[-1].startswith("Look at: ")
    assert said[-1].endswith("explained_0/a.png")


def test_a_config_finds_the_newest_run_and_several_files_get_one_page(run, capsys):
    main(["explain", "-c", "toy.yaml", "--input", "a.txt", "b.txt"])
    main(["explain", "-c", "toy.yaml", "--ckpt_path", "last", "--input", "b.txt", "--output", "here"])
    assert [row["id"] for row in rows(run / "explained_0")] == ["a", "b"]
    assert [row["id"] for row in rows(run.parents[2] / "here")] == ["b"]
    assert "explained_0/index.html" in capsys.readouterr().out


def test_the_command_line_beats_the_config(run):
    run.parent.rename(run.parent.with_name("other"))
    main(["explain", "-c", "toy.yaml", "--run.name", "other", "--input", "a.txt", "--output", "here"])
    assert rows(run.parents[2] / "here")


def test_a_script_s_checkpoint_needs_the_config_s_class(run, monkeypatch):
    task = ToyTask(ToyData().spec)
    torch.save({"state_dict": task.state_dict(), "hyper_parameters": dict(task.hparams),
                "pytorch-lightning_version": "2.6.0"}, "own.ckpt")  # fmt: skip
    with pytest.raises(SystemExit, match=r"own.ckpt does not name its task's class; give the config .* -c CONFIG"):
        main(["explain", "--ckpt_path", "own.ckpt", "--input", "a.txt"])
    main(["explain", "-c", "toy.yaml", "--ckpt_path", "own.ckpt", "--input", "a.txt", "--output", "here"])
    assert rows(run.parents[2] / "here")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        pytest.param(["--ckpt_path=no.ckpt"], "checkpoint no.ckpt does not exist; give a .ckpt file", id="no file"),
        pytest.param(["--ckpt_path=toy.yaml"], "toy.yaml is not a checkpoint of a task", id="no checkpoint"),
        pytest.param(["--ckpt_path=cut.ckpt"], "cut.ckpt is not a checkpoint of a task", id="truncated"),
        pytest.param(["--ckpt_path=odd.ckpt"], "odd.ckpt is not a checkpoint of a task", id="other weights"),
        pytest.param(["--ckpt_path=gone.ckpt"], "gone.ckpt: cannot build its task nowhere.Task .No module", id="class"),
        pytest.param([], "whose best.ckpt\\? Give --ckpt_path FILE, -c CONFIG or --run.name NAME", id="no run"),
        pytest.param(["-c", "no.yaml"], "config no.yaml does not exist", id="no config"),
        pytest.param(["-c", "list.yaml"], "list.yaml: expected sections such as run and model, got list", id="list"),
        pytest.param(["-c", "bad.yaml"], "config bad.yaml is not valid YAML", id="yaml"),
        pytest.param(["--run.name=x"], "no best.ckpt under runs/x; run fit first", id="no such run"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_checkpoint_is_said(run, flags, message):
    whole = (run / "checkpoints" / "best.ckpt").read_bytes()
    (run.parents[2] / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    torch.save({"weight": torch.zeros(2)}, "odd.ckpt")
    torch.save({"state_dict": {}, "hyper_parameters": {"_class_path": "nowhere.Task", "spec": {}}}, "gone.ckpt")
    (run.parents[2] / "list.yaml").write_text("[1, 2]")
    (run.parents[2] / "bad.yaml").write_text("a: [")
    with pytest.raises(SystemExit, match=message):
        main(["explain", "--input", "a.txt", *flags])


def test_every_input_that_cannot_be_used_is_named_and_the_others_are_predicted(run):
    with pytest.raises(SystemExit, match=r"these inputs cannot be used:\n.*gone.txt.*\n.*toy.yaml: could not convert"):
        main(["explain", "-c", "toy.yaml", "--input", "a.txt", "gone.txt", "toy.yaml"])
    assert (run / "explained_0" / "predictions.csv").read_text().count("\n") == 2
    with pytest.raises(SystemExit, match=r"these inputs cannot be used:\n  gone.txt.*\n.*toy.yaml: could not convert"):
        main(["explain", "-c", "toy.yaml", "--input", "gone.txt", "toy.yaml"])
    assert not (run / "explained_1").exists()


def test_a_task_without_read_says_so(run, monkeypatch):
    monkeypatch.delattr(ToyTask, "read")
    with pytest.raises(SystemExit, match=r"ToyTask cannot read a.txt: it has no `read`; write one, or run predict"):
        main(["explain", "-c", "toy.yaml", "--input", "a.txt"])
