"""What the data say of their samples: the same names, in the same order, as a trained task gives them."""

import pytest
import torch

from tasks.audio import AudioManifest, AudioTask, EventData
from tasks.data.base import Sample
from tasks.graph import GraphTask, MotifData
from tasks.volume import LesionData, VolumeTask


@pytest.mark.parametrize(
    ("data", "task"),
    [
        (lambda: MotifData(train=12, val=6, test=6, batch_size=6), GraphTask),
        (lambda: EventData(train=8, val=8, test=8, seconds=1.5, batch_size=8), AudioTask),
        (lambda: LesionData(train=4, val=2, test=2, size=8, batch_size=2), VolumeTask),
    ],
    ids=["graph", "audio", "volume"],
)
def test_samples_are_named_as_in_the_batches(data, task):
    made = data()
    names = [sample.id for sample in made.samples("test")]
    batches = [task.ids(None, batch) for batch in made.test_dataloader()]
    assert names == [name for batch in batches for name in batch]
    assert made.samples("predict") == []


def test_a_manifest_gives_groups_and_columns(tmp_path):
    import soundfile

    lines = ["path,label,player,site"]
    for i in range(20):
        wave = torch.rand(800, generator=torch.Generator().manual_seed(i)).numpy() - 0.5
        soundfile.write(tmp_path / f"{i}.wav", wave, 8000)
        lines.append(f"{i}.wav,{'ab'[i % 2]},p{i // 2 % 5},s{i % 3}")
    (tmp_path / "m.csv").write_text("\n".join(lines) + "\n")
    data = AudioManifest(str(tmp_path / "m.csv"), group="player", sample_rate=8000)
    by_path = {line.split(",")[0]: line.split(",") for line in lines[1:]}
    for part in ("train", "val", "test"):
        assert data.samples(part)
        for sample in data.samples(part):
            _, _, player, site = by_path[sample.id]
            assert (sample.group, sample.columns["site"]) == (player, site)
    assert Sample("a") == ("a", None, {}, None)
