"""Elements in the colours of their features: over the right elements, and as good as what is known says."""

import numpy as np
import pytest
import torch
from toy import ToyTask

from tasks.audio import AudioTask, TimbreData
from tasks.frozen.elements import Elements, agreement, element_maps, element_sample
from tasks.graph import GraphTask, MotifData
from tasks.volume import LesionData, VolumeTask

SPEC = {"kind": "binary", "classes": ["low", "high"], "channels": 4, "class_counts": [1, 1]}


def modalities():
    graphs, clips, volumes = (
        MotifData(train=6, val=2, test=3),
        TimbreData(train=4, val=4, test=4),
        LesionData(train=4, val=2, test=3, size=16),
    )
    for data in (graphs, clips, volumes):
        data.setup()
    yield graphs, GraphTask(graphs.spec, hidden=8, layers=2)
    yield clips, AudioTask(clips.spec, widths=[4, 6], mels=24, hop_ms=16)
    yield volumes, VolumeTask(volumes.spec, width=4, levels=1)


@pytest.mark.parametrize("number", range(3), ids=["graph", "audio", "volume"])
def test_colours_and_clusters_are_on_the_inputs_grid_in_every_modality(number, tmp_path):
    data, task = list(modalities())[number]
    task.eval()
    found = Elements(element_sample(task, data.loader(data.still("train"), False)), clusters=3)
    batch = next(iter(data.test_dataloader()))
    colours, labels = found.colours(task, batch), found.labels(task, batch)
    for colour, label, truth in zip(colours, labels, task.truth(batch), strict=True):
        assert colour.shape == (*truth.shape, 3)
        assert label.shape == truth.shape
        assert 0 <= colour.min() <= colour.max() <= 1
        assert set(label.unique().tolist()) <= {0, 1, 2}
    assert torch.cat([label.flatten() for label in labels]).unique().numel() > 1
    task.paint(batch, 0, {"first": colours[0], "second": colours[0]}, "a title", tmp_path / "one.png")
    assert (tmp_path / "one.png").stat().st_size > 5000


def test_components_are_those_of_the_singular_vectors():
    task = ToyTask(SPEC).eval()
    batch = {"x": torch.randn(5, 7, 4), "id": list("abcde")}
    features = torch.cat(task.embed(batch).features).detach()
    found = Elements(features, clusters=2).colours(task, batch)
    centred = (features - features.mean(0)).numpy()
    first = np.linalg.svd(centred, full_matrices=False)[2][0]
    expected = centred @ first
    inside = torch.stack(found).flatten(0, 1)[:, 0].numpy()
    middle = (inside > 0) & (inside < 1)  # the outermost 2 % on either side are cut
    assert middle.sum() > 28
    assert abs(np.corrcoef(expected[middle], inside[middle])[0, 1]) == pytest.approx(1, abs=1e-5)


def test_clusters_far_apart_are_found():
    task = ToyTask(SPEC).eval()
    where = torch.rand(4, 7) > 0.5
    batch = {"x": torch.where(where[..., None], 10.0, -10.0) + torch.randn(4, 7, 4), "id": list("abcd")}
    found = Elements(torch.cat(task.embed(batch).features).detach(), clusters=2).labels(task, batch)
    assert agreement(found, list(where)) == [1.0] * 4
    assert max(agreement(list((torch.arange(28) % 2).view(4, 7)), list(where))) < 0.5


def test_a_map_of_the_features_themselves_is_where_they_were():
    task = ToyTask(SPEC).eval()
    batch = {"x": torch.randn(2, 7, 4), "id": list("ab")}
    found = element_maps(task, batch, lambda x: x)
    torch.testing.assert_close(torch.stack(found), task.encoder(batch["x"]).detach())
