"""Events lie where truth says, on the spectrogram's own grid, and neither loudness nor place tells their kind."""

from pathlib import Path

import pytest
import torch
import yaml

from tasks.__main__ import main
from tasks.audio import AudioTask, EventData
from tasks.audio.clips import collate_clips
from tasks.audio.encoder import SpectrogramNet
from tasks.audio.events import KINDS, make_events
from tasks.audio.frontend import LogMel
from tasks.audio.places import bins_inside, to_bins

RATE = 16000
ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def data():
    made = EventData(train=4, val=4, test=12, seconds=1.6)
    made.setup()
    return made


@pytest.fixture
def batch(data):
    return collate_clips([data.datasets["test"][i] for i in range(12)])


def network(data, **options):
    torch.manual_seed(0)
    small = {"pool": "both", "widths": [4, 6], "mels": 24, "window_ms": 32}
    return AudioTask(data.spec, **(small | options)).eval()


def test_the_same_seed_gives_the_same_events():
    first, again, longer, other = (make_events(n, seconds=1.4, seed=s) for n, s in ((4, 1), (4, 1), (8, 1), (4, 2)))
    assert all(torch.equal(a, b) for a, b in zip(first[0], again[0], strict=True))
    assert all(torch.equal(a, b) for a, b in zip(first[0], longer[0][:4], strict=True))
    assert first[1:] == again[1:]
    assert first[2] != other[2]


def test_the_kind_changes_nothing_but_the_sound_in_the_box(monkeypatch):
    """With the kinds in another order the same numbers are drawn: boxes stay, and so do all samples outside."""
    waves, _, boxes = make_events(4)
    monkeypatch.setattr("tasks.audio.events.KINDS", KINDS[::-1])
    others, _, same = make_events(4)
    assert boxes == same
    for wave, other, ((start, end, _, _),) in zip(waves, others, boxes, strict=True):
        first, last = round(start * RATE), round(end * RATE)
        outside = torch.cat([wave[:first], wave[last:]])
        moved = torch.cat([other[:first], other[last:]])
        # Clips are scaled to their own peak, so the rest is equal up to one factor.
        torch.testing.assert_close(outside / outside.norm(), moved / moved.norm(), atol=1e-6, rtol=1e-4)
        assert (wave[first:last] / outside.norm() - other[first:last] / moved.norm()).abs().max() > 1e-3


def test_the_box_is_louder_than_its_surroundings():
    """The box is louder than what lies just above and below it."""
    front = LogMel(RATE, mels=64, window_ms=32, range_db=60)
    for i, (wave, ((start, end, low, high),)) in enumerate(zip(*make_events(12)[::2], strict=True)):
        x, frames = front(wave[None], torch.tensor([len(wave)]))
        grid = {"frequencies": front.frequencies(), "frame_s": 0.01, "frames": int(frames)}
        inside = bins_inside([(start + 0.02, end - 0.02, low * 1.05, high / 1.05)], **grid)
        beside = bins_inside([(start + 0.02, end - 0.02, high * 1.08, high * 1.25)], **grid)
        beside |= bins_inside([(start + 0.02, end - 0.02, low / 1.25, low / 1.08)], **grid)
        power = 10 ** (6 * (x[0, 0] - 1))
        assert power[inside].mean() > 1.5 * power[beside].median(), (i, KINDS[i % 4])


@pytest.mark.parametrize("pool", ["time", "frequency", "both"])
def test_truth_and_maps_lie_on_each_clips_own_spectrogram(data, batch, pool):
    task = network(data, pool=pool, halvings=1, pattern_s=0.3)
    frames = (batch["lengths"] // 160 + 1).tolist()
    assert len(set(frames)) > 1
    shapes = [(24, count) for count in frames]
    truth, maps, rivals = task.truth(batch), task.sample_maps(batch), task.rival_maps(batch)
    assert [tuple(one.shape) for one in truth] == [tuple(one.shape) for one in maps] == shapes
    assert [tuple(one.shape) for one in rivals["intensity"]] == shapes
    centres = task.spectrogram.frequencies()
    for marked, ((start, end, low, high),) in zip(truth, batch["truth"], strict=True):
        bands, times = marked.any(1).nonzero().flatten(), marked.any(0).nonzero().flatten()
        assert marked.sum() == len(bands) * len(times)
        assert start <= float(times[0]) * 0.01 < start + 0.01
        assert end - 0.01 < float(times[-1]) * 0.01 <= end
        assert low <= centres[bands[0]]
        assert centres[bands[-1]] <= high
        assert low > centres[max(0, bands[0] - 1)] or bands[0] == 0
        assert high < centres[min(23, bands[-1] + 1)] or bands[-1] == 23


def test_a_map_does_not_depend_on_the_batch(data, batch):
    task = network(data)
    together = task.sample_maps(batch)
    for i in range(4):
        alone = task.sample_maps(collate_clips([data.datasets["test"][i]]))[0]
        torch.testing.assert_close(together[i], alone, atol=1e-6, rtol=1e-4)


def test_the_map_is_of_the_targets_class(data, batch):
    task = network(data, widths=[4], halvings=0)
    _, maps = task.explain(batch)
    for i, one in enumerate(task.sample_maps(batch)):
        torch.testing.assert_close(one, maps[i, int(batch["target"][i]), :, : one.shape[1]])


@pytest.mark.parametrize("stride", [(1, 2), (2, 1), (2, 2)])
def test_a_cell_is_drawn_where_the_network_saw_it(stride):
    """A click in one bin is largest at that bin after two layers that halve the grid."""
    net = SpectrogramNet([1, 1], stride=stride, position=False).eval()
    for layer in net.layers:
        torch.nn.init.constant_(layer[0].weight, 1.0)
    x = torch.zeros(1, 1, 32, 40)
    x[0, 0, 8, 20] = 1.0
    out, _ = net(x, torch.tensor([40]))
    assert net.cell == (stride[0] ** 2, stride[1] ** 2)
    (fine,) = to_bins(out[:, 0], frames=[40], cells=[net.count(40)], bands=32, stride=net.cell)
    bands, times = (fine == fine.max()).nonzero(as_tuple=True)
    assert fine.shape == (32, 40)
    assert (float(bands.double().mean()), float(times.double().mean())) == (8.0, 20.0)


def test_hidden_bins_are_silent_to_the_network(data, batch):
    task = network(data)
    truth = task.truth(batch)
    assert torch.equal(task(task.hide(batch, [one & False for one in truth])), task(batch))
    everything = task.hide(batch, [one | True for one in truth])
    logits = task(everything)
    assert not torch.allclose(logits, task(batch))
    silent = {**batch, "wave": torch.zeros_like(batch["wave"])}
    torch.testing.assert_close(logits, task(silent))


def test_recordings_without_events_have_no_truth(data, batch):
    assert network(data).truth({**batch, "truth": [[] for _ in batch["truth"]]}) is None


def test_a_box_between_two_centres_is_the_nearest_bin():
    marked = bins_inside([(0.06, 0.07, 130.0, 140.0)], frequencies=torch.tensor([100.0, 200.0]), frame_s=0.1, frames=3)
    assert marked.nonzero().tolist() == [[0, 1]]


def test_events_need_room():
    with pytest.raises(ValueError, match=r"expected seconds >= 1\.4, so that every event fits, got 1\.0; raise it"):
        make_events(1, seconds=1.0)


@pytest.mark.parametrize("halvings", [-1, 3])
def test_impossible_halvings(halvings):
    with pytest.raises(ValueError, match=rf"expected halvings from 0 to 2, the number of layers, got {halvings}"):
        SpectrogramNet([4, 4], stride=(2, 2), halvings=halvings)


@pytest.mark.parametrize("name", ["events", "rhythm", "timbre"])
def test_generated_sounds_take_the_options_of_all_data(name, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["tasks"])
    with pytest.raises(SystemExit):
        main(["fit", "-c", str(ROOT / f"configs/audio/{name}.yaml"), "--data.seed=3", "--print_config"])
    assert yaml.safe_load(capsys.readouterr().out)["data"]["init_args"]["seed"] == 3
