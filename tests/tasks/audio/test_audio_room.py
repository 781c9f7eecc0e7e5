"""Changes of recordings: each against its definition, another for each recording, none in evaluation."""

import numpy as np
import pytest
import soundfile
import torch

from tasks.audio import AudioTask
from tasks.audio.clips import Clip, collate_clips
from tasks.audio.room import Changes, Equaliser, Gain, Noise, Reverb, Speed
from tasks.data.problems import BadInput

RATE = 8000
SPEC = {
    "kind": "multiclass",
    "classes": ["a", "b", "c"],
    "sample_rate": RATE,
    "train_size": 9,
    "class_counts": [3, 3, 3],
}


def at_rate(change):
    change.sample_rate = RATE
    return change


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def power(x):
    return x.square().mean(1)


def test_gain_and_noise_keep_to_their_decibels():
    wave = torch.randn(64, 4000)
    gains = 10 * (power(Gain(6)(wave)) / power(wave)).log10()
    assert -6 <= gains.min() < -4 < 4 < gains.max() <= 6
    noise = at_rate(Noise((10, 20)))(wave) - wave
    ratios = 10 * (power(wave) / power(noise)).log10()
    assert 9.99 <= ratios.min() < 12 < 18 < ratios.max() <= 20.01


def test_a_generated_room_dies_away_by_sixty_decibels():
    impulse = torch.zeros(200, RATE)
    impulse[:, 0] = 1
    heard = at_rate(Reverb(seconds=(0.5, 0.5), wet_db=(0, 0), probability=1.0))(impulse)
    heard = heard / heard[:, :1]
    early, late = (heard[:, start : start + 400].square().mean() for start in (400, 400 + RATE // 4))
    assert 10 * float((early / late).log10()) == pytest.approx(30, abs=1.5)  # half the time, half the decibels
    torch.testing.assert_close(power(Reverb(probability=1.0)(torch.randn(3, RATE))), torch.ones(3), atol=0.05, rtol=0)


def test_a_recorded_room_is_convolved_at_its_own_rate(tmp_path):
    response = np.zeros(100, "f4")
    response[[0, 40]] = 1.0, 0.5
    soundfile.write(tmp_path / "room.wav", response, RATE, subtype="FLOAT")
    wave = torch.randn(2, 1000)
    heard = at_rate(Reverb(str(tmp_path), probability=1.0))(wave)
    expected = torch.from_numpy(np.stack([np.convolve(one, response)[:1000] for one in wave.numpy()]))
    expected *= (power(wave) / power(expected)).sqrt()[:, None]
    torch.testing.assert_close(heard, expected, atol=1e-4, rtol=1e-4)


def test_an_equaliser_is_a_gain_of_each_frequency():
    change = at_rate(Equaliser(db=10, bands=5))
    wave = torch.randn(1, 4000)
    torch.manual_seed(1)
    changed = change.change(wave)
    torch.manual_seed(1)
    gains = 10 * torch.randn(1, 5)[0]
    frequency = np.clip(np.fft.rfftfreq(4000, 1 / RATE), 50, None)
    curve = np.interp(np.log(frequency), np.linspace(np.log(50), np.log(RATE / 2), 5), gains.numpy())
    expected = np.fft.irfft(np.fft.rfft(wave[0].numpy()) * 10 ** (curve / 20), 4000)
    np.testing.assert_allclose(changed[0], expected, atol=1e-4)
    torch.testing.assert_close(at_rate(Equaliser(db=0))(wave), wave, atol=1e-5, rtol=1e-5)


def test_speed_moves_pitch_and_end_together():
    wave = torch.sin(2 * torch.pi * 500 * torch.arange(RATE) / RATE)[None]
    fast = Speed((1.25, 1.25), steps=2)(wave)
    assert fast.shape == wave.shape
    assert int(torch.fft.rfft(fast[0, :6000]).abs().argmax()) * RATE / 6000 == pytest.approx(625, abs=2)
    assert not fast[0, 6500:].any()
    torch.testing.assert_close(Speed((1.0, 1.0), steps=2)(wave), wave)


def test_each_recording_has_its_own_and_a_seed_brings_it_back():
    listed = ["tasks.audio.room.Gain", {"class_path": "tasks.audio.room.Noise", "init_args": {"snr_db": [5, 10]}},
              "tasks.audio.room.Reverb", "tasks.audio.room.Equaliser", "tasks.audio.room.Speed"]  # fmt: skip
    changes, wave = Changes(listed, RATE), torch.randn(1, 2000).repeat(4, 1)
    torch.manual_seed(3)
    one = changes(wave)
    torch.manual_seed(3)
    torch.testing.assert_close(changes(wave), one)
    assert all((one[i] - one[j]).abs().max() > 1e-3 for i in range(4) for j in range(i))
    assert changes.eval()(wave) is wave
    assert torch.equal(Gain(probability=0.0)(wave), wave)


def test_torch_audiomentations_is_taken():
    pytest.importorskip("torch_audiomentations", reason="no torch-audiomentations: pip install -e '.[augment]'")
    one = {"class_path": "torch_audiomentations.PolarityInversion", "init_args": {"p": 1.0}}
    wave = torch.randn(2, 500)
    torch.testing.assert_close(Changes([one], RATE)(wave), -wave)


def test_what_cannot_be_built_is_said(tmp_path):
    for listed, message in (
        ([{"class_path": "tasks.audio.room.Gain", "init_args": {"decibels": 3}}], "Gain cannot be built: .*decibels"),
        (["tasks.audio.room.Nothing"], "Nothing cannot be built: expected the path of a class"),
        (["collections.Counter"], "expected modules that change waveforms, got collections.Counter"),
        ([{"class_path": "tasks.audio.room.Gain", "init_args": {"probability": 2}}], "expected a share from 0 to 1"),
        ([{"class_path": "tasks.audio.room.Speed", "init_args": {"steps": 1}}], "steps: expected 2 or more, got 1"),
    ):
        with pytest.raises(ValueError, match=message):
            Changes(listed, RATE)
    (tmp_path / "note.txt").write_text("no sound")
    with pytest.raises(BadInput, match=r"a folder of impulse responses, got 1 files that are none \(note.txt\)"):
        Reverb(str(tmp_path))


def test_a_task_hears_them_in_training_alone():
    task = AudioTask(SPEC, widths=[4], mels=16, waveform=["tasks.audio.room.Equaliser"])
    assert task.hparams["waveform"] == ["tasks.audio.room.Equaliser"]
    batch = collate_clips([_clip(4000), _clip(3000)])
    still = task.eval()(batch)
    torch.testing.assert_close(task(batch), still)
    assert not torch.allclose(task.train()(batch), task(batch))


def _clip(samples):
    return Clip(wave=torch.randn(samples), target=torch.tensor(0), id=str(samples), truth=[])
