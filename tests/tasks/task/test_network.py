"""Any network by the path of its class, in each modality: tried out, pooled and explained; and what is refused."""

import re
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from torch_geometric.data import Batch
from toy import ROOT

from tasks.audio import AudioTask, TimbreData
from tasks.audio.clips import collate_clips
from tasks.audio.encoder import OwnNetwork as OwnAudio
from tasks.graph import BondData, GraphTask
from tasks.task.network import build_network
from tasks.volume import LesionData, VolumeTask
from tasks.volume.encoders import build_encoder

NETS = '''
import torch
from torch import nn


class Bands(nn.Module):
    """Two layers that halve time, and one that adds up bands of eight mels."""

    def __init__(self, in_channels, channels=6):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(in_channels, channels, (8, 3), (8, 2)), nn.BatchNorm2d(channels), nn.ReLU(),
            nn.Conv2d(channels, channels, (1, 3), (1, 2)), nn.ReLU(),
        )

    def forward(self, x):
        return self.layers(x)


class Steps(nn.Module):
    layout = "b t c"

    def __init__(self, mels):
        super().__init__()
        self.layer = nn.Linear(mels, 5)

    def forward(self, x):
        return self.layer(x[:, 0].mT).relu()


class Blur(nn.Module):
    """Averages of 4 x 2 x 1 voxels: cells whose place is known."""

    def forward(self, image):
        return [image, nn.functional.avg_pool3d(image, (4, 2, 1))]


class Batches(nn.Module):
    """Takes what a graph network may ask for."""

    def __init__(self, in_channels):
        super().__init__()
        self.layer = nn.Linear(in_channels, 4)

    def forward(self, x, edge_index, batch, batch_size):
        assert batch_size == int(batch.max()) + 1
        return self.layer(x)


class Pooled(nn.Module):
    def forward(self, x, *others):
        return x.flatten(1).mean(1)


def number():
    return 3


def wrong():
    raise RuntimeError("no luck")
'''


@pytest.fixture(scope="module", autouse=True)
def nets(tmp_path_factory):
    folder = tmp_path_factory.mktemp("nets")
    (folder / "somenets.py").write_text(NETS)
    for page in ("graph", "audio"):  # what the guides write
        text = (ROOT / "docs" / f"{page}.md").read_text()
        block = re.search(r"[Aa]s `mynets.py`:\n\n```python\n(.*?)```", text, flags=re.DOTALL)[1]
        (folder / f"{page}nets.py").write_text(f"import torch\n{block}")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


@pytest.fixture(scope="module")
def bonds():
    data = BondData(train=12, val=4, test=4)
    data.setup()
    return data


@pytest.fixture(scope="module")
def timbre():
    data = TimbreData(train=8, val=4, test=6, batch_size=4)
    data.setup()
    return data


def test_what_the_data_know_is_filled_in_and_what_is_given_stays():
    known = {"in_features": 3, "edge_dim": 4}
    assert build_network("torch.nn.Linear", {"out_features": 2}, known).in_features == 3
    assert build_network("torch.nn.Linear", {"out_features": 2, "in_features": 5}, known).in_features == 5


@pytest.mark.parametrize(
    ("path", "arguments", "message"),
    [
        ("GAT", {}, "encoder GAT: expected the path of a class, such as mymodule.Mine"),
        ("nowhere.Net", {}, r"got what cannot be imported \(No module named 'nowhere'\)"),
        ("somenets.Absent", {}, "has no attribute 'Absent'"),
        ("torch.nn.Linear", {"width": 3}, "it takes in_features, out_features, bias.*encoder_args.NAME VALUE"),
        ("somenets.number", {}, "expected a torch.nn.Module, got int"),
        ("somenets.wrong", {}, "encoder somenets.wrong cannot be built: RuntimeError: no luck"),
        ("torch.pi", {}, "expected a class, got float"),
    ],
)
def test_what_cannot_be_built_is_said(path, arguments, message):
    with pytest.raises(ValueError, match=message):
        build_network(path, arguments, {})


@pytest.mark.parametrize(
    ("path", "arguments", "channels", "reads"),
    [
        ("graphnets.Bonds", {"hidden": 12}, 12, True),
        ("torch_geometric.nn.GAT", {"hidden_channels": 8, "num_layers": 2, "v2": True}, 8, True),
        (
            "torch_geometric.nn.PNA",
            {"hidden_channels": 8, "num_layers": 2, "aggregators": ["mean"], "scalers": ["identity"]},
            8,
            True,
        ),
        ("torch_geometric.nn.GIN", {"hidden_channels": 8, "num_layers": 2, "out_channels": 5}, 5, False),
        ("torch_geometric.nn.GCNConv", {"out_channels": 7}, 7, False),
        ("somenets.Batches", {}, 4, False),
    ],
)
def test_graphs_go_through_any_network(bonds, path, arguments, channels, reads):
    torch.manual_seed(0)
    task = GraphTask(bonds.spec, encoder=path, encoder_args=arguments, reduction="attention").eval()
    assert (task.pool.channels, task.reads_edges) == (channels, reads)
    batch = bonds.collate(bonds.datasets["train"])
    logits, x = task(batch), task.encode(batch)[0]
    assert x.shape == (batch.num_nodes, channels)
    assert torch.equal(x, task.network(batch.x, batch.edge_index, **_asked(task, batch)))
    alone = torch.cat([task(Batch.from_data_list([batch[number]])) for number in range(12)])
    torch.testing.assert_close(alone, logits, atol=1e-5, rtol=1e-4)
    sums = torch.stack([nodes.sum(0) for nodes in task.explain(batch)[1].split(batch.ptr.diff().tolist())])
    torch.testing.assert_close(sums + task.head[-1].bias, logits, atol=1e-5, rtol=1e-4)
    batch.edge_attr = batch.edge_attr.flip(1)
    assert torch.equal(task(batch), logits) != reads


def _asked(task, batch):
    every = {"edge_attr": batch.edge_attr, "batch": batch.batch, "batch_size": batch.num_graphs}
    unread = set() if task.reads_edges else {"edge_attr"}
    return {name: every[name] for name in task.encoder.takes - unread}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "somenets.Pooled"}, r"expected features of the nodes, \(3, C\) for a graph of 3, got \(3,\)"),
        ({"encoder": "torch.nn.Linear", "encoder_args": {"in_features": 3, "out_features": 2}}, "fails on inputs of"),
        ({"encoder": "graphnets.Bonds", "coarsen": "topk"}, "expected coarsen null with an encoder of one's own"),
    ],
)
def test_networks_that_are_none_of_graphs_are_refused(bonds, options, message):
    with pytest.raises(ValueError, match=message):
        GraphTask(bonds.spec, **options)


def test_a_graph_network_of_the_guide_trains_from_the_command_line(tmp_path, monkeypatch):
    """And comes back from its checkpoint with its class and arguments."""
    from tasks.__main__ import main

    monkeypatch.setattr("sys.argv", ["tasks"])
    config = ["-c", str(ROOT / "configs" / "graph" / "bonds.yaml"), "--run.root", str(tmp_path)]
    small = ["--data.train=40", "--data.val=8", "--data.test=8", "--trainer.max_epochs=1", "--floors=false"]
    quiet = ["--trainer.enable_progress_bar=false", "--outputs.maps=1", "--outputs.bootstrap=0", "--outputs.every=0"]
    own = ["--model.encoder=graphnets.Bonds", "--model.encoder_args.hidden=10", "--model.encoder_args.layers=2"]
    main(["fit", *config, *small, *quiet, *own])
    task = GraphTask.load_from_checkpoint(tmp_path / "graph/bonds/version_0/checkpoints/best.ckpt", weights_only=True)
    assert len(task.network.convs) == 2
    assert task.pool.channels == 10


@pytest.mark.parametrize("pool", ["time", "frequency", "both"])
@pytest.mark.parametrize("path", ["somenets.Bands", "somenets.Steps", "audionets.Scattered"])
def test_clips_go_through_any_network(timbre, path, pool):
    torch.manual_seed(0)
    arguments = {"channels": 6} if path == "audionets.Scattered" else {}
    options = {"encoder": path, "encoder_args": arguments, "mels": 24, "hop_ms": 16, "pattern_s": 0.3}
    task = AudioTask(timbre.spec, pool=pool, **options).eval()
    samples = [timbre.datasets["test"][number] for number in range(6)]
    batch = collate_clips(samples)
    assert len(set(batch["lengths"].tolist())) > 1
    logits = task(batch)
    alone = torch.cat([task(collate_clips([sample])) for sample in samples])
    torch.testing.assert_close(alone, logits, atol=1e-5, rtol=1e-4)
    maps = task.explain(batch)[1]
    if pool != "frequency":
        torch.testing.assert_close(maps.sum((2, 3)) + task.head[-1].bias, logits, atol=1e-4, rtol=1e-4)
    frames = task.spectrogram.count(batch["lengths"]).tolist()
    assert [tuple(one.shape) for one in task.to_inputs(maps[:, 0], batch)] == [(24, count) for count in frames]
    places = task.places(batch, task.encode(batch)[0])
    assert places.shape[1:3] == maps.shape[2:]
    assert bool((places[0].diff(dim=1)[..., 1] > 0).all())
    hidden = task.hide(batch, task.to_inputs(torch.zeros_like(maps[:, 0], dtype=torch.float), batch))
    assert (hidden is None) == (task.inputs(batch) is None) == (path == "audionets.Scattered")


def test_cells_of_sound_lie_where_they_look(timbre):
    """Convolutions without padding: cell (i, j) of `Bands` sees mels 8i to 8i + 7 and frames 4j to 4j + 6."""
    net = OwnAudio("somenets.Bands", {}, mels=24, hop=160, sample_rate=16000)
    assert (net.bands, net.channels) == (3, 6)
    assert net.cell == (8.0, 4.0)
    assert net.first[0] == 3.5
    cells = net.count(100)
    assert cells == 24
    assert net.first[1] == pytest.approx(3, abs=1)  # 100 frames of training leave some that no cell sees
    (fine,) = AudioTask.to_inputs(
        SimpleNamespace(spectrogram=SimpleNamespace(count=lambda lengths: lengths), encoder=net, bands=24),  # type: ignore[arg-type]
        torch.zeros(1, 3, cells).index_put((torch.tensor(0), torch.tensor(1), torch.tensor(10)), torch.tensor(1.0)),
        {"lengths": torch.tensor([100])},
    )
    peak = divmod(int(fine.argmax()), 100)
    assert peak[0] in (11, 12)  # the middle of mels 8 to 15
    assert abs(peak[1] - 43) <= 1  # of frames 40 to 46


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "somenets.Pooled"}, r"expected features \(B, C, F, T\) or \(B, C, T\), got \(1,\)"),
        ({"encoder": "audionets.Scattered", "pitch": 2.0}, "change spectrograms, and the encoder takes waveforms"),
    ],
)
def test_networks_that_are_none_of_sounds_are_refused(timbre, options, message):
    with pytest.raises(ValueError, match=message):
        AudioTask(timbre.spec, **options)


def test_volumes_go_through_any_network():
    torch.manual_seed(0)
    spec = {"kind": "binary", "classes": ["well", "ill"], "channels": 1, "class_counts": [3, 3]}
    arguments = {"init_filters": 8, "out_channels": 4, "blocks_down": [1, 1], "blocks_up": [1]}
    task = VolumeTask(spec, encoder="monai.networks.nets.SegResNet", encoder_args=arguments).eval()
    image = torch.randn(2, 1, 16, 16, 16)
    logits, maps = task({"image": image}), task.explain({"image": image})[1]
    assert maps.shape == (2, 1, 16, 16, 16)
    torch.testing.assert_close(maps.sum((2, 3, 4)) + task.head[-1].bias, logits, atol=1e-4, rtol=1e-4)
    assert task.stride == (1.0, 1.0, 1.0)
    assert task.cell == 1
    assert task.grid((16, 16, 16)) == (16, 16, 16)


def test_cells_of_volumes_lie_where_they_look():
    """Averages of 4 x 2 x 1 voxels are centred between voxels 1 and 2, between 0 and 1, and on 0."""
    built = build_encoder("somenets.Blur")
    assert (built.stride, built.first, built.channels) == ((4.0, 2.0, 1.0), (1.5, 0.5, 0.0), 1)
    spec = {"kind": "binary", "classes": ["well", "ill"], "channels": 1, "class_counts": [3, 3]}
    task = VolumeTask(spec, encoder="somenets.Blur", reduction="mean")
    batch = {"image": torch.zeros(1, 1, 8, 8, 8), "affine": torch.eye(4)[None]}
    places = task.places(batch, task.encode(batch)[0])
    assert places[0, 1, 2, 3].tolist() == [5.5, 4.5, 3.0]
    assert task.cell == 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "somenets.Pooled"}, r"expected features on a grid, \(B, C, d, h, w\), got \(1,\); give a network"),
        (
            {"encoder": "somenets.Blur", "width": 8},
            "encoder somenets.Blur takes encoder_args, got width",
        ),
        (
            {"encoder": "plain", "encoder_args": {"a": 1}},
            "encoder_args are for the path of a class, got encoder",
        ),
        ({"encoder": "mine"}, "expected an encoder of plain, .*, or the path of a class, got 'mine'"),
    ],
)
def test_networks_that_are_none_of_volumes_are_refused(options, message):
    spec = {"kind": "binary", "classes": ["well", "ill"], "channels": 1, "class_counts": [3, 3]}
    with pytest.raises(ValueError, match=message):
        VolumeTask(spec, **options)


def test_a_volume_network_trains_and_comes_back(tmp_path):
    data = LesionData(train=4, val=2, test=2, size=8, batch_size=2)
    arguments = {"out_channels": 4, "kernel_size": 2, "stride": 2}
    task = VolumeTask(data.spec, encoder="torch.nn.Conv3d", encoder_args=arguments)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(max_epochs=1, accelerator="cpu", enable_model_summary=False, **quiet)
    trainer.fit(task, datamodule=data)
    trainer.save_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    again = VolumeTask.load_from_checkpoint(tmp_path / "a.ckpt", weights_only=True)
    batch = next(iter(data.test_dataloader()))
    torch.testing.assert_close(again.eval()(batch), task.eval()(batch))


def test_the_guides_say_it_in_the_same_words():
    texts = [(ROOT / "docs" / f"{page}.md").read_text() for page in ("graph", "audio", "volume")]
    found = {
        re.search(r"`--model.encoder CLASS_PATH`.*?to probe what it knows\.", text, flags=re.DOTALL)[0]
        for text in texts
    }
    assert len(found) == 1
