"""Weights from files: what fits is loaded and the rest named, nothing in a file is run, and what is frozen stays."""

import pickle

import pytest
import torch
from lightning.pytorch import Trainer
from safetensors.torch import save_file
from torch import nn
from toy import ToyData, ToyTask

from tasks.data.problems import BadInput
from tasks.graph import BondData, GraphTask
from tasks.task.weights import load_weights, read_weights

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


def network():
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def trainer(**options):
    return Trainer(max_epochs=1, accelerator="cpu", **QUIET, **options)


@pytest.mark.parametrize("prefix", ["", "encoder.", "module.net."])
@pytest.mark.parametrize("form", ["safetensors", "state dict", "checkpoint"])
def test_weights_come_back_from_every_form_and_with_any_prefix(tmp_path, prefix, form):
    first, second = network(), network()
    state = {prefix + name: value for name, value in first.state_dict().items()}
    path = tmp_path / ("w.safetensors" if form == "safetensors" else "w.pth")
    if form == "safetensors":
        save_file(state, path)
    else:
        torch.save({"epoch": 3, "state_dict": state, "best": 0.5} if form == "checkpoint" else state, path)
    said = f" (names begin with {prefix})" if prefix else ""
    assert load_weights(second, path) == [f"Weights of {path}{said}: 9 of the encoder's 9 tensors are loaded"]
    for name, value in second.state_dict().items():
        assert torch.equal(value, first.state_dict()[name])


def test_what_does_not_fit_is_counted_and_named(tmp_path):
    made, state = network(), network().state_dict()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    state["fc.weight"] = torch.zeros(10, 3)
    state["3.weight"] = torch.zeros(3, 9)
    del state["0.bias"]
    torch.save(state, tmp_path / "w.pth")
    assert load_weights(made, tmp_path / "w.pth") == [
        f"Weights of {tmp_path / 'w.pth'}: 7 of the encoder's 9 tensors are loaded",
        "  1 missing in the file, left as drawn: 0.bias",
        "  1 unexpected in the file, not used: fc.weight",
        "  1 of another shape, left as drawn: 3.weight (3, 9) for (3, 8)",
    ]
    after = made.state_dict()
    assert torch.equal(after["0.weight"], state["0.weight"])
    assert torch.equal(after["0.bias"], before["0.bias"])
    assert torch.equal(after["3.weight"], before["3.weight"])


class Bomb:
    def __reduce__(self):
        return open, ("exploded", "w")


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: None, "no such file; give a .safetensors file or a state dict that torch.save wrote"),
        (lambda path: path.write_bytes(pickle.dumps(Bomb())), "it holds code or objects, which are not loaded"),
        (lambda path: torch.save({"0.weight": Bomb()}, path), "it holds code or objects, which are not loaded"),
        (lambda path: torch.save(network(), path), "it holds code or objects, which are not loaded"),
        (
            lambda path: torch.save({"state_dict": {}, "hyper_parameters": {"spec": {"kind": "binary"}}}, path),
            "a checkpoint of a task; give --model.pretrained, which asks what it has seen",
        ),
        (lambda path: path.write_bytes(b""), "it is truncated or of another format"),
        (lambda path: torch.save([1, 2], path), "expected tensors by name, got a list; save model.state_dict"),
        (lambda path: torch.save({"epoch": 1, "lr": 0.1}, path), "expected tensors by name, got entries epoch, lr"),
        (
            lambda path: torch.save({"a.b": torch.zeros(2)}, path),
            r"none of its 1 tensors \(a.b\) has the name and shape of one of the network's \(0.weight, 0.bias",
        ),
    ],
)
def test_what_is_no_state_dict_is_refused_in_one_line(tmp_path, monkeypatch, write, message):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "w.pth")
    with pytest.raises(BadInput, match=message) as error:
        load_weights(network(), tmp_path / "w.pth")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "exploded").exists()


def test_damaged_safetensors_are_refused(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"\x05\x00\x00\x00\x00\x00\x00\x00{")
    with pytest.raises(BadInput, match=r"w.safetensors: not a safetensors file"):
        read_weights(tmp_path / "w.safetensors")


def test_a_task_begins_with_them_once(tmp_path, monkeypatch):
    """When it is trained, not when it goes on or is loaded, where the file may be gone."""
    told = []
    monkeypatch.setattr("tasks.task.weights.rank_zero_info", told.append)
    data = ToyData(train=8)
    wanted = {"weight": torch.full((8, 4), 0.5), "bias": torch.arange(8.0)}
    torch.save(wanted, tmp_path / "w.pth")
    task = ToyTask(data.spec, weights=str(tmp_path / "w.pth"), lr=0.0)
    first = trainer()
    first.fit(task, datamodule=data)
    assert torch.equal(task.encoder.weight, wanted["weight"])
    assert told == [f"Weights of {tmp_path / 'w.pth'}: 2 of the encoder's 2 tensors are loaded"]
    first.save_checkpoint(tmp_path / "a.ckpt")
    (tmp_path / "w.pth").unlink()
    again = ToyTask.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    Trainer(max_epochs=2, accelerator="cpu", **QUIET).fit(again, datamodule=data, ckpt_path=tmp_path / "a.ckpt")
    assert len(told) == 1
    with pytest.raises(BadInput, match="no such file"):
        trainer().fit(ToyTask(data.spec, weights=str(tmp_path / "w.pth")), datamodule=data)


def test_what_is_frozen_stays_and_the_rest_is_trained(monkeypatch):
    told = []
    monkeypatch.setattr("tasks.task.weights.rank_zero_info", told.append)
    data = BondData(train=16, val=4, test=4, batch_size=4)
    torch.manual_seed(0)
    task = GraphTask(data.spec, conv="gine", hidden=8, layers=2, dropout=0.5, reduction="attention", freeze=True)
    before = {name: value.clone() for name, value in task.state_dict().items()}
    trainer().fit(task, datamodule=data)
    changed = {name for name, value in task.state_dict().items() if not torch.equal(value, before[name])}
    assert not [name for name in changed if name.startswith("encoder.")]  # norms neither
    assert {name.split(".")[0] for name in changed} == {"pool", "head"}
    sizes = [sum(weight.numel() for weight in part.parameters()) for part in (task.encoder, task)]
    assert told[0].startswith(f"The encoder is frozen: {sizes[0]:,} of {sizes[1]:,} weights get no gradient")
    task.train()
    assert not any(part.training for part in task.encoder.modules())
    assert task.head.training
    batch = data.collate(data.datasets["train"])
    assert torch.equal(task.encode(batch)[0], task.encode(batch)[0])  # no dropout


def test_weights_of_a_class_go_where_it_is(tmp_path):
    """The network inside what the modality puts around it."""
    data = BondData(train=4, val=2, test=2)
    options = {"encoder": "torch_geometric.nn.GIN", "encoder_args": {"hidden_channels": 8, "num_layers": 2}}
    first, second = (GraphTask(data.spec, **options) for _ in range(2))
    torch.save(first.network.state_dict(), tmp_path / "w.pth")
    assert load_weights(second.network, tmp_path / "w.pth") != []
    torch.testing.assert_close(second.network.state_dict(), first.network.state_dict())
    coarse = GraphTask(data.spec, hidden=8, layers=2, coarsen="topk")
    assert "convs.0.nn.lins.0.weight" in coarse.network.state_dict()


def test_an_encoder_begins_once_and_in_a_fit():
    from tasks.pretrain import PretrainTask

    for options in ({"weights": "w.pth"}, {"freeze": True}):
        with pytest.raises(ValueError, match="weights and freeze are for fit, got them in a training without labels"):
            PretrainTask(ToyTask(ToyData(train=8).spec, **options))
    with pytest.raises(ValueError, match="expected weights or pretrained, got both"):
        ToyTask(ToyData(train=8).spec, weights="w.pth", pretrained="last.ckpt")
