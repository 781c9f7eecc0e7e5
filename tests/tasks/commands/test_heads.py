"""Two heads side by side: the source texts' figures by torch's own layers, gaps by hand, memory, and refusals."""

import csv
import itertools
import re

import pytest
import torch
import yaml
from torch import nn
from toy import ROOT, ToyData, ToyTask

from tasks.__main__ import main
from tasks.commands.costs import head_memory
from tasks.commands.heads import _train_metrics, head_costs
from tasks.commands.sizes import largest

FIGURES = [
    pytest.param(7 * 7, 512, (), 4096, 102_764_544, id="VGG-16's first fully connected layer"),
    pytest.param(7 * 7, 512, (4096, 4096), 1000, 123_642_856, id="VGG-16's head"),
    pytest.param(6 * 6, 256, (4096, 4096), 1000, 58_631_144, id="AlexNet's fc6, fc7 and fc8"),
]


def built(widths):
    """The layers themselves, without memory behind them."""
    layers = [nn.Linear(*pair, device="meta") for pair in itertools.pairwise(widths)]
    return sum(parameter.numel() for layer in layers for parameter in layer.parameters())


@pytest.mark.parametrize(("elements", "channels", "hidden", "outputs", "known"), FIGURES)
def test_costs_are_those_of_the_layers(elements, channels, hidden, outputs, known):
    costs = head_costs(elements, channels, hidden, outputs)
    assert costs.flatten == built([elements * channels, *hidden, outputs]) == known
    assert costs.pooled == built([channels, outputs])
    assert costs.bytes == (4 * costs.pooled, 4 * costs.flatten)


def test_what_the_source_texts_say():
    first = head_costs(7 * 7, 512, hidden=(), outputs=4096).flatten  # 7·7·512 -> 4096, against 512 -> 1000
    assert first > 200 * head_costs().pooled
    assert head_costs(6 * 6, 256).saved > 0.99  # "over 99 % of the parameters" of an AlexNet-like head
    assert head_costs().saved > 0.99
    assert head_costs(elements=10**6).pooled == head_costs(elements=1).pooled  # whatever the size of the input


def test_the_page_says_what_the_code_gives():
    block = re.search(r"```python\n(.*?)```", (ROOT / "docs" / "heads.md").read_text(encoding="utf-8"), flags=re.S)[1]
    names: dict = {}
    said = [line.split("#") for line in block.splitlines() if "#" in line]
    exec(block, names)
    assert len(said) == 4
    for code, comment in said:
        number = re.match(r"\s*([\d,.]+):", comment)[1].replace(",", "")
        assert round(eval(code, names), 4) == float(number)


def test_memory_is_what_a_step_takes():
    data = ToyData(batch_size=16)
    pooled, deep = ToyTask(data.spec), ToyTask(data.spec, flatten=[7], flatten_layers=[5])
    batch = next(iter(data.train_dataloader()))
    memory = head_memory(deep, batch)
    parameters = [*deep.head.parameters()]
    assert memory.parameters == sum(p.numel() for p in parameters) == (7 * 8 + 1) * 5 + 5 + 1
    assert memory.task_parameters - memory.parameters == 4 * 8 + 8  # the encoder

    # One step, and everything that it left: weights, gradients, and AdamW's state.
    deep.zero_grad()
    optimizer = torch.optim.AdamW(parameters)
    deep(batch).sum().backward()
    optimizer.step()
    moments = [
        state for of_one in optimizer.state.values() for state in of_one.values() if state.numel() > 1 or state.ndim
    ]
    left = [*parameters, *(p.grad for p in parameters), *moments]
    assert memory.training_bytes == sum(tensor.nbytes for tensor in left)

    # Behind a ReLU its output is kept; the flattened features are, or are a view of the features.
    assert 4 * 5 <= memory.activation_bytes <= 4 * (7 * 8 + 3 * 5 + 1)
    assert 4 * 8 <= head_memory(pooled, batch).activation_bytes <= 4 * (8 + 1)  # the pooled vector


def test_the_largest_sample_of_all_parts_counts():
    data = ToyData(batch_size=10)
    data.setup()
    data.datasets["test"].x = torch.randn(32, 9, 4)
    assert largest(ToyTask(data.spec).eval(), data) == [9]


def test_the_training_metrics_of_few_labels_are_those_of_the_labelled(tmp_path, monkeypatch):
    data = ToyData(labelled=4)
    task = ToyTask(data.spec).eval()
    monkeypatch.setattr("tasks.commands.heads.load_task", lambda path: task)
    train = data.datasets["train"]
    said = (task({"x": train.x}).squeeze(1) > 0).long()
    hidden = torch.ones(96, dtype=torch.bool)
    hidden[data.kept] = False
    train.y = torch.where(hidden, 1 - said, said)  # wrong of all others
    assert _train_metrics(tmp_path, data)["acc"] == 1


def test_every_head_gets_its_costs_and_the_gap_of_the_tested_checkpoint(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tasks"])
    config = {
        "run": {"name": "toy"},
        "model": {"class_path": "toy.ToyTask", "init_args": {"lr": 0.02, "head_dropout": 0.5}},
        "data": {"class_path": "toy.ToyData", "init_args": {"kind": "binary"}},
        "trainer": {"accelerator": "cpu", "logger": True, "max_epochs": 2},
        "outputs": {"bootstrap": 0},
    }
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(config))
    main(["heads", "-c", "toy.yaml", "--hidden=6", "--folds=1", "--seeds=3"])

    folder = tmp_path / "runs" / "toy" / "heads_0"
    with (folder / "heads.csv").open() as file:
        rows = {(row["head"], row["metric"]): row for row in csv.DictReader(file)}
    assert {head for head, _ in rows} == {"pooled", "flatten_6"}
    assert {name: int(rows[name, "acc"]["parameters"]) for name in ("pooled", "flatten_6")} == {
        "pooled": built([8, 1]), "flatten_6": built([7 * 8, 6, 1])
    }  # fmt: skip
    text = (folder / "heads.md").read_text()
    assert text in capsys.readouterr().out

    train = ToyData(kind="binary", fold=1)
    train.setup()
    samples = train.datasets["train"]
    for head in ("pooled", "flatten_6"):
        run = folder / head / "fold_1_seed_3"
        task = ToyTask.load_from_checkpoint(run / "checkpoints" / "best.ckpt").eval()
        said = (task({"x": samples.x}).squeeze(1) > 0).long()
        right = (said == samples.y).float().mean().item()
        with (run / "predictions.csv").open() as file:
            tested = [row["target"] == row["prediction"] for row in csv.DictReader(file)]
        row = rows[head, "acc"]
        assert float(row["train_mean"]) == pytest.approx(right)
        assert float(row["test_mean"]) == pytest.approx(sum(tested) / len(tested))
        assert float(row["gap_mean"]) == pytest.approx(right - sum(tested) / len(tested))
        assert f"| {head} | {row['parameters']} | " in text

    with pytest.raises(SystemExit, match=r"heads: expected the settings that .* got others \(.*lr 0\.02, now 0\.5\)"):
        main(["heads", "-c", "toy.yaml", "--hidden=6", "--folds=1", "--seeds=3", "--resume", "--model.lr=0.5"])


@pytest.mark.parametrize("hidden", ["", "many", "0,0", "8,-1"])
def test_a_size_that_is_none_is_refused(hidden, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["tasks"])
    config = {"model": {"class_path": "toy.ToyTask"}, "data": {"class_path": "toy.ToyData"}}
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit, match=f"error: heads: expected --hidden like 0,256 .*, got '{hidden}'"):
        main(["heads", "-c", "toy.yaml", f"--hidden={hidden}"])
    assert not (tmp_path / "runs").exists()
