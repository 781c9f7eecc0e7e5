"""Views of recordings: stretches of the clip itself, whatever lies beyond it."""

import pytest
import torch
from scipy import signal

from tasks.audio.crops import SoundCrops, coloured

PLAIN = {"gain_db": 0.0, "colour_db": 0.0}


def batch(padding=0.0):
    lengths = torch.tensor([1000, 600, 50])
    torch.manual_seed(0)
    wave = torch.full((3, 1000), float(padding))
    for row, length in zip(wave, lengths.tolist(), strict=True):
        row[:length] = torch.randn(length)
    return {"wave": wave, "lengths": lengths, "id": list("abc"), "truth": [[], [], []], "target": torch.zeros(3)}


def test_a_crop_is_a_stretch_of_the_clip():
    whole = batch()
    for _ in range(10):
        small = SoundCrops(**PLAIN).crop(whole, 0.3, 0.6)
        for old, length, new, short in zip(
            whole["wave"], whole["lengths"].tolist(), small["wave"], small["lengths"].tolist(), strict=True
        ):
            assert 0.3 * length - 1 <= short <= 0.6 * length
            places = (old[:length].unfold(0, short, 1) == new[:short]).all(1)
            assert int(places.sum()) == 1
            assert not new[short:].any()


@pytest.mark.parametrize("crops", [SoundCrops(), SoundCrops(shift=True, noise_db=10.0)], ids=["plain", "all"])
def test_what_lies_beyond_a_clip_changes_nothing(crops):
    views = []
    for padding in (0.0, 7.0):
        torch.manual_seed(1)
        views.append(crops.view(batch(padding), (0.4, 0.9)))
    torch.testing.assert_close(views[0]["wave"], views[1]["wave"], rtol=0, atol=0)
    assert torch.equal(views[0]["lengths"], views[1]["lengths"])


def test_a_shift_goes_round():
    whole = batch()
    moved = SoundCrops(shift=True, **PLAIN).change(whole)
    for old, new, length in zip(whole["wave"], moved["wave"], whole["lengths"].tolist(), strict=True):
        assert any(torch.equal(old[:length].roll(by), new[:length]) for by in range(length))


def test_gain_is_one_number_within_its_bounds():
    whole = batch()
    ratio = SoundCrops(gain_db=6.0, colour_db=0.0).change(whole)["wave"] / whole["wave"]
    for row, length in zip(ratio, whole["lengths"].tolist(), strict=True):
        assert float(row[:length].std()) < 1e-5
        assert 10 ** (-6 / 20) <= float(row[0]) <= 10 ** (6 / 20)


def test_noise_lies_as_far_under_the_sound_as_is_asked():
    torch.manual_seed(0)
    whole = batch() | {"wave": torch.randn(64, 4000), "lengths": torch.full((64,), 4000)}
    noise = SoundCrops(noise_db=20.0, **PLAIN).change(whole)["wave"] - whole["wave"]
    level = 10 * (whole["wave"].square().mean(1) / noise.square().mean(1)).log10()
    assert 19 < float(level.min()) < float(level.max()) < 51


def test_colour_is_a_filter():
    """A smooth gain over frequency and no phase: the transfer function, by scipy, is real and varies slowly."""
    torch.manual_seed(0)
    wave = torch.randn(1, 2**15)
    _, cross = signal.csd(wave[0], coloured(wave, 4.0)[0], nperseg=512)
    _, power = signal.welch(wave[0], nperseg=512)
    transfer = (cross / power)[8:]
    assert abs(transfer.imag).max() < 0.15 * abs(transfer).max()
    gains = 20 * torch.log10(torch.tensor(transfer.real))
    assert float(gains.std()) > 0.5
    assert float(gains.diff().abs().mean()) < 0.5
