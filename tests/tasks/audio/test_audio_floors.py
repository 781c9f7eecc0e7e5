"""What recordings' floors are told, against plain numpy and scipy."""

import numpy as np
import pytest
import scipy.fft
import torch

from tasks.audio.floors import CELLS, COEFFICIENTS, audio_floors


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.rand(3, 64, 48, generator=generator), torch.tensor([48, 32, 16])


def own(batch):
    return [one[:, :count].double().numpy() for one, count in zip(*batch, strict=True)]


@pytest.mark.parametrize(("pooled", "axis"), [("time", 1), ("frequency", 0), ("both", None)])
def test_means_and_deviations_are_over_what_the_task_pools(batch, pooled, axis):
    for one, found in zip(own(batch), audio_floors(*batch, pooled)[f"log-mel over {pooled}"], strict=True):
        expected = np.stack([one.mean(axis), one.std(axis)], -1)
        np.testing.assert_allclose(found, expected.reshape(-1), atol=1e-6)


def test_cepstra_are_cosine_transforms_of_frames(batch):
    for one, found in zip(own(batch), audio_floors(*batch, "time")["MFCC"], strict=True):
        cepstrum = scipy.fft.dct(one, axis=0, norm="ortho")[1 : COEFFICIENTS + 1]
        np.testing.assert_allclose(found, [*cepstrum.mean(1), *cepstrum.std(1)], atol=1e-5)


def test_the_coarse_spectrogram_is_means_of_equal_parts(batch):
    for one, found in zip(own(batch), audio_floors(*batch, "time")["coarse log-mel"], strict=True):
        high, long = one.shape[0] // CELLS[0], one.shape[1] // CELLS[1]
        expected = one.reshape(CELLS[0], high, CELLS[1], long).mean((1, 3))
        np.testing.assert_allclose(found, expected.reshape(-1), atol=1e-6)


def test_what_stands_behind_a_shorter_recording_is_not_heard(batch):
    x, frames = batch
    louder = x.clone()
    louder[1, :, 32:] = 100.0
    for axis in ("time", "frequency", "both"):
        first, second = audio_floors(x, frames, axis), audio_floors(louder, frames, axis)
        assert all(torch.equal(a, b) for name in first for a, b in zip(first[name], second[name], strict=True))
