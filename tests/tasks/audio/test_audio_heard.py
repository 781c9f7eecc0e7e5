"""What decided, to be heard: a map of one of two tones lets this one through, and nothing else."""

import numpy as np
import pytest
import soundfile
import torch

from tasks.audio import AudioTask
from tasks.audio.frontend import LogMel
from tasks.audio.heard import masked_sound, masks, write_heard
from tasks.data.problems import BadInput
from tasks.outputs.gallery import Gallery
from tasks.task.decisions import decide

RATE = 16000


def reader(wave):
    def read(first, last):
        low, high = max(first, 0), max(min(last, len(wave)), max(first, 0))
        return torch.nn.functional.pad(wave[low:high], (low - first, last - max(high, low)))

    return read


@pytest.fixture
def tones():
    """Two tones, the higher one only in the second half."""
    time = torch.arange(3 * RATE) / RATE
    low, high = 0.3 * torch.sin(2 * torch.pi * 440 * time), 0.2 * torch.sin(2 * torch.pi * 2500 * time)
    return low, high * (time > 1.5)


@pytest.mark.parametrize("hop_ms", [10, 16])
def test_what_is_not_masked_sounds_as_it_did(tones, hop_ms, monkeypatch):
    """In one piece, and in pieces."""
    wave, front = sum(tones), LogMel(RATE, mels=32, hop_ms=hop_ms)
    frames = len(wave) // front.hop + 1
    whole = torch.cat(list(masked_sound(reader(wave), len(wave), torch.ones(32, frames), front)))
    torch.testing.assert_close(whole, wave, rtol=0, atol=1e-4)
    mask = torch.rand(32, frames, generator=torch.Generator().manual_seed(0))
    expected = torch.cat(list(masked_sound(reader(wave), len(wave), mask, front)))
    monkeypatch.setattr("tasks.audio.heard._CHUNK", 23)
    torch.testing.assert_close(
        torch.cat(list(masked_sound(reader(wave), len(wave), mask, front))), expected, rtol=0, atol=1e-4
    )


def test_a_map_of_a_tone_lets_it_through(tones, tmp_path):
    low, high = tones
    front = LogMel(RATE, mels=32)
    frequencies, frames = front.frequencies(), (len(low) // front.hop) + 1
    evidence = torch.zeros(32, frames)
    evidence[frequencies < 1000] = 0.4  # the low one speaks for, the high one against
    evidence[frequencies > 1800, 150:] = -0.2
    files = write_heard(reader(low + high), len(low), evidence, front, tmp_path / "a")
    original, positive, negative = (torch.from_numpy(soundfile.read(file, dtype="float32")[0]) for file in files)
    torch.testing.assert_close(original, low + high, rtol=0, atol=1e-3)
    middle = slice(2000, -2000)
    assert float((positive - low)[middle].square().mean()) < 0.001 * float(low.square().mean())
    assert float((negative - high / 2)[middle].square().mean()) < 0.02 * float((high / 2).square().mean())


def test_a_map_of_nothing_is_silent():
    assert not any(mask.any() for mask in masks(torch.zeros(3, 4)))


def task(kind="multiclass", classes=("a", "b", "c")):
    torch.manual_seed(0)
    spec = {"kind": kind, "classes": list(classes), "channels": 1, "class_counts": [1] * len(classes)}
    return AudioTask({**spec, "sample_rate": RATE}, widths=[4, 6], mels=24).eval()


def test_players_stand_in_the_page_and_any_class_can_be_asked_for(tmp_path):
    made = task()
    soundfile.write(tmp_path / "x.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 8000), RATE)
    batch = made.read(str(tmp_path / "x.wav"))
    gallery = Gallery(tmp_path / "maps")
    for name in "abc":
        (entry,) = gallery.add(made, batch, limit=1, about=name)
        decision = entry.decision
        assert decision.about == name
        with torch.no_grad():
            assert decision.value == pytest.approx(float(made(batch)[0, "abc".index(name)]), abs=1e-4)
        assert decision.value == pytest.approx(decision.sum + decision.bias, abs=1e-4)
        assert decision.prediction == gallery.entries[0].decision.prediction
    page = gallery.write(made).read_text()
    assert page.count("<audio controls") == 9
    assert 'src="x.wav-2_against.wav"' in page
    assert (tmp_path / "maps" / "x.wav-2_against.wav").is_file()
    with pytest.raises(BadInput, match="expected a class of a, b, c, got d"):
        decide(made, batch, "d")


def test_the_first_of_two_classes_is_the_second_turned_around(tmp_path):
    made = task("binary", ("no", "yes"))
    soundfile.write(tmp_path / "x.wav", np.random.default_rng(0).uniform(-0.1, 0.1, 8000), RATE)
    batch = made.read(str(tmp_path / "x.wav"))
    ((yes,), (one,)), ((no,), (other,)) = decide(made, batch, "yes"), decide(made, batch, "no")
    assert (yes.about, no.about) == ("yes", "no")
    assert "evidence for no, against yes" in no.label
    assert (yes.value, yes.sum) == pytest.approx((-no.value, -no.sum))
    torch.testing.assert_close(one, -other)
