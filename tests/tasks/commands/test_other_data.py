"""Labelled data that a model was not trained on, tested in one command in every modality: classes go by name."""

import csv
import shutil
from functools import partial

import nibabel
import numpy as np
import pytest
import soundfile
import torch
import yaml

from tasks.__main__ import main
from tasks.task.base import PoolingTask

PLAIN = ["--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--outputs.bootstrap=5",
         "--outputs.maps=0", "--outputs.every=0", "--trainer.max_epochs=1", "--trainer.accelerator=cpu",
         "--floors=false"]  # fmt: skip


def rows(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def graphs(folder, name, classes, first=0):
    """A TU folder of rings with a label on every node."""
    raw = folder / name / "raw"
    raw.mkdir(parents=True)
    arcs, owners, labels = [], [], []
    for graph, _ in enumerate(classes, start=1):
        start, size = len(owners), 3 + (graph + first) % 5
        arcs += [f"{start + i + 1}, {start + (i + 1) % size + 1}" for i in range(size)]
        owners += [graph] * size
        labels += [(i + graph) % 2 + 6 for i in range(size)]
    for part, lines in {"A": arcs, "graph_indicator": owners, "node_labels": labels, "graph_labels": classes}.items():
        (raw / f"{name}_{part}.txt").write_text("\n".join(map(str, lines)) + "\n")


def sounds(folder, name, labels, header="path,label", more=None, first=0):
    """A table of noises."""
    folder.mkdir(exist_ok=True)
    lines = [header]
    for number, label in enumerate(labels):
        noise = torch.rand(1600, generator=torch.Generator().manual_seed(first + number)).numpy() - 0.5
        soundfile.write(folder / f"{first + number}.wav", noise, 8000)
        lines.append(",".join([f"{first + number}.wav", label, *([more[number]] if more else [])]))
    (folder / name).write_text("\n".join(lines) + "\n")


def volumes(folder, name, labels, header="path,label", more=None, first=0):
    """A table of noisy cubes."""
    folder.mkdir(exist_ok=True)
    lines = [header]
    for number, label in enumerate(labels):
        cube = np.random.default_rng(first + number).random((8, 8, 8), dtype=np.float32)
        nibabel.save(nibabel.Nifti1Image(cube, np.eye(4)), folder / f"{first + number}.nii.gz")
        lines.append(",".join([f"{first + number}.nii.gz", label, *([more[number]] if more else [])]))
    (folder / name).write_text("\n".join(lines) + "\n")


MODALITIES = {
    "graph": {
        "model": {"class_path": "tasks.graph.GraphTask", "init_args": {"hidden": 8, "layers": 1}},
        "data": {"class_path": "tasks.graph.TUData", "init_args": {"root": "own", "name": "A", "num_folds": 4}},
    },
    "audio": {
        "model": {"class_path": "tasks.audio.AudioTask", "init_args": {"mels": 16}},
        "data": {
            "class_path": "tasks.audio.AudioManifest",
            "init_args": {"manifest": "own/a.csv", "sample_rate": 8000},
        },
    },
    "volume": {
        "model": {"class_path": "tasks.volume.VolumeTask", "init_args": {}},
        "data": {
            "class_path": "tasks.volume.CSVData",
            "init_args": {"root": "own/a.csv", "size": [8, 8, 8], "cache": "none"},
        },
    },
}
WHERE = {"graph": "root", "audio": "manifest", "volume": "root"}
LABELS = {"graph": ("0", "1", "2"), "audio": ("drums", "bass", "flute"), "volume": ("AD", "CN", "MCI")}


def write(modality, folder, name, labels, **more):
    if modality == "graph":
        more.pop("header", None)
        graphs(folder, "A", labels, first=more.get("first", 0))
    else:
        (sounds if modality == "audio" else volumes)(folder, name, labels, **more)


def command(name, *flags):
    main([name, "-c", "own.yaml", *PLAIN, *flags])


@pytest.fixture(scope="module", params=MODALITIES)
def once(request, tmp_path_factory):
    """A modality, and a folder in which a model of three classes was trained for an epoch."""
    modality, folder = request.param, tmp_path_factory.mktemp(request.param)
    (folder / "own.yaml").write_text(yaml.safe_dump({"run": {"name": "own"}, **MODALITIES[modality]}))
    write(modality, folder / "own", "a.csv", [LABELS[modality][i % 3] for i in range(30)])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["tasks"])
        command("fit")
    return modality, folder


@pytest.fixture
def trained(once, tmp_path, monkeypatch):
    """A copy of that folder to work in; returns its modality and what runs a command."""
    modality, folder = once
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tasks"])
    return modality, command


def other(modality, folder):
    return f"--data.{WHERE[modality]}={folder if modality == 'graph' else f'{folder}/b.csv'}"


def test_a_few_samples_of_a_part_of_the_classes(trained, tmp_path, capsys):
    modality, run = trained
    few = [LABELS[modality][2]] * 3 + [LABELS[modality][1]] * 2
    write(modality, tmp_path / "other", "b.csv", few, first=102)
    run("test", other(modality, "other"))
    found = rows(tmp_path / "runs/own/version_1/predictions.csv")
    assert [row["target"] for row in found] == few
    assert {f"p({label})" for label in LABELS[modality]} <= set(found[0])
    run("predict", other(modality, "other"))
    assert len(rows(tmp_path / "runs/own/version_2/predictions.csv")) == 5


def test_unknown_classes_are_reported_and_may_be_left_out(trained, tmp_path):
    modality, run = trained
    new = "9" if modality == "graph" else "new"
    write(modality, tmp_path / "other", "b.csv", [LABELS[modality][0], new, LABELS[modality][1]], first=102)
    known = ", ".join(sorted(LABELS[modality]))
    with pytest.raises(SystemExit, match=rf"class {new} is none of the model's \({known}\); leave the row out,"):
        run("test", other(modality, "other"))
    with pytest.warns(UserWarning, match="1 of 3 samples left out"):
        run("test", other(modality, "other"), "--data.on_bad=skip")
    assert len(rows(tmp_path / "runs/own/version_1/predictions.csv")) == 2


@pytest.mark.parametrize("parts", ["test", "train"])
def test_a_table_with_one_part(trained, tmp_path, parts):
    modality, run = trained
    if modality == "graph":
        pytest.skip("a TU folder has no parts")
    labels = [LABELS[modality][i % 2] for i in range(4)]
    write(modality, tmp_path / "other", "b.csv", labels, header="path,label,split", more=[parts] * 4, first=102)
    if parts == "test":
        run("test", other(modality, "other"))
        assert len(rows(tmp_path / "runs/own/version_1/predictions.csv")) == 4
    else:
        with pytest.raises(SystemExit, match="test: expected samples to test, got none; mark some with split test, or"):
            run("test", other(modality, "other"))
    run("predict", other(modality, "other"))  # every row, whatever its part
    assert len(rows(sorted((tmp_path / "runs/own").glob("version_*"))[-1] / "predictions.csv")) == 4


def test_another_name_hides_nothing(trained, tmp_path):
    modality, run = trained
    if modality == "graph":
        pytest.skip("graphs go by their names, too")
    shutil.copytree(tmp_path / "own", tmp_path / "other")
    ending = ".wav" if modality == "audio" else ".nii.gz"
    for path in (tmp_path / "other").glob(f"*{ending}"):
        path.rename(path.with_name(f"renamed_{path.name}"))
    lines = (tmp_path / "own" / "a.csv").read_text().splitlines()
    table = [lines[0] + ",split", *(f"renamed_{line},test" for line in lines[1:])]
    (tmp_path / "other" / "b.csv").write_text("\n".join(table) + "\n")
    with pytest.raises(SystemExit, match=r"was trained on 2\d of these 30 samples \(renamed_\d+"):
        run("test", other(modality, "other"))


def test_another_split_of_the_same_graphs_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tasks"])
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({"run": {"name": "own"}, **MODALITIES["graph"]}))
    graphs(tmp_path / "own", "A", ["0", "1"] * 16)
    command("fit")
    for flag in ("--data.fold=1", "--data.seed=3", "--data.num_folds=3"):
        with pytest.raises(SystemExit, match=r"^error: test: .*best.ckpt was trained on \d+ of these \d+ samples \(A-"):
            command("test", flag)
    command("test", flag, "--allow_trained")
    (tmp_path / "moved").mkdir()
    shutil.move(tmp_path / "runs/own/version_0/checkpoints/best.ckpt", tmp_path / "moved/some.ckpt")
    with pytest.raises(SystemExit, match=r"some\.ckpt was trained on"):
        command("test", flag, "--ckpt_path=moved/some.ckpt")


@pytest.mark.parametrize(
    ("modality", "random"),
    [
        ("volume", {"augment": {"probability": 0.9, "flip": [0], "noise": 0.1, "rotate": 10.0}}),
        ("audio", {"shift": 0.05}),
    ],
)
def test_a_resumed_training_augments_as_if_it_had_not_stopped(tmp_path, monkeypatch, modality, random):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tasks"])
    config = {"run": {"name": "own"}, **MODALITIES[modality]}
    config["data"] = {**config["data"], "init_args": {**config["data"]["init_args"], **random}}
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
    write(modality, tmp_path / "own", "a.csv", [LABELS[modality][i % 3] for i in range(30)])
    fit = partial(command, "fit", "--trainer.max_epochs=3")
    fit()
    step = PoolingTask.training_step

    def interrupted(self, batch, batch_idx):
        if self.current_epoch == 2:
            raise KeyboardInterrupt
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(PoolingTask, "training_step", interrupted)
        with pytest.raises(SystemExit):
            fit()
    fit("--ckpt_path=last")
    first, second = (tmp_path / "runs/own" / f"version_{i}" for i in (0, 2))
    for name in ("metrics.csv", "predictions.csv"):
        assert (first / name).read_text() == (second / name).read_text()
