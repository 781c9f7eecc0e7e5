import numpy as np
import pytest
import soundfile
import torch

from tasks.audio.clips import Clip, Clips, collate_clips, read_clip, shifted

RATE = 16000


def sine(pitch: float, seconds: float, rate: int) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)


@pytest.mark.parametrize(
    ("ending", "tolerance"),
    [pytest.param("wav", 0.002, id="wav"), pytest.param("flac", 0.002, id="flac"), pytest.param("ogg", 0.05, id="ogg"),
     pytest.param("mp3", 0.05, id="mp3")],
)  # fmt: skip
def test_every_format_gives_the_tone_that_was_written(tmp_path, ending, tolerance):
    soundfile.write(tmp_path / f"a.{ending}", sine(440, 0.5, 44100), 44100)
    wave = read_clip(tmp_path / f"a.{ending}", sample_rate=44100).double()
    middle = wave[4410:17640]  # lossy coders have a delay: compare the strength of the tone, not the samples
    phasor = torch.exp(-2j * torch.pi * 440 * torch.arange(len(middle), dtype=torch.float64) / 44100)
    assert abs(2 * (middle * phasor).mean().abs() - 0.5) < tolerance


def test_another_rate_is_resampled_to_the_same_tone(tmp_path):
    soundfile.write(tmp_path / "a.wav", sine(440, 1.0, 44100), 44100, subtype="FLOAT")
    wave = read_clip(tmp_path / "a.wav", sample_rate=RATE)
    assert len(wave) == RATE
    torch.testing.assert_close(
        wave[1000:15000], torch.from_numpy(sine(440, 1.0, RATE)).float()[1000:15000], atol=2e-3, rtol=0
    )


def test_channels_are_averaged(tmp_path):
    stereo = np.stack([sine(300, 0.1, RATE), sine(500, 0.1, RATE)], 1)
    soundfile.write(tmp_path / "a.wav", stereo, RATE, subtype="FLOAT")
    torch.testing.assert_close(
        read_clip(tmp_path / "a.wav", sample_rate=RATE), torch.from_numpy(stereo.mean(1)).float()
    )


def test_a_part_is_the_same_samples_as_the_whole(tmp_path):
    soundfile.write(tmp_path / "a.wav", sine(440, 1.0, RATE), RATE, subtype="FLOAT")
    whole = read_clip(tmp_path / "a.wav", sample_rate=RATE)
    part = read_clip(tmp_path / "a.wav", sample_rate=RATE, start=0.25, duration=0.5)
    assert torch.equal(part, whole[4000:12000])


def write(folder, samples, **options):
    soundfile.write(folder / "a.wav", samples, RATE, **options)
    return folder / "a.wav"


def truncated(folder):
    path = folder / "a.flac"
    soundfile.write(path, np.random.default_rng(0).standard_normal(RATE) * 0.1, RATE)
    path.write_bytes(path.read_bytes()[:5000])
    return path


def text(folder):
    (folder / "a.wav").write_text("not audio")
    return folder / "a.wav"


@pytest.mark.parametrize(
    ("make", "options", "message"),
    [
        pytest.param(lambda f: f / "none.wav", {}, "file does not exist; correct the path", id="missing"),
        pytest.param(text, {}, r"cannot be read as audio \(.+\); export it again", id="not audio"),
        pytest.param(
            truncated, {}, "truncated: expected 16000 samples from its header, got|cannot be read", id="truncated"
        ),
        pytest.param(
            lambda f: write(f, np.zeros(100)), {}, "silent: every sample is zero; choose another part", id="silent"
        ),
        pytest.param(lambda f: write(f, np.zeros(0)), {}, "holds no samples", id="empty"),
        pytest.param(
            lambda f: write(f, np.array([0.1, np.nan, np.inf]), subtype="FLOAT"),
            {},
            "2 samples are NaN or inf",
            id="nan",
        ),
        pytest.param(
            lambda f: write(f, sine(440, 1, RATE)),
            {"start": 1.5},
            r"start: expected 0 to 1.000 s .* got 1.5",
            id="start",
        ),
        pytest.param(
            lambda f: write(f, sine(440, 1, RATE)),
            {"start": -1.0},
            r"start: expected 0 to 1.000 s .* got -1",
            id="negative start",
        ),
        pytest.param(
            lambda f: write(f, sine(440, 1, RATE)),
            {"start": 0.5, "duration": 0.6},
            r"duration: expected more than 0 and at most 0.500 s after start 0.5 s .* got 0.6",
            id="duration",
        ),
        pytest.param(
            lambda f: write(f, sine(440, 1, RATE)),
            {"duration": 0.0},
            "duration: expected more than 0",
            id="no duration",
        ),
    ],
)
def test_what_cannot_be_used_is_said(tmp_path, make, options, message):
    with pytest.raises(ValueError, match=message):
        read_clip(make(tmp_path), sample_rate=RATE, **options)


def clip(wave) -> Clip:
    return Clip(wave=wave, target=torch.tensor(0), id="a", truth=[(0.0, 1.0, 100.0, 200.0)])


def test_shift_in_training_differs_and_in_test_does_not():
    wave = torch.arange(1.0, 1001)
    training = Clips([clip(wave)], sample_rate=1000, shift=1.0)
    fixed = Clips([clip(wave)], sample_rate=1000, shift=1.0, fixed=True, seed=3)
    assert torch.equal(fixed[0]["wave"], fixed[0]["wave"])
    assert not torch.equal(fixed[0]["wave"], wave)
    assert len({float(training[0]["wave"][0]) for _ in range(8)}) > 1
    assert torch.equal(training[0]["wave"].sort().values, wave)
    assert fixed[0]["truth"] == []  # boxes do not follow the sound, so they are not shown


def test_shift_by_silence_loses_the_end_and_keeps_the_length():
    wave = torch.arange(1.0, 11)
    assert shifted(wave, 3, "silence").tolist() == [0, 0, 0, 1, 2, 3, 4, 5, 6, 7]
    assert shifted(wave, 30, "silence").tolist() == [0] * 10


def test_negative_shift_is_refused():
    with pytest.raises(ValueError, match="expected a shift of 0 s or more, got -1"):
        Clips([], sample_rate=1000, shift=-1)


def test_a_batch_keeps_lengths_and_pads_with_zeros():
    batch = collate_clips([clip(torch.ones(3)), clip(torch.ones(5))])
    assert batch["wave"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["lengths"].tolist() == [3, 5]
    assert batch["id"] == ["a", "a"]


NOISE = np.random.default_rng(3).standard_normal(RATE) * 0.1


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.stack([NOISE, -NOISE], 1), "its 2 channels cancel each other in their mean .* with --data.channel 0"),
        (np.stack([NOISE, -NOISE * 0.99], 1), "its 2 channels cancel each other"),
        (np.full(RATE, 0.25), "constant: every sample is 0.25; choose another part"),
    ],
    ids=["antiphase", "nearly antiphase", "constant"],
)
def test_what_is_lost_on_the_way_to_mono_is_said(tmp_path, samples, message):
    path = write(tmp_path, samples)
    with pytest.raises(ValueError, match=message):
        read_clip(path, sample_rate=RATE)


def test_a_channel_may_be_chosen(tmp_path):
    path = write(tmp_path, np.stack([NOISE, -NOISE, 0 * NOISE], 1), subtype="FLOAT")
    for number, sign in enumerate((1, -1)):
        found = read_clip(path, sample_rate=RATE, channel=number)
        torch.testing.assert_close(found, torch.from_numpy(NOISE * sign).float())
    with pytest.raises(ValueError, match="silent in this channel: every sample is zero"):
        read_clip(path, sample_rate=RATE, channel=2)
    with pytest.raises(ValueError, match="channel: expected 0 to 2, as the file has 3, got 3; choose another"):
        read_clip(path, sample_rate=RATE, channel=3)
    half = write(tmp_path, np.stack([NOISE, 0 * NOISE], 1), subtype="FLOAT")
    torch.testing.assert_close(read_clip(half, sample_rate=RATE), torch.from_numpy(NOISE / 2).float())


def test_a_sound_above_the_new_rate_is_said_to_be_lost(tmp_path):
    path = write(tmp_path, sine(7000, 1, RATE))
    with pytest.raises(
        ValueError, match=r"nearly all of it is above 4000 Hz and lost at 8000 Hz; raise --data.sample_r"
    ):
        read_clip(path, sample_rate=8000)
