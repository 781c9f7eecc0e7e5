"""A network that learned without labels: probed by what it has heard, embedded, drawn, and where a training begins."""

import csv

import numpy as np
import pytest
import torch
from toy import ToyData

from tasks.pretrain import load_pretrained

ONCE = ["--trainer.max_epochs=1", "--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false"]
LAST = "runs/{}/version_0/checkpoints/last.ckpt"


@pytest.fixture
def pretrained(plain):
    """Pretrain the toy on its training part, and on all of it."""
    plain("pretrain", *ONCE, "--model.probe_every=0", "--run.name=own")
    plain("pretrain", *ONCE, "--model.probe_every=0", "--run.name=all", "--data.heard=[train,val,test]")
    return plain


def test_inductive_and_transductive_checkpoints_have_rows_of_their_own(pretrained, tmp_path, capsys):
    both = ",".join(LAST.format(name) for name in ("own", "all"))
    pretrained("probe", f"--ckpt_path={both}", "--budgets=all", "--probes=linear", "--seeds=0", "--folds=0")
    with (tmp_path / "runs/toy/probe_0/probe.csv").open() as file:
        rows = {row["features"]: row for row in csv.DictReader(file)}
    assert rows["pretrained, inductive"]["network"] == LAST.format("own")
    assert rows["pretrained, transductive"]["network"] == LAST.format("all")
    assert (rows["pretrained, inductive"]["heard"], rows["pretrained, transductive"]["heard"]) == ("0.0", "1.0")
    assert "to the random network." in capsys.readouterr().out

    pretrained(
        "probe", f"--ckpt_path={LAST.format('own')}", "--budgets=all", "--seeds=0", "--folds=0", "--data.train=40"
    )
    with (tmp_path / "runs/toy/probe_1/probe.csv").open() as file:
        assert "pretrained, inductive" in {row["features"] for row in csv.DictReader(file)}


def test_of_a_fold_of_which_some_was_heard_nothing_is_said(pretrained, tmp_path, capsys):
    other = ["--data.shared=true", "--data.fold=1", "--data.train=120"]  # tests what trained, and 24 more
    pretrained("probe", f"--ckpt_path={LAST.format('own')}", "--budgets=all", "--seeds=0", "--folds=1", *other)
    out = capsys.readouterr().out
    assert f"{LAST.format('own')} is left out: in no fold has it heard none of the test samples, or all" in out
    assert "pretrained, " not in out.replace("pretrained, without", "")


def test_vectors_are_those_of_the_network_that_came_out(pretrained, tmp_path, capsys):
    pretrained("embed", f"--ckpt_path={LAST.format('all')}", "--format=npz")
    out = capsys.readouterr().out
    assert f"embed: {LAST.format('all')} has heard 32 of these 32 samples, without their labels" in out
    table = np.load(tmp_path / "runs/all/version_0/embeddings.npz")
    task = load_pretrained(LAST.format("all"))
    test = ToyData()
    test.setup()
    expected = task.encoder(test.datasets["test"].x).mean(1).detach().numpy()
    np.testing.assert_allclose(table["vector"][table["part"] == "test"], expected, rtol=1e-5, atol=1e-6)


def test_a_training_begins_with_it_and_tests_what_was_heard_unlabelled(pretrained, tmp_path, capsys):
    still = ["--model.lr=0", "--model.weight_decay=0", *ONCE]
    pretrained("fit", *still, f"--model.pretrained={LAST.format('all')}")
    assert (
        f"begins with {LAST.format('all')}, trained without labels; 100% of the test samples" in capsys.readouterr().out
    )
    stored = torch.load(tmp_path / LAST.format("toy"), weights_only=True)
    network = load_pretrained(LAST.format("all"))
    torch.testing.assert_close(stored["state_dict"]["encoder.weight"], network.encoder.weight)
    assert len(stored["trained"]["samples"]["train"]) == 96  # what it has seen labels of


def test_a_task_that_cannot_draw_its_elements_says_so(pretrained):
    with pytest.raises(SystemExit, match=r"^error: ToyTask draws no elements: it has no `paint`; write one, or leave"):
        pretrained("embed", f"--ckpt_path={LAST.format('own')}", "--format=npz", "--figures=1")


def test_elements_are_drawn_and_held_against_what_is_known(plain, tmp_path, monkeypatch, capsys):
    config = """
run: {name: motifs}
model: {class_path: tasks.graph.GraphTask, init_args: {hidden: 8, layers: 2}}
data: {class_path: tasks.graph.MotifData, init_args: {train: 24, val: 8, test: 6}}
trainer: {accelerator: cpu}
"""
    (tmp_path / "toy.yaml").write_text(config)
    plain("pretrain", *ONCE, "--model.probe_every=0", "--model.objective=dino")
    plain("embed", "--ckpt_path=last", "--format=npz", "--figures=3", "--clusters=2")
    run = tmp_path / "runs/motifs/version_0"
    with (run / "elements.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [len(rows), list(rows[0])] == [6, ["id", "truth", "truth, random network"]]
    mean = sum(float(row["truth"]) for row in rows) / 6
    out = capsys.readouterr().out
    assert f"2 clusters and truth: adjusted Rand index {mean:.2f} ± " in out
    pictures = sorted(path.name for path in (run / "elements").iterdir())
    assert len(pictures) == 3
    assert pictures[0] == f"{rows[0]['id']}.png"
