"""Cepstral coefficients and normalisation beside torchaudio's, and what follows for padding, maps and networks."""

import pytest
import torch
import torchaudio

from tasks.audio import AudioTask
from tasks.audio.cepstrum import Prepared, standardised
from tasks.audio.encoder import SpectrogramNet
from tasks.audio.frontend import LogMel

SPEC = {"kind": "multiclass", "classes": ["a", "b", "c"], "channels": 1, "sample_rate": 8000, "train_size": 3}
SPEC["class_counts"] = [1, 1, 1]


def batch(*seconds):
    generator = torch.Generator().manual_seed(0)
    waves = [torch.randn(round(8000 * s), generator=generator) * 0.1 for s in seconds]
    return {
        "wave": torch.nn.utils.rnn.pad_sequence(waves, batch_first=True),
        "lengths": torch.tensor([len(wave) for wave in waves]),
        "target": torch.arange(len(waves)) % 3,
        "id": [str(i) for i in range(len(waves))],
        "truth": [[] for _ in waves],
    }


def task(**options):
    torch.manual_seed(0)
    return AudioTask(SPEC, mels=24, widths=[6, 6], **options).eval()


def test_coefficients_are_torchaudios():
    wave = batch(0.7)["wave"]
    front = LogMel(8000, mels=40, hop_ms=16)
    levels, frames = front(wave, torch.tensor([wave.shape[1]]))
    net = Prepared(SpectrogramNet([4], stride=(1, 2)), 40, mfcc=20)
    ours = net.rows(levels)[0, 0] * front.range_db
    mel = {"n_fft": 512, "hop_length": front.hop, "n_mels": 40, "f_min": 30.0, "pad_mode": "constant"}
    theirs = torchaudio.transforms.MFCC(8000, n_mfcc=20, melkwargs=mel)(wave)[0]
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours[1:], theirs[1:], rtol=0, atol=1e-3)  # dB
    shift = ours[0] - theirs[0]  # the clip's own peak, and the range below it
    torch.testing.assert_close(shift, shift[:1].expand_as(shift), rtol=0, atol=1e-3)
    assert int(frames) == ours.shape[1]


def test_rows_are_normalised_as_torchaudio_does():
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(2, 1, 5, 40, generator=generator) * torch.arange(1, 6)[:, None] / 5
    x[0, 0, 3] = 0.25  # constant
    frames = torch.tensor([40, 25])
    ours = standardised(x, frames)
    for i, n in enumerate(frames.tolist()):
        theirs = torchaudio.functional.sliding_window_cmn(
            x[i, 0, :, :n].T, cmn_window=1000, min_cmn_window=1000, center=True, norm_vars=True
        ).T
        rows = [0, 1, 2, 4] if i == 0 else range(5)
        torch.testing.assert_close(ours[i, 0, rows, :n], theirs[rows], rtol=1e-3, atol=1e-3)
        assert not ours[i, 0, :, n:].any()
    assert not ours[0, 0, 3].any()


@pytest.mark.parametrize("options", [{"mfcc": 12}, {"standardise": True}, {"mfcc": 12, "standardise": True}])
@pytest.mark.parametrize("pool", ["time", "frequency", "both"])
def test_a_clip_gives_the_same_alone_and_padded(options, pool):
    one = task(pool=pool, pattern_s=0.2, **options)
    with torch.no_grad():
        together = one(batch(0.8, 0.5))
        alone = one({key: value[:1] for key, value in batch(0.8).items()})
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)


def test_a_map_of_coefficients_tells_moments_and_sums_to_the_logit():
    one, clips = task(mfcc=12), batch(0.8, 0.5)
    with torch.no_grad():
        logits, (_, maps) = one(clips), one.explain(clips)
        shown = one.choose(maps, torch.tensor([1, 2]), clips)
    bias = one.head[-1].bias
    torch.testing.assert_close(maps.sum((2, 3)) + bias, logits, rtol=1e-4, atol=1e-5)
    assert [tuple(each.shape) for each in shown] == [(24, 81), (24, 51)]
    assert all(torch.equal(each[:1].expand_as(each), each) for each in shown)
    places = one.places(clips, one.encode(clips)[0])
    assert places.shape[1] == 12
    assert len(places[..., 0].unique()) == 1


def test_the_mean_of_coefficients_is_that_of_the_bands():
    one, clips = task(mfcc=12, relative=True), batch(0.8)
    x, _ = one.spectrogram(clips["wave"], clips["lengths"])
    torch.testing.assert_close(one.encoder.rows(x).mean(-1), one.encoder.rows(x.mean(-1, keepdim=True))[..., 0])
    assert one.encoder.relative


class Rows(torch.nn.Module):
    """A network of somebody else."""

    def __init__(self, mels: int):
        super().__init__()
        self.mix = torch.nn.Conv1d(mels, 5, 3, padding=1)

    def forward(self, x):
        return self.mix(x[:, 0])


def test_another_network_takes_coefficients_and_weights_go_to_it():
    one = task(mfcc=12, encoder=f"{__name__}.Rows")
    assert one(batch(0.8, 0.5)).shape == (2, 3)
    assert isinstance(one.network, Rows)
    assert one.network.mix.weight.shape == (5, 12, 3)


def test_what_cannot_be_is_said():
    with pytest.raises(ValueError, match="mfcc: expected at most 24 coefficients, the number of mel bands, got 25"):
        task(mfcc=25)


def test_a_training_step_with_augmentation():
    one = task(mfcc=12, standardise=True, mask_bands=4, mask_frames=4, pitch=1, noise_db=1).train()
    loss = one.batch_loss(one(batch(0.8, 0.5)), batch(0.8, 0.5))
    loss.backward()
    assert all(weight.grad.isfinite().all() for weight in one.parameters())
