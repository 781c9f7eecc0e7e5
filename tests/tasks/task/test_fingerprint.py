"""Fingerprints: what they do not see, what they do, and that changed copies are nearest to their originals."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.search.whitening import fit_whitening
from tasks.task.fingerprint import fingerprint


@settings(deadline=None, max_examples=20)
@given(st.integers(2, 20), st.integers(2, 20), st.floats(0.1, 100), st.floats(-10, 10), st.integers(0, 99))
def test_gain_offset_and_mirror_images_change_nothing(height, width, gain, offset, seed):
    x = torch.randn(height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    one = fingerprint(x, [0, 1], frequencies=4, mirrored=0)
    torch.testing.assert_close(fingerprint(gain * x + offset, [0, 1], frequencies=4, mirrored=0), one)
    torch.testing.assert_close(fingerprint(x.flip(0), [0, 1], frequencies=4, mirrored=0), one)


def test_it_is_the_magnitude_of_the_definition():
    x = torch.randn(5, 12, dtype=torch.float64)
    z = (x - x.mean()) / x.std(correction=0)
    t = torch.arange(12, dtype=torch.float64)
    window = torch.sin(torch.pi * (t + 1) / 13) ** 2
    for k, found in enumerate(fingerprint(x, [1], frequencies=3).view(5, 3).unbind(1)):
        turn = torch.exp(-2j * torch.pi * k * t / 12)
        torch.testing.assert_close(found, ((z * window) * turn).sum(1).abs() / 12)


def test_a_constant_has_one():
    assert not fingerprint(torch.full((4, 9), 3.0), [1]).any()


@pytest.mark.parametrize("axis", [1, 2, 3])
def test_changed_copies_of_volumes_are_nearest_to_their_originals(axis):
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randn(40, 1, 5, 5, 5, generator=generator)
    volumes = torch.nn.functional.interpolate(coarse, size=(20, 24, 18), mode="trilinear")
    changed = torch.stack([2 * one.roll(1, axis).flip(1) + 5 for one in volumes])
    vectors = [fingerprint(one, [1, 2, 3], frequencies=5, mirrored=1) for one in [*volumes, *changed]]
    z = torch.stack(vectors).numpy()
    z = fit_whitening(z, 16)(z)
    assert ((z[40:] @ z[:40].T).argmax(1) == range(40)).all()
