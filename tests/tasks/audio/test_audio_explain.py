"""One sound file: read as the training reads, drawn, and its map written with times and frequencies."""

import itertools

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from recordings import SPEC

from tasks.audio import AudioTask
from tasks.audio.pictures import draw_spectrogram
from tasks.data.problems import BadInput
from tasks.outputs.gallery import Gallery


def task(**options):
    torch.manual_seed(0)
    return AudioTask(SPEC, widths=[4, 6], mels=24, hop_ms=16, pattern_s=0.1, **options).eval()


@pytest.mark.parametrize("pool", ["time", "frequency", "both"])
def test_a_file_s_map_has_its_times_and_frequencies(tones, pool, tmp_path):
    made = task(pool=pool)
    path = tones.write("stereo.flac", np.random.default_rng(0).uniform(-0.5, 0.5, (24000, 2)), rate=32000)
    batch = made.read(str(path))
    assert batch["wave"].shape == (1, 12000)
    (entry,) = Gallery(tmp_path / "maps").add(made, batch, limit=1)
    *heard, arrays = entry.files
    assert [file.name for file in heard] == [f"stereo.flac_{name}.wav" for name in ("original", "for", "against")]
    with np.load(arrays) as stored:
        assert stored["map"].shape == stored["spectrogram_db"].shape == (24, 12000 // 256 + 1)
        np.testing.assert_allclose(stored["times"], np.arange(47) * 0.016)
        assert np.all(np.diff(stored["frequencies"]) > 0)
        assert -80 <= stored["spectrogram_db"].min() < stored["spectrogram_db"].max() == pytest.approx(0, abs=1e-3)
        # Each bin has its share of the sum, up to the half cells that stand out at the ends.
        assert stored["map"].sum() == pytest.approx(entry.decision.sum, rel=0.2)
    assert entry.decision.target == ""
    assert entry.picture.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda tones: "none.wav", "none.wav: file does not exist; correct the path or leave it out"),
        (lambda tones: tones.write("flat.wav", np.zeros(4000)), "flat.wav: silent: every sample is zero"),
        (lambda tones: tones.manifest(), "clips.csv: cannot be read as audio"),
    ],
    ids=["missing", "silent", "no sound"],
)
def test_what_cannot_be_read_is_said(tones, make, message):
    with pytest.raises(BadInput, match=message):
        task().read(str(make(tones)))


def test_a_picture_is_red_where_the_map_speaks_for_and_blue_where_against(tmp_path):
    """One bin each, at known places of the picture; left is early, low is below."""
    evidence = torch.zeros(10, 20)
    evidence[8, 4], evidence[1, 15] = 1.0, -1.0
    path = draw_spectrogram(
        torch.zeros(10, 20), evidence, tmp_path / "a.png", title="t", label="l", frame_s=0.1,
        frequencies=torch.linspace(100, 1000, 10), range_db=80.0, pooled="time",
    )  # fmt: skip
    picture = imread(path)[:, : int(0.6 * 990), :3]
    red, blue = (np.argwhere(picture[..., a] > picture[..., b] + 0.15).mean(0) for a, b in ((0, 2), (2, 0)))
    assert red[0] < blue[0]  # rows count from above
    assert red[1] < blue[1]


def test_octaves_that_are_drawn_do_not_overlap():
    from tasks.audio.frontend import LogMel
    from tasks.audio.pictures import _ticks

    for rate, mels in ((8000, 24), (16000, 64), (44100, 128)):
        places, labels = _ticks(LogMel(rate, mels=mels).frequencies())
        assert len(labels) >= 4
        assert min(high - low for high, low in itertools.pairwise(places)) >= 0.06 * mels
