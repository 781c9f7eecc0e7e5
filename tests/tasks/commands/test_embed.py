"""Dual features: vectors and elements with their places in every modality, class tokens left out, and the table."""

import importlib.util
import json

import numpy as np
import pytest
import torch
import yaml
from monai.data import CacheDataset
from monai.transforms import Compose, Lambdad, RandShiftIntensityd
from torch_geometric.data import Batch
from toy import ToyData, ToyTask

from tasks.__main__ import main
from tasks.audio import AudioManifest, AudioTask, TimbreData
from tasks.audio.clips import collate_clips
from tasks.graph import GraphTask, MotifData
from tasks.task.embedding import embed_batch
from tasks.volume import CSVData, LesionData, VolumeTask

SPEC = {"kind": "binary", "classes": ["low", "high"], "channels": 4, "class_counts": [1, 1]}


class WithToken(ToyTask):
    """A class token before the elements, as in a vision transformer; ``masked`` says that it is no element."""

    masked = True

    def encode(self, batch):
        x, _ = super().encode(batch)
        x = torch.cat([torch.full_like(x[:, :1], 1e6), x], 1)  # (B, 1 + N, C)
        mask = torch.ones(x.shape[:2], dtype=torch.bool)
        mask[:, 0] = False
        return x, {"mask": mask} if self.masked else {}

    def places(self, batch, x):
        numbers = torch.arange(-1.0, x.shape[1] - 1)[None, :, None]
        return numbers.where(numbers >= 0, torch.nan)


def sets(*shape):
    return {"x": torch.randn(*shape, 4), "id": [str(i) for i in range(shape[0])]}


def test_toy_elements_are_those_that_are_averaged():
    task, batch = ToyTask(SPEC), sets(3, 7)
    found = task.embed(batch)
    torch.testing.assert_close(torch.stack([own.mean(0) for own in found.features]), found.vectors)
    torch.testing.assert_close(torch.stack(found.features), task.encoder(batch["x"]))
    assert all(places.flatten().tolist() == list(range(7)) for places in found.places)


@pytest.mark.parametrize("reduction", ["mean", "max", "sum", "attention"])
def test_a_class_token_is_in_no_vector_and_no_element(reduction):
    task, batch = WithToken(SPEC, reduction=reduction).eval(), sets(3, 7)
    plain = ToyTask(SPEC, reduction=reduction).eval()
    plain.load_state_dict(task.state_dict())
    found, expected = task.embed(batch), plain.embed(batch)
    torch.testing.assert_close(found.vectors, expected.vectors)
    torch.testing.assert_close(torch.stack(found.features), torch.stack(expected.features))
    assert all(places.flatten().tolist() == list(range(7)) for places in found.places)


def test_a_class_token_that_nobody_masks_is_refused():
    task = WithToken(SPEC)
    task.masked = False
    with pytest.raises(ValueError, match=r"expected every element that is pooled to have a place, got 3 .*mask"):
        task.embed(sets(3, 7))


def test_nodes_of_graphs_that_are_not_in_order():
    data = MotifData(train=12, val=4, test=4)
    data.setup()
    graphs = data.datasets["test"]
    task = GraphTask(data.spec, hidden=8, layers=2, reduction="max").eval()
    found = task.embed(Batch.from_data_list(list(graphs)))
    for graph, vector, own, places in zip(graphs, *found, strict=True):
        alone, _ = task.encode(Batch.from_data_list([graph]))
        torch.testing.assert_close(own, alone)
        torch.testing.assert_close(own.max(0).values, vector)
        assert places[:, 0].tolist() == list(range(graph.num_nodes))

    class Shuffled(GraphTask):
        order = torch.randperm(sum(graph.num_nodes for graph in graphs))

        def encode(self, batch):
            x, given = super().encode(batch)
            return x[self.order], {**given, "index": given["index"][self.order]}

        def places(self, batch, x):
            return super().places(batch, x)[self.order]

    shuffled = Shuffled(data.spec, hidden=8, layers=2, reduction="max").eval()
    shuffled.load_state_dict(task.state_dict())
    again = shuffled.embed(Batch.from_data_list(list(graphs)))
    torch.testing.assert_close(again.vectors, found.vectors)
    for own, places, expected in zip(again.features, again.places, found.features, strict=True):
        torch.testing.assert_close(own[places[:, 0].argsort()], expected)


@pytest.fixture(scope="module")
def timbres():
    data = TimbreData(train=1, val=1, test=4)
    data.setup()
    return data


@pytest.mark.parametrize("pool", ["time", "frequency", "both"])
def test_cells_of_spectrograms_have_a_frequency_and_a_time_and_padding_is_not_there(timbres, pool):
    clips = [timbres.datasets["test"][i] for i in range(4)]
    task = AudioTask(timbres.spec, pool=pool, widths=[4, 6], mels=24, hop_ms=16).eval()
    found = task.embed(collate_clips(clips))
    high, long = task.encoder.cell
    centres = task.spectrogram.frequencies().float()
    for clip, vector, own, places in zip(clips, *found, strict=True):
        frames = int(task.spectrogram.count(torch.tensor(len(clip["wave"]))))
        times = torch.arange(0, frames, long) * 0.016  # cells are centred on frames 0, long, 2 long, ...
        bands = centres[torch.arange(0, 24, high)]
        expected = torch.cartesian_prod(bands, times)
        torch.testing.assert_close(places, expected)
        grid = own.view(len(bands), len(times), 6)
        axis = {"time": 1, "frequency": 0, "both": (0, 1)}[pool]
        pooled = grid.mean(axis).movedim(-1, 0)
        vector = vector[:, : len(times)] if pool == "frequency" else vector  # frames beyond the clip are empty
        torch.testing.assert_close(vector, pooled, atol=1e-5, rtol=1e-4)


def test_cells_of_volumes_have_a_place_in_millimetres():
    data = LesionData(train=2, val=2, test=2, size=16)
    data.setup()
    batch = next(iter(data.test_dataloader()))
    task = VolumeTask(data.spec, width=4, levels=2).eval()
    found = task.embed(batch)
    features, _ = task.encode(batch)
    for number in range(2):
        affine = batch["affine"][number].double()
        for j in ((0, 0, 0), (3, 1, 2)):
            corners = [[4 * i + side * 3 for i in j] for side in (0, 1)]  # the voxels that a cell of stride 4 sees
            middle = torch.tensor(corners, dtype=torch.double).mean(0)
            expected = affine[:3, :3] @ middle + affine[:3, 3]
            at = (found.places[number].double() - expected).norm(dim=1).argmin()
            torch.testing.assert_close(found.places[number][at].double(), expected, atol=1e-4, rtol=0)
            torch.testing.assert_close(found.features[number][at], features[(number, slice(None), *j)])
    torch.testing.assert_close(torch.stack([own.mean(0) for own in found.features]), found.vectors)


def test_embed_batch_takes_a_layout_whose_channels_come_first():
    class First(ToyTask):
        def __init__(self, spec):
            super().__init__(spec)
            self.pool = type(self.pool)("b c [n] k")

        def encode(self, batch):
            x = self.encoder(batch["x"]).movedim(-1, 1)  # (B, C, N)
            return torch.stack([x, 2 * x], -1), {"mask": batch["there"][..., None]}

    batch = {**sets(2, 5), "there": torch.tensor([[True] * 5, [True] * 2 + [False] * 3])}
    found = embed_batch(First(SPEC), batch)
    assert [own.shape for own in found.features] == [(10, 8), (4, 8)]
    assert found.places[1].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    torch.testing.assert_close(found.features[1][1::2], 2 * found.features[1][::2])


def test_training_samples_are_embedded_without_random_changes():
    phantoms = LesionData(train=8, val=2, test=2, size=16)
    phantoms.setup()
    still = phantoms.still("train")
    for number, sample in enumerate(phantoms.datasets["train"].samples):
        assert torch.equal(still[number]["image"], sample["image"])
    assert phantoms.datasets["train"].mirror

    scans = CSVData("scans.csv")
    steps = Compose([Lambdad("image", lambda image: image + 1), RandShiftIntensityd("image", offsets=9.0, prob=1.0)])
    scans.datasets["train"] = CacheDataset([{"image": torch.zeros(1, 2, 2)}], steps, progress=False)
    assert scans.datasets["train"][0]["image"].unique().tolist() != [1]
    assert scans.still("train")[0]["image"].unique().tolist() == [1]

    clip = {"wave": torch.arange(8000.0), "target": torch.tensor(0), "id": "a", "truth": []}
    sounds = AudioManifest("clips.csv", shift=0.4)
    sounds.datasets["train"] = sounds._dataset([clip], "train")
    assert len({float(sounds.datasets["train"][0]["wave"][0]) for _ in range(9)}) > 1
    assert all(torch.equal(sounds.still("train")[0]["wave"], clip["wave"]) for _ in range(9))


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A folder with a toy task that was fitted."""
    folder = tmp_path_factory.mktemp("fitted")
    config = {
        "run": {"name": "toy"},
        "model": {"class_path": "toy.ToyTask"},
        "data": {"class_path": "toy.ToyData", "init_args": {"kind": "regression"}},
        "trainer": {"accelerator": "cpu", "max_epochs": 1, "enable_progress_bar": False, "enable_model_summary": False},
        "outputs": {"maps": 0, "every": 0, "bootstrap": 0},
    }
    (folder / "toy.yaml").write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr("sys.argv", ["tasks"])
        main(["fit", "-c", "toy.yaml"])
    return folder


@pytest.fixture
def toy(fitted, monkeypatch):
    """Calls the command in that folder."""
    monkeypatch.chdir(fitted)
    monkeypatch.setattr("sys.argv", ["tasks"])
    return lambda *flags: main(["embed", "-c", "toy.yaml", *flags])


def test_the_table_holds_every_sample_once(toy, fitted, capsys):
    toy("--format=npz")
    run = fitted / "runs" / "toy" / "version_0"
    table = np.load(run / "embeddings.npz")
    assert "160 vectors of 8 numbers (8), npz" in capsys.readouterr().out
    assert len(set(table["id"].tolist())) == len(table["id"]) == 96 + 32 + 32
    assert {part: int((table["part"] == part).sum()) for part in ("train", "val", "test")} == {
        "train": 96,
        "val": 32,
        "test": 32,
    }
    data = ToyData(kind="regression")
    data.setup()
    task = ToyTask.load_from_checkpoint(run / "checkpoints" / "best.ckpt", weights_only=True)
    sample = data.datasets["val"][3]
    row = table["id"].tolist().index(sample["id"])
    np.testing.assert_allclose(table["vector"][row], task.encoder(sample["x"]).mean(0).detach(), rtol=1e-5, atol=1e-6)
    assert [table["target first"][row], table["target second"][row]] == pytest.approx(sample["y"].tolist())

    if importlib.util.find_spec("pyarrow"):
        from pyarrow import parquet

        toy()
        other = parquet.read_table(run / "embeddings.parquet")
        assert other.column("id").to_pylist() == table["id"].tolist()
        np.testing.assert_array_equal(np.stack(other.column("vector").to_numpy()), table["vector"])
        assert other.schema.metadata[b"shape"] == b"[8]"
    else:
        with pytest.raises(SystemExit, match=r"--format parquet needs pyarrow: run pip install pyarrow"):
            toy("--format=parquet")
    with pytest.raises(SystemExit, match=r"^error: embed: expected parts of train, val, test, got tset"):
        toy("--parts=test,tset")
    with pytest.raises(SystemExit, match=r"^error: checkpoint none\.ckpt does not exist"):
        toy("--ckpt_path=none.ckpt")


def test_targets_are_named_and_short_vectors_end_in_zeros(toy, fitted, monkeypatch):
    def embed(self, batch):
        wide = 2 + ("set 0" in batch["id"])  # the first training batch is longer than the others
        return embed_batch(self, batch)._replace(vectors=torch.ones(len(batch["id"]), 3, wide))

    monkeypatch.setattr(ToyTask, "embed", embed)
    toy("--format=npz", "--data.kind=multilabel", "--parts=train,test")
    table = np.load(fitted / "runs" / "toy" / "version_0" / "embeddings.npz")
    assert json.loads(str(table["about"]))["shape"] == [3, 3]
    assert table["vector"][0].tolist() == [1] * 9
    assert table["vector"][-1].tolist() == [1, 1, 0] * 3
    assert set(table["target first"].tolist()) == set(table["target second"].tolist()) == {0.0, 1.0}
