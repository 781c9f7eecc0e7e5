import math

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer

from tasks.audio import AudioTask, TimbreData
from tasks.audio.encoder import SpectrogramNet
from tasks.audio.frontend import Augment, LogMel
from tasks.audio.readout import PatternReadout

RATE = 16000


def tone(pitch: float, seconds: float = 0.5) -> torch.Tensor:
    return torch.sin(2 * math.pi * pitch * torch.arange(round(seconds * RATE)) / RATE)


def lengths(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers)


@pytest.mark.parametrize(("precision", "last"), [("32-true", True), ("bf16-mixed", False)])
def test_channels_lie_last_where_that_is_faster(precision, last):
    data = TimbreData(train=4, val=4, test=4, batch_size=4, seconds=0.3)
    task = AudioTask(data.spec, widths=[8, 16]).eval()
    expected = task.predictions(task(next(iter(data.test_dataloader()))))
    trainer = Trainer(accelerator="cpu", precision=precision, logger=False, enable_progress_bar=False)
    (found,) = trainer.predict(task, data.test_dataloader())
    convolutions = [one.weight for one in task.encoder.modules() if isinstance(one, torch.nn.Conv2d)]
    assert any(not one.is_contiguous() for one in convolutions) == last
    torch.testing.assert_close(found["predictions"], expected, rtol=0, atol=1e-5 if last else 0.02)


@pytest.mark.parametrize("pitch", [200.0, 1000.0, 4000.0])
def test_a_tone_is_loudest_in_its_own_band(pitch):
    front = LogMel(RATE, mels=40)
    x, _ = front(tone(pitch)[None], lengths(8000))
    loudest = int(x[0, 0, :, 25].argmax())
    assert loudest == int((front.frequencies() - pitch).abs().argmin())


def test_level_against_a_spectrogram_in_numpy():
    wave = tone(700) + 0.1 * tone(2500)
    front = LogMel(RATE, mels=20, window_ms=32, hop_ms=10, range_db=60)
    x, frames = front(wave[None], lengths(8000))
    padded = np.pad(wave.double().numpy(), 256)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(512) / 512)
    blocks = np.stack([padded[t * 160 : t * 160 + 512] * window for t in range(51)])
    power = np.abs(np.fft.rfft(blocks)) ** 2 @ front.mel.mel_scale.fb.double().numpy()
    expected = np.clip(1 + 10 * np.log10(power / power.max()) / 60, 0, 1)
    assert int(frames) == 51
    np.testing.assert_allclose(x[0, 0].T.double().numpy(), expected, atol=2e-4)


def test_gain_changes_nothing():
    front = LogMel(RATE, mels=40)
    wave = tone(300)[None]
    torch.testing.assert_close(front(wave, lengths(8000))[0], front(0.01 * wave, lengths(8000))[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("stride", [(1, 2), (2, 1), (2, 2)], ids=["time", "frequency", "both"])
def test_a_clip_has_the_same_features_alone_and_padded(stride):
    torch.manual_seed(0)
    front, net = LogMel(RATE, mels=24), SpectrogramNet([4, 6], stride=stride, onsets=True).eval()
    wave = torch.randn(1, 5003)
    alone, frames = net(*front(wave, lengths(5003)))
    padded = torch.cat([torch.cat([wave, torch.zeros(1, 4000)], 1), torch.randn(1, 9003)])
    batch, counted = net(*front(padded, lengths(5003, 9003)))
    assert int(counted[0]) == int(frames) == alone.shape[-1] == math.ceil((5003 // 160 + 1) / stride[1] ** 2)
    torch.testing.assert_close(batch[:1, ..., : int(frames)], alone, atol=1e-5, rtol=1e-5)
    assert not batch[0, ..., int(frames) :].any()


@pytest.mark.parametrize(("stride", "shape"), [((1, 2), (24, 13)), ((2, 1), (6, 50)), ((2, 2), (6, 13))])
def test_the_axis_that_is_not_pooled_keeps_its_resolution(stride, shape):
    x, _ = SpectrogramNet([4, 6], stride=stride)(torch.rand(2, 1, 24, 50), lengths(50, 50))
    assert x.shape == (2, 6, *shape)


def test_without_position_a_move_along_frequency_is_only_a_move():
    net = SpectrogramNet([4, 6], stride=(2, 1), position=False).eval()
    x = torch.zeros(1, 1, 64, 20)
    x[:, :, 20:28] = torch.rand(8, 20)
    moved = x.roll(12, dims=2)
    there, here = (net(clip, lengths(20))[0].mean(2) for clip in (moved, x))
    torch.testing.assert_close(there, here, atol=1e-6, rtol=1e-5)
    net = SpectrogramNet([4, 6], stride=(2, 1), position=True).eval()
    assert (net(moved, lengths(20))[0].mean(2) - net(x, lengths(20))[0].mean(2)).abs().max() > 1e-3


def readout(**options):
    torch.manual_seed(0)
    made = PatternReadout(3, 4, hidden=5, layers=1, **options).eval()
    made.sharpness.data.fill_(0.3)
    return made


def test_the_readout_against_a_loop_over_stretches():
    made = readout(window=6)
    z = torch.randn(1, 3, 40)
    features = made.layers[0](made.norm(z))[0].double()  # (5, 20)
    templates, bias, sharp = made.templates.weight.double(), made.templates.bias.double(), math.exp(0.3)
    scores = torch.stack([(templates * features[:, t : t + 6]).sum((1, 2)) + bias for t in range(15)])
    expected = (scores * sharp).exp().mean(0).log() / sharp
    torch.testing.assert_close(made(z, lengths(40))[0].double(), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("loop", [False, True])
def test_the_readout_does_not_see_padding(loop):
    made = readout(window=6, loop=loop)
    z = torch.randn(1, 3, 30)
    padded = torch.cat([torch.cat([z, torch.randn(1, 3, 22)], 2), torch.randn(1, 3, 52)])
    torch.testing.assert_close(made(padded, lengths(30, 52))[:1], made(z, lengths(30)), atol=1e-5, rtol=1e-5)


def test_a_shift_of_a_pattern_in_silence_changes_nothing():
    made = readout(window=8)
    z = torch.zeros(1, 3, 80)
    z[..., 20:30] = torch.randn(3, 10)
    torch.testing.assert_close(made(z.roll(24, dims=-1), lengths(80)), made(z, lengths(80)), atol=1e-5, rtol=1e-5)


def test_a_loop_may_start_anywhere():
    made = readout(window=40, loop=True)
    made.layers[0][0].weight.data[..., (0, 1, 3, 4)] = 0  # 1-wide: no edge before the templates
    z = torch.randn(1, 3, 60)
    torch.testing.assert_close(made(z.roll(22, dims=-1), lengths(60)), made(z, lengths(60)), atol=1e-5, rtol=1e-5)


def test_a_recording_shorter_than_the_template_counts_as_followed_by_silence():
    made = readout(window=30)
    z = torch.randn(1, 3, 10)
    features = torch.zeros(5, 30)
    features[:, :5] = made.layers[0](made.norm(z))[0]
    expected = (made.templates.weight * features).sum((1, 2)) + made.templates.bias
    torch.testing.assert_close(made(z, lengths(10))[0], expected, atol=1e-5, rtol=1e-5)


def augment(**options):
    return Augment(LogMel(RATE, mels=64).frequencies(), **options).train()


def test_augmentation_is_off_in_evaluation():
    x = torch.rand(2, 1, 64, 30)
    changes = {"pitch": 2.0, "colour_db": 3, "noise_db": 2, "mask_bands": 5, "mask_frames": 5}
    assert torch.equal(augment(**changes).eval()(x), x)
    assert not torch.equal(augment(**changes)(x), x)


def test_transposition_moves_a_band_by_at_most_what_is_asked():
    torch.manual_seed(0)
    made = augment(pitch=12.0)
    x = torch.zeros(200, 1, 64, 2)
    x[:, :, 30] = 1
    loudest = made.frequencies[made(x)[:, 0, :, 0].argmax(1)] / made.frequencies[30]
    octaves = loudest.log2()
    assert -1.05 < octaves.min() < -0.8
    assert 0.8 < octaves.max() < 1.05


def test_transposition_is_the_spectrogram_of_the_transposed_sound():
    front = LogMel(RATE, mels=64)
    made = Augment(front.frequencies(), pitch=1.0).train()
    semitone = 2 ** (1 / 12)
    low, high = (front(tone(pitch)[None], lengths(8000))[0] for pitch in (1000.0, 1000.0 * semitone))
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda *shape, **_: torch.zeros(shape))  # draws the lowest: read at f / semitone
        moved = made(low)
    centre = (front.frequencies()[:, None] * moved[0, 0]).sum(0) / moved[0, 0].sum(0)
    expected = (front.frequencies()[:, None] * high[0, 0]).sum(0) / high[0, 0].sum(0)
    torch.testing.assert_close(centre[25], expected[25], rtol=0.02, atol=0)


def test_masks_are_as_wide_as_allowed():
    torch.manual_seed(0)
    x = augment(mask_bands=6, mask_frames=9)(torch.ones(100, 1, 64, 50))
    bands, frames = (x[:, 0] == 0).all(2).sum(1), (x[:, 0] == 0).all(1).sum(1)
    assert bands.max() in (5, 6)
    assert frames.max() in (8, 9)
