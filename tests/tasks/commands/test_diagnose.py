"""``python -m tasks diagnose``: the closed forms of a mean hold at a task's pool, in every modality."""

import csv
import math

import pytest
import torch
import yaml
from toy import ToyData, ToyTask

from tasks.__main__ import main
from tasks.audio import AudioTask, TimbreData
from tasks.commands.diagnose import response_rows
from tasks.data.problems import BadInput
from tasks.graph import GraphTask, MotifData
from tasks.maps.variance import variance_rows
from tasks.volume import LesionData, VolumeTask

WAVES = ["checkerboard", "sinusoid, cycles 0.25", "sinusoid, cycles 1"]
GRIDS = [*WAVES, "mixup", "cutmix", "shift", "occlusion"]


@pytest.fixture
def toy(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tasks"])
    monkeypatch.setattr("tasks.maps.variance._DRAWS", 64)
    config = {
        "run": {"name": "toy"},
        "model": {"class_path": "toy.ToyTask", "init_args": {"lr": 0.02}},
        "data": {"class_path": "toy.ToyData"},
        "trainer": {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False},
        "outputs": {"bootstrap": 0, "maps": 0},
    }
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(config))
    return lambda command, *flags: main([command, "-c", "toy.yaml", *flags])


def alone(data, count=4):
    data.setup()
    return [data.collate([data.datasets["test"][number]]) for number in range(count)]


def of(task, batches):
    with torch.no_grad():
        variances, correlation = variance_rows(task.eval(), batches)
        return variances, correlation, {row["measure"]: row for row in response_rows(task.eval(), batches)}


def check_a_mean(variances, rows):
    """What is measured at the pool is what the closed forms say."""
    for row in [row for row in rows.values() if row["pool"] is not None]:  # finer waves than the features' grid has
        assert row["pool"] == pytest.approx(row["mean"], abs=2e-4, rel=1e-3), row["measure"]
    for row in variances:  # as many draws as give 10 to 20 %
        assert row["features together"] == pytest.approx(row["together"], rel=0.25)
        assert row["normal apart"] == pytest.approx(row["apart"], rel=0.25)
    assert variances[0]["together"] == pytest.approx(1)


def test_the_command(toy, drawn, tmp_path, capsys):
    toy("fit")
    capsys.readouterr()
    toy("diagnose", "--samples=8")
    folder = tmp_path / "runs/toy/version_0"
    printed = capsys.readouterr().out
    assert (folder / "diagnostics.md").read_text() in printed
    assert printed.splitlines()[0].startswith("Pool: ")
    assert printed.splitlines()[-1] == "look at: runs/toy/version_0/diagnostics.png"
    assert (folder / "diagnostics.png").stat().st_size < 100_000
    with (folder / "diagnostics.csv").open() as file:
        rows = {row["measure"]: row for row in csv.DictReader(file)}
    # a linear encoder and a mean: the closed form of the checkerboard on seven elements holds through the network, too
    for column in ("mean", "pool", "network"):
        assert float(rows["checkerboard"][column]) == pytest.approx(1 / 7, abs=1e-5)
    assert "| checkerboard, of the constant | 0.1429 | 0.1429 | 0.1429 |" in printed
    assert float(rows["mixup"]["network"]) == pytest.approx(0, abs=1e-5)
    assert float(rows["variance, features, together, N = 1"]["mean"]) == pytest.approx(1)
    with pytest.raises(SystemExit, match="diagnose: expected at least 2 samples, got 1; raise --samples"):
        toy("diagnose", "--samples=1")


def test_what_cannot_be_diagnosed():
    data = ToyData()
    with pytest.raises(BadInput, match="diagnose: expected a task that pools, got one that flattens; take another"):
        of(ToyTask(data.spec, flatten=[7]), alone(data))
    task = ToyTask(data.spec)
    torch.nn.init.zeros_(task.encoder.weight)
    with pytest.raises(BadInput, match=r"diagnose: expected features that differ .*, got the same .*; train it longer"):
        of(task, alone(data))


def test_a_mean_of_sets():
    data = ToyData()
    torch.manual_seed(0)
    task = ToyTask(data.spec)
    variances, correlation, rows = of(task, alone(data, 32))
    check_a_mean(variances, rows)
    assert list(rows) == ["constant", *GRIDS]
    # the correlation by its definition: that of two elements of one set, over all pairs, sets weighing alike
    x = torch.cat([task.encode(batch)[0].detach() for batch in alone(data, 32)]).double()  # (32, 7, C)
    x = x - x.mean((0, 1))
    pairs = torch.einsum("bic,bjc->c", x, x) / (32 * 7 * 7)
    assert correlation == pytest.approx(float(pairs.sum() / x.square().mean((0, 1)).sum()), rel=1e-4)


def test_another_pool_is_told_from_a_mean():
    data = ToyData()
    _, _, rows = of(ToyTask(data.spec, reduction="max"), alone(data))
    assert rows["mixup"]["pool"] > 0.05
    assert rows["checkerboard"]["pool"] > 0.3
    assert rows["shift"]["pool"] == pytest.approx(0, abs=1e-6)


def test_volumes():
    data = LesionData(train=2, val=2, test=4, size=16)
    variances, _, rows = of(VolumeTask(data.spec, width=4, depth=1, levels=2), alone(data))
    check_a_mean(variances, rows)
    assert rows["checkerboard"]["mean"] == 0
    assert rows["checkerboard"]["network"] > 1e-3  # behind a ReLU it is no defence
    assert all(math.isfinite(row["network"]) for row in rows.values())


@pytest.mark.parametrize("pool", ["time", "frequency"])
def test_sounds(pool):
    data = TimbreData(train=12, val=12, test=12)
    task = AudioTask(data.spec, pool=pool, widths=[4, 4], mels=16)
    variances, _, rows = of(task, alone(data))
    check_a_mean(variances, rows)
    assert all(math.isfinite(row["network"]) for row in rows.values())
    assert rows["occlusion"]["network"] > 0


def test_graphs():
    data = MotifData(train=8, val=4, test=8)
    variances, _, rows = of(GraphTask(data.spec, hidden=8, layers=2), alone(data, 8))
    check_a_mean(variances, rows)
    assert rows["finest Laplacian mode"]["mean"] == 0
    assert rows["finest Laplacian mode"]["network"] > 0
    assert rows["shift"]["network"] is None  # nodes alone cannot be renumbered
    assert rows["occlusion"]["network"] > 0


def test_of_a_graph_that_is_coarsened_the_nodes_that_stayed_are_pooled():
    data = MotifData(train=8, val=4, test=8)
    variances, _, rows = of(GraphTask(data.spec, hidden=8, layers=2, coarsen="topk"), alone(data, 8))
    check_a_mean(variances, rows)
